"""Flags of the benchmarks: wrong ones are one sentence on stderr and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Callable

from absl import flags

from benchmarks import processes, report
from tff_fedmeta.checks import check_choice

Option = tuple[Callable[..., Any], str, Any, str]  # DEFINE_*, name, default, help

_WRITE: Option = (
    flags.DEFINE_string,
    "write",
    None,
    "Also replace this program's section of a file, e.g. docs/performance.md, with the results.",
)


def run(
    argv: Sequence[str],
    name: str,
    about: str | None,
    options: Sequence[Option],
    program: Callable[[dict[str, Any]], tuple[str, int]],
) -> int:
    """Runs a program with the values of its flags, prints its results and writes them if asked to.

    Args:
      argv: The command line.
      name: Of the program's module.
      about: The first part of the help.
      options: The flags, besides --write.
      program: Takes the flags' values by name; returns the results and the exit status. Only
        results with status 0 are written. A ValueError is the user's to mend.

    Returns:
      The exit status.
    """
    options = [*options, _WRITE]
    if {"--help", "-help", "-h"} & set(argv[1:]):
        lines = [
            f"  --{flag}" + ("" if default is None else f" [{default}]") + f"\n      {text}"
            for _, flag, default, text in options
        ]
        print("\n".join([about or "", *lines]))
        return 0
    try:
        values = _parse(argv, options)
        path = values["write"].value
        given = [f.serialize() for f in values.values() if f.present and f.name != "write"]
        if path is not None:  # a wrong file is said before hours of measuring
            report.split_at_section(path, name)
        machine = report.machine()
        text, status = program({flag.name: flag.value for flag in values.values()})
        print(f"{machine}\n\n{text}")
        if path is not None and status == 0:
            command = " ".join([f"python -m benchmarks.{name}", *given])
            report.write_section(path, name, f"`{command}`\n\n{machine}\n\n{text}")
        return status
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except processes.ProcessError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def positive_ints(what: str, texts: Sequence[str]) -> list[int]:
    """Returns a list flag's numbers; ValueError unless there are some and all are >= 1."""
    if not texts or not all(text.isdecimal() and int(text) >= 1 for text in texts):
        raise ValueError(f"{what} must be whole numbers >= 1, but got {','.join(texts)!r}.")
    return [int(text) for text in texts]


def choices(what: str, names: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """Returns a list flag's names, each once; ValueError for none and for unknown ones."""
    if not names:
        raise ValueError(f"{what} must name at least one of: {', '.join(allowed)}.")
    for name in names:
        check_choice(what, name, allowed)
    return list(dict.fromkeys(names))


def _parse(argv: Sequence[str], options: Sequence[Option]) -> dict[str, Any]:
    """Returns absl's flags by name; ValueError for what they do not take."""
    values = flags.FlagValues()
    for define, name, default, text in options:
        bounds = {"lower_bound": 1} if define is flags.DEFINE_integer else {}
        define(name, default, text, flag_values=values, **bounds)
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        check_choice("flag", error.flagname, [name for _, name, _, _ in options])
        raise ValueError(str(error)) from error
    except flags.Error as error:
        # absl says "flag --repetitions=x: ..."; what the flag takes is in its help.
        flag = str(error).partition("--")[2].partition("=")[0]
        text = {name: text for _, name, _, text in options}.get(flag, "see --help")
        raise ValueError(f"{str(error).rstrip('.')}. --{flag}: {text}") from error
    if len(rest) > 1:
        raise ValueError(f"Flags are written --name=value, but got {rest[1]!r}; see --help.")
    return {name: values[name] for _, name, _, _ in options}
