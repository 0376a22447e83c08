"""Federated data sets, each as one `Task`: clients, model, loss and metrics.

Importing this package imports no TensorFlow, so that `--help` answers at once.
"""

from collections.abc import Mapping
from typing import Any, Callable

from datasets import csv_file, emnist, movielens, omniglot, shakespeare, sinusoid, stackoverflow
from datasets.sources.choice import About, Option, choices
from datasets.task import DataError, Task

__all__ = [
    "ABOUT",
    "DATA_SOURCES",
    "DEFAULTS",
    "OPTIONS",
    "TASKS",
    "DataError",
    "Task",
    "configure",
]

# Each has NAME, load() -> Task, the DEFAULTS and OPTIONS of a run on it, and what there is to know.
_MODULES = (emnist, stackoverflow, shakespeare, omniglot, movielens, csv_file, sinusoid)

TASKS: dict[str, Callable[..., Task]] = {module.NAME: module.load for module in _MODULES}
DEFAULTS: dict[str, dict[str, Any]] = {module.NAME: module.DEFAULTS for module in _MODULES}
OPTIONS: dict[str, dict[str, Option]] = {module.NAME: module.OPTIONS for module in _MODULES}
ABOUT: dict[str, About] = {module.NAME: module.ABOUT for module in _MODULES}
DATA_SOURCES: dict[str, tuple[str, ...]] = {name: choices(about) for name, about in ABOUT.items()}


def configure(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the options and the DEFAULTS of a run on a data set.

    Some depend on the options given, which a module with a `configure` of its own knows.

    Args:
      name: The data set.
      options: A value for each of its OPTIONS.

    Raises:
      DataError: If the options name something that is not there.
    """
    for module in _MODULES:
        if name == module.NAME and hasattr(module, "configure"):
            return module.configure(options)
    return dict(options), DEFAULTS[name]
