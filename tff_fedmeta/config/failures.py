"""Clients that fail: who does in a round, and how. Pure functions of the run's seed.

A client may be absent, not answer, do a part of its work, or attack. What happens is decided here,
outside of TFF: absent and silent clients are not handed to the learning process, labels are flipped
in the data, and a client that does less work or sends something else is told so by its `Role`, a
part of its element (`algorithms/client_roles.py`). Importing this needs no TensorFlow.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from tff_fedmeta import checks, seeds

# Rounds after which the same clients are available again.
DAY = 24


class Role(NamedTuple):
    """What a client is told to do: float32 [3] under "role" in its element.

    Attributes:
      work_share: The share of its local steps that it takes, in (0, 1], at least one.
      factor: What it multiplies its update by; may be NaN.
      noise: The norm of the Gaussian noise that it adds, in norms of its update, >= 0.
    """

    work_share: float = 1.0
    factor: float = 1.0
    noise: float = 0.0


# What an attacker does with its update, `attack_scale` being s. "label_flip" attacks its data.
_SENT: dict[str, Callable[[float], Role]] = {
    "sign_flip": lambda s: Role(factor=-s),
    "scale": lambda s: Role(factor=s),
    "noise": lambda s: Role(factor=0.0, noise=s),
    "nan": lambda s: Role(factor=float("nan")),
    "label_flip": lambda s: Role(),
}
ATTACKS = tuple(_SENT)


@dataclasses.dataclass(frozen=True)
class Failures:
    """How clients fail.

    Fractions are of the clients that answer in a round, drawn anew in each. Where they make no
    whole number of clients, chance rounds them, so that they hold over the rounds.

    Attributes:
      client_dropout: Probability that a sampled client never answers in a round, in [0, 1].
      straggler_fraction: The fraction, in [0, 1], that takes a part of its local steps, at least
        one: a share drawn uniformly from (0, 1].
      availability: The share of the rounds in which a client can be sampled, in (0, 1]: a window,
        each client's own, of every `DAY` rounds.
      byzantine_fraction: The fraction, in [0, 1], that attacks.
      attack: What attackers do: "sign_flip" sends -s times the update, "scale" s times, "noise"
        Gaussian noise of s times the update's norm instead of it, "nan" NaN; "label_flip" trains
        honestly on the labels in reverse, class c as class C - 1 - c.
      attack_scale: s, > 0; "nan" and "label_flip" have none.
    """

    client_dropout: float = 0.0
    straggler_fraction: float = 0.0
    availability: float = 1.0
    byzantine_fraction: float = 0.0
    attack: str = "sign_flip"
    attack_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("client_dropout", "straggler_fraction", "byzantine_fraction"):
            checks.check_number(name, getattr(self, name), 0, 1)
        for name, high in (("availability", 1), ("attack_scale", np.inf)):
            value = getattr(self, name)
            checks.check_number(name, value, 0, high)
            if value == 0:
                raise ValueError(f"{name} must be greater than 0, but is {value}.")
        checks.check_choice("attack", self.attack, ATTACKS)
        if self.byzantine_fraction == 0 and (self.attack, self.attack_scale) != ("sign_flip", 1.0):
            raise ValueError(
                "attack and attack_scale need a byzantine_fraction > 0: nobody attacks otherwise."
            )
        if self.byzantine_fraction and self.attack == "scale" and self.attack_scale == 1:
            raise ValueError("attack scale needs an attack_scale other than 1, e.g. 1000.")

    @property
    def any(self) -> bool:
        """Whether any client fails."""
        return self.availability < 1 or any(
            (self.client_dropout, self.straggler_fraction, self.byzantine_fraction)
        )

    @property
    def flip_labels(self) -> bool:
        """Whether there are attackers that train on flipped labels."""
        return self.byzantine_fraction > 0 and self.attack == "label_flip"

    @property
    def need_roles(self) -> bool:
        """Whether clients' elements must hold a `Role`."""
        return self.straggler_fraction > 0 or (self.byzantine_fraction > 0 and not self.flip_labels)


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
            role = _SENT[failures.attack](failures.attack_scale)
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


def flip_labels(y: Any, num_classes: int) -> np.ndarray:
    """Returns class c as class num_classes - 1 - c: what an attacker that flips labels trains on.

    Raises:
      ValueError: If the labels are no whole numbers.
    """
    y = np.asarray(y)
    check_labels(y.dtype)
    return (num_classes - 1 - y).astype(y.dtype)


def check_labels(dtype: Any) -> None:
    """Raises ValueError unless labels of this type, None if there are several, can be flipped."""
    if dtype is None or not np.issubdtype(dtype, np.integer):
        kind = "several arrays" if dtype is None else np.dtype(dtype).name
        others = ", ".join(attack for attack in ATTACKS if attack != "label_flip")
        raise ValueError(
            "attack=label_flip needs labels that are whole numbers, classes, but those of this "
            f"task are {kind}; choose another attack: {others}."
        )


def _some(ids: Sequence[str], fraction: float, seed: int, *stream: Any) -> list[str]:
    """Returns that fraction of the ids, rounded up or down by chance, whatever their order."""
    count = int(fraction * len(ids) + _uniform(seed, *stream))
    return sorted(ids, key=lambda client: _uniform(seed, *stream, client))[:count]


def _uniform(seed: int, *stream: Any) -> float:
    """Returns a number from [0, 1), drawn from a named stream."""
    return seeds.stream_seed_int(seed, *stream) / 2**31
