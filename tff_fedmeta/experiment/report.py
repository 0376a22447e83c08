"""The comparison of a run in words and tables, from the files its algorithms left."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tabulate  # type: ignore[import-untyped]
from matplotlib.figure import Figure

from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import (
    comparison,
    comparison_words,
    plots,
    remarks,
    results,
    run_directory,
    task_facts,
    task_measures,
)
from tff_fedmeta.experiment.adapted_client import AdaptedClient
from tff_fedmeta.experiment.results import Results

EXAMPLE = "example_client.png"
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
    text = table(found)
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
    _write_figure(output_dir / EXAMPLE, figure)


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
        f"{len(task.train_clients)} training, {len(task.validation_clients)} validation and "
        f"{len(task.test_clients)} test clients; the figures are over the "
        f"{compared['num_clients']} test clients that can be split, each counting the same"
        f"{percent}.",
        _markdown({name: _figures(found, name) for name in config.algorithms}),
        "\n\n".join(found.sentences),
        "*global*: the trained model as it is; *adapted*: after adapting on a client's support "
        f"({config.support_fraction:.0%} of its examples), both measured on its query (the rest). "
        f"*gain*: adapted minus global. {difference}± is half the width of the 95 % interval of "
        "the mean. The intervals are bootstraps over clients: they say what other clients of the "
        "same kind would give, not what another training run would."
        + (
            f" A client's value is its mean over the {compared['repetitions']} repetitions."
            if repeated
            else ""
        ),
        "## Clients",
        _markdown({name: _clients(found, name) for name in config.algorithms}),
        "*p10 / p50 / p90*: percentiles of adapted clients. *hurt*: share of clients whom adapting "
        "left worse off. "
        + (f"*win, tie, loss*: clients against {baseline}. " if baseline is not None else "")
        + "*adaptation*: steps and rate, chosen on validation clients, the same way for every row "
        "(learnt rates are used as they are); test clients were read once, afterwards.",
        "## Budget" + (" of a repetition, on average" if repeated else ""),
        _markdown({name: _budget(found, name) for name in found.metrics}),
        f"Every row had the same {config.rounds:,} rounds and cohorts of "
        f"{config.clients_per_round}. *examples*: those that clients walked in training. "
        "*gradients*: gradient evaluations, each of a batch; a Hessian-vector product is two.",
        f"Updates were aggregated by {remarks.aggregation(config)}. {_BYTES}",
        "\n".join(f"- {line}" for line in remarks.remarks(found)),
        f"Configuration {config.hash}, seed {config.seed}; see config.json.",
    ]
    if found.measured:
        paragraphs.append(measures_table(found.measured, task.measures.explanation).strip())
    return "\n\n".join(text for text in paragraphs if text) + "\n"


def _markdown(rows: Mapping[str, Mapping[str, str]]) -> str:
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "algorithm"
    tabulate.MIN_PADDING = 0  # or headers are two wider than they need, too wide for a terminal
    # As text: tabulate would otherwise round what looks like a number.
    return frame.to_markdown(disable_numparse=True) if rows else ""


def _figures(found: Results, name: str) -> dict[str, str]:
    row, unit = found.comparison["algorithms"][name], comparison_words.Unit(found.task.metric)

    def with_interval(value: float | None, bounds: Sequence[float | None], write: Any) -> str:
        low, high = bounds
        half = "" if low is None or high is None else f" ± {unit.number((high - low) / 2)}"
        return write(value) + half

    figures = {
        "global": unit.number(row["before"]["mean"]),
        "adapted": with_interval(row["after"]["mean"], row["after"]["ci95"], unit.number),
        "gain": with_interval(row["gain"]["mean"], row["gain"]["ci95"], unit.signed),
    }
    if found.diverged(name):
        figures = dict.fromkeys(figures, "diverged")
    if found.comparison["baseline"] is not None:
        versus = row["versus_baseline"] or {"mean": None, "ci95": [None, None]}
        low, high = versus["ci95"]
        figures["versus"] = unit.signed(versus["mean"])
        figures["95 %"] = "-" if low is None else f"{unit.signed(low)} to {unit.signed(high)}"
    return figures


def _clients(found: Results, name: str) -> dict[str, str]:
    row, unit = found.comparison["algorithms"][name], comparison_words.Unit(found.task.metric)
    figures = {
        "p10 / p50 / p90": " / ".join(unit.number(row["after"][p]) for p in ("p10", "p50", "p90")),
        "hurt": f"{row['share_hurt']:.1%}",
    }
    if found.comparison["baseline"] is not None:
        versus = row["versus_baseline"]
        figures["win, tie, loss"] = (
            f"{versus['wins']}, {versus['ties']}, {versus['losses']}" if versus else "-"
        )
    figures["adaptation"] = (
        "diverged"
        if found.diverged(name)
        else _ways([run["chosen"] for run in found.adapted[name]])
    )
    return figures


def _ways(chosen: Sequence[Mapping[str, Any]]) -> str:
    """Returns "8 at 0.02", or "8-10 at 0.02-0.05" of repetitions that chose differently."""
    steps = sorted({each["steps"] for each in chosen})
    rates = sorted({each["inner_learning_rate"] or 0.0 for each in chosen})
    ends = [f"{rate:g}" if rate else "learnt" for rate in dict.fromkeys((rates[0], rates[-1]))]
    return f"{'-'.join(map(str, dict.fromkeys((steps[0], steps[-1]))))} at {'-'.join(ends)}"


def _budget(found: Results, name: str) -> dict[str, str]:
    frames = found.metrics[name]
    rows = [_budget_of_run(frame, found.config.clients_per_round) for frame in frames]
    mean = pd.DataFrame(rows).mean()
    down, up, total = (_megabytes(mean[name]) for name in ("down", "up", "total"))
    return {
        "examples": f"{mean['examples']:,.0f}",
        "gradients": f"{mean['gradients']:,.0f}",
        "MB down / up": f"{down} / {up}",
        "MB in all": total,
        "seconds": f"{mean['seconds']:,.0f}",
    }


def _budget_of_run(metrics: pd.DataFrame, clients_per_round: int) -> dict[str, float]:
    down, up = (metrics[f"bytes/{way}_per_client"] for way in ("down", "up"))
    sampled = metrics.get("clients/sampled", clients_per_round)
    answered = sampled - metrics.get("clients/dropped", 0)
    return {
        "examples": results.examples(metrics).sum(),
        "gradients": results.gradient_evaluations(metrics).sum(),
        "down": down.max(),
        "up": up.max(),
        "total": (down * sampled + up * answered).sum(),
        "seconds": metrics["seconds"].sum(),
    }


def measures_table(measured: Mapping[str, Mapping[str, Any]], explanation: str) -> str:
    """Returns the task's own measures as Markdown.

    Args:
      measured: The summary of `measures.measure` of each algorithm.
      explanation: What the figures and the ways to predict are.
    """
    ours = (task_measures.BEFORE, task_measures.AFTER)
    some = next(iter(measured.values()))
    ways = {f"{name}, {way}": summary[way] for name, summary in measured.items() for way in ours}
    ways.update((way, figures) for way, figures in some.items() if way not in ours)
    # Which clients have a figure does not depend on how they are predicted.
    counts = {name: figure["clients"] for way in ways.values() for name, figure in way.items()}
    rows = {
        way: {
            f"{name} ({count} clients)": f"{figures[name]['mean']:.4f}" if name in figures else ""
            for name, count in counts.items()
        }
        for way, figures in ways.items()
    }
    return f"\n{_markdown(rows)}\n\n{explanation}\n"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f}" if count >= 1e9 else f"{count / 1e6:.3g}"
