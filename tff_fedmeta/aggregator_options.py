"""The ways to combine updates, and what may be set for each. Importing this needs no TensorFlow."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from tff_fedmeta.hyperparameters import check_choice, check_count, check_number


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
        check_number("secure_clip", self.secure_clip, 0)
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


# name -> its options, in the order in which aggregators are listed to users. Every option is a flag
# of the same name, so no two aggregators have one that means different things.
AGGREGATORS: dict[str, type] = {
    "mean": NoOptions,
    "robust": NoOptions,
    "median": NoOptions,
    "trimmed_mean": TrimmedMean,
    "secure": Secure,
    "compressed": Compressed,
}

# Those that are made of secure sums, which TFF's worker cannot compute.
SECURE = frozenset({"secure"})


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
