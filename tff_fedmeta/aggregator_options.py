"""The ways to combine updates, and what may be set for each. Importing this needs no TensorFlow."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from tff_fedmeta.hyperparameters import check_choice, check_number


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


# name -> its options, in the order in which aggregators are listed to users. Every option is a flag
# of the same name, so no two aggregators have one that means different things.
AGGREGATORS: dict[str, type] = {
    "mean": NoOptions,
    "robust": NoOptions,
    "trimmed_mean": TrimmedMean,
}


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
