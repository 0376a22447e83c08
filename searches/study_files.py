"""The files of a search: Optuna's storage, the best settings as flags, and the report."""

from __future__ import annotations

import fcntl
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Callable

import optuna
import pandas as pd

from searches import space
from tff_fedmeta import seeds
from tff_fedmeta.algorithms import registry
from tff_fedmeta.command_line.flags import LIST, MULTI, Flag
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import protocols, report_tables, run_directory

STORAGE, CONFIG, REPORT, TRIALS = "trials.sqlite3", "search.json", "search.md", "trials.csv"
_DONE = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
# Flags of run_experiment.py that say nothing of what is searched.
_NOT_OF_A_RUN = (
    "output_dir",
    "resume",
    "algorithms",
    "baseline",
    "repetitions",
    "export",
    "runtime",
    "ray_address",
    "list",
    "compare",
    "dry_run",
    "log_to",
    "hparam",
)


def claim(config: ExperimentConfig, output_dir: Path) -> IO[str]:
    """Takes the directory of a search for this process alone, or continues the search in it.

    Returns:
      The lock, held as long as it is open.

    Raises:
      ValueError: If another process is at work there, or it holds another search or a run.
    """
    if (output_dir / "config.json").exists():
        raise ValueError(f"{output_dir} holds a run, not a search. Choose another --output_dir.")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = open(output_dir / ".lock", "w")  # noqa: SIM115, held by the caller
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"Another process is at work in {output_dir}.") from None
    except OSError as error:
        raise ValueError(f"{output_dir} cannot be written: {error.strerror}.") from error
    file = output_dir / CONFIG
    if file.exists():
        difference = config.differences(ExperimentConfig.from_json(file.read_text()))
        if difference:
            raise ValueError(
                f"{output_dir} holds another search: {difference}. Choose another --output_dir."
            )
    run_directory.write_text(file, config.to_json())
    return lock


def open_study(
    output_dir: Path,
    algorithm: str,
    config: ExperimentConfig,
    searched: space.Space,
    higher_is_better: bool,
) -> optuna.Study:
    """Opens the study of an algorithm; trials that were under way when it was killed are redone.

    The first trial of a new one has the settings that a run would have.
    """
    storage = f"sqlite:///{(output_dir / STORAGE).absolute()}"
    study = optuna.create_study(
        storage=storage,
        study_name=algorithm,
        direction="maximize" if higher_is_better else "minimize",
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=min(config.rounds_per_evaluation, config.rounds),
            max_resource=config.rounds,
        ),
        load_if_exists=True,
    )
    # A continued search must not draw the same again.
    seed = seeds.stream_seed_int(config.seed, "search", algorithm, len(study.trials))
    study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    if not study.trials:
        settings = config.hyperparameters[algorithm]
        study.enqueue_trial({name: settings[name] for name in searched})
    return study


def done(study: optuna.Study) -> int:
    """Returns how many trials came to an end, those given up early included."""
    return len(study.get_trials(deepcopy=False, states=_DONE))


def best(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """Returns the best trial; None if none came to its end."""
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    return study.best_trial if complete else None


def as_flags(groups: Mapping[str, Sequence[Flag]], values: Mapping[str, Any]) -> list[str]:
    """Returns what a command line gave of run_experiment.py's flags, a text a flag."""
    given = [f"--hparam={text}" for text in values["hparam"]]
    for flag in (flag for group in groups.values() for flag in group):
        value = values[flag.name]
        if flag.name in _NOT_OF_A_RUN or value == flag.default:
            continue
        if flag.kind is bool:
            given.append(f"--{flag.name}" if value else f"--no{flag.name}")
        elif flag.kind == MULTI:
            given += [f"--{flag.name}={text}" for text in value]
        else:
            text = ",".join(value) if flag.kind == LIST else str(value)
            given.append(f"--{flag.name}={text}")
    return given


def best_flags(study: optuna.Study, searched: space.Space, given: Sequence[str]) -> list[str]:
    """Returns the flags with which run_experiment.py runs the best trial again."""
    algorithm, trial = study.study_name, best(study)
    kind = registry.REGISTRY[algorithm].hyperparameters
    kept = []
    for text in given:
        name, _, value = text[2:].partition("=")
        if name == "hparam" and not value.startswith(f"{algorithm}."):
            continue
        if name in space.OF_ALL and not hasattr(kind, name):
            continue
        kept.append(text)
    settings = {} if trial is None else {name: trial.params[name] for name in searched}
    found = [f"--hparam={algorithm}.{name}={value}" for name, value in settings.items()]
    return [*kept, f"--algorithms={algorithm}", *found]


def write_best(
    study: optuna.Study, searched: space.Space, given: Sequence[str], output_dir: Path
) -> None:
    """Writes the flag file of an algorithm's best settings so far, if there are any."""
    if best(study) is not None:
        lines = best_flags(study, searched, given)
        run_directory.write_text(output_dir / f"{study.study_name}.flags", "\n".join(lines) + "\n")


def write_report(
    studies: Mapping[str, optuna.Study], config: ExperimentConfig, task: Any, output_dir: Path
) -> str:
    """Writes the table of all trials, the plots and the report, which it returns."""
    frames = []
    for name, study in studies.items():
        columns = ("number", "state", "value", "params", "user_attrs")
        frames.append(study.trials_dataframe(attrs=columns).assign(algorithm=name))
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "algorithm", table.pop("algorithm"))
    run_directory.write_text(output_dir / TRIALS, table.to_csv(index=False))
    judges = len(protocols.choosing_clients(config, task))
    paragraphs = [
        f"# {config.dataset}: search on {task.metric} of validation clients"
        f"{'' if task.higher_is_better else ' (lower is better)'}",
        f"Data source: {task.data_source}. Judged by {judges}"
        f" of {len(task.validation_clients)} validation clients after adapting, seed "
        f"{config.seed}; test clients were not read. *default*: the settings that a run would "
        "have. The best of many trials looks better than it is: compare on test clients, with "
        "--repetitions.",
        report_tables.markdown({name: _row(study) for name, study in studies.items()}),
    ]
    for name, study in studies.items():
        paragraphs += _of_algorithm(name, study, output_dir)
    text = "\n\n".join(paragraphs) + "\n"
    run_directory.write_text(output_dir / REPORT, text)
    return text


def _row(study: optuna.Study) -> dict[str, str]:
    states = [trial.state for trial in study.trials]
    found, first = best(study), study.trials[0]
    return {
        "trials": str(done(study)),
        "given up": str(states.count(optuna.trial.TrialState.PRUNED)),
        "default": "-" if first.value is None else f"{first.value:.4f}",
        "best": "-" if found is None else f"{found.value:.4f}",
        "trial": "-" if found is None else str(found.number),
    }


def _of_algorithm(name: str, study: optuna.Study, output_dir: Path) -> list[str]:
    if best(study) is None:
        return [f"## {name}", "No trial came to its end."]
    file = output_dir / f"{name}.flags"
    hparams = [line for line in file.read_text().splitlines() if line.startswith("--hparam")]
    words = [
        f"## {name}",
        f"`python run_experiment.py --flagfile={file}` runs the best settings, from the directory "
        "of the search:",
        "\n".join(f"    {line}" for line in hparams),
    ]
    return words + _plots(name, study, output_dir)


def _plots(name: str, study: optuna.Study, output_dir: Path) -> list[str]:
    """Writes Optuna's plots, and says where there is none."""
    import matplotlib

    matplotlib.use("Agg")  # Optuna draws with pyplot; no display is needed
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as visualization

    words = []
    plots: dict[str, Callable[[optuna.Study], Any]] = {
        "history": visualization.plot_optimization_history,
        "importances": visualization.plot_param_importances,
    }
    for kind, plot in plots.items():
        file = output_dir / f"{name}_{kind}.png"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna calls these plots experimental
                figure = plot(study).figure
                image = io.BytesIO()
                figure.savefig(image, format="png", dpi=120, bbox_inches="tight")
        except (ValueError, RuntimeError) as error:
            words.append(f"There is no plot of {kind}: {error}")
            continue
        finally:
            pyplot.close("all")
        run_directory.write_bytes(file, image.getvalue())
    return words
