"""Federated data sets, each as one `Task`: clients, model, loss and metrics.

Importing this package imports no TensorFlow, so that `--help` answers at once.
"""

from datasets.data_set import About, DataSet, Request
from datasets.options import OptionRow, Options, option
from datasets.registry import DATASETS, describe_options, load, open_reader, register
from datasets.task import DataError, Fold, Meaning, Measures, Task, initializer_seeds, split_clients

__all__ = [
    "DATASETS",
    "About",
    "DataError",
    "DataSet",
    "Fold",
    "Meaning",
    "Measures",
    "OptionRow",
    "Options",
    "Request",
    "Task",
    "describe_options",
    "initializer_seeds",
    "load",
    "open_reader",
    "option",
    "register",
    "split_clients",
]
