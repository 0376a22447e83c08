"""Which columns of a table have which part: names, lists, patterns; all that is wrong at once."""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datasets.tables import columns
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

PARTS = (
    *("client_column", "label_column", "time_column", "series_column", "split_column"),
    "weight_column",
)
_KINDS = {
    "categorical_columns": columns.CATEGORIES,
    "numeric_columns": columns.NUMBERS,
    "embedding_columns": columns.IDS,
}
_LISTS = ("feature_columns", "exclude_columns", *_KINDS)
CLOCKS = ("hour", "weekday")


def listed(text: str | None) -> list[str]:
    """Returns the names in a list: 'a,"b, c",d' names a, "b, c" and d."""
    if text is None:
        return []
    try:
        cells = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:  # a line break, for one
        reason = "it has a line break" if {"\n", "\r"} & set(text) else str(error)
        raise DataError(
            f"{text!r} is not a list of names with commas between them: {reason}."
        ) from None
    return list(dict.fromkeys(cell.strip() for cell in cells if cell.strip()))


def parts(options: Any) -> dict[str, list[str]]:
    """Returns part -> the columns that have it; a time may be in two columns."""
    named = {part: getattr(options, part) for part in PARTS}
    return {
        part: listed(name) if part == "time_column" else [name]
        for part, name in named.items()
        if name is not None
    }


def check(names: Sequence[str], options: Any) -> None:
    """Raises DataError, with all of them, if columns do not exist or have two parts.

    Args:
      names: The table's columns.
      options: Has the parts and lists as attributes.
    """
    problems = []
    part_of: dict[str, str] = {}
    for part, found in parts(options).items():
        for name in found:
            if name not in names:
                problems.append(columns.unknown(names, part, name))
            other = part_of.get(name)
            # The client may be its own series or group; a label that is something else is not one.
            if other is not None and "label_column" in (other, part):
                problems.append(f"--{other} and --{part} cannot both be {name!r}.")
            part_of[name] = part
    for option in _LISTS:
        for name in listed(getattr(options, option, None)):
            if name not in names and not fnmatch.filter(names, name):
                problems.append(columns.unknown(names, option, name))
    try:
        clocks(options)
    except DataError as error:
        problems.append(str(error))
    if problems:
        raise DataError(" ".join(problems))


def matching(names: Sequence[str], text: str | None) -> list[str]:
    """Returns the columns that a list names, by name or by a pattern such as sensor_*."""
    found: list[str] = []
    for name in listed(text):
        found += [name] if name in names else fnmatch.filter(names, name)
    return list(dict.fromkeys(found))


def features(frame: pd.DataFrame, options: Any) -> list[str]:
    """Returns the feature columns: those named, or all that have no other part.

    Raises:
      DataError: If there is none, or the label is one that it may not be.
    """
    names = [str(name) for name in frame.columns]
    taken = {name for found in parts(options).values() for name in found}
    excluded = matching(names, options.exclude_columns)
    if options.feature_columns is None:
        found = [name for name in names if name not in taken and name not in excluded]
    else:
        found = [n for n in matching(names, options.feature_columns) if n not in excluded]
    if options.label_column in found and not options.horizon:
        raise DataError(
            f"The label {options.label_column!r} cannot be a feature too, unless an example is "
            "labelled by a later row (--horizon)."
        )
    if not found and not clocks(options):
        raise DataError("No column is left to be a feature.")
    return found


def kinds(frame: pd.DataFrame, options: Any) -> dict[str, str]:
    """Returns column -> "categories", "numbers" or "ids", for columns of which the user said so."""
    names = [str(name) for name in frame.columns]
    kind_of: dict[str, str] = {}
    said_by: dict[str, str] = {}
    for option, kind in _KINDS.items():
        for name in matching(names, getattr(options, option)):
            if name in said_by:
                raise DataError(f"--{said_by[name]} and --{option} both name {name!r}.")
            kind_of[name], said_by[name] = kind, option
    return kind_of


def clocks(options: Any) -> list[str]:
    """Returns which times are features: "hour", "weekday".

    Raises:
      DataError: If there is none of a name, or no column of times.
    """
    named = listed(options.time_features)
    for name in named:
        if name not in CLOCKS:
            raise DataError(f"--time_features must be of {', '.join(CLOCKS)}, but got {name!r}.")
    if named and options.time_column is None:
        raise DataError("--time_features needs a --time_column.")
    return named
