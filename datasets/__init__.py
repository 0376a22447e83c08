"""Federated data sets, each as one `Task`: clients, model, loss and metrics.

Importing this package imports no TensorFlow, so that `--help` answers at once.
"""

from typing import Any, Callable

from datasets import emnist, sinusoid
from datasets.sources import About, Option, choices
from datasets.task import DataError, Task

__all__ = ["ABOUT", "DATA_SOURCES", "DEFAULTS", "OPTIONS", "TASKS", "DataError", "Task"]

# Each has NAME, load() -> Task, the DEFAULTS and OPTIONS of a run on it, and what there is to know.
_MODULES = (emnist, sinusoid)

TASKS: dict[str, Callable[..., Task]] = {module.NAME: module.load for module in _MODULES}
DEFAULTS: dict[str, dict[str, Any]] = {module.NAME: module.DEFAULTS for module in _MODULES}
OPTIONS: dict[str, dict[str, Option]] = {module.NAME: module.OPTIONS for module in _MODULES}
ABOUT: dict[str, About] = {module.NAME: module.ABOUT for module in _MODULES}
DATA_SOURCES: dict[str, tuple[str, ...]] = {name: choices(about) for name, about in ABOUT.items()}
