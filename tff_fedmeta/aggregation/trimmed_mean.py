"""The trimmed mean and the median of every coordinate of the clients' updates."""

import collections
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff


class TrimmedMeanFactory(tff.aggregators.WeightedAggregationFactory):
    """The mean of every coordinate without its greatest and its least values.

    After Yin, Chen, Ramchandran and Bartlett, arXiv:1803.01498, definitions 1 and 2. Of n updates
    k = floor(trim_fraction * n) are cut off at each end, but at least one is left, or two if n is
    even: with 0.5 that is the median.

    All clients count the same, whatever their weights, which they tell themselves: an attacker with
    a great weight would be a majority. Those with weight 0 were left out, and n does not count
    them. If n is 0 the result is NaN.

    The server keeps the updates of the whole cohort until the last one has come: unlike with means,
    its memory grows with the cohort.

    The process has no state. Its measurement is `clients`, n, int32.
    """

    def __init__(self, trim_fraction: float):
        """Initializes the factory.

        Args:
          trim_fraction: The share of clients to cut off at each end, in [0, 0.5].
        """
        self._trim_fraction = trim_fraction

    def create(self, value_type: Any, weight_type: Any) -> tff.templates.AggregationProcess:
        """Creates the process; see `tff.aggregators.WeightedAggregationFactory`."""

        def each(function: Any) -> Any:
            return tff.types.structure_from_tensor_type_tree(function, value_type)

        @tff.tensorflow.computation
        def zero() -> Any:
            return each(lambda tensor: tf.zeros([0, *tensor.shape], tensor.dtype))

        # The updates so far: every tensor with one dimension more in front.
        collected_type = tff.types.to_type(
            each(lambda tensor: tff.TensorType(tensor.dtype, [None, *tensor.shape]))
        )

        @tff.tensorflow.computation(collected_type, (value_type, weight_type))
        def accumulate(collected: Any, client: Any) -> Any:
            value, weight = client
            rows = tf.cast(weight > 0, tf.int32)  # 1, or 0 of a client that was left out
            return tf.nest.map_structure(
                lambda all_, one: tf.concat([all_, one[tf.newaxis][:rows]], 0), collected, value
            )

        @tff.tensorflow.computation(collected_type, collected_type)
        def merge(one: Any, other: Any) -> Any:
            return tf.nest.map_structure(lambda a, b: tf.concat([a, b], 0), one, other)

        @tff.tensorflow.computation(collected_type)
        def report(collected: Any) -> Any:
            count = tf.shape(tf.nest.flatten(collected)[0])[0]
            mean = tf.nest.map_structure(self._trimmed_mean, collected)
            return mean, collections.OrderedDict(clients=count)

        @tff.federated_computation
        def initialize() -> Any:
            return tff.federated_value((), tff.SERVER)

        @tff.federated_computation(
            initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def next_round(state: Any, values: Any, weights: Any) -> Any:
            clients = tff.federated_zip((values, weights))
            mean, counts = tff.federated_aggregate(clients, zero(), accumulate, merge, report)
            return tff.templates.MeasuredProcessOutput(state, mean, counts)

        return tff.templates.AggregationProcess(initialize, next_round)

    def _trimmed_mean(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the trimmed mean [...] of [n, ...], NaN if n is 0."""
        n = tf.shape(rows)[0]
        # A share such as 0.29 of 100 is not to fall below 29 by rounding.
        cut = tf.floor(self._trim_fraction * tf.cast(n, tf.float64) + 1e-9)
        cut = tf.maximum(tf.minimum(tf.cast(cut, tf.int32), (n - 1) // 2), 0)
        return tf.reduce_mean(tf.sort(rows, 0)[cut : n - cut], 0)
