"""Who takes part in a round and who of them fails: pure functions of the run's seed."""

import functools
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow_federated as tff

from tff_fedmeta import seeds
from tff_fedmeta.config.failures import DAY, ROLE_OF_ATTACK, Failures, Role


def cohort_sampler(
    client_ids: Sequence[str], clients_per_round: int, seed: int
) -> Callable[[int], list[str]]:
    """Returns round number -> the ids of its cohort, a pure function of the seed and the number.

    Cohorts are drawn uniformly without replacement; all clients take part if there are not more
    than `clients_per_round`.
    """
    size = min(clients_per_round, len(client_ids))
    sample = tff.simulation.build_uniform_sampling_fn(
        list(client_ids), random_seed=seeds.stream_seed_int(seed, "cohorts")
    )
    return lambda round_num: sample(round_num, size)


def poisson_sampler(
    client_ids: Sequence[str], clients_per_round: int, seed: int
) -> Callable[[int], list[str]]:
    """As `cohort_sampler`, but every client takes part by itself, with equal probability.

    Cohorts differ in size, have `clients_per_round` clients in the mean and may be empty.
    """
    probability = clients_per_round / len(client_ids)

    def sample(round_num: int) -> list[str]:
        stream = seeds.stream_seed_int(seed, "poisson_cohorts", round_num)
        draws = np.random.default_rng(stream).random(len(client_ids))
        return [client_ids[index] for index in np.flatnonzero(draws < probability)]

    return sample


class Cohort(NamedTuple):
    """The clients of one round.

    Attributes:
      num_available: How many clients could be sampled.
      sampled: The sampled clients' ids.
      answering: Those that answer, in the same order.
      work_shares: The stragglers among those, and the share of work that each does.
      byzantine: The attackers among those.
    """

    num_available: int
    sampled: Sequence[str]
    answering: Sequence[str]
    work_shares: dict[str, float]
    byzantine: frozenset[str]

    @property
    def counts(self) -> dict[str, int]:
        """The columns of `metrics.csv` that tell of failures."""
        return {
            "clients/available": self.num_available,
            "clients/sampled": len(self.sampled),
            "clients/dropped": len(self.sampled) - len(self.answering),
            "clients/stragglers": len(self.work_shares),
            "clients/byzantine": len(self.byzantine),
        }

    def role(self, client: str, failures: Failures) -> Role:
        """Returns what a client that answers is told to do."""
        role = Role()
        if client in self.byzantine:
            role = ROLE_OF_ATTACK[failures.attack](failures.attack_scale)
        return role._replace(work_share=self.work_shares.get(client, 1.0))


def cohorts(
    failures: Failures,
    client_ids: Sequence[str],
    sampler_of: Callable[[Sequence[str]], Callable[[int], Sequence[str]]],
    seed: int,
) -> Callable[[int], Cohort]:
    """Returns round number -> its `Cohort`, a pure function of the seed and the number.

    Args:
      failures: How clients fail.
      client_ids: All clients that take part in training.
      sampler_of: Clients to choose from -> round number -> the clients sampled.
      seed: The run's seed.
    """
    if failures.availability < 1:
        phases = np.array([_uniform(seed, "availability", client) for client in client_ids])
    else:
        sample_all = sampler_of(client_ids)

    @functools.lru_cache(maxsize=1)  # a round's clients and its counts are asked for apart
    def cohort(round_num: int) -> Cohort:
        if failures.availability < 1:
            time_of_day = (round_num / DAY + phases) % 1.0
            here = np.flatnonzero(time_of_day < failures.availability)
            num_available = len(here)
            sampled = sampler_of([client_ids[i] for i in here])(round_num) if len(here) else []
        else:
            num_available, sampled = len(client_ids), sample_all(round_num)
        answering = [
            client
            for client in sampled
            if _uniform(seed, "dropout", round_num, client) >= failures.client_dropout
        ]
        stragglers = _some(answering, failures.straggler_fraction, seed, "stragglers", round_num)
        shares = {
            client: 1.0 - _uniform(seed, "work_share", round_num, client) for client in stragglers
        }
        attackers = _some(answering, failures.byzantine_fraction, seed, "byzantine", round_num)
        return Cohort(num_available, sampled, answering, shares, frozenset(attackers))

    return cohort


def _some(ids: Sequence[str], fraction: float, seed: int, *stream: Any) -> list[str]:
    """Returns that fraction of the ids, rounded up or down by chance, whatever their order."""
    count = int(fraction * len(ids) + _uniform(seed, *stream))
    return sorted(ids, key=lambda client: _uniform(seed, *stream, client))[:count]


def _uniform(seed: int, *stream: Any) -> float:
    """Returns a number from [0, 1), drawn from a named stream."""
    return seeds.stream_seed_int(seed, *stream) / 2**31
