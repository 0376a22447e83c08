"""Rounds and results in MLflow or Weights & Biases, through their own clients.

Both are optional and imported only when asked for. Where they write is their own setting:
MLFLOW_TRACKING_URI, WANDB_MODE=offline and so on.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from typing import Any, Callable

from tff_fedmeta.checks import check_choice
from tff_fedmeta.config import ExperimentConfig

_PROJECT = "tff_fedmeta"


class Tracker:
    """One algorithm's record; this one keeps nothing. A continued run goes on in its record."""

    def log(self, row: Mapping[str, Any], round_num: int) -> None:
        """Adds a row of `metrics.csv`."""
        figures = {name: float(value) for name, value in row.items() if _is_figure(value)}
        self._log(figures, round_num)

    def finish(self, adapted: Mapping[str, Any], rounds: int) -> None:
        """Adds the means of an `adaptation_test.json`, under "test/", and ends the record."""
        metric, summary = adapted["metric"], adapted["summary"]
        means = {f"test/{metric}_{when}": summary[when]["mean"] for when in ("before", "after")}
        self.log({**means, "test/share_hurt": summary["share_hurt"]}, rounds)
        self._close()

    def _log(self, figures: Mapping[str, float], round_num: int) -> None:
        pass

    def _close(self) -> None:
        pass


def check(name: str | None) -> None:
    """Raises ValueError if there is no such tracker, or its package is not installed."""
    if name is None:
        return
    check_choice("--log_to", name, _TRACKERS)
    if importlib.util.find_spec(name) is None:
        raise ValueError(
            f"--log_to={name} needs the package {name}, which is not installed: `make tracking` "
            "installs it."
        )


def open_tracker(name: str | None, config: ExperimentConfig, algorithm: str) -> Tracker:
    """Opens the record of an algorithm in a run, with its settings.

    Args:
      name: What `check` accepted; None keeps no record.
      config: The run's configuration.
      algorithm: Which algorithm.
    """
    if name is None:
        return Tracker()
    settings = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        if isinstance(value, (str, int, float))
    }
    settings.update(config.hyperparameters[algorithm], algorithm=algorithm)
    return _TRACKERS[name](settings, algorithm, config.hash)


class _MLflow(Tracker):
    def __init__(self, settings: Mapping[str, Any], algorithm: str, config_hash: str):
        import mlflow

        self._mlflow = mlflow
        mlflow.end_run()  # which an interrupt may have left open
        mlflow.set_experiment(_PROJECT)
        mine = f"tags.config_hash = '{config_hash}' and tags.algorithm = '{algorithm}'"
        found = mlflow.search_runs(filter_string=mine, output_format="list")
        if found:
            mlflow.start_run(run_id=found[0].info.run_id)
            return
        tags = {"config_hash": config_hash, "algorithm": algorithm}
        mlflow.start_run(run_name=f"{algorithm} {config_hash}", tags=tags)
        mlflow.log_params(settings)

    def _log(self, figures: Mapping[str, float], round_num: int) -> None:
        self._mlflow.log_metrics(dict(figures), step=round_num)

    def _close(self) -> None:
        self._mlflow.end_run()


class _Wandb(Tracker):
    def __init__(self, settings: Mapping[str, Any], algorithm: str, config_hash: str):
        import wandb

        self._run = wandb.init(
            project=_PROJECT,
            id=f"{algorithm}-{config_hash}",
            name=f"{algorithm} {config_hash}",
            group=config_hash,
            config=dict(settings),
            resume="allow",
            settings=wandb.Settings(silent=True),
        )

    def _log(self, figures: Mapping[str, float], round_num: int) -> None:
        self._run.log(dict(figures), step=round_num)

    def _close(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[[Mapping[str, Any], str, str], Tracker]] = {
    "mlflow": _MLflow,
    "wandb": _Wandb,
}


def _is_figure(value: Any) -> bool:
    return value is not None and not isinstance(value, str) and math.isfinite(value)
