"""The rule of steps that are held to the weights that they start from."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tff_fedmeta.client.rules import Rule


class ProximalSGD(Rule):
    """Gradient descent on the loss and strength / 2 * ||theta - theta_0||^2.

    theta <- theta - rate * (gradient + strength * (theta - theta_0)), theta_0 being the weights
    before the first step (Li et al., arXiv:1812.06127, eq. 2). The state holds theta_0.

    Args:
      rate: >= 0.
      strength: How strongly steps are held to theta_0, >= 0; 0 is plain SGD.
    """

    def __init__(self, rate: float, strength: float):
        self._rate = float(rate)
        self._strength = float(strength)

    def initialize(self, variables: Sequence[tf.Variable]) -> Any:
        """Returns copies of the weights."""
        return [tf.identity(variable) for variable in variables]

    def step(self, state: Any, variables: Sequence[tf.Variable], gradients: Sequence[Any]) -> Any:
        """Moves the variables in place, in fewer passes over the memory than `next`."""
        for start, variable, gradient in zip(state, variables, gradients):
            if gradient is None:
                continue
            pull = variable.read_value() - start
            for rate, part in ((self._rate * self._strength, pull), (self._rate, gradient)):
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=variable.handle,
                    alpha=tf.constant(rate, variable.dtype),
                    delta=tf.convert_to_tensor(part),
                )
        return state

    def next(
        self, state: Any, weights: Sequence[tf.Tensor], gradients: Sequence[Any]
    ) -> tuple[Any, list[tf.Tensor]]:
        """The same step as a function; a weight without a gradient stays where it began."""
        return state, [
            weight
            if gradient is None
            else weight
            - self._rate * (tf.convert_to_tensor(gradient) + self._strength * (weight - start))
            for start, weight, gradient in zip(state, weights, gradients)
        ]

    def start_gradient(self, of_state: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """The state is the weights themselves, and so is its derivative."""
        return of_state
