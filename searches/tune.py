"""A search for hyperparameters on a data set of yours, with Optuna.

    python -m searches.tune --dataset=csv --csv=homes.csv --algorithms=reptile,fedavg --trials=20

Takes every flag of run_experiment.py. Each algorithm has as many trials: the first are the settings
that a run would have, the others are Optuna's (tree-structured Parzen estimator), given up early by
Hyperband where they lag behind. What a flag sets is not searched. Trials are judged on validation
clients, after adapting at the rate and steps that suit them best; test clients are never read.

The same command continues a search that was interrupted, however. In OUTPUT_DIR:

    ALGORITHM.flags            the best settings: run_experiment.py --flagfile=ALGORITHM.flags
    search.md  trials.csv      what was found, and every trial
    ALGORITHM_history.png  ALGORITHM_importances.png
    trials.sqlite3             Optuna's storage
    search.json                what was searched
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import run_experiment
from searches import space, study_files
from tff_fedmeta import plugins, runtime
from tff_fedmeta.algorithms import registry
from tff_fedmeta.command_line import experiment_flags, flags
from tff_fedmeta.command_line.configuration import configuration
from tff_fedmeta.command_line.flags import Flag
from tff_fedmeta.config import ExperimentConfig

_FLAGS = [
    Flag("trials", int, 20, "Trials of each algorithm, those of earlier calls included."),
    Flag("hours", float, None, "After so many hours no further trial is begun."),
]


def main(argv: Sequence[str]) -> int:
    """Searches as the command line says; returns the exit status, as run_experiment.py does."""
    try:
        prepared = _prepare(argv)
        if prepared is None:
            return 0
        with prepared.lock:
            print(_search(prepared))
        return 0
    except ValueError as error:  # errors of data and of models are such, too
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command continues this search.", file=sys.stderr)
        return 130


class _Prepared(NamedTuple):
    lock: Any
    config: ExperimentConfig
    task: datasets.Task
    output_dir: Path
    spaces: Mapping[str, space.Space]
    given: Sequence[str]  # the user's flags, of run_experiment.py, without what is searched
    trials: int
    seconds: float | None


def _prepare(argv: Sequence[str]) -> _Prepared | None:
    """Checks everything, loads the data and takes the output directory; None: help was asked."""
    argv = flags.expand(argv)
    hashes = plugins.load(flags.given(argv, "plugin"))
    groups = {"Search": _FLAGS, **experiment_flags.groups(datasets.DATASETS)}
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(f"{__doc__}\n{flags.help_of({'Search': _FLAGS})}")
        return None
    values = flags.parse(groups, argv)
    config = configuration(datasets.DATASETS, values, hashes)
    if values["trials"] < 1 or (values["hours"] is not None and not values["hours"] > 0):
        raise ValueError("--trials must be >= 1 and --hours > 0.")
    if config.runtime != "local":
        raise ValueError("A search runs in this process: leave out --runtime.")
    if config.patience:
        raise ValueError("A search gives up trials by itself: leave out --patience.")
    if config.folds > 1:
        raise ValueError("A search has one split; run the best settings with --folds.")
    if config.repetitions > 1:
        raise ValueError("A search has one seed; run the best settings with --repetitions.")
    spaces = {}
    for algorithm in config.algorithms:
        if not registry.trains(algorithm):
            raise ValueError(f"{algorithm} trains nothing: leave it out of --algorithms.")
        spaces[algorithm] = space.of(
            registry.REGISTRY[algorithm].hyperparameters,
            config.hyperparameters[algorithm],
            fixed=space.said(values, algorithm),
        )
        if not spaces[algorithm]:
            raise ValueError(f"There is nothing to search for {algorithm}: flags set all of it.")
    runtime.quiet_tensorflow()
    config, task = run_experiment.load_task(config, values)
    output_dir = Path(values["output_dir"] or f"runs/tune-{config.dataset}-{config.hash}")
    output_dir = output_dir.expanduser()
    lock = study_files.claim(config, output_dir)
    given = study_files.as_flags(experiment_flags.groups(datasets.DATASETS), values)
    hours = values["hours"]
    return _Prepared(
        lock,
        config,
        dataclasses.replace(task, test_clients=()),
        output_dir,
        spaces,
        given,
        values["trials"],
        None if hours is None else 3600 * hours,
    )


def _search(prepared: _Prepared) -> str:
    """Runs the trials that are not there yet, writes the files and returns the report."""
    import optuna

    from searches import objective
    from tff_fedmeta.client import data as client_data

    config, task, output_dir = prepared.config, prepared.task, prepared.output_dir
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    deadline = None if prepared.seconds is None else time.monotonic() + prepared.seconds
    read = client_data.cached_reader(task.read_client)
    found = {}
    with runtime.local_runtime():
        for algorithm, searched in prepared.spaces.items():
            study = found[algorithm] = study_files.open_study(
                output_dir, algorithm, config, searched, task.higher_is_better
            )
            judge = objective.Objective(config, task, read, algorithm, searched)
            while (missing := prepared.trials - study_files.done(study)) > 0:
                if deadline is not None and time.monotonic() > deadline:
                    print("The hours are over; the same command goes on from here.")
                    break
                print(f"{algorithm}: {missing} of {prepared.trials} trials to go", flush=True)
                study.optimize(judge, n_trials=1)
                study_files.write_best(study, searched, prepared.given, output_dir)
    return study_files.write_report(found, config, task, output_dir)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
