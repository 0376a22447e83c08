"""One trial of a search: train, adapt to validation clients, and log it, never to be rerun."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import datasets
from tff_fedmeta.algorithms import registry
from tff_fedmeta.client import data as client_data
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import evaluation, scope, summary, train


def run(
    task: Any,
    read: Any,
    log_file: Path,
    algorithm: str,
    hparams: Mapping[str, Any],
    values: Mapping[str, Any],
) -> float:
    """Returns a trial's accuracy on validation clients after adaptation, from the log or anew.

    Args:
      task: The `datasets.Task`.
      read: Its cached reader.
      log_file: A CSV file, which gets a row.
      algorithm: What is trained.
      hparams: The hyperparameters tried, over the algorithm's own defaults.
      values: Fields of the configuration, `rounds` among them, over the task's defaults.
    """
    key = {
        "algorithm": algorithm,
        "rounds": values["rounds"],
        "hyperparameters": json.dumps(hparams, sort_keys=True),
    }
    log = pd.read_csv(log_file).to_dict("records") if log_file.exists() else []
    for row in log:
        if all(row[name] == value for name, value in key.items()):
            return row["accuracy_after"]

    start = time.monotonic()
    config = ExperimentConfig.from_defaults(
        task.name,
        {**datasets.DATASETS[task.name].defaults, "hyperparameters": {}},
        {**values, "algorithms": (algorithm,)},
        {algorithm: hparams},
        registry.hyperparameter_kinds(),
    )
    protocol = config.protocol(task.split)
    what = scope.scope_of(config, algorithm)
    evaluators = evaluation.build_evaluators(protocol, task.model_fn, what)
    weights = train.train_algorithm(config, task, algorithm, read, evaluators)
    curves = evaluation.validation_curves(
        protocol, evaluators, weights, task.validation_clients, read
    )
    way, steps = summary.choose_adaptation(curves, task.metric)
    found = summary.summarize(summary.measurable(curves[way]), task.metric, steps)
    row = {
        **key,
        "accuracy_before": round(found["before"]["mean"], 4),
        "accuracy_after": round(found["after"]["mean"], 4),
        "adaptation_learning_rate": way.rate,
        "adaptation_steps": steps,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    print(row, flush=True)
    pd.DataFrame([*log, row]).to_csv(log_file, index=False)
    return row["accuracy_after"]


def load_emnist(cache_dir: str) -> tuple[Any, Any]:
    """Returns the task on TFF's own data, and a cached reader of its clients."""
    task = datasets.load("emnist", datasets.Request("tff", cache_dir))
    return task, client_data.cached_reader(task.read_client)
