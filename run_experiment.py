"""Trains federated meta-learning and TFF's baselines on the same clients, and compares them.

    python run_experiment.py --dataset=emnist

All are adapted to clients that none has seen. Tables, plots and Keras models go to OUTPUT_DIR.
The same command again continues an interrupted run.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Callable, NamedTuple, Optional

import datasets
from datasets.task import DATA_SEED
from tff_fedmeta import export, plugins, runtime
from tff_fedmeta.checks import check_choice
from tff_fedmeta.command_line import experiment_flags, flags
from tff_fedmeta.command_line.configuration import configuration
from tff_fedmeta.command_line.help import data_sets_in_words, help_text
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import extension, requirements, run_directory, run_state, tracking
from tff_fedmeta.runtime import worker
from tff_fedmeta.runtime.cluster.protocol import ClusterError
from tff_fedmeta.runtime.ray import installed as ray_installed
from tff_fedmeta.runtime.ray.context import ray_runtime
from tff_fedmeta.runtime.ray.joined import RayStartError, check_answers


def main(argv: Sequence[str]) -> int:
    """Runs the experiment that the command line describes.

    Args:
      argv: The command line, the program's name first.

    Returns:
      The exit status: 0; 2 after a user's mistake, said in one sentence on stderr; 1 if TFF's
      worker or the cluster failed, or every algorithm diverged; 130 after Ctrl-C.
    """
    try:
        try:
            prepared = _prepare(argv)
        except (ValueError, RayStartError) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        if prepared is None:
            return 0
        with prepared.lock:
            status = _run(prepared)
        if status == 2:
            run_directory.abandon(prepared.output_dir, prepared.made)
        return status
    except KeyboardInterrupt:
        print("\nInterrupted. The same command continues this run.", file=sys.stderr)
        return 130


class _Prepared(NamedTuple):
    """What is to be run.

    Attributes:
      lock: The lock of the output directory.
      config: The resolved configuration.
      task: Its task.
      output_dir: Where the files go.
      made: The directories that were made for them.
      seconds: How long loading the data took.
      formats: What trained models are written as.
      load: Loads the task of a repetition, whose network starts from its own seed.
      open_reader: Returns, for a repetition, what opens its clients in another process.
      ray_address: Of the cluster that clients are computed on, where there is one.
      log_to: Where rounds and results are recorded besides.
    """

    lock: IO[str]
    config: ExperimentConfig
    task: datasets.Task
    output_dir: Path
    made: Sequence[Path]
    seconds: float
    formats: Sequence[str]
    load: Callable[[ExperimentConfig], datasets.Task]
    open_reader: Callable[[ExperimentConfig], Callable[[], Any]]
    ray_address: Optional[str]
    log_to: Optional[str]


def _prepare(argv: Sequence[str]) -> Optional[_Prepared]:
    """Checks everything, loads the data and takes the output directory.

    Returns:
      What is to be run; None after printing the help, or a finished run.

    Raises:
      ValueError: If the user has to change something.
    """
    argv = flags.expand(argv)
    hashes = plugins.load(flags.given(argv, "plugin"))
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(help_text(datasets.DATASETS, __doc__, argv))
        return None
    values = flags.parse(experiment_flags.groups(datasets.DATASETS), argv)
    answer = _answer(values)
    if answer is not None:
        print(answer)
        return None
    config = configuration(datasets.DATASETS, values, hashes)
    _check_runtime(config.runtime, values["ray_address"])
    tracking.check(values["log_to"])
    for name in values["export"]:
        check_choice("--export", name, export.FORMATS)
    output_dir = Path(values["output_dir"]).expanduser() if values["output_dir"] else None
    shorter = None
    if output_dir is not None:  # a wrong directory is said before any data is loaded
        config, shorter = _as_found(config, output_dir, values)
        if shorter is None and run_directory.is_finished(output_dir):
            _say_finished(output_dir, values["export"])
            return None
    runtime.quiet_tensorflow()
    start = time.perf_counter()
    config, task = load_task(config, values)
    seconds = time.perf_counter() - start
    if values["dry_run"]:
        from tff_fedmeta.experiment import dry_run

        print(dry_run.report(config, task))
        return None
    output_dir = output_dir or Path("runs") / f"{config.dataset}-{config.hash}"
    if shorter is not None:
        kept = extension.begin(shorter, config, output_dir)
        print(f"Training goes on after round {shorter.rounds}; its results are kept in {kept}.")
    run_directory.find_run(config, output_dir, values["resume"])
    if run_directory.is_finished(output_dir):
        _say_finished(output_dir, values["export"])
        return None
    made = run_directory.missing(output_dir)
    lock = run_directory.claim(config, output_dir, task.assets)
    load = functools.partial(_load, values=values)
    opening = functools.partial(_open_reader, values=values)
    how = values["export"], load, opening, values["ray_address"], values["log_to"]
    return _Prepared(lock, config, task, output_dir, made, seconds, *how)


def _answer(values: Mapping[str, Any]) -> Optional[str]:
    """Returns what --dataset=help, --list and --compare print; None if a run is asked for."""
    if values["dataset"] == "help":
        return data_sets_in_words(datasets.DATASETS)
    if not (values["list"] or values["compare"]):
        return None
    from tff_fedmeta.experiment import compare_runs, listing

    directory = Path(values["output_dir"]).expanduser() if values["output_dir"] else None
    if values["list"]:
        return listing.table(directory or Path("runs"))
    return compare_runs.write([Path(run).expanduser() for run in values["compare"]], directory)


def _as_found(
    config: ExperimentConfig, output_dir: Path, values: Mapping[str, Any]
) -> tuple[ExperimentConfig, Optional[ExperimentConfig]]:
    """Returns the configuration that continues what the directory holds.

    Behind it stands the configuration of the finished run with fewer rounds that is to go on, None
    if there is none.

    Raises:
      ValueError: If the directory holds another run.
    """
    left_open = ("clients_per_round",) * (values["clients_per_round"] is None)
    shorter = extension.shorter_run(config, output_dir, values["resume"], left_open)
    if shorter is not None:
        return dataclasses.replace(shorter, rounds=config.rounds), shorter
    found = run_directory.find_run(config, output_dir, values["resume"], left_open)
    has_stand_in = datasets.DATASETS[config.dataset].about.source != "embedded"
    begun_on_it = has_stand_in and found and config.data_source != found.data_source == "embedded"
    if begun_on_it and not run_directory.is_finished(output_dir):
        print(
            f"WARNING: {output_dir} was begun on the EMBEDDED stand-in and continues on it. "
            "For the real data choose another --output_dir.",
            file=sys.stderr,
        )
    return found or config, None


def _open_reader(config: ExperimentConfig, values: Mapping[str, Any]) -> Callable[[], Any]:
    """Returns what opens a run's clients in another process; it can be pickled."""
    opening = functools.partial(datasets.open_reader, config.dataset, _request(config, values))
    if values["plugin"]:
        return plugins.Sent(values["plugin"], opening)
    return opening


def _request(config: ExperimentConfig, values: Mapping[str, Any]) -> datasets.Request:
    directory = values["cache_dir"]
    return datasets.Request(
        data_source=config.data_source,
        # Other processes may be started elsewhere.
        cache_dir=directory and Path(directory).expanduser().absolute(),
        seed=config.seed,
        num_test_clients=config.num_test_clients,
        options=config.task_options,
        fold=datasets.Fold(config.fold or 0, config.folds) if config.folds > 1 else None,
        split_seed=config.seed if config.resplit else DATA_SEED,
    )


def _check_runtime(name: str, ray_address: Optional[str]) -> None:
    if name == "ray":
        ray_installed.check()
        if ray_address is not None:
            check_answers(ray_address)
    elif ray_address is not None:
        raise ValueError(f"--ray_address is for --runtime=ray, but the runtime is {name}.")


def load_task(
    config: ExperimentConfig, values: Mapping[str, Any]
) -> tuple[ExperimentConfig, datasets.Task]:
    """Loads the task of a command line, and returns it behind the configuration that fits it.

    Args:
      config: The configuration, whose data source may be "auto".
      values: The value of each flag, as `flags.parse` returns them.

    Raises:
      ValueError: If the data cannot be had, or the configuration does not go with them.
    """
    task = _load(config, values)
    left_open = values["clients_per_round"] is None
    cohort = requirements.cohort_size(config, len(task.train_clients), left_open)
    if cohort < config.clients_per_round:
        print(f"Each round has all {cohort} training clients: there are no more.", file=sys.stderr)
    config = dataclasses.replace(config, clients_per_round=cohort, data_source=task.data_source)
    return config, task


def _load(config: ExperimentConfig, values: Mapping[str, Any]) -> datasets.Task:
    """Loads the task, with the user's own network and weights in it."""
    requirements.check_builders(config)
    left_open = values["clients_per_round"] is None
    task = datasets.load(
        config.dataset,
        dataclasses.replace(
            _request(config, values),
            check_clients=functools.partial(requirements.check_clients, config, left_open),
        ),
    )
    if config.model is None and config.initial_model is None:
        return task
    from tff_fedmeta import keras_files
    from tff_fedmeta.experiment import own_model

    if config.model is not None:
        task = own_model.replace_network(task, keras_files.open_model(values["model"]))
    if config.initial_model is not None:
        task = own_model.replace_initial_weights(task, values["initial_model"])
    return task


def _say_finished(output_dir: Path, formats: Sequence[str]) -> None:
    damage = run_directory.damage(output_dir)
    if damage is not None:
        print(f"WARNING: {damage}", file=sys.stderr)
    homes = list(output_dir.glob("**/keras_model"))
    for name in (export.FILES[form] for form in formats):
        if damage is None and not any((home / name).exists() for home in homes):
            print(
                f"WARNING: {output_dir} has no {name}, and a finished run exports nothing more: "
                "docs/export.md says how to make it of model.keras.",
                file=sys.stderr,
            )
    print(f"This run is finished; nothing was done. Its results are in {output_dir}:\n")
    print((output_dir / run_directory.COMPARISON).read_text())


def _run(prepared: _Prepared) -> int:
    from tff_fedmeta.client import model_checks, source
    from tff_fedmeta.experiment import divergence, html_report, run, summary
    from tff_fedmeta.runtime import computations
    from tff_fedmeta.runtime.cluster import parcel

    config, task, output_dir = prepared.config, prepared.task, prepared.output_dir
    folds = f"; each is tested in one of {config.folds} folds" if config.folds > 1 else ""
    print(
        f"{config.dataset} (data source: {task.data_source}): {len(task.train_clients)} training, "
        f"{len(task.validation_clients)} validation and {len(task.test_clients)} test clients; "
        f"no client is in two of them{folds}.\n{config.in_words()}\nWriting to {output_dir}\n",
        flush=True,
    )
    try:
        with RUNTIMES[config.runtime](prepared) as context:
            told = {
                "client_clock": getattr(context, "client_clock", None),
                "runtime_figures": getattr(context, "figures", None),
            }
            if config.parts():
                table = _run_parts(prepared, told)
            else:
                table = run.run(
                    config,
                    task,
                    output_dir,
                    prepared.seconds,
                    formats=prepared.formats,
                    log_to=prepared.log_to,
                    open_reader=prepared.open_reader(config),
                    **told,
                )
    except (
        summary.NothingToMeasureError,
        model_checks.ModelError,
        requirements.BuildError,
        run_directory.RunDirectoryError,
        datasets.DataError,  # a client of a file that cannot be read
        source.ClientSourceError,
        parcel.UnsendableError,
        computations.UnsupportedComputationError,
        RayStartError,
    ) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except divergence.AllDivergedError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except (worker.WorkerError, ClusterError) as error:
        print(f"Error: {error}\nThe same command continues this run.", file=sys.stderr)
        return 1
    print(f"\n{table}")
    print(f"Report: {output_dir / html_report.FILE}")
    for directory in run_state.directories(output_dir, config):
        for form, name in export.FILES.items():
            for path in sorted(directory.glob(f"*/keras_model/{name}")):
                print(f"Model ({form}): {path}")
    return 0


def _run_parts(prepared: _Prepared, told: Mapping[str, Any]) -> str:
    """Runs every fold and repetition in a directory of its own, and compares over all of them.

    Args:
      prepared: What is to be run.
      told: What the runtime tells of its rounds, as `run.run` takes it.
    """
    from tff_fedmeta.experiment import report, run

    config, output_dir = prepared.config, prepared.output_dir
    parts = {output_dir / name: part for name, part in config.parts().items()}
    for number, (directory, part) in enumerate(parts.items(), 1):
        # Folds may leave fewer clients to train than the first does.
        run_directory.find_run(part, directory, True, ["clients_per_round"])
        if run_directory.is_finished(directory):
            continue
        print(f"Run {number} of {len(parts)}: {directory.name}", flush=True)
        task = prepared.load(part)
        cohort = requirements.cohort_size(part, len(task.train_clients), left_open=True)
        part = dataclasses.replace(part, clients_per_round=cohort)
        with run_directory.claim(part, directory, task.assets):
            run.run(
                part,
                task,
                directory,
                formats=prepared.formats,
                log_to=prepared.log_to,
                open_reader=prepared.open_reader(part),
                **told,
            )
    table = report.write_comparison(config, prepared.task, output_dir, list(parts))
    run_directory.finish(output_dir)
    return table


# name -> what opens it, given what is to be run.
RUNTIMES: dict[str, Callable[[_Prepared], Any]] = {
    "local": lambda prepared: runtime.local_runtime(),
    "worker": lambda prepared: worker.worker_runtime(log_file=prepared.output_dir / "worker.log"),
    "ray": lambda prepared: ray_runtime(prepared.ray_address, modules=[datasets]),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
