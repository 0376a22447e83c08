"""Prints what is understood of a table, and a command line to train on it.

python -m datasets.table_info FILE [--separator=; and the other options of the file]
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables import columns, csv_text, files, selection
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

_FLAGS = ("separator", "decimal", "encoding", "no_header", "column_names", "missing_values")


@dataclasses.dataclass(frozen=True)
class Guess:
    """Columns that may have a part, the likeliest first."""

    client: list[str]
    label: list[str]
    time: list[str]


def info(path: str, form: csv_text.Format | None = None) -> str:
    """Returns, as text, what is understood of a table.

    Args:
      path: The file, folder or pattern.
      form: How the file is written.

    Raises:
      DataError: If it cannot be read.
    """
    frame, said, form = files.read(path, form=form)
    rows = {str(name): _describe(frame[name]) for name in frame.columns}
    guess = guess_parts(frame)
    lines = [f"{path}: {len(frame):,} rows, {len(rows)} columns.", *said]
    lines.append(
        f"Separator {form.separator!r}, decimal {form.decimal!r}." if form.separator else ""
    )
    width = max(map(len, rows))
    lines += [f"  {name:<{width}}  {text}" for name, text in rows.items()]
    for part in ("client", "label", "time"):
        found = getattr(guess, part)
        lines.append(f"Could be the {part}: {columns.listed(found[:4]) if found else 'none'}.")
    if guess.client and guess.label:
        sizes = frame[guess.client[0]].value_counts()
        lines.append(
            f"{guess.client[0]!r} has {len(sizes):,} clients of {sizes.min():,} to {sizes.max():,} "
            f"rows; {int((sizes < 2).sum())} of them have fewer than two."
        )
        command = [
            "python run_experiment.py --dataset=csv",
            f"--csv={shlex.quote(path)}",
            f"--client_column={shlex.quote(guess.client[0])}",
            f"--label_column={shlex.quote(guess.label[0])}",
        ]
        command += [f"--time_column={shlex.quote(guess.time[0])}"] if guess.time else []
        lines += ["To train on it, if these columns are right:", "  " + " ".join(command)]
    return "\n".join(lines)


def guess_parts(frame: pd.DataFrame) -> Guess:
    """Guesses from values, and a little from names, which columns could have which part."""
    distinct = {str(name): frame[name].nunique() for name in frame.columns}
    numeric = {name: _is_number(frame[name]) for name in distinct}
    time = [name for name in distinct if _is_time(frame[name], numeric[name])]
    client = [
        name
        for name, count in distinct.items()
        if 3 <= count <= len(frame) / 2 and not _is_fraction(frame[name]) and name not in time
    ]
    names = ("client", "user", "person", "subject", "home", "house", "who", "id", "station")
    # Text before numbers; ids have more values than codes of anything else.
    client.sort(
        key=lambda n: (not any(part in n.lower() for part in names), numeric[n], -distinct[n])
    )
    first = client[:1]
    targets = ("label", "target", "class", "y", "activity", "score")
    label = [name for name in distinct if name not in [*first, *time] and distinct[name] >= 2]
    label.sort(key=lambda n: (n.lower() not in targets, -list(distinct).index(n)))
    return Guess(client, label, time)


def _describe(column: pd.Series) -> str:
    missing = f"{column.isna().mean():.0%} missing, " if column.isna().any() else ""
    seen = column.dropna()
    if not len(seen):
        return "empty"
    distinct = f"{seen.nunique():,} different"
    if _is_number(column):
        return f"numbers   {missing}{distinct}, {seen.min():.6g} to {seen.max():.6g}"
    some = ", ".join(repr(str(value)) for value in seen.unique()[:3])
    return f"text      {missing}{distinct}, such as {some}"


def _is_number(column: pd.Series) -> bool:
    return column.dtype.kind in "iuf"


def _is_fraction(column: pd.Series) -> bool:
    return column.dtype.kind == "f" and bool((column.dropna() % 1 != 0).any())


def _is_time(column: pd.Series, is_number: bool) -> bool:
    from datasets.tables import times

    if is_number:
        return str(column.name).lower() in ("t", "time", "timestamp", "epoch", "step")
    if column.isna().any() or column.nunique() < 2:
        return False
    some = column.iloc[:1000]
    try:
        return bool(np.issubdtype(times.times(some).dtype, np.datetime64))
    except DataError as error:
        return "--time_format" in str(error)  # dates, though in two readings


def main(argv: Sequence[str]) -> int:
    """Prints what is understood of the file; returns 2 after a mistake."""
    paths = [text for text in argv[1:] if not text.startswith("--")]
    given: dict[str, Any] = {}
    for text in argv[1:]:
        name, _, value = text[2:].partition("=")
        if text.startswith("--") and name in _FLAGS:
            given[name] = value
        elif text.startswith("--"):
            paths = []
    if len(paths) != 1:
        flags = ", ".join(f"--{flag}" for flag in _FLAGS)
        print(f"Error: give one FILE, and any of {flags}.", file=sys.stderr)
        return 2
    form = csv_text.Format(
        separator=csv_text.separator_named(given.get("separator")),
        decimal=given.get("decimal"),
        encoding=given.get("encoding"),
        header="no_header" not in given,
        column_names=tuple(selection.listed(given.get("column_names"))),
        missing_values=tuple(selection.listed(given.get("missing_values"))),
    )
    try:
        print(info(paths[0], form))
    except DataError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
