"""The rows of the comparison's tables, and the tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

import pandas as pd
import tabulate  # type: ignore[import-untyped]

from tff_fedmeta.experiment import comparison_words, results, task_measures
from tff_fedmeta.experiment.results import Results


def markdown(rows: Mapping[str, Mapping[str, str]], heading: str = "algorithm") -> str:
    """Returns rows as a Markdown table of text, with a heading for their names."""
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = heading
    tabulate.MIN_PADDING = 0  # or headers are two wider than they need, too wide for a terminal
    # As text: tabulate would otherwise round what looks like a number.
    return frame.to_markdown(disable_numparse=True) if rows else ""


def figures(found: Results, name: str) -> dict[str, str]:
    """Returns an algorithm's row of the first table."""
    row, unit = found.comparison["algorithms"][name], comparison_words.Unit(found.task.metric)
    figures = {
        "global": unit.number(row["before"]["mean"]),
        "adapted": _with_interval(row["after"], unit, unit.number),
        "gain": _with_interval(row["gain"], unit, unit.signed),
    }
    if found.diverged(name):
        figures = dict.fromkeys(figures, "diverged")
    if found.comparison["baseline"] is not None:
        versus = row["versus_baseline"] or {"mean": None, "ci95": [None, None]}
        low, high = versus["ci95"]
        figures["versus"] = unit.signed(versus["mean"])
        figures["95 %"] = "-" if low is None else f"{unit.signed(low)} to {unit.signed(high)}"
    return figures


def _with_interval(
    figure: Mapping[str, Any], unit: comparison_words.Unit, write: Callable[[float | None], str]
) -> str:
    low, high = figure["ci95"]
    half = "" if low is None or high is None else f" ± {unit.number((high - low) / 2)}"
    return write(figure["mean"]) + half


def by_support_size(found: Results, name: str) -> dict[str, str]:
    """Returns an algorithm's row of the table by the number of support examples."""
    unit = comparison_words.Unit(found.task.metric)
    rows = found.comparison["algorithms"][name].get("support_sizes", [])
    return {f"{row['size']:,}": _with_interval(row, unit, unit.number) for row in rows}


def on_others(found: Results, name: str) -> dict[str, str]:
    """Returns an algorithm's row of the table on other clients."""
    unit = comparison_words.Unit(found.task.metric)
    row = found.comparison["algorithms"][name].get("others")
    if row is None:
        return {}
    return {
        "global on others": unit.number(row["before"]),
        "adapted to one": unit.number(row["after"]),
        "change": _with_interval(row["change"], unit, unit.signed),
    }


def clients(found: Results, name: str) -> dict[str, str]:
    """Returns an algorithm's row of the table of clients."""
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
    """Returns "8 at 0.02", or "8-10 at 0.02-0.05" of repetitions that chose differently.

    Behind it is how strongly steps are held to the trained weights, where that was chosen.
    """
    steps = sorted({each["steps"] for each in chosen})
    rates = sorted({each["inner_learning_rate"] or 0.0 for each in chosen})
    ends = [f"{rate:g}" if rate else "learnt" for rate in dict.fromkeys((rates[0], rates[-1]))]
    pulls = sorted({each.get("proximal_strength", 0.0) for each in chosen})
    held = "-".join(f"{pull:g}" for pull in dict.fromkeys((pulls[0], pulls[-1])))
    way = f"{'-'.join(map(str, dict.fromkeys((steps[0], steps[-1]))))} at {'-'.join(ends)}"
    return f"{way}, held by {held}" if pulls[-1] else way


def budget(found: Results, name: str) -> dict[str, str]:
    """Returns an algorithm's row of the table of budgets."""
    if name not in found.metrics:  # nothing was trained
        return {}
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


def day_by_day(found: Results, name: str) -> dict[str, str]:
    """Returns an algorithm's row of the days of test clients; empty: it was not measured."""
    days, unit = found.days.get(name), comparison_words.Unit(found.task.metric)
    if days is None:
        return {}
    return {"global": unit.number(days["before"]), "adapted": unit.number(days["after"])}


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
    return f"\n{markdown(rows)}\n\n{explanation}\n"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f}" if count >= 1e9 else f"{count / 1e6:.3g}"
