"""The rules of local steps: what a step does with a gradient."""

import abc
from collections.abc import Sequence
from typing import Any, Optional, Union

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks

LEARNING_RATE = "learning_rate"  # the key TFF's optimizers keep their rate under


class Rule(abc.ABC):
    """What a local step does with a gradient. Subclass it for a rule of your own.

    Attributes:
      learnable: Tensors that `inner_loop.differentiate` differentiates by too, such as Meta-SGD's
        rates.
      zero_where_undefined: Whether a derivative of the rule that is not finite counts as 0, as that
        of Adam's square root at 0.
    """

    learnable: Sequence[tf.Tensor] = ()
    zero_where_undefined: bool = False

    def initialize(self, variables: Sequence[tf.Variable]) -> Any:
        """Returns the state before the first step, a structure of tensors; here none."""
        del variables
        return ()

    def step(self, state: Any, variables: Sequence[tf.Variable], gradients: Sequence[Any]) -> Any:
        """Moves the variables in place and returns the next state."""
        state, weights = self.next(state, [v.read_value() for v in variables], gradients)
        for variable, weight in zip(variables, weights):
            variable.assign(weight)
        return state

    @abc.abstractmethod
    def next(
        self, state: Any, weights: Sequence[tf.Tensor], gradients: Sequence[Any]
    ) -> tuple[Any, list[tf.Tensor]]:
        """Returns the next state and weights, by operations that a tape can differentiate.

        Args:
          state: As `initialize` or the step before returned it.
          weights: The weights before the step.
          gradients: Their gradients; None for a weight that the loss does not use, which stays.
        """

    def start_gradient(self, of_state: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Carries the derivative by `initialize`'s state back to the weights it was made from.

        Args:
          of_state: The derivative by each floating tensor of the state before the first step.

        Returns:
          A tensor for each moving variable, or nothing where the state does not depend on them.
        """
        del of_state
        return ()


class SGD(Rule):
    """Plain gradient descent: theta <- theta - rate * gradient.

    Args:
      rates: One rate >= 0 for all weights, or a tensor of rates for each variable, of its shape:
        Meta-SGD's inner step (Li et al., arXiv:1707.09835, eq. 2).
    """

    def __init__(self, rates: Union[float, Sequence[tf.Tensor]]):
        self._rates = rates
        self.learnable = () if isinstance(rates, float) else list(rates)

    def step(self, state: Any, variables: Sequence[tf.Variable], gradients: Sequence[Any]) -> Any:
        """Moves the variables in place; one whose gradient is None stays.

        In one pass over the memory: for a wide dense layer half of a step is such passes.
        """
        for index, (variable, gradient) in enumerate(zip(variables, gradients)):
            if gradient is None:
                continue
            if not isinstance(self._rates, float):
                variable.assign_sub(self._rates[index] * tf.convert_to_tensor(gradient))
                continue
            rate = tf.constant(self._rates, variable.dtype)
            if isinstance(gradient, tf.IndexedSlices):  # of the rows that an embedding looked up
                steps = tf.IndexedSlices(rate * gradient.values, gradient.indices)
                variable.scatter_sub(steps)
            else:
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=variable.handle, alpha=rate, delta=gradient
                )
        return state

    def next(
        self, state: Any, weights: Sequence[tf.Tensor], gradients: Sequence[Any]
    ) -> tuple[Any, list[tf.Tensor]]:
        """The same step as a function, which a tape can differentiate."""
        rates = self.learnable or [self._rates] * len(weights)
        return state, [
            weight if gradient is None else weight - rate * tf.convert_to_tensor(gradient)
            for weight, rate, gradient in zip(weights, rates, gradients)
        ]


class StatefulRule(Rule):
    """A `tff.learning.optimizers.Optimizer` as the rule of local steps.

    Args:
      optimizer: The optimizer; its state starts fresh at every client.
      learning_rate: Its learning rate, >= 0, whatever it was built with.
    """

    # The derivative of a rule such as Adam cannot be evaluated where a gradient's square is and was
    # 0: a dead unit, a word that does not occur.
    zero_where_undefined = True

    def __init__(self, optimizer: tff.learning.optimizers.Optimizer, learning_rate: float):
        self._optimizer = optimizer
        self._learning_rate = learning_rate

    def initialize(self, variables: Sequence[tf.Variable]) -> Any:
        """Returns the optimizer's initial state."""
        specs = tuple(tf.TensorSpec(v.shape, v.dtype) for v in variables)
        state = self._optimizer.initialize(specs)
        hparams = self._optimizer.get_hparams(state)
        hparams[LEARNING_RATE] = self._learning_rate
        state = self._optimizer.set_hparams(state, hparams)
        return tf.nest.map_structure(tf.convert_to_tensor, state)

    def next(
        self, state: Any, weights: Sequence[tf.Tensor], gradients: Sequence[Any]
    ) -> tuple[Any, list[tf.Tensor]]:
        """The same step as a function, which a tape can differentiate."""
        state, weights = self._optimizer.next(state, tuple(weights), tuple(gradients))
        return state, list(weights)


class Clipped(Rule):
    """A rule that is given gradients whose common Euclidean norm is at most `norm`.

    Longer ones are scaled down, all weights' alike (Pascanu, Mikolov and Bengio, arXiv:1211.5063,
    Algorithm 1). The scale is part of the step, so `inner_loop.differentiate` goes through it.

    Args:
      rule: What steps with the gradients.
      norm: > 0.
    """

    def __init__(self, rule: Rule, norm: float):
        self._rule = rule
        self._norm = norm
        self.learnable = rule.learnable
        self.zero_where_undefined = rule.zero_where_undefined

    def initialize(self, variables: Sequence[tf.Variable]) -> Any:
        """Returns the state of the rule within."""
        return self._rule.initialize(variables)

    def step(self, state: Any, variables: Sequence[tf.Variable], gradients: Sequence[Any]) -> Any:
        """Moves the variables in place and returns the next state."""
        return self._rule.step(state, variables, clip(gradients, self._norm))

    def next(
        self, state: Any, weights: Sequence[tf.Tensor], gradients: Sequence[Any]
    ) -> tuple[Any, list[tf.Tensor]]:
        """The same step as a function, which a tape can differentiate."""
        return self._rule.next(state, weights, clip(gradients, self._norm))

    def start_gradient(self, of_state: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """As the rule within."""
        return self._rule.start_gradient(of_state)


def clip(gradients: Sequence[Any], norm: float) -> list[Any]:
    """Scales gradients together, so that their common Euclidean norm is at most `norm` > 0.

    A gradient may be None, which stays, or slices of rows. Where the norm is not finite the
    gradients become NaN, so that a client that diverged is seen to have.
    """
    dense = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
    squares = [tf.reduce_sum(tf.square(tf.cast(g, tf.float32))) for g in dense if g is not None]
    if not squares:
        return dense
    # The maximum comes before the root, whose derivative at 0 is not finite.
    length = tf.sqrt(tf.maximum(tf.add_n(squares), norm**2))
    scale = tf.where(tf.math.is_finite(length), norm / length, float("nan"))
    return [None if g is None else g * tf.cast(scale, g.dtype) for g in dense]


def build_rule(
    optimizer: Optional[tff.learning.optimizers.Optimizer],
    learning_rate: float,
    clip_norm: float = 0.0,
) -> Rule:
    """Returns the rule of local steps: `optimizer` at `learning_rate`, or plain SGD for None.

    Args:
      optimizer: One of TFF's, or None.
      learning_rate: Its rate.
      clip_norm: The longest gradient, >= 0; 0: gradients are used as they are.

    Raises:
      TypeError: If `optimizer` is none of TFF's.
      ValueError: If it does not let its learning rate be set, as one with a schedule does not, or
        `clip_norm` is out of its range.
    """
    return clipping(_build_rule(optimizer, learning_rate), clip_norm)


def clipping(rule: Rule, clip_norm: float) -> Rule:
    """Returns a rule as it is for a `clip_norm` of 0, otherwise with clipped gradients."""
    checks.check_number("inner_clip_norm", clip_norm, 0)
    return Clipped(rule, float(clip_norm)) if clip_norm else rule


def _build_rule(
    optimizer: Optional[tff.learning.optimizers.Optimizer], learning_rate: float
) -> Rule:
    if optimizer is None:
        return SGD(float(learning_rate))
    if not isinstance(optimizer, tff.learning.optimizers.Optimizer):
        raise TypeError(
            f"inner_optimizer must be a tff.learning.optimizers.Optimizer, but is {optimizer!r}."
        )
    with tf.Graph().as_default():
        hparams = optimizer.get_hparams(optimizer.initialize((tf.TensorSpec([1], tf.float32),)))
    if LEARNING_RATE not in hparams:
        raise ValueError(
            "inner_optimizer must let its learning rate be set, as the optimizers of "
            "tff.learning.optimizers do without a schedule, but the hyperparameters of "
            f"{type(optimizer).__name__} are {list(hparams)}."
        )
    return StatefulRule(optimizer, learning_rate)
