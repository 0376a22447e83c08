"""Clients whose update is not finite, on the way into an aggregator."""

import collections
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.client import model as client_model


class SkipNonFiniteFactory(tff.aggregators.WeightedAggregationFactory):
    """An aggregator that gives a client with a NaN or an infinity zeros and weight 0.

    The process's state is the inner one's. To the inner measurements it adds `non_finite`, how many
    clients that were.
    """

    def __init__(
        self,
        inner: tff.aggregators.WeightedAggregationFactory,
        count_factory: Optional[tff.aggregators.UnweightedAggregationFactory] = None,
        keeps_empty: bool = False,
    ):
        """Initializes the factory.

        Args:
          inner: The aggregator, whose measurements are a mapping.
          count_factory: How clients are counted, without a state; None is `SumFactory`.
          keeps_empty: Whether the state stays as it was in a round where every weight is 0: what
            it estimates would become NaN.
        """
        self._inner = inner
        self._count_factory = count_factory or tff.aggregators.SumFactory()
        self._keeps_empty = keeps_empty

    def create(self, value_type: Any, weight_type: Any) -> tff.templates.AggregationProcess:
        """Creates the process; see `tff.aggregators.WeightedAggregationFactory`."""
        inner = self._inner.create(value_type, weight_type)
        count = self._count_factory.create(tff.TensorType(np.int32))
        inner_measurements = inner.next.type_signature.result.measurements.member
        leave_out = tff.tensorflow.computation(zero_non_finite, (value_type, weight_type))
        has_weight = tff.tensorflow.computation(lambda w: tf.cast(w > 0, tf.int32), weight_type)
        state_type = inner.initialize.type_signature.result.member

        @tff.tensorflow.computation(state_type, state_type, np.int32)
        def choose_state(before: Any, after: Any, num_clients: Any) -> Any:
            return tf.nest.map_structure(
                lambda old, new: tf.where(num_clients > 0, new, old), before, after
            )

        @tff.federated_computation(
            inner.initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def next_round(state: Any, values: Any, weights: Any) -> Any:
            kept, weights, non_finite = tff.federated_map(leave_out, (values, weights))
            output = inner.next(state, kept, weights)
            counted = count.next(count.initialize(), non_finite)
            measurements = collections.OrderedDict(
                (name, output.measurements[name])
                for name, _ in tff.structure.iter_elements(inner_measurements)
            )
            measurements["non_finite"] = counted.result
            after = output.state
            if self._keeps_empty:
                num_clients = tff.federated_sum(tff.federated_map(has_weight, weights))
                after = tff.federated_map(choose_state, (state, after, num_clients))
            return tff.templates.MeasuredProcessOutput(
                after, output.result, tff.federated_zip(measurements)
            )

        return tff.templates.AggregationProcess(inner.initialize, next_round)


def zero_non_finite(value: Any, weight: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """Returns a client's update and weight, or zeros if they are not finite, and a count of that.

    Args:
      value: Float tensors in any structure.
      weight: A float scalar.

    Returns:
      The update, the weight, and 1 if they were replaced, else 0, int32.
    """
    # The norm too: clipping by one that overflows would make NaN of finite numbers.
    norm = tf.linalg.global_norm(tf.nest.flatten(value))
    is_finite = client_model.all_finite((tf.nest.flatten(value), weight, norm))
    value = tf.nest.map_structure(lambda x: tf.where(is_finite, x, tf.zeros_like(x)), value)
    weight = tf.where(is_finite, weight, tf.zeros_like(weight))
    return value, weight, tf.cast(tf.logical_not(is_finite), tf.int32)
