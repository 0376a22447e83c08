"""A model with its own adaptation step, as a module that TensorFlow can save and convert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from tff_fedmeta.export.losses import Loss

Function = Callable[..., Mapping[str, tf.Tensor]]


class AdaptableModel(tf.Module):
    """The signatures of TensorFlow's guide to training on devices, for one adaptation step.

    Attributes:
      train: (x, y) -> {"loss"}: the batch's loss before the step, then the step
        weight <- weight - rate * gradient, for the weights that move.
      infer: (x) -> {"output"}.
      reset: () -> {"done"}: brings the weights back to those the module was made with.
      save: (checkpoint_path) -> {"checkpoint_path"}: writes the weights that move to a file.
      restore: (checkpoint_path) -> {"checkpoint_path"}: reads that file.
      read_weights: () -> {"weight_0", ...}: the weights that move.
      write_weights: (weight_0, ...) -> {"done"}: replaces them.
    """

    def __init__(
        self,
        keras_model: tf.keras.Model,
        loss: Loss,
        moving: Sequence[int],
        rates: Sequence[float | np.ndarray],
        x_spec: tf.TensorSpec,
        y_spec: tf.TensorSpec,
    ):
        """Builds the functions; nothing is traced yet.

        Args:
          keras_model: A built model; its variables are this module's.
          loss: The loss of (y, output); its mean counts, where it is not a scalar.
          moving: Which of `keras_model.trainable_variables` adaptation moves.
          rates: For each of these the learning rate: a number, or an array of the weight's shape.
          x_spec: A batch of inputs, [n, ...].
          y_spec: A batch of what is to be predicted, [n, ...].
        """
        super().__init__(name="adaptable")
        # The variables alone: a Keras model as an attribute would be saved with all of its layers,
        # which takes a recurrent network 15 seconds and is never used.
        self.saved_variables = list(keras_model.variables)
        weights = [keras_model.trainable_variables[index] for index in moving]
        initial = [weight.numpy() for weight in weights]
        names = [f"weight_{index}" for index in range(len(weights))]
        path_spec = tf.TensorSpec([], tf.string, "checkpoint_path")
        done = {"done": tf.constant(1)}

        @tf.function(input_signature=[_named(x_spec, "x"), _named(y_spec, "y")])
        def train(x: tf.Tensor, y: tf.Tensor) -> Mapping[str, tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                value = tf.reduce_mean(loss(y, keras_model(x, training=True)))
                if keras_model.losses:  # of regularizers, as in training
                    value = tf.add_n([value, *keras_model.losses])
            gradients = tape.gradient(value, weights)
            for weight, rate, gradient in zip(weights, rates, gradients):
                if gradient is not None:
                    weight.assign_sub(tf.constant(rate, weight.dtype) * gradient)
            return {"loss": value}

        @tf.function(input_signature=[_named(x_spec, "x")])
        def infer(x: tf.Tensor) -> Mapping[str, tf.Tensor]:
            return {"output": keras_model(x, training=False)}

        @tf.function(input_signature=[])
        def reset() -> Mapping[str, tf.Tensor]:
            for weight, value in zip(weights, initial):
                weight.assign(value)
            return done

        @tf.function(input_signature=[path_spec])
        def save(checkpoint_path: tf.Tensor) -> Mapping[str, tf.Tensor]:
            values = [weight.read_value() for weight in weights]
            tf.raw_ops.Save(filename=checkpoint_path, tensor_names=names, data=values)
            return {"checkpoint_path": checkpoint_path}

        @tf.function(input_signature=[path_spec])
        def restore(checkpoint_path: tf.Tensor) -> Mapping[str, tf.Tensor]:
            for weight, name in zip(weights, names):
                value = tf.raw_ops.Restore(
                    file_pattern=checkpoint_path, tensor_name=name, dt=weight.dtype
                )
                weight.assign(tf.ensure_shape(value, weight.shape))
            return {"checkpoint_path": checkpoint_path}

        @tf.function(input_signature=[])
        def read_weights() -> Mapping[str, tf.Tensor]:
            return {name: weight.read_value() for name, weight in zip(names, weights)}

        def write_weights(**values: tf.Tensor) -> Mapping[str, tf.Tensor]:
            for name, weight in zip(names, weights):
                weight.assign(values[name])
            return done

        self.train, self.infer, self.reset = train, infer, reset
        self.save, self.restore = save, restore
        self.read_weights = read_weights
        self.write_weights = tf.function(write_weights)
        self._weight_specs = {
            name: tf.TensorSpec(weight.shape, weight.dtype, name)
            for name, weight in zip(names, weights)
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


def _named(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name)
