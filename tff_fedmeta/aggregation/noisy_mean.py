"""The mean of clipped updates with Gaussian noise; `privacy.py` says what it costs."""

from typing import Optional

import tensorflow_federated as tff

from tff_fedmeta.aggregation.non_finite import SkipNonFiniteFactory


def build_dp_aggregator(
    clients_per_round: int,
    noise_multiplier: float,
    clip: Optional[float] = None,
    initial_clip: float = 0.1,
) -> tff.aggregators.WeightedAggregationFactory:
    """Returns the aggregation factory that clips and adds noise; the clients' weights are ignored.

    TFF's `dp_aggregator` also zeroes large updates by a quantile without noise, which no accountant
    knows of: this one does not. A client whose update is not finite counts as zeros. The noise has
    no seed: rounds with noise do not repeat bit for bit.

    Args:
      clients_per_round: The expected cohort, which the noisy sum is divided by.
      noise_multiplier: z of the whole mechanism, >= 0; 0 is clipping alone.
      clip: The fixed clip, > 0; None: it follows the median of the updates' norms.
      initial_clip: From where it does, > 0.
    """
    factory = tff.aggregators.DifferentiallyPrivateFactory
    if clip is not None:
        query = factory.gaussian_fixed(float(noise_multiplier), clients_per_round, float(clip))
    else:
        # TFF's own, 0.05 n, would leave a small cohort no budget for the updates. With z their
        # multiplier is at most 1.16 z.
        count_noise = max(0.05 * clients_per_round, noise_multiplier) if noise_multiplier else 0.0
        query = factory.gaussian_adaptive(
            float(noise_multiplier),
            clients_per_round,
            float(initial_clip),
            clipped_count_stddev=count_noise,
        )
    return SkipNonFiniteFactory(tff.aggregators.as_weighted_aggregator(query))
