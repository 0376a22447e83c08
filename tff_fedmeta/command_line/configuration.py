"""From the values of run_experiment.py's flags to the configuration of the run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tff_fedmeta.algorithms import registry
from tff_fedmeta.checks import check_choice
from tff_fedmeta.command_line.experiment_flags import FILES, DataSets, aggregator_flags
from tff_fedmeta.command_line.flags import flags_of
from tff_fedmeta.config import ExperimentConfig

# Settings whose flags are lists, and what each part is.
_LISTS = {
    "algorithms": str,
    "adaptation_learning_rates": float,
    "adaptation_proximal_strengths": float,
    "support_sizes": int,
}


def configuration(
    data_sets: DataSets, values: Mapping[str, Any], plugin_hashes: dict[str, str]
) -> ExperimentConfig:
    """Makes the configuration of the flags' values and the data set's defaults, and checks it.

    Args:
      data_sets: The data sets there are, by name.
      values: The value of each flag, as `flags.parse` returns them.
      plugin_hashes: Hash of each plugin that was loaded, by its file's name.

    Raises:
      ValueError: If a flag's value is out of its range, or two do not go together.
    """
    dataset = values["dataset"]
    check_choice("--dataset", dataset, data_sets)
    data_set = data_sets[dataset]
    check_choice("--data_source", values["data_source"], data_set.data_sources)
    if values["resplit"] and not data_set.about.splits_clients:
        raise ValueError(
            f"--resplit cannot be: who trains and who tests on {dataset} is not drawn, but given."
        )
    options = data_set.make_options(_task_options(data_sets, dataset, values))
    if (values["folds"] or 1) > 1 and not data_set.has_folds:
        able = [name for name, other in data_sets.items() if other.has_folds]
        raise ValueError(f"--folds is for --dataset={' or '.join(able)}, not for {dataset}.")
    defaults = data_set.defaults_for(options)
    fields = {flag.name for flag in flags_of(ExperimentConfig)}
    said = {name: value for name, value in values.items() if name in fields}
    said["data_source"] = values["data_source"]
    said["task_options"] = dataclasses.asdict(options)
    said["plugins"] = plugin_hashes
    said["aggregator_options"] = {
        name: values[name] for name in aggregator_flags() if values[name] is not None
    }
    for name in FILES:
        said[name] = _hash_of_file(name, values[name]) if _is_file(data_set, name, values) else None
    for name, kind in _LISTS.items():
        if said[name] is not None:
            said[name] = tuple(_parsed(name, text, kind) for text in said[name])
    algorithms = said["algorithms"] or defaults["algorithms"]
    for algorithm in algorithms:
        check_choice("algorithm", algorithm, registry.REGISTRY)
    return ExperimentConfig.from_defaults(
        dataset,
        defaults,
        said,
        _hyperparameters(values, algorithms),
        registry.hyperparameter_kinds(),
    )


def _hyperparameters(
    values: Mapping[str, Any], algorithms: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns algorithm -> what the user said of its hyperparameters."""
    kinds = registry.hyperparameter_kinds()
    hparams: dict[str, dict[str, Any]] = {}
    for name in ("inner_learning_rate", "inner_clip_norm", "server_learning_rate"):
        if values[name] is None:
            continue
        takers = [algorithm for algorithm in algorithms if hasattr(kinds[algorithm], name)]
        if not takers:
            raise ValueError(f"None of the algorithms has an --{name}: {', '.join(algorithms)}.")
        for algorithm in takers:
            hparams.setdefault(algorithm, {})[name] = values[name]
    for text in values["hparam"]:
        target, equals, value = text.partition("=")
        algorithm, dot, name = target.partition(".")
        if not (equals and dot):
            raise ValueError(f"--hparam is written ALGORITHM.NAME=VALUE, but got {text!r}.")
        hparams.setdefault(algorithm, {})[name] = value
    return hparams


def _task_options(data_sets: DataSets, dataset: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that were given; refuses options of other data sets."""
    takers: dict[str, list[str]] = {}
    for name in data_sets:
        for row in data_sets[name].describe_options():
            takers.setdefault(row.name, []).append(name)
    for name, sets in takers.items():
        if name not in FILES and values[name] is not None and dataset not in sets:
            raise ValueError(f"--{name} is for --dataset={' or '.join(sets)}, not for {dataset}.")
    data_set = data_sets[dataset]
    return {
        row.name: values[row.name]
        for row in data_set.describe_options()
        if values[row.name] is not None and not _is_file(data_set, row.name, values)
    }


def _is_file(data_set: Any, name: str, values: Mapping[str, Any]) -> bool:
    """Returns whether a flag names a file of the user's, rather than an option of the data set."""
    if name not in FILES or values[name] is None:
        return False
    options = [row.name for row in data_set.describe_options()]
    return name not in options or values[name].endswith(".keras")


def _hash_of_file(name: str, path: str) -> str:
    try:
        return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise ValueError(f"--{name}={path} cannot be read: {error.strerror}.") from error


def _parsed(name: str, text: str, kind: type) -> Any:
    try:
        return kind(text.strip())
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"--{name} must be {what}, but got {text!r}.") from None
