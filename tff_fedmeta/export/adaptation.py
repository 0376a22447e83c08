"""How an exported model adapts: its loss, the weights that move, and the rule of a step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tff_fedmeta import checks
from tff_fedmeta.client import layers
from tff_fedmeta.client.proximal import ProximalSGD
from tff_fedmeta.client.rules import SGD, Rule
from tff_fedmeta.export import ConversionError
from tff_fedmeta.export.losses import Loss

ALL, HEAD = "all", "head"


class SGDByStep(Rule):
    """Gradient descent by rates that differ from step to step; the state counts the steps.

    Args:
      rates: For each weight an array [steps, 1, ...] of its rates (Antoniou, Edwards and Storkey,
        arXiv:1810.09502, section 3); the last one is for all further steps too.
    """

    def __init__(self, rates: Sequence[np.ndarray]):
        self._rates = rates

    def initialize(self, variables: Sequence[tf.Variable]) -> Any:
        """Returns the number of the first step."""
        del variables
        return [tf.constant(0)]

    def next(
        self, state: Any, weights: Sequence[tf.Tensor], gradients: Sequence[Any]
    ) -> tuple[Any, list[tf.Tensor]]:
        """Returns the number of the next step, and the weights after this one."""
        (step,) = state
        return [step + 1], [
            weight
            if gradient is None
            else weight
            - tf.gather(rate, tf.minimum(step, len(rate) - 1)) * tf.convert_to_tensor(gradient)
            for weight, rate, gradient in zip(weights, self._rates, gradients)
        ]


class Adaptation(NamedTuple):
    """The adaptation of a Keras model.

    Attributes:
      model: The trained model.
      loss: The loss of (y, output); its mean over the batch counts.
      moving: The variables that adaptation moves.
      rule: What a step does with their gradients.
      x_spec: A batch of inputs, [n, ...].
      y_spec: A batch of what is to be predicted, [n, ...].
    """

    model: tf.keras.Model
    loss: Loss
    moving: list[tf.Variable]
    rule: Rule
    x_spec: tf.TensorSpec
    y_spec: tf.TensorSpec

    def gradients(self, x: tf.Tensor, y: tf.Tensor, weights: Sequence[Any]) -> tuple[Any, Any]:
        """Returns the loss of a batch, penalties of regularizers included, and its gradients.

        Args:
          x: As `x_spec`.
          y: As `y_spec`.
          weights: What to differentiate by: `moving`, or the tensors that are read instead.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            value = tf.reduce_mean(self.loss(y, self.model(x, training=True)))
            if self.model.losses:
                value = tf.add_n([value, *self.model.losses])
        return value, tape.gradient(value, weights)


def resolve(
    keras_model: tf.keras.Model,
    loss: Any,
    inner_learning_rate: float | None = None,
    learned_rates: Sequence[Any] | None = None,
    trainable: str = ALL,
    head_layers: int = 1,
    proximal_strength: float = 0.0,
    input_spec: tuple[tf.TensorSpec, tf.TensorSpec] | None = None,
) -> Adaptation:
    """Checks how a model is to adapt; the arguments are those of `tflite.to_tflite`.

    Raises:
      ConversionError: If the model does not take one tensor and give one.
      ValueError: If an argument is out of its range.
    """
    checks.check_choice("trainable", trainable, (ALL, HEAD))
    checks.check_number("proximal_strength", proximal_strength, 0)
    if proximal_strength and learned_rates is not None:
        raise ValueError("proximal_strength adapts by one rate; give no learned_rates.")
    x_spec, y_spec = input_spec or _default_spec(keras_model, loss)
    for name, spec in (("x", x_spec), ("y", y_spec)):
        if not isinstance(spec, tf.TensorSpec):
            raise ConversionError(f"The export takes one tensor as {name}, but it is {spec}.")
    weights = keras_model.trainable_variables
    moving = list(range(len(weights)))
    if trainable == HEAD:
        moving = layers.head_variables(keras_model, head_layers)
    rule: Rule
    if learned_rates is not None:
        rates = _checked_rates(weights, learned_rates)
        by_step = any(rate.ndim > len(weight.shape) for rate, weight in zip(rates, weights))
        rule = (SGDByStep if by_step else SGD)([rates[index] for index in moving])
    else:
        checks.check_number("inner_learning_rate", inner_learning_rate, 0)
        rate = float(inner_learning_rate or 0.0)
        rule = ProximalSGD(rate, proximal_strength) if proximal_strength else SGD(rate)
    return Adaptation(keras_model, loss, [weights[i] for i in moving], rule, x_spec, y_spec)


@contextlib.contextmanager
def reading(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> Iterator[None]:
    """Lets whatever is traced inside read `values` in the place of the variables' own.

    A Keras model is thereby a function of its weights: nothing is assigned, so that calls of the
    function do not meet in the variables. All reads of TensorFlow's variables go through the three
    methods that are replaced here.
    """
    own = [getattr(variable, "_variable", variable) for variable in variables]  # mixed precision
    for variable, value in zip(own, values):
        variable._read_variable_op = lambda no_copy=False, value=value: value
        variable.sparse_read = lambda indices, name=None, value=value: tf.gather(value, indices)
        variable.gather_nd = lambda indices, name=None, value=value: tf.gather_nd(value, indices)
    try:
        yield
    finally:
        for variable in own:
            del variable._read_variable_op, variable.sparse_read, variable.gather_nd


def named(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    """Returns the spec under the name that a signature's argument has."""
    return tf.TensorSpec(spec.shape, spec.dtype, name)


def _default_spec(keras_model: tf.keras.Model, loss: Any) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    inputs, outputs = (
        tf.nest.flatten(getattr(keras_model, name, None) or []) for name in ("inputs", "outputs")
    )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConversionError(
            "The export takes a model of one input and one output, but this one has "
            f"{len(inputs)} and {len(outputs)}; give input_spec if it has not been built."
        )
    x_spec = tf.TensorSpec([None, *inputs[0].shape[1:]], inputs[0].dtype)
    shape = [None, *outputs[0].shape[1:]]
    name = str(getattr(loss, "name", None) or getattr(loss, "__name__", loss))
    if "sparse" in name:
        return x_spec, tf.TensorSpec(shape[:-1], tf.int32)
    return x_spec, tf.TensorSpec(shape, tf.float32)


def _fits(rate: np.ndarray, weight: tf.Variable) -> bool:
    by_step = rate.ndim == len(weight.shape) + 1 and rate.size == len(rate) > 0
    return by_step or rate.shape in ((), tuple(weight.shape))


def _checked_rates(weights: Sequence[tf.Variable], learned: Sequence[Any]) -> list[np.ndarray]:
    rates = [np.asarray(rate) for rate in learned]
    fit = [_fits(rate, weight) for rate, weight in zip(rates, weights)]
    by_step = {rate.ndim > len(weight.shape) for rate, weight in zip(rates, weights)}
    if len(rates) != len(weights) or not all(fit) or len(by_step) > 1:
        raise ValueError(
            "learned_rates must have a number or an array of the weight's shape for each of the "
            f"{len(weights)} trainable weights, {[tuple(w.shape) for w in weights]}, or for all of "
            f"them an array [steps, 1, ...], but has {[rate.shape for rate in rates]}."
        )
    return [rate.astype(w.dtype.as_numpy_dtype) for rate, w in zip(rates, weights)]
