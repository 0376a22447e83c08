"""Settings declared once: a dataclass field with its default, meaning and range.

Flags, validation, `config.json`, `--help` and the documents derive from these fields.
"""

import dataclasses
import json
import typing
from collections.abc import Sequence
from typing import Any, Optional

from tff_fedmeta import checks

REQUIRED = dataclasses.MISSING
MOST_RATE = 1e6  # no learning rate exceeds it


def setting(
    default: Any,
    text: str,
    *,
    at_least: Optional[float] = None,
    above: Optional[float] = None,
    at_most: Optional[float] = None,
    below: Optional[float] = None,
    choices: Optional[Sequence[str]] = None,
    flag: bool = True,
    tune: Optional[Sequence[Any]] = None,
) -> Any:
    """Declares a setting: a field of a frozen dataclass that calls `check` when it is made.

    Args:
      default: Its default; `REQUIRED` where it has none; a dict or list is copied.
      text: What it means, in words that end with a full stop.
      at_least: The smallest value.
      above: The value that it must exceed.
      at_most: The largest value.
      below: The value that it must stay below.
      choices: The texts it can be.
      flag: Whether it is a flag of the command line.
      tune: What a search tries: (low, high) of a number, on a logarithmic scale, or the texts to
        choose from; None: it is not searched.
    """
    limits = dict(at_least=at_least, above=above, at_most=at_most, below=below)
    metadata = {"help": text, "limits": limits, "choices": choices, "flag": flag, "tune": tune}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def rate(default: float, text: str, *, tune: Optional[tuple[float, float]] = None) -> Any:
    """Declares a learning rate, which may be 0; see `setting`.

    A search tries a tenth of the default to ten times of it, unless `tune` says otherwise.
    """
    around = tune or (default / 10, default * 10)
    return setting(default, text, at_least=0, at_most=MOST_RATE, tune=around)


def same_as(settings: type, name: str) -> Any:
    """Declares a setting that another dataclass has too, with the same default and meaning."""
    (field,) = (field for field in dataclasses.fields(settings) if field.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


def check(settings: Any) -> None:
    """Raises ValueError, naming the setting and its range, unless all values are in range.

    None passes where a setting's type allows it.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if "limits" not in field.metadata or (
            value is None and type(None) in typing.get_args(field.type)
        ):
            continue
        limits, choices = field.metadata["limits"], field.metadata["choices"]
        if choices is not None:
            checks.check_choice(field.name, value, choices)
        elif kind_of(field) is int:
            checks.check_integer(field.name, value)
            checks.check_limits(field.name, value, **limits)
        elif kind_of(field) is float:
            checks.check_limits(field.name, value, **limits)


def kind_of(field: "dataclasses.Field[Any]") -> Any:
    """Returns the type of a setting's values; for Optional[float] too it is float."""
    options = typing.get_args(field.type) if type(None) in typing.get_args(field.type) else ()
    return next((t for t in options if t is not type(None)), field.type)


def parse(name: str, value: Any, kind: Any) -> Any:
    """Returns a value, which may be text of a command line, as `kind`: bool, int, float or str.

    Raises:
      ValueError: If it is not such a value.
    """
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, but is {value!r}.")
        return str(value).lower() == "true"
    try:
        return kind(value)
    except (TypeError, ValueError):
        number = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {number}, but is {value!r}.") from None


def describe(field: "dataclasses.Field[Any]") -> str:
    """Returns what a setting means, its choices or range and its default, in one line."""
    text, choices = field.metadata["help"], field.metadata["choices"]
    limits = range_in_words(**field.metadata["limits"])
    if choices is not None and not all(f"{choice}" in text for choice in choices):
        limits = f"one of {', '.join(choices)}"
    if limits:
        end = "." if text.endswith(".") else ""
        text = f"{text.rstrip('.')} ({limits}){end}"
    default = default_of(field)
    nothing: tuple[Any, ...] = (None, REQUIRED, {}, [], ())
    return text if default in nothing else f"{text} [{in_words(default)}]"


def in_words(value: Any) -> str:
    """Returns a setting's value as help shows it, and as a command line takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """Returns a setting's default, `REQUIRED` where there is none."""
    if field.default_factory is not REQUIRED:
        return field.default_factory()
    return field.default


def range_in_words(
    at_least: Optional[float] = None,
    above: Optional[float] = None,
    at_most: Optional[float] = None,
    below: Optional[float] = None,
) -> str:
    """Returns a range as it stands in help, e.g. "0 to 1" or "> 0 and <= 1"; "" for all numbers."""
    if at_least is not None and at_most is not None:
        return f"{_number(at_least)} to {_number(at_most)}"
    words = ((">=", at_least), (">", above), ("<=", at_most), ("<", below))
    return " and ".join(f"{sign} {_number(limit)}" for sign, limit in words if limit is not None)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
