"""A model with its own adaptation step, as a module that TensorFlow can save and convert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

import tensorflow as tf

from tff_fedmeta.export.adaptation import Adaptation, SGDByStep, named

Function = Callable[..., Mapping[str, tf.Tensor]]


class AdaptableModel(tf.Module):
    """The signatures of TensorFlow's guide to training on devices, for one adaptation step.

    Attributes:
      train: (x, y) -> {"loss"}: the batch's loss before the step, then the step, for the weights
        that move.
      infer: (x) -> {"output"}.
      reset: () -> {"done"}: brings the weights back to those the module was made with.
      save: (checkpoint_path) -> {"checkpoint_path"}: writes the weights that move to a file.
      restore: (checkpoint_path) -> {"checkpoint_path"}: reads that file.
      read_weights: () -> {"weight_0", ...}: the weights that move, and the number of the "step"
        where rates differ by it.
      write_weights: (weight_0, ...) -> {"done"}: replaces them.
    """

    def __init__(self, adaptation: Adaptation):
        """Builds the functions; nothing is traced yet. The model's variables are the module's."""
        super().__init__(name="adaptable")
        keras_model, weights = adaptation.model, adaptation.moving
        # The variables alone: a Keras model as an attribute would be saved with all of its layers,
        # which takes a recurrent network 15 seconds and is never used.
        self.saved_variables = list(keras_model.variables)
        state = adaptation.rule.initialize(weights)
        names = [f"weight_{index}" for index in range(len(weights))]
        kept, numbers = list(weights), []
        if isinstance(adaptation.rule, SGDByStep):  # the number of the step lives as they do
            numbers = [tf.Variable(number) for number in state]
            self.saved_variables += numbers
            kept, names = [*kept, *numbers], [*names, "step"]
        initial = [variable.numpy() for variable in kept]
        x_spec = named(adaptation.x_spec, "x")
        path_spec = tf.TensorSpec([], tf.string, "checkpoint_path")
        done = {"done": tf.constant(1)}

        @tf.function(input_signature=[x_spec, named(adaptation.y_spec, "y")])
        def train(x: tf.Tensor, y: tf.Tensor) -> Mapping[str, tf.Tensor]:
            value, gradients = adaptation.gradients(x, y, weights)
            before = [weight.read_value() for weight in weights]
            now = [number.read_value() for number in numbers] or state
            then, after = adaptation.rule.next(now, before, gradients)
            for number, value_then in zip(numbers, then):
                number.assign(value_then)
            for weight, moved, gradient in zip(weights, after, gradients):
                if gradient is not None:
                    weight.assign(moved)
            return {"loss": value}

        @tf.function(input_signature=[x_spec])
        def infer(x: tf.Tensor) -> Mapping[str, tf.Tensor]:
            return {"output": keras_model(x, training=False)}

        @tf.function(input_signature=[])
        def reset() -> Mapping[str, tf.Tensor]:
            for weight, value in zip(kept, initial):
                weight.assign(value)
            return done

        @tf.function(input_signature=[path_spec])
        def save(checkpoint_path: tf.Tensor) -> Mapping[str, tf.Tensor]:
            values = [weight.read_value() for weight in kept]
            tf.raw_ops.Save(filename=checkpoint_path, tensor_names=names, data=values)
            return {"checkpoint_path": checkpoint_path}

        @tf.function(input_signature=[path_spec])
        def restore(checkpoint_path: tf.Tensor) -> Mapping[str, tf.Tensor]:
            for weight, name in zip(kept, names):
                value = tf.raw_ops.Restore(
                    file_pattern=checkpoint_path, tensor_name=name, dt=weight.dtype
                )
                weight.assign(tf.ensure_shape(value, weight.shape))
            return {"checkpoint_path": checkpoint_path}

        @tf.function(input_signature=[])
        def read_weights() -> Mapping[str, tf.Tensor]:
            return {name: weight.read_value() for name, weight in zip(names, kept)}

        def write_weights(**values: tf.Tensor) -> Mapping[str, tf.Tensor]:
            for name, weight in zip(names, kept):
                weight.assign(values[name])
            return done

        self.train, self.infer, self.reset = train, infer, reset
        self.save, self.restore = save, restore
        self.read_weights = read_weights
        self.write_weights = tf.function(write_weights)
        self._weight_specs = {
            name: tf.TensorSpec(weight.shape, weight.dtype, name)
            for name, weight in zip(names, kept)
        }

    def signatures(self, checkpoints_in_files: bool) -> dict[str, Any]:
        """Traces what a file offers: name -> concrete function.

        Args:
          checkpoints_in_files: Whether `save` and `restore` take the path of a file. Otherwise
            `save` returns the weights and `restore` takes them.
        """
        if checkpoints_in_files:
            save = self.save.get_concrete_function()
            restore = self.restore.get_concrete_function()
        else:
            save = self.read_weights.get_concrete_function()
            restore = self.write_weights.get_concrete_function(**self._weight_specs)
        return {
            "infer": self.infer.get_concrete_function(),
            "train": self.train.get_concrete_function(),
            "save": save,
            "restore": restore,
            "reset": self.reset.get_concrete_function(),
        }
