"""What a report has to know of a task, kept in a run's `task.json`: a report needs no data.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tff_fedmeta.experiment import run_directory

FILE = "task.json"


class Measures(NamedTuple):
    """The part of `datasets.task.Measures` that a report reads: what the names mean."""

    explanation: str


class TaskFacts(NamedTuple):
    """The part of a `datasets.Task` that a report reads; of clients it is their number.

    Attributes:
      metric: Name of the metric that is reported.
      higher_is_better: Whether a larger one is the better one.
      data_source: Where the clients come from.
      has_real_data: Whether there are real data that "embedded" ones stand in for.
      train_clients: As many as there are.
      validation_clients: As many as there are.
      test_clients: As many as there are.
      measures: What else test clients are measured by, if anything.
    """

    metric: str
    higher_is_better: bool
    data_source: str
    has_real_data: bool
    train_clients: Sequence[Any]
    validation_clients: Sequence[Any]
    test_clients: Sequence[Any]
    measures: Measures | None


_CLIENTS = ("train_clients", "validation_clients", "test_clients")


def write(task: Any, output_dir: Path) -> None:
    """Writes what a report reads of a `datasets.Task`."""
    values = {name: getattr(task, name) for name in TaskFacts._fields}
    values.update({name: len(values[name]) for name in _CLIENTS})
    values["measures"] = None if task.measures is None else task.measures.explanation
    run_directory.write_json(output_dir / FILE, values)


def read(output_dir: Path) -> TaskFacts:
    """Reads what `write` wrote.

    Raises:
      RunDirectoryError: If it is not there, or is something else.
    """
    file = output_dir / FILE
    try:
        values = json.loads(file.read_text())
        values.update({name: range(values[name]) for name in _CLIENTS})
        if values["measures"] is not None:
            values["measures"] = Measures(values["measures"])
        return TaskFacts(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise run_directory.RunDirectoryError(
            f"{file} cannot be read ({error}). Remove {output_dir / run_directory.COMPARISON}, "
            "and the command of the run writes both again."
        ) from error
