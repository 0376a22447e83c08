"""Means and metrics by secure sums: the server learns the sums over the cohort and nothing else.

Secure aggregation (Bonawitz et al., CCS 2017) adds up whole numbers modulo a power of two. So real
numbers are clipped and rounded to multiples of a step first. That is computed here as it is there;
the cryptography, keys and the handling of clients that vanish are the deployment platform's.
"""

import collections
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.config import aggregator_options

# Bits of a client's number: as fine as float32 is, in a range that is far wider than updates are.
BITS = 52
# So many clients' numbers add up to what fits into an int64: 2 ** (63 - BITS).
MAX_CLIENTS = aggregator_options.MAX_SECURE_CLIENTS
# The greatest weight. A client with more examples counts as one with as many.
MAX_WEIGHT = 2.0**14

_GREATEST = 2 ** (BITS - 1) - 1


class SecureMeanFactory(tff.aggregators.WeightedAggregationFactory):
    """sum_i w_i u_i / sum_i w_i by secure sums of both.

    A client clips its weight w to [0, 2**14] and every coordinate of its update u to
    [-secure_clip, secure_clip], multiplies, and rounds to the nearest multiple of about
    secure_clip * 2**14 / 2**51: in a mean over weights of 1 that is an error of at most
    4e-12 * secure_clip a coordinate, and less if clients weigh more. Zero stays zero, and the sums
    are exact, so the order of clients does not matter. The range is wide instead of adapted to
    earlier rounds: nothing is clipped that training well produces.

    A client's NaN has no whole number: `SkipNonFiniteFactory` goes before.

    A cohort of more than 2048 clients is an error: its sums would not fit.

    The process has no state. Its measurements, secure sums as well, are `clipped_clients` and
    `clipped_weights`: how many clients had a coordinate, or a weight, out of range.
    """

    def __init__(self, secure_clip: float):
        """Initializes the factory.

        Args:
          secure_clip: The greatest absolute value of an update's coordinate, > 0.
        """
        self._clip = secure_clip

    def create(self, value_type: Any, weight_type: Any) -> tff.templates.AggregationProcess:
        """Creates the process; see `tff.aggregators.WeightedAggregationFactory`."""
        products, weights_ = _FixedPoint(self._clip * MAX_WEIGHT), _FixedPoint(MAX_WEIGHT)

        @tff.tensorflow.computation(value_type, weight_type)
        def encode(value: Any, weight: Any) -> Any:
            kept = tf.clip_by_value(tf.cast(weight, tf.float64), 0.0, MAX_WEIGHT)

            def product(x: Any) -> Any:
                clipped = tf.clip_by_value(tf.cast(x, tf.float64), -self._clip, self._clip)
                return products.encode(clipped * kept)

            too_large = [tf.reduce_any(tf.abs(x) > self._clip) for x in tf.nest.flatten(value)]
            clipped = collections.OrderedDict(
                clipped_clients=tf.cast(tf.reduce_any(too_large), tf.int32),
                clipped_weights=tf.cast(tf.cast(weight, tf.float64) > MAX_WEIGHT, tf.int32),
            )
            return (tf.nest.map_structure(product, value), weights_.encode(kept)), clipped

        def divide(sums: Any, num_clients: Any) -> Any:
            values, weight = sums
            total = weights_.decode(weight, num_clients)
            return tf.nest.map_structure(
                lambda x, dtype: tf.cast(products.decode(x, num_clients) / total, dtype),
                values,
                tff.types.structure_from_tensor_type_tree(lambda t: t.dtype, value_type),
            )

        decode = _server_computation(divide, encode.type_signature.result[0])

        @tff.federated_computation
        def initialize() -> Any:
            return tff.federated_value((), tff.SERVER)

        @tff.federated_computation(
            initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def next_round(state: Any, values: Any, weights: Any) -> Any:
            encoded, clipped = tff.federated_map(encode, (values, weights))
            return tff.templates.MeasuredProcessOutput(
                state,
                tff.federated_map(decode, _sums(encoded)),
                tff.federated_secure_sum_bitwidth(clipped, 1),
            )

        return tff.templates.AggregationProcess(initialize, next_round)


def secure_sum_then_finalize(
    metric_finalizers: Any, local_unfinalized_metrics_type: Optional[Any] = None
) -> tff.Computation:
    """Sums metrics as TFF's function of this name does, in a range wide enough not to be noticed.

    Each number of a client's metrics is clipped to [-2**30, 2**30], where a NaN becomes 2**30, and
    rounded to a multiple of about 2**-21, which leaves integers as they are.

    Args:
      metric_finalizers: name -> function of the sums, as a model's `metric_finalizers()` returns.
      local_unfinalized_metrics_type: Not used.

    Returns:
      A polymorphic computation from clients' unfinalized metrics to the server's metrics.
    """
    del local_unfinalized_metrics_type
    numbers = _FixedPoint(2.0**30)

    @tff.federated_computation
    def aggregate(metrics: Any) -> Any:
        metrics_type = metrics.type_signature.member

        @tff.tensorflow.computation(metrics_type)
        def encode(metrics: Any) -> Any:
            return tf.nest.map_structure(numbers.encode, metrics)

        def finalize(sums: Any, num_clients: Any) -> Any:
            sums = tf.nest.map_structure(
                lambda x, dtype: _cast(numbers.decode(x, num_clients), dtype),
                sums,
                tff.types.structure_from_tensor_type_tree(lambda t: t.dtype, metrics_type),
            )
            return collections.OrderedDict(
                (name, finalizer(sums[name])) for name, finalizer in metric_finalizers.items()
            )

        decode = _server_computation(finalize, encode.type_signature.result)
        return tff.federated_map(decode, _sums(tff.federated_map(encode, metrics)))

    return aggregate


class _FixedPoint(NamedTuple):
    """Real numbers in [-limit, limit] as whole ones, of which zero is in the middle."""

    limit: float

    def encode(self, x: tf.Tensor) -> tf.Tensor:
        """Returns x, clipped, in steps: int64 in [0, 2**BITS - 2]. A NaN becomes the limit."""
        x = tf.clip_by_value(tf.cast(x, tf.float64), -self.limit, self.limit)
        x = tf.where(tf.math.is_nan(x), tf.constant(self.limit, tf.float64), x)
        return tf.cast(tf.round(x * (_GREATEST / self.limit)), tf.int64) + _GREATEST

    def decode(self, total: tf.Tensor, num_clients: tf.Tensor) -> tf.Tensor:
        """Returns the sum of the numbers, float64, of the sum of what clients made of them."""
        message = f"Secure sums are over at most {MAX_CLIENTS} clients."
        fits = tf.debugging.assert_less_equal(num_clients, MAX_CLIENTS, message)
        with tf.control_dependencies([fits]):
            steps = total - _GREATEST * tf.cast(num_clients, tf.int64)
        return tf.cast(steps, tf.float64) * (self.limit / _GREATEST)


def _cast(x: tf.Tensor, dtype: Any) -> tf.Tensor:
    return tf.cast(x if tf.as_dtype(dtype).is_floating else tf.round(x), dtype)


def _sums(encoded: Any) -> Any:
    """Returns the secure sums of clients' whole numbers, and how many clients there are."""
    ones = tff.federated_value(1, tff.CLIENTS)
    return tff.federated_zip(
        (
            tff.federated_secure_sum_bitwidth(encoded, BITS),
            tff.federated_secure_sum_bitwidth(ones, 1),
        )
    )


def _server_computation(function: Callable[..., Any], sums_type: Any) -> tff.Computation:
    """Makes a computation of a function of what `_sums` returns."""
    return tff.tensorflow.computation(function, [sums_type, tff.TensorType(np.int32)])
