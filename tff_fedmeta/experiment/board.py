"""What TensorBoard shows of an algorithm's training: its figures in groups, its hyperparameters.

TensorBoard sorts groups by their names, so the names begin with numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from tff_fedmeta.config import ExperimentConfig

# Prefix of a column of metrics.csv -> group; columns without a prefix are times.
_GROUPS = {
    "validation": "1 validation",
    "train": "2 training",
    "work": "2 training",
    "clients": "3 clients",
    "server": "4 server",
    "aggregator": "4 server",
    "privacy": "4 server",
    "bytes": "6 bytes",
}
_TIMES = "5 time"
_OF_THE_RUN = (
    *("rounds", "clients_per_round", "batch_size", "inner_epochs", "inner_steps", "aggregator"),
    *("support_fraction", "adaptation_steps", "seed"),
)


def tags(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of a row of `metrics.csv` by the tags of TensorBoard."""
    named = {}
    for column, value in row.items():
        group, slash, name = column.partition("/")
        if slash:
            named[f"{_GROUPS.get(group, _GROUPS['server'])}/{name}"] = value
        elif column.endswith("seconds"):
            named[f"{_TIMES}/{column}"] = value
    return named


def write_hyperparameters(config: ExperimentConfig, algorithm: str, directory: Path) -> None:
    """Writes an algorithm's hyperparameters, and the run's, for the HPARAMS tab.

    Args:
      config: The run's configuration.
      algorithm: Which algorithm.
      directory: Where its figures go.
    """
    values = {"dataset": config.dataset, "data_source": config.data_source, "algorithm": algorithm}
    values.update({name: getattr(config, name) for name in _OF_THE_RUN})
    values.update(config.hyperparameters[algorithm])
    plain = {name: value for name, value in values.items() if isinstance(value, (str, int, float))}
    with tf.summary.create_file_writer(str(directory)).as_default():
        hparams.hparams(plain, trial_id=f"{config.hash} {algorithm}")
