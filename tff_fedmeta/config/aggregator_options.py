"""The ways to combine updates, and what may be set for each. Importing this needs no TensorFlow."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Optional

from tff_fedmeta.checks import check_choice, check_count, check_number


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """An aggregator with nothing to set."""


@dataclasses.dataclass(frozen=True)
class TrimmedMean:
    """Options of the trimmed mean.

    Attributes:
      trim_fraction: The share of clients that is cut off at each end of every coordinate, in
        [0, 0.5). More than the share of attackers: a cohort may have more of them than that.
    """

    trim_fraction: float = _option(
        0.3, "Share of clients cut off at each end of every coordinate, >= 0 and < 0.5."
    )

    def __post_init__(self) -> None:
        check_number("trim_fraction", self.trim_fraction, 0)
        if self.trim_fraction >= 0.5:
            raise ValueError(f"trim_fraction must be less than 0.5, but is {self.trim_fraction}.")


@dataclasses.dataclass(frozen=True)
class Secure:
    """Options of the mean by secure sums.

    Attributes:
      secure_clip: The greatest absolute value of an update's coordinate, > 0; what is beyond is
        clipped and counted. Rounding is in proportion to it.
    """

    secure_clip: float = _option(
        1000.0, "Greatest absolute value of an update's coordinate, > 0; clipped beyond."
    )

    def __post_init__(self) -> None:
        check_number("secure_clip", self.secure_clip, 0, 1e9)
        if self.secure_clip == 0:
            raise ValueError("secure_clip must be greater than 0.")


@dataclasses.dataclass(frozen=True)
class Compressed:
    """Options of the mean of compressed updates.

    Attributes:
      compression_bits: Bits that a coordinate of a large tensor is rounded to, from 1 to 16.
    """

    compression_bits: int = _option(
        8, "Bits that a coordinate of a large tensor is rounded to, from 1 to 16."
    )

    def __post_init__(self) -> None:
        check_count("compression_bits", self.compression_bits, 1, 16)


DP_SAMPLINGS = ("fixed", "poisson")


@dataclasses.dataclass(frozen=True)
class DP:
    """Options of user-level differential privacy; see `privacy.py`.

    Attributes:
      dp_epsilon: The epsilon that all rounds together may cost, > 0, from which the noise is found;
        or
      noise_multiplier: the noise's standard deviation over the clip, >= 0.
      dp_delta: Of (epsilon, delta), in (0, 1); None is N^-1.1, N being the training clients.
      dp_clip: The norm that updates are clipped to, > 0; None: it follows the norms' median.
      dp_initial_clip: From where it does, > 0.
      dp_sampling: "fixed": cohorts as without privacy, of equal size; "poisson": every client takes
        part in a round by itself with equal probability, which costs a smaller epsilon.
    """

    dp_epsilon: Optional[float] = _option(
        None, "Epsilon that all rounds together may cost, > 0, from which the noise is found; or"
    )
    noise_multiplier: Optional[float] = _option(
        None, "the noise's standard deviation over the clip, >= 0."
    )
    dp_delta: Optional[float] = _option(
        None, "Delta of (epsilon, delta), in (0, 1) [N^-1.1 of N training clients]."
    )
    dp_clip: Optional[float] = _option(
        None, "Norm that updates are clipped to, > 0 [it follows the median of their norms]."
    )
    dp_initial_clip: float = _option(0.1, "Where a clip that follows the norms begins, > 0.")
    dp_sampling: str = _option(
        "fixed",
        "fixed: cohorts of equal size; poisson: every client by itself with equal probability, "
        "which costs a smaller epsilon.",
    )

    def __post_init__(self) -> None:
        if (self.dp_epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(
                "The aggregator dp needs one of dp_epsilon, from which it finds the noise, and "
                f"noise_multiplier; got {self.dp_epsilon} and {self.noise_multiplier}."
            )
        for name in ("dp_epsilon", "dp_clip", "dp_initial_clip"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, 0)
                if value == 0:
                    raise ValueError(f"{name} must be greater than 0.")
        if self.noise_multiplier is not None:
            check_number("noise_multiplier", self.noise_multiplier, 0)
        if self.dp_delta is not None:
            check_delta(self.dp_delta)
        check_choice("dp_sampling", self.dp_sampling, DP_SAMPLINGS)


def check_delta(delta: float) -> None:
    """Raises ValueError unless 0 < delta < 1."""
    check_number("dp_delta", delta, 0, 1)
    if delta in (0, 1):
        raise ValueError(f"dp_delta must lie between 0 and 1, both excluded, but is {delta}.")


# What a mean with differential privacy inside of the secure sum may be called.
_DISTRIBUTED_DP = ("ddp", "ddp_secure", "distributed_dp", "dp_secure", "secure_dp")
_NO_DISTRIBUTED_DP = (
    "Differential privacy inside of the secure sum is not offered: nothing accounts for its noise, "
    "which is no Gaussian, and an epsilon that is not known is no guarantee. Choose dp, where the "
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
MAX_SECURE_CLIENTS = 2048  # as many as `secure_sums.py` can add up

# Those that add noise, to nothing too: a round without clients changes the model.
PRIVATE = frozenset({"dp"})


def option_fields(name: str) -> dict[str, dataclasses.Field]:
    """Returns an aggregator's options: name -> field, with a default and a `metadata["help"]`."""
    return {field.name: field for field in dataclasses.fields(AGGREGATORS[name])}


def option_kind(field: dataclasses.Field) -> type:
    """Returns the type of an option's values, for Optional[float] as for float: float."""
    return next(t for t in (*typing.get_args(field.type), field.type) if t is not type(None))


def resolve(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all options of an aggregator: those given, and defaults for the others.

    Raises:
      ValueError: If there is no such aggregator, it has no such option or a value is wrong.
    """
    if name in _DISTRIBUTED_DP or (name in SECURE and set(options) & set(option_fields("dp"))):
        raise ValueError(_NO_DISTRIBUTED_DP)
    check_choice("aggregator", name, AGGREGATORS)
    for option in options:
        takers = [taker for taker in AGGREGATORS if option in option_fields(taker)]
        if name not in takers:
            raise ValueError(
                f"{option} is for the aggregator {' or '.join(takers)}, not for {name}."
                if takers
                else f"No aggregator has an option {option!r}."
            )
    return dataclasses.asdict(AGGREGATORS[name](**options))
