"""Which examples each local step sees: shared by training, adaptation and the FedAvg baseline."""

from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf

# Named streams of one client's seed, so that no two uses draw the same numbers.
SPLIT_STREAM = 1
TRAINING_STREAM = 2
ATTACK_STREAM = 3

# Examples in one forward pass where only the mean over all of them matters: it bounds memory.
PASS = 128


class MinibatchPlan(NamedTuple):
    """The order in which local steps walk a client's examples.

    Attributes:
      num_steps: int32 scalar, the local steps; 0 for a client without examples.
      orders: int32 [epochs, n], one order of the examples for each epoch.
      batch_size: Examples a step; the last batch of an epoch is as small as what is left.
      known_steps: `num_steps` of a client with examples as a Python int, if known while the graph
        is built; None otherwise.
    """

    num_steps: tf.Tensor
    orders: tf.Tensor
    batch_size: int
    known_steps: Optional[int] = None

    @property
    def steps_per_epoch(self) -> tf.Tensor:
        """int32 scalar: the steps of one epoch."""
        return batches_per_epoch(tf.shape(self.orders)[1], self.batch_size)

    def indices(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the examples of one step: int32 [b], 1 <= b <= batch_size."""
        step = tf.cast(step, tf.int32)
        start = step % self.steps_per_epoch * self.batch_size
        return self.orders[step // self.steps_per_epoch, start : start + self.batch_size]

    def count_examples(self, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """Returns how many examples steps `first` to `last` - 1 see in all: int32 scalar."""
        n = tf.shape(self.orders)[1]
        per_epoch = tf.maximum(self.steps_per_epoch, 1)

        def before(step: tf.Tensor) -> tf.Tensor:
            return step // per_epoch * n + step % per_epoch * self.batch_size

        return before(last) - before(first)


# (number of examples, seed) -> their plan: `plan_minibatches` with its settings given.
PlanMinibatches = Callable[[tf.Tensor, tf.Tensor], MinibatchPlan]


def plan_minibatches(
    num_examples: tf.Tensor,
    seed: tf.Tensor,
    *,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
) -> MinibatchPlan:
    """Plans `inner_epochs` passes, or `inner_steps` steps, over a client's examples.

    Steps walk the batches of one epoch after another; each epoch has an order of its own, a pure
    function of `seed`, or the order given if `shuffle` is False.

    Args:
      num_examples: int32 scalar n >= 0.
      seed: int64 [2], the client's seed.
      batch_size: >= 1.
      inner_epochs: >= 0; exclusive with `inner_steps`.
      inner_steps: >= 0.
      shuffle: Whether each epoch is shuffled.

    Raises:
      ValueError: If neither epochs nor steps are given.
    """
    batches = batches_per_epoch(num_examples, batch_size)
    if inner_steps is not None:
        num_steps = tf.where(num_examples > 0, inner_steps, 0)
        num_epochs = -(-inner_steps // tf.maximum(batches, 1))
    elif inner_epochs is not None:
        num_steps, num_epochs = inner_epochs * batches, tf.constant(inner_epochs)
    else:
        raise ValueError("One of inner_epochs and inner_steps is needed.")
    if shuffle:
        training_seed = tf.random.experimental.stateless_fold_in(seed, TRAINING_STREAM)
        orders = shuffled_orders(num_epochs, num_examples, training_seed)
    else:
        orders = tf.tile(tf.range(num_examples)[tf.newaxis], [num_epochs, 1])
    return MinibatchPlan(num_steps, orders, batch_size, inner_steps)


def shuffled_orders(num_orders: Any, num_examples: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns int32 [num_orders, num_examples]: random permutations from `seed` alone."""
    keys = tf.random.stateless_uniform(
        [num_orders, num_examples], seed, minval=None, maxval=None, dtype=tf.int32
    )
    return tf.argsort(keys, axis=1, stable=True)


def gather_examples(examples: Any, indices: tf.Tensor) -> Any:
    """Returns the examples at `indices` [b] from a structure of tensors [n, ...]."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, indices), examples)


def count_examples(examples: Any) -> tf.Tensor:
    """Returns the int32 number of examples in a structure of tensors [n, ...]."""
    return tf.shape(tf.nest.flatten(examples)[0])[0]


def scale_steps(steps: Any, work_share: Optional[tf.Tensor]) -> Any:
    """Scales `steps` by a straggler's `work_share` in (0, 1], rounding up.

    At least one step of one or more remains. `None` means all steps.
    """
    if work_share is None:
        return steps
    return tf.cast(tf.math.ceil(work_share * tf.cast(steps, tf.float32)), tf.int32)


def batches_per_epoch(num_examples: tf.Tensor, batch_size: int) -> tf.Tensor:
    """Returns how many batches n examples make, the last one as small as what is left."""
    return -(-num_examples // batch_size)
