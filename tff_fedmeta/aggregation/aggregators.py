"""How the clients' updates are combined: TFF aggregation factories by name.

All are given the clients' weights. A client with weight 0 was left out and counts nowhere. If all
are, the result is NaN, which TFF's finalizer rejects: model and optimizer stay as they were.
"""

import functools
from typing import Any, Callable, Optional

import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.aggregation import noisy_mean, secure_sums
from tff_fedmeta.aggregation.non_finite import SkipNonFiniteFactory
from tff_fedmeta.aggregation.trimmed_mean import TrimmedMeanFactory
from tff_fedmeta.config import aggregator_options

# Tensors with more elements are quantized: small ones are cheap, and their errors are not.
_QUANTIZED_ABOVE = 1000


def build_aggregator(
    name: str, *, clients_per_round: Optional[int] = None, **options: Any
) -> tff.aggregators.WeightedAggregationFactory:
    """Returns the aggregation factory of a name: the `model_aggregator` of every `build_*`.

    | name | what it is |
    |---|---|
    | mean | the weighted mean |
    | robust | `tff.learning.robust_aggregator`: the weighted mean after updates with an unusually large coordinate are zeroed and the others clipped in norm, both by what earlier rounds looked like |
    | median | the median of every coordinate; clients count the same |
    | trimmed_mean | the mean of every coordinate without its extremes; clients count the same |
    | secure | the weighted mean by sums of which the server learns nothing but the total |
    | compressed | the weighted mean of updates sent in few bits |
    | dp | the mean of clipped updates with noise; clients count the same (`privacy.py`) |

    All but "mean" also leave out, and count, clients whose update is not finite on arrival.
    "compressed" rounds at random, and "dp" draws noise, without a seed: runs do not repeat bit for
    bit. All others do.

    Args:
      name: One of `config.AGGREGATORS`.
      clients_per_round: How many clients a round is expected to have, which "dp" has to know.
      **options: Its options (`aggregator_options.py`); what is not given has its default.

    Returns:
      A `tff.aggregators.WeightedAggregationFactory`.

    Raises:
      ValueError: If there is no such aggregator, it has no such option or a value is wrong.
    """  # noqa: E501 (rows of a table)
    values = aggregator_options.resolve(name, options)
    if name in aggregator_options.PRIVATE:
        return _build_dp(clients_per_round, **values)
    return _BUILDERS[name](**values)


def build_metrics_aggregator(name: str) -> Optional[Callable[..., Any]]:
    """Returns the `metrics_aggregator` that goes with `build_aggregator(name)`; None is TFF's own.

    With "secure" the metrics are secure sums too.
    """
    checks.check_choice("aggregator", name, aggregator_options.AGGREGATORS)
    if name in aggregator_options.SECURE:
        return secure_sums.secure_sum_then_finalize
    return None


def _build_robust() -> tff.aggregators.WeightedAggregationFactory:
    # By itself TFF's would let a NaN pass: it is not greater than any norm.
    return SkipNonFiniteFactory(tff.learning.robust_aggregator(), keeps_empty=True)


def _build_trimmed_mean(trim_fraction: float) -> tff.aggregators.WeightedAggregationFactory:
    return SkipNonFiniteFactory(TrimmedMeanFactory(trim_fraction))


def _build_secure(secure_clip: float) -> tff.aggregators.WeightedAggregationFactory:
    count = tff.aggregators.SecureSumFactory(upper_bound_threshold=1, lower_bound_threshold=0)
    return SkipNonFiniteFactory(secure_sums.SecureMeanFactory(secure_clip), count)


def _build_compressed(compression_bits: int) -> tff.aggregators.WeightedAggregationFactory:
    quantized_sum = tff.aggregators.EncodedSumFactory.quantize_above_threshold(
        compression_bits, _QUANTIZED_ABOVE
    )
    return SkipNonFiniteFactory(tff.aggregators.MeanFactory(quantized_sum))


def _build_dp(
    clients_per_round: Optional[int],
    noise_multiplier: Optional[float],
    dp_clip: Optional[float],
    dp_initial_clip: float,
    **_: Any,
) -> tff.aggregators.WeightedAggregationFactory:
    if clients_per_round is None or noise_multiplier is None:
        raise ValueError(
            "The aggregator dp needs clients_per_round and noise_multiplier; privacy.find_noise "
            "finds the noise of an epsilon."
        )
    return noisy_mean.build_dp_aggregator(
        clients_per_round, noise_multiplier, dp_clip, dp_initial_clip
    )


# name -> builder, called with all of the aggregator's options.
_BUILDERS: dict[str, Callable[..., tff.aggregators.WeightedAggregationFactory]] = {
    "mean": tff.aggregators.MeanFactory,
    "robust": _build_robust,
    "median": functools.partial(_build_trimmed_mean, 0.5),
    "trimmed_mean": _build_trimmed_mean,
    "secure": _build_secure,
    "compressed": _build_compressed,
}
