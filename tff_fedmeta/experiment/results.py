"""What a run has written, read back for its report: rounds, adapted clients and their comparison.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import comparison, comparison_words, day_by_day, task_measures

ADAPTED = "adaptation_test.json"
BASELINE = "fedavg"


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of all algorithms in all repetitions.

    Attributes:
      config: The configuration.
      task: The `datasets.Task`.
      metrics: For each algorithm that is trained its `metrics.csv`, one a repetition.
      adapted: For each algorithm the content of its `adaptation_test.json`, one a repetition.
      comparison: What `comparison.compare` makes of `adapted`.
      measured: For each algorithm the content of its `measures_test.json`, of the first repetition
        and all folds; empty where the task has none.
      days: For each algorithm the summary of its `day_by_day.json`, of the same runs; empty where
        there are no days.
    """

    config: ExperimentConfig
    task: Any
    metrics: Mapping[str, Sequence[pd.DataFrame]]
    adapted: Mapping[str, Sequence[Mapping[str, Any]]]
    comparison: Mapping[str, Any]
    measured: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    days: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def diverged(self, name: str) -> bool:
        """Whether the training of an algorithm diverged, in any repetition."""
        return any(run.get("diverged") for run in self.adapted[name])

    @property
    def sentences(self) -> list[str]:
        """How each algorithm does against the baseline, in words."""
        return comparison_words.sentences(self.comparison, self.task.higher_is_better)


def read(config: ExperimentConfig, task: Any, directories: Sequence[Path]) -> Results:
    """Reads a run's files.

    Args:
      config: The configuration.
      task: The `datasets.Task`.
      directories: The directory of each repetition, in which every algorithm has its own.
    """
    measured, days = {}, {}
    first = directories[:: config.repetitions]
    for name in config.algorithms:
        files = [directory / name / day_by_day.FILE for directory in first]
        if all(file.exists() for file in files):
            clients = [client for file in files for client in _read_json(file)["clients"]]
            days[name] = day_by_day.summarize(clients)
    if task.measures is not None:
        for name in config.algorithms:
            files = [directory / name / task_measures.FILE for directory in first]
            if all(file.exists() for file in files):
                measured[name] = task_measures.pool([_read_json(file) for file in files])
    return gather(
        config,
        task,
        {
            name: [read_metrics(directory / name) for directory in directories]
            for name in config.algorithms
            if (directories[0] / name / "metrics.csv").exists()
        },
        {
            name: [_read_json(directory / name / ADAPTED) for directory in directories]
            for name in config.algorithms
        },
        measured,
        days,
    )


def gather(
    config: ExperimentConfig,
    task: Any,
    metrics: Mapping[str, Sequence[pd.DataFrame]],
    adapted: Mapping[str, Sequence[Mapping[str, Any]]],
    measured: Mapping[str, Mapping[str, Any]] | None = None,
    days: Mapping[str, Mapping[str, Any]] | None = None,
) -> Results:
    """Puts results together and compares them; see `Results`."""
    usual = BASELINE if BASELINE in config.algorithms else None
    baseline = usual if config.baseline is None else config.baseline
    compared = comparison.compare(adapted, baseline, task.higher_is_better, config.seed)
    if config.folds > 1 and config.fold is None:
        compared["folds"] = config.folds
        compared["repetitions"] //= config.folds
    return Results(config, task, metrics, adapted, compared, measured or {}, days or {})


def read_metrics(directory: Path) -> pd.DataFrame:
    """Reads an algorithm's `metrics.csv`, one row a round."""
    return pd.read_csv(directory / "metrics.csv").set_index("round")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def examples(metrics: pd.DataFrame) -> pd.Series:
    """Returns the examples that clients walked in each round."""
    # TFF's own algorithms train on all that they measure; ours count apart.
    column = "work/examples" if "work/examples" in metrics else "train/num_examples"
    return metrics[column].fillna(0)


def gradient_evaluations(metrics: pd.DataFrame) -> pd.Series:
    """Returns the batches that clients took gradients of in each round."""
    column = "work/gradient_evaluations"
    return metrics[column if column in metrics else "train/num_batches"].fillna(0)


def rate_in_words(chosen: Mapping[str, Any]) -> str:
    """Returns the rate of adaptation as a reader is told it."""
    rate = chosen["inner_learning_rate"]
    return "learnt rates" if rate is None else f"{rate:g}"
