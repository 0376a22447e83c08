"""The split of one client's examples into support and query, for training and for evaluation."""

from typing import Any, Callable, NamedTuple

import tensorflow as tf

from tff_fedmeta.client import minibatches


class SupportQuery(NamedTuple):
    """The two sides of a client's data.

    Attributes:
      support: What adaptation learns from: the structure of examples, [num_support, ...].
      query: What the adapted model is judged on, [num_query, ...].
      num_support: int32 scalar.
      num_query: int32 scalar; both are 0 for a client that is too small to split.
    """

    support: Any
    query: Any
    num_support: tf.Tensor
    num_query: tf.Tensor


# (examples, seed) -> their two sides: `split_support_query` with its settings given.
Split = Callable[[Any, tf.Tensor], SupportQuery]


def take_first(sides: SupportQuery, most: tf.Tensor) -> SupportQuery:
    """Returns the two sides with at most `most` examples, the first, in support.

    Args:
      sides: The two sides of a client's data.
      most: int32 scalar, >= 0.
    """
    kept = tf.minimum(sides.num_support, most)
    support = tf.nest.map_structure(lambda tensor: tensor[:kept], sides.support)
    return sides._replace(support=support, num_support=kept)


def split_support_query(
    examples: Any, seed: tf.Tensor, *, support_fraction: float = 0.5, split: str = "random"
) -> SupportQuery:
    """Splits a client's examples.

    n_support = clip(floor(support_fraction * n + 0.5), 1, n - 1).

    Args:
      examples: A structure of tensors [n, ...].
      seed: int64 [2], the client's seed; decides the random split alone.
      support_fraction: The share of examples in support, in (0, 1).
      split: "random" draws the support examples; "ordered" takes the first ones in the order given
        (for data in time order); "same" puts all examples on both sides, whatever the fraction.
    """
    n = minibatches.count_examples(examples)
    if split == "same":
        return SupportQuery(examples, examples, n, n)
    # In float64: float32 would round a fraction such as 0.35 * 10 + 0.5 to the wrong side.
    wanted = tf.cast(support_fraction * tf.cast(n, tf.float64) + 0.5, tf.int32)
    splits = n >= 2
    num_support = tf.where(splits, tf.clip_by_value(wanted, 1, tf.maximum(n - 1, 1)), 0)
    num_query = tf.where(splits, n - num_support, 0)
    if split == "random":
        split_seed = tf.random.experimental.stateless_fold_in(seed, minibatches.SPLIT_STREAM)
        order = minibatches.shuffled_orders(1, n, split_seed)[0]
    else:
        order = tf.range(n)
    return SupportQuery(
        support=minibatches.gather_examples(examples, order[:num_support]),
        query=minibatches.gather_examples(examples, order[num_support : num_support + num_query]),
        num_support=num_support,
        num_query=num_query,
    )
