"""Trains federated meta-learning and TFF's baselines on the same clients, and compares them.

    python run_experiment.py --dataset=emnist

All are adapted to clients that none has seen. Tables, plots and Keras models go to OUTPUT_DIR.
The same command again continues an interrupted run.
"""

import contextlib
import dataclasses
import json
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Optional

from absl import flags

import datasets
from tff_fedmeta import runtime
from tff_fedmeta.algorithms import registry
from tff_fedmeta.checks import check_choice
from tff_fedmeta.config import (
    AGGREGATORS,
    RUNTIMES,
    ExperimentConfig,
    aggregator_options,
    failures,
    schema,
)
from tff_fedmeta.experiment import run_directory
from tff_fedmeta.runtime import worker, worker_process

# group -> (kind, name, default, help). A default of None is the task's own, beside the task.
_FLAGS: dict[str, list[tuple[Any, str, Any, str]]] = {
    "Data": [
        (
            flags.DEFINE_string,
            "dataset",
            "emnist",
            f"One of: {', '.join(datasets.DATASETS)}; help lists what they are.",
        ),
        (
            flags.DEFINE_string,
            "data_source",
            "auto",
            "tff or tfds: the real data, cached or downloaded; embedded: a synthetic stand-in made "
            "on the spot; auto: the real data if they can be had, else the stand-in, with a "
            "warning.",
        ),
        (
            flags.DEFINE_string,
            "cache_dir",
            None,
            "Where TFF or TFDS keeps its data files [~/.tff or ~/tensorflow_datasets].",
        ),
        (flags.DEFINE_integer, "num_test_clients", None, "Clients held out for the test, >= 1."),
    ],
    "Training": [
        (flags.DEFINE_list, "algorithms", None, f"Of: {', '.join(registry.REGISTRY)}."),
        (flags.DEFINE_integer, "rounds", None, "Rounds, >= 1."),
        (flags.DEFINE_integer, "clients_per_round", None, "Clients in a round, >= 1."),
        (flags.DEFINE_integer, "batch_size", None, "Examples in a local step, >= 1."),
        (flags.DEFINE_integer, "inner_epochs", None, "Local epochs in a round, >= 1; or"),
        (flags.DEFINE_integer, "inner_steps", None, "local steps in a round, >= 1."),
        (
            flags.DEFINE_float,
            "inner_learning_rate",
            None,
            "Rate of the local steps, >= 0, for every algorithm that has such steps.",
        ),
        (
            flags.DEFINE_float,
            "inner_clip_norm",
            None,
            "Longest gradient of a local step, >= 0, for every algorithm that has such steps; "
            "longer ones are scaled to it, 0: none is.",
        ),
        (
            flags.DEFINE_float,
            "server_learning_rate",
            None,
            "The server's rate, >= 0, for every algorithm that is trained.",
        ),
        (
            flags.DEFINE_multi_string,
            "hparam",
            [],
            "A value for one algorithm, e.g. maml.support_fraction=0.2; repeatable. Names below.",
        ),
        (flags.DEFINE_string, "aggregator", "mean", f"One of: {', '.join(AGGREGATORS)}."),
        (flags.DEFINE_integer, "seed", 0, "From which all that is random derives, >= 0."),
    ],
    "Clients that fail in training": [
        (
            flags.DEFINE_float,
            "client_dropout",
            0.0,
            "Probability that a sampled client never answers in a round, from 0 to 1.",
        ),
        (
            flags.DEFINE_float,
            "straggler_fraction",
            0.0,
            "Fraction of the clients of a round that take only a random share of their local "
            "steps, from 0 to 1.",
        ),
        (
            flags.DEFINE_float,
            "availability",
            1.0,
            f"Share of the rounds in which a client can be sampled, in (0, 1]: its own window of "
            f"every {failures.DAY} rounds.",
        ),
        (
            flags.DEFINE_float,
            "byzantine_fraction",
            0.0,
            "Fraction of the clients of a round that attack, from 0 to 1.",
        ),
        (
            flags.DEFINE_string,
            "attack",
            "sign_flip",
            f"One of: {', '.join(failures.ATTACKS)}. sign_flip sends -ATTACK_SCALE times the "
            "update, scale ATTACK_SCALE times, noise Gaussian noise of ATTACK_SCALE times its norm "
            "instead, nan NaN; label_flip trains on the classes in reverse.",
        ),
        (flags.DEFINE_float, "attack_scale", 1.0, "How strong an attack is, > 0."),
    ],
    "Adaptation and evaluation": [
        (
            flags.DEFINE_float,
            "support_fraction",
            None,
            "Share of a client's examples that adaptation learns from, between 0 and 1.",
        ),
        (flags.DEFINE_integer, "adaptation_steps", None, "The most steps to adapt for, >= 0."),
        (
            flags.DEFINE_integer,
            "adaptation_batch_size",
            None,
            "Examples in a step of adaptation, >= 1; that of training, where nothing else is said.",
        ),
        (
            flags.DEFINE_list,
            "adaptation_learning_rates",
            None,
            "Rates of adaptation that validation clients choose from, each > 0.",
        ),
        (
            flags.DEFINE_integer,
            "rounds_per_evaluation",
            None,
            "Rounds between evaluations on validation clients, >= 1.",
        ),
    ],
    "Running": [
        (flags.DEFINE_string, "output_dir", None, "Where all files go [runs/DATASET-HASH]."),
        (
            flags.DEFINE_bool,
            "resume",
            True,
            "Continue an interrupted run found in OUTPUT_DIR; --noresume refuses to.",
        ),
        (flags.DEFINE_integer, "rounds_per_checkpoint", None, "Rounds between checkpoints, >= 1."),
        (
            flags.DEFINE_string,
            "runtime",
            "local",
            f"One of: {', '.join(RUNTIMES)}. local: in this process; worker: in TFF's own worker, "
            "which is slower and needs memory for every client of a round.",
        ),
    ],
}
# name -> the data sets that have this option, and what it is.
_OPTIONS: dict[str, dict[str, datasets.OptionRow]] = {}
for _dataset in datasets.DATASETS:
    for _row in datasets.describe_options(_dataset):
        _OPTIONS.setdefault(_row.name, {})[_dataset] = _row
_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
# option of an aggregator -> those that have it
_AGGREGATOR_OPTIONS: dict[str, list[str]] = {}
for _name in AGGREGATORS:
    for _option in aggregator_options.option_fields(_name):
        _AGGREGATOR_OPTIONS.setdefault(_option, []).append(_name)
_FLAGS["Options of aggregators"] = [
    (
        _DEFINE[schema.kind_of(field)],
        name,
        None,
        f"{', '.join(takers)}: {field.metadata['help']}"
        + ("" if field.default is None else f" [{json.dumps(field.default)}]"),
    )
    for name, takers in _AGGREGATOR_OPTIONS.items()
    for field in [aggregator_options.option_fields(takers[0])[name]]
]
_FLAGS["Options of data sets"] = [
    (
        _DEFINE[next(iter(takers.values())).kind],
        name,
        None,
        " ".join(
            f"{dataset}: {o.text}{'' if o.default is None else f' [{json.dumps(o.default)}]'}"
            for dataset, o in takers.items()
        ),
    )
    for name, takers in _OPTIONS.items()
]
# Flags that are no fields of the configuration, or not under their own name.
_NOT_CONFIGURATION = {
    *("dataset", "cache_dir", "output_dir", "resume", *_OPTIONS, *_AGGREGATOR_OPTIONS),
    *("hparam", "inner_learning_rate", "inner_clip_norm", "server_learning_rate"),
}


def main(argv: Sequence[str]) -> int:
    """Runs the experiment that the command line describes.

    Args:
      argv: The command line, the program's name first.

    Returns:
      The exit status: 0; 2 after a user's mistake, said in one sentence on stderr; 1 if TFF's
      worker failed or every algorithm diverged; 130 after Ctrl-C.
    """
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(_help())
        return 0
    try:
        try:
            prepared = _prepare(argv)
        except ValueError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        if prepared is None:
            return 0
        lock, *the_rest = prepared
        with lock:
            return _run(*the_rest)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command continues this run.", file=sys.stderr)
        return 130


def _prepare(
    argv: Sequence[str],
) -> Optional[tuple[IO[str], ExperimentConfig, datasets.Task, Path, float]]:
    """Checks everything, loads the data and takes the output directory.

    Returns:
      The lock of the directory, the resolved configuration, the task, the directory and how many
      seconds loading took; None, having said what there is to say, if there is nothing to run.

    Raises:
      ValueError: If the user has to change something.
    """
    values = _parse(argv)
    if values["dataset"] == "help":
        return _say_datasets()
    config = _configuration(values)
    output_dir = Path(values["output_dir"]) if values["output_dir"] else None
    if output_dir is not None:  # a wrong directory is said before any data is loaded
        found = run_directory.find_run(config, output_dir, values["resume"])
        if found is not None and run_directory.is_finished(output_dir):
            return _say_finished(output_dir)
        has_stand_in = datasets.DATASETS[config.dataset].about.source != "embedded"
        if has_stand_in and found and config.data_source != found.data_source == "embedded":
            print(
                f"WARNING: {output_dir} was begun on the EMBEDDED stand-in and continues on it. "
                "For the real data choose another --output_dir.",
                file=sys.stderr,
            )
        config = found or config
    runtime.quiet_tensorflow()
    start = time.perf_counter()
    task = _load(config, values["cache_dir"])
    seconds = time.perf_counter() - start
    config = dataclasses.replace(config, data_source=task.data_source)
    output_dir = output_dir or Path("runs") / f"{config.dataset}-{config.hash}"
    run_directory.find_run(config, output_dir, values["resume"])
    if run_directory.is_finished(output_dir):
        return _say_finished(output_dir)
    lock = run_directory.claim(config, output_dir, task.assets)
    return lock, config, task, output_dir, seconds


def _parse(argv: Sequence[str]) -> dict[str, Any]:
    values = flags.FlagValues()
    texts = {}
    for group in _FLAGS.values():
        for define, name, default, text in group:
            define(name, default, text, flag_values=values)
            texts[name] = text
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        check_choice("flag", error.flagname, texts)
        raise ValueError(str(error)) from error
    except flags.Error as error:
        # absl says "flag --rounds=x: ..."; what the flag takes is in its help.
        name = str(error).partition("--")[2].partition("=")[0]
        raise ValueError(f"{error}. --{name}: {texts.get(name, 'see --help')}") from error
    if len(rest) > 1:
        raise ValueError(f"Flags are written --name=value, but got {rest[1]!r}; see --help.")
    return values.flag_values_dict()


def _configuration(values: dict[str, Any]) -> ExperimentConfig:
    """Makes the configuration of the flags' values and the task's defaults, and checks it."""
    dataset = values["dataset"]
    check_choice("--dataset", dataset, datasets.DATASETS)
    data_set = datasets.DATASETS[dataset]
    check_choice("--data_source", values["data_source"], data_set.data_sources)
    options = data_set.make_options(_task_options(dataset, values))
    defaults = data_set.defaults_for(options)
    said = {name: value for name, value in values.items() if name not in _NOT_CONFIGURATION}
    said["task_options"] = dataclasses.asdict(options)
    said["aggregator_options"] = {
        name: values[name] for name in _AGGREGATOR_OPTIONS if values[name] is not None
    }
    if said["algorithms"] is not None:
        said["algorithms"] = tuple(said["algorithms"])
    if said["adaptation_learning_rates"] is not None:
        said["adaptation_learning_rates"] = tuple(
            _number("--adaptation_learning_rates", text)
            for text in said["adaptation_learning_rates"]
        )
    algorithms = said["algorithms"] or defaults["algorithms"]
    for algorithm in algorithms:
        check_choice("algorithm", algorithm, registry.REGISTRY)
    hparams: dict[str, dict[str, Any]] = {}
    for name in ("inner_learning_rate", "inner_clip_norm", "server_learning_rate"):
        if values[name] is None:
            continue
        takers = [
            algorithm
            for algorithm in algorithms
            if hasattr(registry.REGISTRY[algorithm].hyperparameters, name)
        ]
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
    return ExperimentConfig.from_defaults(
        dataset, defaults, said, hparams, registry.hyperparameter_kinds()
    )


def _task_options(dataset: str, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that were given; refuses those of other data sets."""
    for name, takers in _OPTIONS.items():
        if values[name] is not None and dataset not in takers:
            raise ValueError(f"--{name} is for --dataset={' or '.join(takers)}, not for {dataset}.")
    return {name: values[name] for name in _OPTIONS if values[name] is not None}


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what} must be numbers, but got {text!r}.") from None


def _load(config: ExperimentConfig, cache_dir: Optional[str]) -> datasets.Task:
    task = datasets.load(
        config.dataset,
        datasets.Request(
            data_source=config.data_source,
            cache_dir=cache_dir,
            seed=config.seed,
            num_test_clients=config.num_test_clients,
            options=config.task_options,
        ),
    )
    if config.clients_per_round > len(task.train_clients):
        raise ValueError(
            f"--clients_per_round must be at most the number of training clients, "
            f"{len(task.train_clients)}, but is {config.clients_per_round}."
        )
    from tff_fedmeta.experiment import train

    try:
        promise = train.guarantee_of(config, task)
        if promise is not None:
            promise.epsilon(config.rounds)
    except ValueError as error:
        raise ValueError(f"The privacy asked for cannot be accounted for: {error}") from error
    if config.failures.flip_labels:
        labels = getattr(task.input_spec[1], "dtype", None)
        failures.check_labels(labels and labels.as_numpy_dtype)
    return task


def _say_datasets() -> None:
    for name, data_set in datasets.DATASETS.items():
        print(f"--dataset={name}")
        for fact, text in data_set.about.facts().items():
            print(
                textwrap.fill(f"{fact}: {text}", 92, initial_indent="  ", subsequent_indent=" " * 6)
            )


def _say_finished(output_dir: Path) -> None:
    damage = run_directory.damage(output_dir)
    if damage is not None:
        print(f"WARNING: {damage}", file=sys.stderr)
    print(f"This run is finished; nothing was done. Its results are in {output_dir}:\n")
    print((output_dir / run_directory.COMPARISON).read_text())


def _run(config: ExperimentConfig, task: datasets.Task, output_dir: Path, seconds: float) -> int:
    from tff_fedmeta.client import model_checks
    from tff_fedmeta.experiment import divergence, report, run, summary

    print(f"Configuration: {config.to_json()}")
    print(
        f"{config.dataset} (data source: {task.data_source}): {len(task.train_clients)} training, "
        f"{len(task.validation_clients)} validation and {len(task.test_clients)} test clients; "
        f"no client is in two of them.\nWriting to {output_dir}\n",
        flush=True,
    )
    try:
        with _runtime(config.runtime, output_dir) as context:
            clock = getattr(context, "client_clock", None)
            table = run.run(config, task, output_dir, seconds, clock)
    except (
        summary.NothingToMeasureError,
        model_checks.ModelError,
        run_directory.RunDirectoryError,
        datasets.DataError,  # a client of a file that cannot be read
    ) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except divergence.AllDivergedError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except worker_process.WorkerError as error:
        print(f"Error: {error}\nThe same command continues this run.", file=sys.stderr)
        return 1
    print(f"\n{table}")
    for plot in ("comparison.png", report.EXAMPLE):
        if (output_dir / plot).exists():
            print(f"Plot: {output_dir / plot}")
    for algorithm in config.algorithms:
        model = output_dir / algorithm / "keras_model" / "model.keras"
        if model.exists():  # not that of one that diverged
            print(f"Keras model: {model}")
    return 0


def _runtime(name: str, output_dir: Path) -> contextlib.AbstractContextManager[Any]:
    if name == "worker":
        return worker.worker_runtime(log_file=output_dir / "worker.log")
    return runtime.local_runtime()


def _help() -> str:
    lines = [__doc__ or ""]
    for group, entries in _FLAGS.items():
        lines.append(f"{group}:")
        for _, name, default, text in entries:
            shown = "" if default in (None, []) else f" [{json.dumps(default)}]"
            lines.append(f"  --{name}{shown}")
            lines.append(textwrap.fill(text, 92, initial_indent=" " * 6, subsequent_indent=" " * 6))
        lines.append("")
    lines.append(
        "Hyperparameters of each algorithm, for --hparam, where the data set has no other:"
    )
    for algorithm, kind in registry.hyperparameter_kinds().items():
        values = ", ".join(f"{k}={json.dumps(v)}" for k, v in dataclasses.asdict(kind()).items())
        lines.append(textwrap.fill(f"  {algorithm}: {values}", 92, subsequent_indent=" " * 6))
    lines.append("")
    for dataset, data_set in datasets.DATASETS.items():
        defaults = data_set.defaults_for(data_set.make_options())
        lines.append(f"Defaults of --dataset={dataset}:")
        lines += [f"  {name}: {json.dumps(value)}" for name, value in defaults.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
