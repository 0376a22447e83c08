"""The comparison of a run in words and tables, from the files its algorithms left."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from matplotlib.figure import Figure

from tff_fedmeta.algorithms.registry import trains
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import (
    comparison,
    comparison_words,
    confusion,
    html_report,
    plots,
    protocols,
    remarks,
    report_tables,
    results,
    run_directory,
    task_facts,
)
from tff_fedmeta.experiment.adapted_client import AdaptedClient
from tff_fedmeta.experiment.report_tables import measures_table
from tff_fedmeta.experiment.results import Results

_STAND_IN = "embedded (synthetic, not comparable with published figures)"
_BYTES = (
    "*MB down / up*: what the server sends to a client in a round, and a client to the server: "
    "weights, updates as the aggregator encodes them, metrics and counts, without what transport "
    "and cryptography add; *MB in all*: of all clients in all rounds of training."
)


def write_comparison(
    config: ExperimentConfig, task: Any, output_dir: Path, directories: Sequence[Path] | None = None
) -> str:
    """Writes the files of a comparison; the last is `comparison.md`, whose text it returns.

    Reads each algorithm's `metrics.csv`, `adaptation_test.json` and, where the task has measures of
    its own, `measures_test.json`, so that it can be run again on the files alone.

    Args:
      config: The configuration.
      task: The `datasets.Task`.
      output_dir: Where the files go.
      directories: The directory of each repetition. Default: `output_dir` alone.
    """
    found = results.read(config, task, directories or [output_dir])
    task_facts.write(task, output_dir)
    run_directory.write_json(output_dir / comparison.FILE, found.comparison)
    _write_figure(output_dir / "comparison.png", plots.plot(found))
    counts = confusion.counts(found)
    if counts is not None:
        run_directory.write_json(output_dir / confusion.FILE, counts)
        _write_figure(output_dir / confusion.PLOT, confusion.plot(counts))
    text = table(found)
    models = [
        html_report.Models(name, (directories or [output_dir])[0] / name / "keras_model")
        for name in config.algorithms
    ]
    html_report.write(found, text, output_dir, models, {f"{output_dir.name}/config.json": config})
    run_directory.write_text(output_dir / run_directory.COMPARISON, text)
    return text


def write_example(
    task: Any,
    client_id: str,
    drawn: Mapping[str, AdaptedClient],
    output_dir: Path,
) -> None:
    """Writes `example_client.png`: a client as each algorithm adapts to it, drawn by the task.

    Args:
      task: The `datasets.Task`, which has a `plot_client`.
      client_id: The client.
      drawn: The client for each algorithm.
      output_dir: Where the file goes.
    """
    figure = Figure(figsize=(5.5 * len(drawn), 4.5), layout="constrained")
    figure.suptitle(f"{client_id}, a client never trained on")
    every = figure.subplots(1, len(drawn), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (algorithm, client) in zip(every, drawn.items()):
        task.plot_client(axes, client_id, client.support, client.before, client.after)
        axes.set_title(algorithm)
    _write_figure(output_dir / html_report.EXAMPLE, figure)


def _write_figure(path: Path, figure: Figure) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    run_directory.write_bytes(path, image.getvalue())


def table(found: Results) -> str:
    """Returns the comparison as Markdown: tables, a row for each algorithm, and their meaning."""
    config, task, compared = found.config, found.task, found.comparison
    baseline, unit = compared["baseline"], comparison_words.Unit(task.metric)
    stands_in = task.data_source == "embedded" and task.has_real_data
    percent = ", in %" if unit.is_share else ""
    difference = (
        f"*versus*: adapted minus {baseline}'s adapted on the same client, with its 95 % interval; "
        if baseline is not None
        else ""
    )
    repeated = compared["repetitions"] > 1
    paragraphs = [
        f"# {config.dataset}: {task.metric} on clients never trained on"
        f"{'' if task.higher_is_better else ' (lower is better)'}",
        f"Data source: **{_STAND_IN if stands_in else task.data_source}**. "
        f"{remarks.who_is_tested(found)}; the figures are over the {compared['num_clients']} test "
        f"clients that can be split, each counting the same{percent}.",
        _table(found, report_tables.figures),
        "\n\n".join(found.sentences),
        "*global*: the trained model as it is; *adapted*: after adapting on a client's support "
        f"({config.support_fraction:.0%} of its examples), both measured on its query (the rest). "
        f"*gain*: adapted minus global. {difference}± is half the width of the 95 % interval of "
        "the mean. The intervals are bootstraps over clients: they say what other clients of the "
        "same kind would give, not what another training run would."
        + (
            f" A client's value is its mean over the {compared['repetitions']} repetitions"
            + (" that tested it: each drew its clients anew." if config.resplit else ".")
            if repeated
            else ""
        ),
        *(_alone(config, name) for name in config.algorithms if not trains(name)),
        "## Clients",
        _table(found, report_tables.clients),
        "*p10 / p50 / p90*: percentiles of adapted clients. *hurt*: share of clients whom adapting "
        "left worse off. "
        + (f"*win, tie, loss*: clients against {baseline}. " if baseline is not None else "")
        + f"*adaptation*: steps and rate, chosen on {_choosing(config, task)}, the same way for "
        "every row (learnt rates are used as they are); test clients were read once, afterwards.",
        *_by_support_size(found),
        *_on_others(found),
        *_day_by_day(found),
        "## Budget" + (" of a run, on average" if repeated or "folds" in compared else ""),
        _table(found, report_tables.budget),
        f"Every row had {_rounds(config)} and cohorts of "
        f"{config.clients_per_round}. *examples*: those that clients walked in training. "
        "*gradients*: gradient evaluations, each of a batch; a Hessian-vector product is two.",
        f"Updates were aggregated by {remarks.aggregation(config)}. {_BYTES}",
        "\n".join(f"- {line}" for line in remarks.remarks(found)),
        f"Configuration {config.hash}, seed {config.seed}; see config.json.",
    ]
    if found.measured:
        summaries = {name: measured["summary"] for name, measured in found.measured.items()}
        paragraphs.append(measures_table(summaries, task.measures.explanation).strip())
    return "\n\n".join(text for text in paragraphs if text) + "\n"


def _table(found: Results, row_of: Callable[[Results, str], dict[str, str]]) -> str:
    """Returns a table with a row for each algorithm that has one; "" without any."""
    rows = {name: row_of(found, name) for name in found.config.algorithms}
    return report_tables.markdown({name: row for name, row in rows.items() if row})


def _alone(config: ExperimentConfig, name: str) -> str:
    steps = config.hyperparameters[name]["adaptation_steps"]
    return (
        f"*{name}*: a client alone. Nothing is trained together: *global* are the weights that "
        "training starts from, *adapted* what a client reaches from them on its own support, with "
        f"up to {steps} steps."
    )


def _choosing(config: ExperimentConfig, task: Any) -> str:
    chose, there = len(protocols.choosing_clients(config, task)), len(task.validation_clients)
    if chose == there:
        return "validation clients"
    return (
        f"{chose:,} of the {there:,} validation clients, drawn by a fixed seed "
        "(--num_validation_clients=0 takes all)"
    )


def _by_support_size(found: Results) -> list[str]:
    table_of_sizes = _table(found, report_tables.by_support_size)
    if not table_of_sizes:
        return []
    counts = next(
        [f"{row['num_clients']:,} with {row['size']:,}" for row in each["support_sizes"]]
        for each in found.comparison["algorithms"].values()
        if "support_sizes" in each
    )
    return [
        "## Adapted on few examples",
        table_of_sizes,
        "After adapting on the first so many examples of a client's support, on the same query; "
        "rate and steps were chosen for each number. Clients with fewer support examples are left "
        f"out: there were {', '.join(counts)}.",
    ]


def _on_others(found: Results) -> list[str]:
    table_of_others = _table(found, report_tables.on_others)
    if not table_of_others:
        return []
    return [
        "## On other clients",
        table_of_others,
        f"The model adapted to a client, on the query of {found.config.forgetting_clients:,} other "
        "test clients, drawn by the seed: what adapting forgets.",
    ]


def _rounds(config: ExperimentConfig) -> str:
    if not config.patience:
        return f"the same {config.rounds:,} rounds"
    return (
        f"at most {config.rounds:,} rounds (training stops after {config.patience} evaluations "
        "without a better one, and the weights of the best round are kept)"
    )


def _day_by_day(found: Results) -> list[str]:
    if not found.days:
        return []
    number = max(days["days"] for days in found.days.values())
    return [
        "## Day by day",
        _table(found, report_tables.day_by_day),
        f"Mean over {number:,} days of test clients, each client's first day left out: *global* is "
        "the trained model, *adapted* the same after adapting on all of the client's earlier days, "
        "with the rate and the steps that validation clients chose.",
    ]
