"""A finished run, read back: its tables, its plot and its models."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from tff_fedmeta import keras_files
from tff_fedmeta.algorithms.registry import trains
from tff_fedmeta.checks import check_choice
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import comparison, plots, results, run_directory, run_state, task_facts

if TYPE_CHECKING:
    import tensorflow as tf


def load_run(directory: str | os.PathLike[str]) -> SavedRun:
    """Reads the results of a finished run of `run_experiment.py`.

    Args:
      directory: Its output directory.

    Returns:
      The run's tables as pandas' frames, its plot and its models.

    Raises:
      ValueError: If there is no run in the directory, its files cannot be read, or it is not
        finished: the message says which phase is missing.
    """
    directory = Path(directory).expanduser()
    config = run_state.configuration(directory)
    run_state.check_finished(directory, config)
    parts = run_state.directories(directory, config)
    task = task_facts.read(directory)
    try:
        found = results.read(config, task, parts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise run_directory.RunDirectoryError(
            f"The results in {directory} cannot be read: {error!r}."
        ) from error
    return SavedRun(directory, found, parts)


class _Picture(Figure):
    """A figure that notebooks show whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png", dpi=80)
        return image.getvalue()


class SavedRun:
    """The results of a finished run.

    Attributes:
      directory: Where they are.
      config: The run's configuration.
      comparison: A row for each algorithm, in the metric's own unit: "before" and "after" adapting,
        "gain" and "versus_baseline" as means over test clients, each of the last three with its
        95 % interval ("after_low", "after_high"), percentiles of adapted clients, "share_hurt" in
        [0, 1], and how many clients won, tied and lost against the baseline.
      metrics: For each algorithm a row for each round, what `metrics.csv` holds.
      clients: For each algorithm a row for each test client: "num_support" and "num_query"
        examples, "before", "after" and "gain" of the metric; NaN where adapting diverged.

    Of a run with repetitions, `metrics` and `clients` have the repetition's seed as an outer index;
    of one with folds, the name of the part's directory.
    """

    def __init__(self, directory: Path, found: results.Results, parts: Sequence[Path]):
        self.directory = directory
        self._found, self._parts = found, parts
        self.comparison = _comparison_frame(found.comparison)
        self.metrics = {name: self._joined(frames) for name, frames in found.metrics.items()}
        self.clients = {
            name: self._joined([clients_frame(run) for run in runs])
            for name, runs in found.adapted.items()
        }

    @property
    def config(self) -> ExperimentConfig:
        """The run's configuration."""
        return self._found.config

    @property
    def results(self) -> results.Results:
        """What the run's report is made of."""
        return self._found

    def plot(self) -> Figure:
        """Draws `comparison.png` anew, as a figure of Matplotlib that notebooks show."""
        return plots.plot(self._found, _Picture)

    def keras_model(self, algorithm: str, repetition: int = 0) -> tf.keras.Model:
        """Opens the trained model of an algorithm, as `fm.open_model` does.

        Args:
          algorithm: One of the run's.
          repetition: Which one, counted from 0.

        Returns:
          The built model with its weights, uncompiled.

        Raises:
          ValueError: If the run has no such algorithm or repetition, or the algorithm diverged.
          KerasFileError: If the file cannot be opened.
        """
        return keras_files.open_model(self.model_directory(algorithm, repetition) / "model.keras")

    def model_directory(self, algorithm: str, repetition: int = 0) -> Path:
        """Returns where the trained model of an algorithm and its `metadata.json` are."""
        check_choice("algorithm", algorithm, self.config.algorithms)
        if not 0 <= repetition < len(self._parts):
            raise ValueError(
                f"repetition must be from 0 to {len(self._parts) - 1}, but is {repetition}."
            )
        why = self._found.adapted[algorithm][repetition].get("diverged")
        if not trains(algorithm):
            why = "nothing is trained."
        if why:
            raise ValueError(f"There is no model of {algorithm}: {why}")
        return self._parts[repetition] / algorithm / "keras_model"

    def _joined(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        parts = self.config.parts()
        if not parts:
            return frames[0]
        if self.config.folds == 1:
            seeds = [part.seed for part in parts.values()]
            return pd.concat(dict(zip(seeds, frames)), names=["seed"])
        return pd.concat(dict(zip(parts, frames)), names=["part"])

    def __repr__(self) -> str:
        names = ", ".join(self.config.algorithms)
        return f"<finished run of {self.config.dataset} in {self.directory}: {names}>"


def clients_frame(run: Mapping[str, Any]) -> pd.DataFrame:
    """Returns a row for each test client of an `adaptation_test.json`.

    Columns: "num_support", "num_query", "before", "after", "gain"; NaN where adapting diverged.
    """
    sizes = pd.DataFrame(run["clients"]).set_index("client_id")[["num_support", "num_query"]]
    frame = sizes.join(comparison.client_values([run], run["metric"]))
    return frame.assign(gain=frame["after"] - frame["before"])


def _comparison_frame(compared: Mapping[str, Any]) -> pd.DataFrame:
    rows = {}
    for name, row in compared["algorithms"].items():
        figures = {"before": row["before"]["mean"]}
        versus = row["versus_baseline"] or {"mean": None, "ci95": [None, None]}
        parts = {"after": row["after"], "gain": row["gain"], "versus_baseline": versus}
        for key, part in parts.items():
            figures[key] = part["mean"]
            figures[f"{key}_low"], figures[f"{key}_high"] = part["ci95"]
        figures.update({key: row["after"][key] for key in ("p10", "p50", "p90")})
        figures["share_hurt"] = row["share_hurt"]
        figures.update({key: versus.get(key) for key in ("wins", "ties", "losses")})
        rows[name] = figures
    frame = pd.DataFrame.from_dict(rows, orient="index").astype(float)
    counts = ["wins", "ties", "losses"]
    frame[counts] = frame[counts].astype("Int64")
    frame.index.name = "algorithm"
    return frame
