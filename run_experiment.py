"""Trains federated meta-learning and TFF's baselines on the same clients, and compares them.

    python run_experiment.py --dataset=emnist

All are adapted to clients that none has seen. Tables, plots and Keras models go to OUTPUT_DIR.
The same command again continues an interrupted run.
"""

import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Callable, NamedTuple, Optional

import datasets
from tff_fedmeta import command_line, export, plugins, runtime
from tff_fedmeta.algorithms import registry
from tff_fedmeta.checks import check_choice
from tff_fedmeta.command_line import MULTI, Flag
from tff_fedmeta.config import ExperimentConfig, aggregator_options, failures
from tff_fedmeta.experiment import run_directory
from tff_fedmeta.runtime import worker, worker_process

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
    Flag(
        "export",
        command_line.LIST,
        [export.KERAS],
        f"What trained models are written as, of: {', '.join(export.FORMATS)}.",
    ),
]
_TRAINING = ("algorithms", "rounds", "clients_per_round", "batch_size", "inner_epochs")
_EVALUATION = ("support_fraction", "adaptation", "num_test_clients", "rounds_per_evaluation")
_FILES = ("model", "initial_model")  # flags that name files, of which the configuration has hashes


def main(argv: Sequence[str]) -> int:
    """Runs the experiment that the command line describes.

    Args:
      argv: The command line, the program's name first.

    Returns:
      The exit status: 0; 2 after a user's mistake, said in one sentence on stderr; 1 if TFF's
      worker failed or every algorithm diverged; 130 after Ctrl-C.
    """
    try:
        try:
            prepared = _prepare(argv)
        except ValueError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        if prepared is None:
            return 0
        with prepared.lock:
            return _run(prepared)
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
      seconds: How long loading the data took.
      formats: What trained models are written as.
      load: Loads the task of a repetition, whose network starts from its own seed.
    """

    lock: IO[str]
    config: ExperimentConfig
    task: datasets.Task
    output_dir: Path
    seconds: float
    formats: Sequence[str]
    load: Callable[[ExperimentConfig], datasets.Task]


def _prepare(argv: Sequence[str]) -> Optional[_Prepared]:
    """Checks everything, loads the data and takes the output directory.

    Returns:
      What is to be run; None, having said what there is to say, if there is nothing.

    Raises:
      ValueError: If the user has to change something.
    """
    hashes = plugins.load(command_line.given(argv, "plugin"))
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(_help(argv))
        return None
    values = command_line.parse(_groups(), argv)
    if values["dataset"] == "help":
        return _say_datasets()
    config = _configuration(values, hashes)
    for name in values["export"]:
        check_choice("--export", name, export.FORMATS)
    output_dir = Path(values["output_dir"]).expanduser() if values["output_dir"] else None
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
    task = _load(config, values)
    seconds = time.perf_counter() - start
    config = dataclasses.replace(config, data_source=task.data_source)
    output_dir = output_dir or Path("runs") / f"{config.dataset}-{config.hash}"
    run_directory.find_run(config, output_dir, values["resume"])
    if run_directory.is_finished(output_dir):
        return _say_finished(output_dir)
    lock = run_directory.claim(config, output_dir, task.assets)
    load = functools.partial(_load, values=values)
    return _Prepared(lock, config, task, output_dir, seconds, values["export"], load)


def _groups() -> dict[str, list[Flag]]:
    """Returns all flags by group of the help."""
    settings = {flag.name: flag for flag in command_line.flags_of(ExperimentConfig)}
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
        "Options of aggregators": list(_aggregator_flags().values()),
        "Options of data sets": list(_option_flags().values()),
    }


def _aggregator_flags() -> dict[str, Flag]:
    flags: dict[str, Flag] = {}
    for name, kind in aggregator_options.AGGREGATORS.items():
        for flag in command_line.flags_of(kind):
            flags[flag.name] = flag._replace(text=f"{name}: {flag.text}")
    return flags


def _option_flags() -> dict[str, Flag]:
    flags: dict[str, Flag] = {}
    for row in (row for name in datasets.DATASETS for row in datasets.describe_options(name)):
        if row.name not in _FILES:
            default = "" if row.default is None else f" [{json.dumps(row.default)}]"
            flags[row.name] = Flag(row.name, row.kind, None, row.text + default)
    return flags


def _configuration(values: Mapping[str, Any], plugin_hashes: dict[str, str]) -> ExperimentConfig:
    """Makes the configuration of the flags' values and the task's defaults, and checks it."""
    dataset = values["dataset"]
    check_choice("--dataset", dataset, datasets.DATASETS)
    data_set = datasets.DATASETS[dataset]
    check_choice("--data_source", values["data_source"], data_set.data_sources)
    options = data_set.make_options(_task_options(dataset, values))
    defaults = data_set.defaults_for(options)
    fields = {flag.name for flag in command_line.flags_of(ExperimentConfig)}
    said = {name: value for name, value in values.items() if name in fields}
    said["data_source"] = values["data_source"]
    said["task_options"] = dataclasses.asdict(options)
    said["plugins"] = plugin_hashes
    said["aggregator_options"] = {
        name: values[name] for name in _aggregator_flags() if values[name] is not None
    }
    for name in _FILES:
        said[name] = _hash_of_file(name, values[name]) if _is_file(dataset, name, values) else None
    for name, kind in (("algorithms", str), ("adaptation_learning_rates", float)):
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


def _task_options(dataset: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that were given; refuses those of other data sets."""
    takers: dict[str, list[str]] = {}
    for name in datasets.DATASETS:
        for row in datasets.describe_options(name):
            takers.setdefault(row.name, []).append(name)
    for name, sets in takers.items():
        if name not in _FILES and values[name] is not None and dataset not in sets:
            raise ValueError(f"--{name} is for --dataset={' or '.join(sets)}, not for {dataset}.")
    return {
        name: values[name]
        for name, sets in takers.items()
        if dataset in sets and values[name] is not None and not _is_file(dataset, name, values)
    }


def _is_file(dataset: str, name: str, values: Mapping[str, Any]) -> bool:
    """Returns whether a flag names a file of the user's, rather than an option of the data set."""
    if name not in _FILES or values[name] is None:
        return False
    options = [row.name for row in datasets.describe_options(dataset)]
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
        raise ValueError(f"--{name} must be numbers, but got {text!r}.") from None


def _load(config: ExperimentConfig, values: Mapping[str, Any]) -> datasets.Task:
    """Loads the task, with the user's own network and weights in it, and checks that it can run."""
    from tff_fedmeta import keras_files
    from tff_fedmeta.experiment import own_model, process, train

    process.check_builders(config)
    task = datasets.load(
        config.dataset,
        datasets.Request(
            data_source=config.data_source,
            cache_dir=values["cache_dir"],
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
    if config.failures.flip_labels:
        labels = getattr(task.input_spec[1], "dtype", None)
        failures.check_labels(labels and labels.as_numpy_dtype)
    try:
        promise = train.guarantee_of(config, task)
        if promise is not None:
            promise.epsilon(config.rounds)
    except ValueError as error:
        raise ValueError(f"The privacy asked for cannot be accounted for: {error}") from error
    if config.model is not None:
        task = own_model.replace_network(task, keras_files.open_model(values["model"]))
    if config.initial_model is not None:
        task = own_model.replace_initial_weights(task, values["initial_model"])
    return task


def _say_datasets() -> None:
    for name, data_set in datasets.DATASETS.items():
        print(f"--dataset={name}")
        for fact, text in data_set.about.facts().items():
            print("\n".join(command_line.row(f"  {fact}", text)))


def _say_finished(output_dir: Path) -> None:
    damage = run_directory.damage(output_dir)
    if damage is not None:
        print(f"WARNING: {damage}", file=sys.stderr)
    print(f"This run is finished; nothing was done. Its results are in {output_dir}:\n")
    print((output_dir / run_directory.COMPARISON).read_text())


def _run(prepared: _Prepared) -> int:
    from tff_fedmeta.client import model_checks
    from tff_fedmeta.experiment import divergence, process, report, run, summary

    config, task, output_dir = prepared.config, prepared.task, prepared.output_dir
    print(
        f"{config.dataset} (data source: {task.data_source}): {len(task.train_clients)} training, "
        f"{len(task.validation_clients)} validation and {len(task.test_clients)} test clients; "
        f"no client is in two of them.\n{config.in_words()}\nWriting to {output_dir}\n",
        flush=True,
    )
    try:
        with RUNTIMES[config.runtime](output_dir) as context:
            clock = getattr(context, "client_clock", None)
            if config.repetitions > 1:
                table = _repeat(prepared, clock)
            else:
                table = run.run(config, task, output_dir, prepared.seconds, clock, prepared.formats)
    except (
        summary.NothingToMeasureError,
        model_checks.ModelError,
        process.BuildError,
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
    for model in sorted(output_dir.glob("**/keras_model/model.keras")):
        print(f"Keras model: {model}")
    return 0


def _repeat(prepared: _Prepared, clock: Optional[Callable[[], float]]) -> str:
    """Runs every repetition in a directory of its own, and compares over all of them."""
    from tff_fedmeta.experiment import report, run

    config, output_dir = prepared.config, prepared.output_dir
    directories = []
    for number in range(config.repetitions):
        repetition = config.repetition(number)
        directory = output_dir / f"seed_{repetition.seed}"
        directories.append(directory)
        run_directory.find_run(repetition, directory, True)
        if run_directory.is_finished(directory):
            continue
        print(
            f"Repetition {number + 1} of {config.repetitions}, seed {repetition.seed}", flush=True
        )
        task = prepared.load(repetition)
        with run_directory.claim(repetition, directory, task.assets):
            run.run(repetition, task, directory, client_clock=clock, formats=prepared.formats)
    table = report.write_comparison(config, prepared.task, output_dir, directories)
    run_directory.finish(output_dir)
    return table


# name -> what opens it, given the output directory.
RUNTIMES = {
    "local": lambda output_dir: runtime.local_runtime(),
    "worker": lambda output_dir: worker.worker_runtime(log_file=output_dir / "worker.log"),
}


def _help(argv: Sequence[str]) -> str:
    """Returns the help; of a data set or algorithms too, where the command line names some."""
    groups: dict[str, list[Flag]] = _groups()
    options = groups.pop("Options of data sets")
    text = f"{__doc__}\n{command_line.help_of(groups)}"
    named = [name for name in command_line.given(argv, "dataset") if name in datasets.DATASETS]
    asked = [name for text in command_line.given(argv, "algorithms") for name in text.split(",")]
    if not named:
        names = ", ".join(datasets.DATASETS)
        text += _more("--dataset=NAME --help", f"Adds options and defaults of a data set: {names}.")
    for name in named:
        rows = {row.name for row in datasets.describe_options(name)}
        own = {f"\nOptions of {name}": [flag for flag in options if flag.name in rows]}
        defaults = datasets.DATASETS[name].defaults
        text += command_line.help_of(own) + f"\nDefaults of {name}:\n"
        plain = {key: value for key, value in defaults.items() if key != "hyperparameters"}
        text += "\n".join(line for key, value in plain.items() for line in _default(key, value))
        text += "\n"
    if not asked:
        names = ", ".join(registry.REGISTRY)
        text += _more("--algorithms=NAMES --help", f"Adds hyperparameters of algorithms: {names}.")
    for name in asked:
        check_choice("algorithm", name, registry.REGISTRY)
        flags = [
            flag._replace(name=f"hparam={name}.{flag.name}")
            for flag in command_line.flags_of(registry.REGISTRY[name].hyperparameters)
        ]
        text += "\n" + command_line.help_of({f"Hyperparameters of {name}": flags})
    return text


def _more(flags: str, text: str) -> str:
    return "\n".join(command_line.row(flags, text)) + "\n"


def _default(name: str, value: Any) -> list[str]:
    shown = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return command_line.row(name, shown)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
