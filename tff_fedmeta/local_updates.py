"""What one client computes: pure TensorFlow on one client's tensors, no federation in it.

Every function here takes a model whose variables hold the weights sent by the server, and works on
those variables through `assign`, so any Keras model will do. An update is always a *descent
direction*, which the server subtracts: start minus end for methods that train, a gradient for
methods that differentiate.
"""

from collections.abc import Sequence
from typing import Any, Optional, Union

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
      optimizer: An `SGD` or a `tff.learning.optimizers.Optimizer` for the inner steps.
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
      optimizer: An `SGD` or a `tff.learning.optimizers.Optimizer`.
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
        if isinstance(optimizer, SGD):
            optimizer.step(variables, gradients)
        else:
            weights = tuple(variable.read_value() for variable in variables)
            state, weights = optimizer.next(state, weights, tuple(gradients))
            for variable, weight in zip(variables, weights):
                variable.assign(weight)
        return done + 1, state

    _, state = tf.while_loop(
        lambda done, state: done < last, step, (first, state), parallel_iterations=1
    )
    return state


def fresh_state(optimizer: Any, variables: Any, learning_rate: float) -> Any:
    """Returns a TFF optimizer's initial state at a learning rate; an `SGD` has none."""
    if isinstance(optimizer, SGD):
        return ()
    state = optimizer.initialize(tuple(tf.TensorSpec(v.shape, v.dtype) for v in variables))
    hparams = optimizer.get_hparams(state)
    hparams[LEARNING_RATE] = learning_rate
    state = optimizer.set_hparams(state, hparams)
    return tf.nest.map_structure(tf.convert_to_tensor, state)


class SGD:
    """Plain gradient descent on a model's variables: theta <- theta - rate * gradient.

    In place, in one pass over the memory: for a wide dense layer half of a step is such passes.

    Args:
      rates: One rate >= 0 for all weights, or a tensor of rates for each variable, of its shape:
        Meta-SGD's inner step (Li et al., arXiv:1707.09835, eq. 2).
    """

    def __init__(self, rates: Union[float, Sequence[tf.Tensor]]):
        self._rates = rates

    def step(self, variables: Sequence[tf.Variable], gradients: Sequence[Any]) -> None:
        """Moves the variables; one whose gradient is None stays."""
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
