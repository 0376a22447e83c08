"""User-level differential privacy: its accountant. Importing this needs no TensorFlow.

Every client's update is clipped to a norm C, the server adds Gaussian noise of standard deviation
z * C to the sum and divides by the *expected* cohort n (McMahan et al., arXiv:1710.06963; C follows
the median of the norms as in Andrew, Thakkar et al., arXiv:1905.03871, and pays for that from the
same budget). All clients count the same; one that is left out counts as zeros.

What epsilon says depends on how cohorts are drawn:

| sampling | event of a round | neighbours: one client is |
|---|---|---|
| fixed | n of N without replacement, Gaussian of multiplier z / 2 | replaced |
| poisson | each of N with probability n / N, Gaussian of multiplier z | added or removed |

Replacing a client takes one clipped update out of the sum and puts another in, a change of norm
2 C: hence z / 2, which `dp_accounting` does not do by itself.
"""

import dataclasses
import functools
import math
from typing import Any, Optional

import dp_accounting
import scipy.optimize
from dp_accounting import rdp

from tff_fedmeta import checks
from tff_fedmeta.config import aggregator_options

# Where the search for a noise multiplier begins. Below, epsilon is beyond any use.
_LEAST_NOISE = 0.2
_TOLERANCE = 5e-4  # of the noise multiplier that is found, relative


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """What every round of a run costs in privacy.

    Attributes:
      noise_multiplier: z, >= 0: the noise's standard deviation over the clip. 0 gives no privacy.
      clients_per_round: n, the clients of a round, or how many are expected, >= 1.
      population: N, the clients that cohorts are drawn from, >= n.
      delta: The probability with which the guarantee may fail, in (0, 1).
      sampling: "fixed" or "poisson".
    """

    noise_multiplier: float
    clients_per_round: int
    population: int
    delta: float
    sampling: str = "fixed"

    def __post_init__(self) -> None:
        checks.check_number("noise_multiplier", self.noise_multiplier, 0)
        checks.check_count("population", self.population, 1)
        checks.check_count("clients_per_round", self.clients_per_round, 1, self.population)
        aggregator_options.check_delta(self.delta)
        checks.check_choice("dp_sampling", self.sampling, aggregator_options.DP_SAMPLINGS)

    @property
    def event(self) -> dp_accounting.DpEvent:
        """The event of one round."""
        n, total = self.clients_per_round, self.population
        if self.sampling == "poisson":
            gaussian = dp_accounting.GaussianDpEvent(self.noise_multiplier)
            return dp_accounting.PoissonSampledDpEvent(n / total, gaussian)
        gaussian = dp_accounting.GaussianDpEvent(self.noise_multiplier / 2)
        return dp_accounting.SampledWithoutReplacementDpEvent(total, n, gaussian)

    def accountant(self) -> rdp.RdpAccountant:
        """Returns an accountant that has seen nothing yet, for the neighbours of the sampling."""
        relation = dp_accounting.NeighboringRelation
        poisson = self.sampling == "poisson"
        return rdp.RdpAccountant(
            neighboring_relation=relation.ADD_OR_REMOVE_ONE if poisson else relation.REPLACE_ONE
        )

    @functools.cached_property
    def _of_one_round(self) -> rdp.RdpAccountant:
        return self.accountant().compose(self.event)  # a second, once

    def epsilon(self, rounds: int) -> float:
        """Returns the epsilon of so many rounds at `delta`; infinity without noise."""
        if rounds == 0:
            return 0.0
        if self.noise_multiplier == 0:
            return math.inf
        one = self._of_one_round
        return float(rdp.compute_epsilon(one.orders, rounds * one.rdp, self.delta)[0])


def guarantee(options: Any, clients_per_round: int, population: int, rounds: int) -> Guarantee:
    """Returns the guarantee that an aggregator's options describe, its noise found if need be.

    Args:
      options: All options of "dp" (`aggregator_options.DP`), by name.
      clients_per_round: The cohort's size, or its mean.
      population: The clients that cohorts are drawn from.
      rounds: After how many rounds `dp_epsilon` is to be reached.
    """
    delta = options["dp_delta"]
    delta = population**-1.1 if delta is None else delta
    more = (clients_per_round, population, delta, options["dp_sampling"])
    noise = options["noise_multiplier"]
    if noise is None:
        noise = find_noise(options["dp_epsilon"], rounds, *more)
    return Guarantee(noise, *more)


@functools.lru_cache(maxsize=8)
def find_noise(
    epsilon: float,
    rounds: int,
    clients_per_round: int,
    population: int,
    delta: float,
    sampling: str = "fixed",
) -> float:
    """Returns the least noise multiplier with which `rounds` rounds cost at most `epsilon`.

    Args:
      epsilon: What is to be spent, > 0.
      rounds: In how many rounds, >= 1.
      clients_per_round: As in `Guarantee`, and so are the others.
      population: As there.
      delta: As there.
      sampling: As there.

    Raises:
      ValueError: If it would take more noise than `aggregator_options.MOST_NOISE`.
    """

    def costs(noise: float) -> Guarantee:
        return Guarantee(noise, clients_per_round, population, delta, sampling)

    def excess(log_noise: float) -> float:  # nearly a straight line
        spent = costs(math.exp(log_noise)).epsilon(rounds)
        return math.log(max(spent, 1e-12) / epsilon)

    most = aggregator_options.MOST_NOISE
    bracket = math.log(_LEAST_NOISE), math.log(most)
    if excess(bracket[0]) <= 0:
        return _LEAST_NOISE
    if excess(bracket[1]) > 0:
        raise ValueError(
            f"dp_epsilon={epsilon:g} would take a noise_multiplier above {most:g} in {rounds} "
            f"rounds of {clients_per_round} of {population} clients: ask for a larger epsilon, "
            "fewer rounds, or a smaller share of the clients in a round."
        )
    noise = math.exp(scipy.optimize.brentq(excess, *bracket, xtol=_TOLERANCE))
    while costs(noise).epsilon(rounds) > epsilon:  # the root may lie on either side
        noise *= 1 + _TOLERANCE
    return noise


def noise_in_words(
    noise_multiplier: float, clients_per_round: int, num_weights: int
) -> Optional[str]:
    """Returns a warning if the noise in the mean is larger than any mean can be, else None.

    Args:
      noise_multiplier: z.
      clients_per_round: n.
      num_weights: How many numbers an update has.
    """
    each = noise_multiplier / clients_per_round
    whole = each * math.sqrt(num_weights)
    if whole <= 1:
        return None
    return (
        f"The noise is unusable: with {clients_per_round} clients a round its standard deviation "
        f"in the mean is {each:.2g} of the clip in each of {num_weights:,} weights, a norm of "
        f"{whole:.3g} clips, while no mean of clipped updates exceeds one; it takes about "
        f"{math.ceil(clients_per_round * whole):,} clients a round, a smaller model or less noise."
    )
