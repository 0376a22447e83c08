"""How initialisations are judged on clients that were not trained on. Needs no TensorFlow."""

import dataclasses
from collections.abc import Sequence
from typing import Optional

from tff_fedmeta import checks

# As the pull of FedProx: more does not move.
MOST_STRENGTH = 1e6


@dataclasses.dataclass(frozen=True)
class AdaptationProtocol:
    """How clients adapt and are measured, the same way for every algorithm.

    Each client splits its examples into support and query, adapts on support for up to `steps`
    steps and is measured on query. Validation clients choose the rate, the number of steps and,
    if there is a choice, the strength of the pull; test clients are read once, afterwards.

    Attributes:
      support_fraction: The share of a client's examples that is support, in (0, 1).
      split: "random", "ordered" or "same"; see `client/support_query.py`.
      batch_size: Support examples in a step, >= 1.
      steps: The most steps of adaptation, >= 0.
      learning_rates: The rates to choose from, each > 0. Learnt rates are used as they are.
      proximal_strengths: How strongly steps are held to the trained weights, to choose from, each
        >= 0 (Ditto, Li et al., arXiv:2012.04221); 0 is plain SGD. Learnt rates, and a strength
        that belongs to the algorithm, are used as they are.
      seed: From which splits and orders derive, >= 0; they depend on it and a client's id alone.
      measured_every: Steps between two measurements, >= 1. A curve has an entry for every step all
        the same; those not measured are NaN, and are not chosen.
      support_size: Clients adapt on so many support examples, the first, >= 1, and those who have
        fewer are not measured; None: on all. The query stays the same.

    Raises:
      ValueError: If a value is out of its range.
    """

    support_fraction: float = 0.5
    split: str = "random"
    batch_size: int = 20
    steps: int = 5
    learning_rates: tuple[float, ...] = (0.01, 0.05, 0.1)
    proximal_strengths: tuple[float, ...] = (0.0,)
    seed: int = 0
    measured_every: int = 1
    support_size: Optional[int] = None

    def __post_init__(self) -> None:
        checks.check_split(self.support_fraction, self.split)
        checks.check_count("batch_size", self.batch_size, 1)
        checks.check_count("steps", self.steps, 0)
        checks.check_count("seed", self.seed, 0)
        checks.check_count("measured_every", self.measured_every, 1)
        if self.support_size is not None:
            checks.check_count("support_size", self.support_size, 1)
        if not self.learning_rates:
            raise ValueError("learning_rates must be one or more numbers > 0, but there are none.")
        for rate in self.learning_rates:
            checks.check_limits("learning_rates", rate, above=0)
        check_strengths("proximal_strengths", self.proximal_strengths)


def check_strengths(what: str, strengths: Sequence[float]) -> None:
    """Raises ValueError unless these are one or more different finite numbers >= 0."""
    if not strengths or len(set(strengths)) != len(strengths):
        raise ValueError(
            f"{what} must be one or more different numbers, but got {list(strengths)}."
        )
    for strength in strengths:
        checks.check_limits(what, strength, at_least=0, at_most=MOST_STRENGTH)
