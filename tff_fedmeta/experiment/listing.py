"""The runs below a directory: state, data, algorithms and best figure of each.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tabulate  # type: ignore[import-untyped]

from tff_fedmeta.experiment import (
    comparison,
    comparison_words,
    run_directory,
    run_state,
    task_facts,
)

_HEADINGS = ("run", "data", "rounds", "algorithms", "best", "state")


def table(directory: Path) -> str:
    """Returns a line for each run below a directory, the newest last, or a sentence without any.

    Raises:
      RunDirectoryError: If the directory is not there.
    """
    if not directory.is_dir():
        raise run_directory.RunDirectoryError(f"There are no runs: {directory} is no directory.")
    files = sorted(directory.glob("*/config.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        return f"There are no runs below {directory}."
    rows = [_row(file.parent) for file in files]
    return tabulate.tabulate(rows, _HEADINGS, tablefmt="plain", disable_numparse=True)


def _row(directory: Path) -> tuple[str, ...]:
    try:
        config = run_state.configuration(directory)
    except run_directory.RunDirectoryError:
        return directory.name, "-", "-", "-", "-", "config.json cannot be read"
    return (
        directory.name,
        f"{config.dataset} ({config.data_source})",
        f"{config.rounds:,}",
        ", ".join(config.algorithms),
        _best(directory),
        run_state.in_words(directory, config),
    )


def _best(directory: Path) -> str:
    """Returns the algorithm that adapts best and its figure; "-" where there is none."""
    try:
        compared = json.loads((directory / comparison.FILE).read_text())
        task = task_facts.read(directory)
        means = {name: row["after"]["mean"] for name, row in compared["algorithms"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return "-"
    finite: dict[str, Any] = {name: mean for name, mean in means.items() if mean is not None}
    if not finite:
        return "-"
    best = (max if task.higher_is_better else min)(finite, key=finite.__getitem__)
    unit = comparison_words.Unit(task.metric)
    percent = " %" if unit.is_share else ""
    return f"{task.metric} {unit.number(finite[best])}{percent}, {best}"
