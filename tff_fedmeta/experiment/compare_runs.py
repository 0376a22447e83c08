"""Finished runs of the same task side by side, in a report."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import (
    comparison,
    comparison_words,
    html_report,
    report_tables,
    run_directory,
)
from tff_fedmeta.experiment.results import Results
from tff_fedmeta.experiment.saved_run import SavedRun, load_run

# What makes the task, besides the clients themselves.
_TASK = ("dataset", "data_source", "task_options", "support_fraction", "repetitions")

Runs = Mapping[str, SavedRun]  # by the name that the report calls them


def write(directories: Sequence[Path], output_dir: Path | None) -> str:
    """Writes `report.html` of finished runs of the same task.

    Args:
      directories: Two or more directories of runs.
      output_dir: Where the report goes; None: `runs/comparison-HASH`.

    Returns:
      The comparison in Markdown, and where the report is.

    Raises:
      ValueError: If a directory holds no finished run, the runs are not of the same task or not of
        the same clients, or the report would go into a run.
    """
    if len(directories) < 2:
        raise ValueError("--compare takes two or more runs: --compare=RUN_A,RUN_B.")
    runs = {name: load_run(path) for name, path in zip(_names(directories), directories)}
    _check_same_task(runs)
    output_dir = output_dir or Path("runs") / f"comparison-{_hash(directories)}"
    if (output_dir / "config.json").exists():
        raise ValueError(f"{output_dir} holds a run. Choose another --output_dir for the report.")
    found = together(runs)
    text = _text(runs, found)
    with run_directory.writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    models = [
        html_report.Models(_label(algorithm, name), run.model_directory(algorithm).resolve())
        for name, run in runs.items()
        for algorithm in run.config.algorithms
        if not run.results.diverged(algorithm)
    ]
    configurations = {name: run.config for name, run in runs.items()}
    html_report.write(found, text, output_dir, models, configurations)
    return f"{text}\nReport: {output_dir / html_report.FILE}"


def together(runs: Runs) -> Results:
    """Returns the results of all runs as those of one, whose algorithms are told apart by run.

    They are compared with the baseline of the first run, or with its first algorithm.

    Raises:
      ValueError: If the runs were not tested on the same clients.
    """
    every = [
        (_label(algorithm, name), algorithm, run.results)
        for name, run in runs.items()
        for algorithm in run.config.algorithms
    ]
    metrics = {label: of.metrics[name] for label, name, of in every if name in of.metrics}
    adapted = {label: of.adapted[name] for label, name, of in every}
    first_name, first = next(iter(runs.items()))
    baseline = first.results.comparison["baseline"] or first.config.algorithms[0]
    task = first.results.task
    try:
        compared = comparison.compare(
            adapted, _label(baseline, first_name), task.higher_is_better, first.config.seed
        )
    except ValueError as error:
        raise ValueError(f"The runs cannot be compared: {error}") from error
    return Results(first.config, task, metrics, adapted, compared)


def _label(algorithm: str, run: str) -> str:
    return f"{algorithm} ({run})"


def _names(directories: Sequence[Path]) -> list[str]:
    """Returns a name for each directory: its last part, or all of it where that is not unique."""
    last = [path.resolve().name for path in directories]
    names = last if len(set(last)) == len(last) else [str(path) for path in directories]
    if len(set(names)) != len(names):
        raise ValueError(f"--compare takes different runs, but got {', '.join(names)}.")
    return names


def _hash(directories: Sequence[Path]) -> str:
    names = "\n".join(str(path.resolve()) for path in directories)
    return hashlib.sha256(names.encode()).hexdigest()[:12]


def _check_same_task(runs: Runs) -> None:
    (first_name, first), *others = runs.items()
    for name, run in others:
        for field in _TASK:
            mine, theirs = (getattr(each.config, field) for each in (first, run))
            if mine != theirs:
                raise ValueError(
                    f"{first_name} and {name} are not runs of the same task: {field} is "
                    f"{_in_words(mine)} in the one and {_in_words(theirs)} in the other."
                )


def _text(runs: Runs, found: Results) -> str:
    task, config = found.task, found.config
    unit = comparison_words.Unit(task.metric)
    baseline = found.comparison["baseline"]
    budgets = {
        _label(name, run_name): report_tables.budget(run.results, name)
        for run_name, run in runs.items()
        for name in run.config.algorithms
    }
    figures = {name: report_tables.figures(found, name) for name in found.adapted}
    clients = {name: report_tables.clients(found, name) for name in found.adapted}
    paragraphs = [
        f"# {config.dataset}: {task.metric} in {len(runs)} runs, on the same clients"
        + ("" if task.higher_is_better else " (lower is better)"),
        f"Data source: **{task.data_source}**. {found.comparison['num_clients']} test clients, "
        "never trained on, each counting the same" + (", in %." if unit.is_share else "."),
        report_tables.markdown(figures),
        "\n\n".join(found.sentences),
        "*global*: the trained model as it is; *adapted*: after adapting on a client's support, "
        "both measured on its query. *gain*: adapted minus global. *versus*: adapted minus "
        f"adapted {baseline} on the same client, with its 95 % interval.",
        "## Clients",
        report_tables.markdown(clients),
        "## Budget",
        report_tables.markdown({name: row for name, row in budgets.items() if row}),
        "## What differs",
        _differences({name: run.config for name, run in runs.items()}),
    ]
    return "\n\n".join(text for text in paragraphs if text) + "\n"


def _differences(configs: Mapping[str, ExperimentConfig]) -> str:
    """Returns the settings that are not the same in all runs, a row each."""
    values = {name: _flat(dataclasses.asdict(config)) for name, config in configs.items()}
    rows: dict[str, dict[str, str]] = {}
    for setting in sorted({setting for each in values.values() for setting in each}):
        row = {name: _in_words(each.get(setting, "-")) for name, each in values.items()}
        if len(set(row.values())) > 1:
            rows[setting] = row
    if not rows:
        return "No setting: the runs have the same configuration."
    return report_tables.markdown(rows, "setting")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _in_words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
