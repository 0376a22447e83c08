"""Federated data sets, each as one `Task`: clients, model, loss and metrics.

Importing this package imports no TensorFlow, so that `--help` answers at once.
"""

from typing import Any, Callable

from datasets import emnist
from datasets.emnist import DATA_SOURCES
from datasets.task import DataError, Task

__all__ = ["DATA_SOURCES", "DEFAULTS", "TASKS", "DataError", "Task"]

# One line per data set: its loader, and the settings that a run starts from on it.
TASKS: dict[str, Callable[..., Task]] = {"emnist": emnist.load}
DEFAULTS: dict[str, dict[str, Any]] = {"emnist": emnist.DEFAULTS}
