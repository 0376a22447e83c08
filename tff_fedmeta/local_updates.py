"""What one client computes: pure TensorFlow on one client's tensors, no federation in it.

Every function here takes a model whose variables hold the weights sent by the server, and works on
those variables through `assign`, so any Keras model will do. An update is always a *descent
direction*, which the server subtracts: start minus end for methods that train, a gradient for
methods that differentiate.
"""

from collections.abc import Sequence
from typing import Any, Optional

import tensorflow as tf

from tff_fedmeta import minibatches

LEARNING_RATE = "learning_rate"  # the key TFF's optimizers keep their rate under


def reptile(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    optimizer: Any,
    learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
) -> list[tf.Tensor]:
    """Reptile's update: how far local training moves, theta_0 - theta_K.

    Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", arXiv:1803.02999,
    Algorithm 1: theta <- theta + epsilon * (theta_K - theta), with theta_K after K steps of
    ordinary training on the client. The server's optimizer applies epsilon. All of the client's
    examples are trained on; there is no support/query split. Unlike the authors' code, the inner
    optimizer's state starts fresh at every client, because clients of a federation share none.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the order of the examples.
      optimizer: A `tff.learning.optimizers.Optimizer` for the inner steps.
      learning_rate: The rate of the inner steps, >= 0.
      batch_size: >= 1.
      inner_epochs: Local epochs, or
      inner_steps: local steps, exactly one of them.
      shuffle: Whether every epoch has its own random order.

    Returns:
      theta_0 - theta_K, one tensor for each trainable variable; zeros without examples.
    """
    start = [tf.identity(variable) for variable in model.trainable_variables]
    plan = minibatches.plan_minibatches(
        minibatches.count_examples(examples),
        seed,
        batch_size=batch_size,
        inner_epochs=inner_epochs,
        inner_steps=inner_steps,
        shuffle=shuffle,
    )
    state = fresh_state(optimizer, model.trainable_variables, learning_rate)
    train(model, examples, plan, optimizer, state, tf.constant(0), plan.num_steps)
    return [before - after for before, after in zip(start, model.trainable_variables)]


def train(
    model: Any,
    examples: Any,
    plan: minibatches.MinibatchPlan,
    optimizer: Any,
    state: Any,
    first: Any,
    last: Any,
) -> Any:
    """Runs steps `first` to `last` - 1 of a plan on the model's trainable variables.

    Args:
      model: A `tff.learning.models.VariableModel`.
      examples: A structure of [n, ...] tensors the model takes as a batch.
      plan: Which examples each step sees.
      optimizer: A `tff.learning.optimizers.Optimizer`, or a `PerWeightSGD`.
      state: The optimizer's state, from `fresh_state` or an earlier call.
      first: int32 scalar, the first step.
      last: int32 scalar, one past the last step.

    Returns:
      The optimizer's state after the last step.
    """
    variables = model.trainable_variables

    def step(done: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        batch = minibatches.gather_examples(examples, plan.indices(done))
        with tf.GradientTape() as tape:
            loss = model.forward_pass(batch, training=True).loss
        gradients = tape.gradient(loss, variables)
        weights = tuple(variable.read_value() for variable in variables)
        state, weights = optimizer.next(state, weights, tuple(gradients))
        for variable, weight in zip(variables, weights):
            variable.assign(weight)
        return done + 1, state

    _, state = tf.while_loop(
        lambda done, state: done < last, step, (first, state), parallel_iterations=1
    )
    return state


def fresh_state(optimizer: Any, variables: Any, learning_rate: Optional[float] = None) -> Any:
    """Returns a TFF optimizer's initial state, at `learning_rate` or, if None, its own rate."""
    state = optimizer.initialize(tuple(tf.TensorSpec(v.shape, v.dtype) for v in variables))
    if learning_rate is not None:
        hparams = optimizer.get_hparams(state)
        hparams[LEARNING_RATE] = learning_rate
        state = optimizer.set_hparams(state, hparams)
    return tf.nest.map_structure(tf.convert_to_tensor, state)


class PerWeightSGD:
    """SGD with a rate of its own for every weight, in the form of a TFF optimizer.

    Meta-SGD's inner step (Li et al., arXiv:1707.09835, eq. 2): theta <- theta - alpha * gradient,
    elementwise.
    """

    def __init__(self, rates: Sequence[tf.Tensor]):
        self._rates = tuple(rates)

    def initialize(self, specs: Any) -> tuple[()]:
        """Returns the empty state."""
        del specs
        return ()

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        """Returns the state and the stepped weights."""
        steps = (
            weight if gradient is None else weight - rate * tf.convert_to_tensor(gradient)
            for weight, rate, gradient in zip(weights, self._rates, gradients)
        )
        return state, tuple(steps)
