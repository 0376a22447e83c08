"""Flags made of declared settings: how they are parsed, and their help. Needs no TensorFlow."""

import dataclasses
import difflib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from tff_fedmeta.config import schema

WIDTH = 80
_INDENT = 26  # where the meaning of a flag begins in help

LIST, MULTI = "list", "multi"
_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    LIST: flags.DEFINE_list,
    MULTI: flags.DEFINE_multi_string,
}


class Flag(NamedTuple):
    """A flag of a command line.

    Attributes:
      name: Without the dashes.
      kind: `bool`, `int`, `float`, `str`, `LIST` for comma-separated values, or `MULTI` for a flag
        that may be given several times.
      default: None where a default is found later.
      text: What it means, with range and default.
    """

    name: str
    kind: Any
    default: Any
    text: str


Groups = Mapping[str, Sequence[Flag]]


def flags_of(settings: type) -> list[Flag]:
    """Returns a flag for each setting of a dataclass, without those that say `flag=False`.

    A flag that is not given is None, so that defaults may depend on other flags.
    """
    return [
        Flag(field.name, _kind_of_flag(field), None, schema.describe(field))
        for field in dataclasses.fields(settings)
        if field.metadata.get("flag")
    ]


def parse(groups: Groups, argv: Sequence[str]) -> dict[str, Any]:
    """Returns the value of each flag of a command line.

    Args:
      groups: The flags, by group of the help.
      argv: The command line, the program's name first.

    Raises:
      ValueError: If there is no such flag (the nearest is named), or a value is of the wrong type.
    """
    values = flags.FlagValues()
    texts = {}
    for group in groups.values():
        for flag in group:
            _DEFINE[flag.kind](flag.name, flag.default, flag.text, flag_values=values)
            texts[flag.name] = flag.text
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, texts, n=1)
        hint = f" Did you mean --{near[0]}?" if near else ""
        raise ValueError(f"There is no flag --{error.flagname}.{hint} See --help.") from error
    except flags.Error as error:
        if any("\n" in word or "\r" in word for word in argv):
            broken = next(word for word in argv if "\n" in word or "\r" in word)
            raise ValueError(f"A flag's value must not have a line break: {broken!r}.") from error
        # absl says "flag --rounds=x: ..."; what the flag takes is in its help.
        name = str(error).partition("--")[2].partition("=")[0]
        raise ValueError(f"{error}. --{name}: {texts.get(name, 'see --help')}") from error
    if len(rest) > 1:
        raise ValueError(f"Flags are written --name=value, but got {rest[1]!r}; see --help.")
    return values.flag_values_dict()


def expand(argv: Sequence[str]) -> list[str]:
    """Returns a command line with the contents of each `--flagfile=FILE` in the flag's place.

    Args:
      argv: The command line, the program's name first. A file has a flag a line; lines that begin
        with # are comments.

    Raises:
      ValueError: If a file cannot be read.
    """
    try:
        return [argv[0], *flags.FlagValues().read_flags_from_files(argv[1:], force_gnu=False)]
    except (flags.Error, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--flagfile cannot be read: {error}.") from error


def given(argv: Sequence[str], name: str) -> list[str]:
    """Returns the values that a command line gives a flag, before the flags are known.

    Args:
      argv: The command line.
      name: The flag, without dashes, written --name=value or --name value.
    """
    values: list[str] = []
    for index, word in enumerate(argv):
        start, equals, value = word.partition("=")
        if start in (f"--{name}", f"-{name}"):
            following = argv[index + 1 : index + 2]
            values += [value] if equals else following
    return values


def help_of(groups: Groups) -> str:
    """Returns the groups of flags as text of at most 80 columns."""
    lines = []
    for title, group in groups.items():
        lines.append(f"{title}:")
        for flag in group:
            default = (
                "" if flag.default in (None, [], "") else f" [{schema.in_words(flag.default)}]"
            )
            lines += row(f"--{flag.name}", flag.text + default)
        lines.append("")
    return "\n".join(lines)


def row(name: str, text: str) -> list[str]:
    """Returns a name and what it means as lines of two columns."""
    start = f"  {name} "
    lines = textwrap.wrap(text, WIDTH - _INDENT) or [""]
    if len(start) > _INDENT:
        return [start.rstrip(), *(" " * _INDENT + line for line in lines)]
    return [f"{start:<{_INDENT}}{lines[0]}", *(" " * _INDENT + line for line in lines[1:])]


def _kind_of_flag(field: "dataclasses.Field[Any]") -> Any:
    kind = schema.kind_of(field)
    return kind if kind in _DEFINE else LIST
