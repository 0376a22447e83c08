"""What may be set for a data set: one declaration is its flag, range, help, JSON and documentation.

@dataclasses.dataclass(frozen=True)
class Options(datasets.Options):
    ways: int = option(5, "Classes of a client.", at_least=2)
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datasets.task import DataError

_KINDS = {kind.__name__: kind for kind in (bool, int, float, str)}
LARGEST = {int: 2**31 - 1, float: 1e38}  # what no option exceeds: int32 and float32 hold it
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def option(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    more_than: float | None = None,
    at_most: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declares a field of a data set's options.

    Args:
      default: What holds if the option is not given; None stands for "not said" and has no range.
      help: What the option means, in a sentence. Its range is added to it.
      at_least: The smallest number allowed.
      more_than: A number that all allowed ones exceed.
      at_most: The largest number allowed, at the most that of `LARGEST`.
      choices: The texts allowed.
    """
    limits = {
        "at_least": at_least,
        "more_than": more_than,
        "at_most": at_most,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class Options:
    """A data set's options: a frozen dataclass whose fields are made by `option`.

    Raises:
      DataError: If a value is not of its field's kind, or out of its range.
    """

    def __post_init__(self) -> None:
        check(self)


class OptionRow(NamedTuple):
    """What there is to say of one option.

    Attributes:
      name: The field's name, and the flag's.
      kind: `bool`, `int`, `float` or `str`.
      default: What holds if it is not given; None stands for "not said".
      range: What is allowed, such as ">= 2"; "" if everything of its kind is.
      help: What it means.
    """

    name: str
    kind: type
    default: Any
    range: str
    help: str

    @property
    def text(self) -> str:
        """The help with the range, such as "Classes of a client (>= 2)."."""
        return f"{self.help.rstrip('.')} ({self.range})." if self.range else self.help


def describe(options: type) -> list[OptionRow]:
    """Returns a row for each option, in the order of their declaration.

    Args:
      options: A dataclass. Fields that are not made by `option` have no help and no range.

    Raises:
      DataError: If it is not a dataclass, or a field has no default or another kind than `bool`,
        `int`, `float` or `str`, each of which may be None.
    """
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise DataError(f"The options of a data set must be a dataclass, but are {options!r}.")
    return [_describe(options, field) for field in dataclasses.fields(options)]


def check(options: Any) -> None:
    """Checks the values of a dataclass of options against their declarations.

    Raises:
      DataError: If a value is not of its field's kind, or out of its range.
    """
    for field, row in zip(dataclasses.fields(options), describe(type(options))):
        value = getattr(options, field.name)
        if value is None and field.default is None:
            continue
        if not (_is_kind(value, row.kind) and _is_in_range(value, field.metadata)):
            kind = "one of" if field.metadata.get("choices") else _NAMES[row.kind]
            said = f"{kind} {row.range}".strip()
            raise DataError(f"{field.name} must be {said}, but is {value!r}.")


def make(kind: type, values: Mapping[str, Any]) -> Any:
    """Makes options of `values`; a field that is left out gets its default.

    Raises:
      DataError: If there is no such option, or a value is not of its kind or out of its range.
    """
    names = [row.name for row in describe(kind)]
    unknown = [name for name in values if name not in names]
    if unknown:
        has = f"its options are {', '.join(names)}" if names else "it has no options"
        raise DataError(f"The data set has no option {unknown[0]!r}: {has}.")
    options = kind(**values)
    check(options)  # a dataclass of another base does not check itself
    return options


def _describe(options: type, field: dataclasses.Field[Any]) -> OptionRow:
    kind = _kind(field.type)
    if kind is None:
        raise DataError(
            f"The option {field.name!r} must be of type bool, int, float or str, or one of them or "
            f"None, but is of {field.type!r}."
        )
    if field.default is dataclasses.MISSING:
        raise DataError(f"The option {field.name!r} must have a default value: give it one.")
    return OptionRow(
        field.name, kind, field.default, _range(field.metadata), field.metadata.get("help", "")
    )


def _kind(annotation: Any) -> type | None:
    """Returns the kind of `X`, `X | None` and `Optional[X]`, as text too, else None."""
    if not isinstance(annotation, str):
        arguments = typing.get_args(annotation) or (annotation,)
        (annotation, *others) = [one for one in arguments if one is not type(None)]
        return annotation if not others and annotation in _KINDS.values() else None
    text = re.sub(r"\s", "", annotation)
    optional = re.fullmatch(r"(?:typing\.)?Optional\[(\w+)\]", text)
    name = optional[1] if optional else re.sub(r"\|None$|^None\|", "", text)
    return _KINDS.get(name)


def _range(limits: Mapping[str, Any]) -> str:
    if limits.get("choices") is not None:
        return ", ".join(limits["choices"])
    signs = {"at_least": ">=", "more_than": ">", "at_most": "<="}
    stated = (f"{sign} {limits[name]:,}" for name, sign in signs.items() if _has(limits, name))
    return " and ".join(stated)


def _is_kind(value: Any, kind: type) -> bool:
    if kind in (bool, str):
        return isinstance(value, kind)
    numbers_of_kind = numbers.Integral if kind is int else numbers.Real
    return isinstance(value, numbers_of_kind) and not isinstance(value, bool)


def _is_in_range(value: Any, limits: Mapping[str, Any]) -> bool:
    if limits.get("choices") is not None:
        return value in limits["choices"]
    if isinstance(value, (bool, str)):
        return True
    kind = int if isinstance(value, numbers.Integral) else float
    most = limits["at_most"] if _has(limits, "at_most") else LARGEST[kind]
    return (
        (kind is int or math.isfinite(value))
        and not (_has(limits, "at_least") and value < limits["at_least"])
        and not (_has(limits, "more_than") and value <= limits["more_than"])
        and value <= most
    )


def _has(limits: Mapping[str, Any], name: str) -> bool:
    return limits.get(name) is not None
