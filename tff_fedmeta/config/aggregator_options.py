"""The ways to combine updates, and what may be set for each. Importing this needs no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

from tff_fedmeta import checks
from tff_fedmeta.config import schema
from tff_fedmeta.config.schema import setting


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """An aggregator with nothing to set."""

    def __post_init__(self) -> None:
        schema.check(self)


@dataclasses.dataclass(frozen=True)
class TrimmedMean(NoOptions):
    """Options of the trimmed mean; a cohort may have more attackers than their share of clients."""

    trim_fraction: float = setting(
        0.3, "Share of clients cut off at each end of every coordinate.", at_least=0, below=0.5
    )


@dataclasses.dataclass(frozen=True)
class Secure(NoOptions):
    """Options of the mean by secure sums; rounding is in proportion to the clip."""

    secure_clip: float = setting(
        1000.0,
        "Greatest absolute value of an update's coordinate; beyond it is clipped and counted.",
        above=0,
        at_most=1e9,
    )


@dataclasses.dataclass(frozen=True)
class Compressed(NoOptions):
    """Options of the mean of compressed updates."""

    compression_bits: int = setting(
        8, "Bits that a coordinate of a large tensor is rounded to.", at_least=1, at_most=16
    )


# Within these the accountant's arithmetic holds; beyond them no run is of use.
LEAST_NOISE, MOST_NOISE = 0.01, 1e5
LEAST_DELTA = 1e-15

DP_SAMPLINGS = ("fixed", "poisson")


@dataclasses.dataclass(frozen=True)
class DP(NoOptions):
    """Options of user-level differential privacy; see `aggregation/privacy.py`."""

    dp_epsilon: Optional[float] = setting(
        None,
        "Epsilon that all rounds together may cost, from which the noise is found; or",
        at_least=0.01,
        at_most=1e6,
    )
    noise_multiplier: Optional[float] = setting(
        None,
        f"the noise's standard deviation over the clip; 0: clipping alone, else >= {LEAST_NOISE}.",
        at_least=0,
        at_most=MOST_NOISE,
    )
    dp_delta: Optional[float] = setting(
        None,
        "Delta of (epsilon, delta) [N^-1.1 of N training clients].",
        at_least=LEAST_DELTA,
        below=1,
    )
    dp_clip: Optional[float] = setting(
        None,
        "Norm that updates are clipped to [it follows the median of their norms].",
        at_least=1e-30,
        at_most=1e30,
    )
    dp_initial_clip: float = setting(
        0.1, "Where a clip that follows the norms begins.", at_least=1e-30, at_most=1e30
    )
    dp_sampling: str = setting(
        "fixed",
        "fixed: cohorts of equal size; poisson: every client by itself with equal probability, "
        "which costs a smaller epsilon.",
        choices=DP_SAMPLINGS,
    )

    def __post_init__(self) -> None:
        if (self.dp_epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(
                "The aggregator dp needs one of dp_epsilon, from which it finds the noise, and "
                f"noise_multiplier; got {self.dp_epsilon} and {self.noise_multiplier}."
            )
        super().__post_init__()
        if self.noise_multiplier is not None:
            check_noise(self.noise_multiplier)
        if self.dp_clip is not None and self.dp_initial_clip != 0.1:
            raise ValueError(
                "dp_clip fixes the clip, and dp_initial_clip is where one that follows the norms "
                f"begins: give one of them, not both ({self.dp_clip} and {self.dp_initial_clip})."
            )


def check_delta(delta: float) -> None:
    """Raises ValueError unless delta lies in [LEAST_DELTA, 1)."""
    checks.check_limits("dp_delta", delta, at_least=LEAST_DELTA, below=1)


def check_noise(noise_multiplier: float) -> None:
    """Raises ValueError unless there is no noise, or as much as can be accounted for."""
    if noise_multiplier != 0:
        checks.check_number(
            "noise_multiplier, if not 0,", noise_multiplier, LEAST_NOISE, MOST_NOISE
        )


# What a mean with differential privacy inside of the secure sum may be called.
_DISTRIBUTED_DP = ("ddp", "ddp_secure", "distributed_dp", "dp_secure", "secure_dp")
_NO_DISTRIBUTED_DP = (
    "Differential privacy inside of the secure sum is not offered: nothing accounts for its noise, "
    "which is not Gaussian, and an unknown epsilon is not a guarantee. Choose dp, where the "
    "server adds the noise, or secure."
)

# name -> its options, in the order in which aggregators are listed to users. Every option is a flag
# of the same name, so no two aggregators have one that means different things.
AGGREGATORS: dict[str, type] = {
    "mean": NoOptions,
    "robust": NoOptions,
    "median": NoOptions,
    "trimmed_mean": TrimmedMean,
    "secure": Secure,
    "compressed": Compressed,
    "dp": DP,
}

# Those that are made of secure sums, which TFF's worker cannot compute.
SECURE = frozenset({"secure"})
MAX_SECURE_CLIENTS = 2048  # as many as `aggregation/secure_sums.py` can add up

# Those that add noise, to nothing too: a round without clients changes the model.
PRIVATE = frozenset({"dp"})


def option_fields(name: str) -> dict[str, dataclasses.Field]:
    """Returns an aggregator's options: name -> field, with a default and a `metadata["help"]`."""
    return {field.name: field for field in dataclasses.fields(AGGREGATORS[name])}


def _options() -> str:
    return ", ".join(
        f"{option} of {name}" for name in AGGREGATORS for option in option_fields(name)
    )


def resolve(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all options of an aggregator: those given, and defaults for the others.

    Raises:
      ValueError: If there is no such aggregator, it has no such option or a value is wrong.
    """
    if name in _DISTRIBUTED_DP or (name in SECURE and set(options) & set(option_fields("dp"))):
        raise ValueError(_NO_DISTRIBUTED_DP)
    checks.check_choice("aggregator", name, AGGREGATORS)
    for option in options:
        takers = [taker for taker in AGGREGATORS if option in option_fields(taker)]
        if name not in takers:
            raise ValueError(
                f"{option} is for the aggregator {' or '.join(takers)}, not for {name}."
                if takers
                else f"No aggregator has an option {option!r}; those there are: {_options()}."
            )
    return dataclasses.asdict(AGGREGATORS[name](**options))
