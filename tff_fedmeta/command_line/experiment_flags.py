"""The flags of run_experiment.py, by group of its help.

Settings, hyperparameters and options make their flags themselves; what is written here is what only
a command line has: names of files and directories, and flags for several algorithms at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tff_fedmeta import export
from tff_fedmeta.command_line.flags import LIST, MULTI, Flag, flags_of
from tff_fedmeta.config import ExperimentConfig, aggregator_options, failures, schema

# name -> a `datasets.DataSet`, which nothing here imports.
DataSets = Mapping[str, Any]

_DATA = [
    Flag("dataset", str, "emnist", "Which clients; --dataset=help lists the data sets."),
    Flag(
        "data_source",
        str,
        "auto",
        "auto: the real data if they are available, else a synthetic stand-in, with a warning; "
        "embedded: the stand-in; tff, tfds or file: the real data or an error.",
    ),
    Flag("cache_dir", str, None, "Where data files are kept [~/.tff or ~/tensorflow_datasets]."),
    Flag("plugin", MULTI, [], "A Python file that registers data sets or algorithms; repeatable."),
]
_MODEL = [
    Flag("model", str, None, "A .keras file: this network instead of the data set's own."),
    Flag("initial_model", str, None, "A .keras file: training starts from these weights."),
]
_HYPERPARAMETERS = [
    Flag("inner_learning_rate", float, None, "Rate of local steps, for all that have them; >= 0."),
    Flag("inner_clip_norm", float, None, "Longest gradient of a local step; 0: any; >= 0."),
    Flag("server_learning_rate", float, None, "The server's rate, for all that have one; >= 0."),
    Flag("hparam", MULTI, [], "One value for one algorithm: maml.split=ordered; repeatable."),
]
_RUNNING = [
    Flag("output_dir", str, None, "Where all files go [runs/DATASET-HASH]."),
    Flag("resume", bool, True, "Continue a run found in OUTPUT_DIR; --noresume refuses to."),
    Flag("dry_run", bool, False, "Print configuration, split and estimated cost, and stop."),
    Flag("list", bool, False, "Show the runs below OUTPUT_DIR [runs], and stop."),
    Flag(
        "compare",
        LIST,
        [],
        "Directories of finished runs of the same task, to put side by side in a report in "
        "OUTPUT_DIR [runs/comparison-HASH].",
    ),
    Flag(
        "export",
        LIST,
        [export.KERAS],
        f"What trained models are written as, of: {', '.join(export.FORMATS)}.",
    ),
    Flag("log_to", str, None, "Record rounds and results besides, in mlflow or wandb."),
    Flag("ray_address", str, None, "Of a Ray cluster: auto or HOST:PORT [Ray on this machine]."),
]
_TRAINING = ("algorithms", "rounds", "clients_per_round", "batch_size", "inner_epochs")
_EVALUATION = (
    *("support_fraction", "adaptation", "num_validation_clients", "num_test_clients"),
    *("rounds_per_evaluation", "support_sizes", "forgetting_clients"),
)
FILES = ("model", "initial_model")  # flags that name files, of which the configuration has hashes


def groups(data_sets: DataSets) -> dict[str, list[Flag]]:
    """Returns all flags by group of the help."""
    settings = {flag.name: flag for flag in flags_of(ExperimentConfig)}
    failing = [settings.pop(field.name) for field in dataclasses.fields(failures.Failures)]
    training = [settings.pop(name) for name in (*_TRAINING, "inner_steps")]
    evaluation = [settings.pop(name) for name in _EVALUATION]
    evaluation += [settings.pop(name) for name in list(settings) if name.startswith("adaptation")]
    running = [settings.pop(name) for name in ("runtime", "rounds_per_checkpoint")]
    return {
        "Data": _DATA,
        "Training": [*training, *_HYPERPARAMETERS, *settings.values(), *_MODEL],
        "Adaptation and evaluation": evaluation,
        "Running": [*_RUNNING, *running],
        "Clients that fail in training": failing,
        "Options of aggregators": list(aggregator_flags().values()),
        "Options of data sets": list(_option_flags(data_sets).values()),
    }


def aggregator_flags() -> dict[str, Flag]:
    """Returns the flag of each option that an aggregator has."""
    flags: dict[str, Flag] = {}
    for name, kind in aggregator_options.AGGREGATORS.items():
        for flag in flags_of(kind):
            flags[flag.name] = flag._replace(text=f"{name}: {flag.text}")
    return flags


def _option_flags(data_sets: DataSets) -> dict[str, Flag]:
    flags: dict[str, Flag] = {}
    for row in (row for data_set in data_sets.values() for row in data_set.describe_options()):
        if row.name not in FILES:
            default = "" if row.default is None else f" [{schema.in_words(row.default)}]"
            flags[row.name] = Flag(row.name, row.kind, None, row.text + default)
    return flags
