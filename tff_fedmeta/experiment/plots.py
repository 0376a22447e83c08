"""The panels of `comparison.png`. Each is one function of (axes, results); `PLOTS` lists them."""

from __future__ import annotations

import textwrap
from typing import Any, Callable

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tff_fedmeta.experiment import comparison, comparison_words, divergence, results
from tff_fedmeta.experiment.results import Results

Panel = Callable[[Axes, Results], None]


def by_rounds(axes: Axes, found: Results) -> None:
    """Draws the metric on validation clients against the rounds of training."""
    _plot_training(axes, found, lambda frame: pd.Series(frame.index, frame.index))
    axes.set(title="Validation clients during training", xlabel="round")


def by_budget(axes: Axes, found: Results) -> None:
    """Draws the metric on validation clients against the work of the training clients."""
    _plot_training(axes, found, lambda frame: results.gradient_evaluations(frame).cumsum())
    axes.set(title="The same against the work of clients", xlabel="gradient evaluations")


def _plot_training(axes: Axes, found: Results, work: Callable[[pd.DataFrame], pd.Series]) -> None:
    """Draws a line for each algorithm and repetition, and a dashed one before adapting."""
    column = f"validation/{found.task.metric}"
    for name, frames in found.metrics.items():
        for repetition, frame in enumerate(frames):
            sound = divergence.within_reason(frame)
            rows = sound.dropna(subset=[f"{column}_after"])
            x = work(frame)[rows.index]
            color, label = _color(found, name), "" if repetition else name
            if label and found.diverged(name):
                label += " diverged"
            axes.plot(x, rows[f"{column}_after"], "o-", ms=3, color=color, label=label)
            axes.plot(x, rows[f"{column}_before"], "--", color=color, alpha=0.5)
    axes.plot([], [], "o-", ms=3, color="gray", label="adapted")
    axes.plot([], [], "--", color="gray", alpha=0.5, label="global (before adapting)")
    axes.set(ylabel=found.task.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def by_steps(axes: Axes, found: Results) -> None:
    """Draws the mean of test clients and its 95 % interval against the steps of adaptation."""
    metric = found.task.metric
    for name, runs in found.adapted.items():
        run, color = runs[0], _color(found, name)
        if found.diverged(name):
            continue
        curves = np.array([client[metric] for client in run["clients"]], np.float64)
        measured = np.isfinite(curves).any(axis=0)  # not every step of many is
        chosen = run["chosen"]["steps"]
        # Without the clients that diverged at any step.
        curves = curves[np.isfinite(curves[:, measured]).all(axis=1)]
        if not len(curves):
            continue
        steps = np.array(run["steps"])[measured]
        mean = curves.mean(axis=0)
        label = f"{name}: {chosen} steps at {results.rate_in_words(run['chosen'])}"
        if name not in found.metrics and found.metrics:  # alone it takes many more steps
            axes.axhline(mean[chosen], linestyle=":", color=color, label=f"alone, {label}")
            continue
        axes.plot(steps, mean[measured], color=color, label=label)
        if len(curves) > 1:
            bounds = [comparison.interval(at, found.config.seed) for at in curves[:, measured].T]
            axes.fill_between(steps, *np.array(bounds).T, color=color, alpha=0.12)
        axes.plot(chosen, mean[chosen], "o", color=color, ms=8)
    first = " of the first repetition" if found.comparison["repetitions"] > 1 else ""
    first = " of the first fold" if "folds" in found.comparison else first
    axes.set(
        title=f"Test clients{first}: mean and its 95 % interval",
        xlabel="adaptation steps on support (dot: chosen on validation clients)",
        ylabel=f"query {metric}",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def by_client(axes: Axes, found: Results) -> None:
    """Draws every test client before and after adapting."""
    for name, runs in found.adapted.items():
        if found.diverged(name):
            continue
        values = comparison.client_values(runs, found.task.metric)
        hurt = found.comparison["algorithms"][name]["share_hurt"]
        axes.scatter(
            values["before"],
            values["after"],
            s=20,
            alpha=0.5,
            color=_color(found, name),
            label=f"{name}: {hurt:.0%} hurt",
        )
    better = "above" if found.task.higher_is_better else "below"
    both = [*axes.get_xlim(), *axes.get_ylim()]  # of the points alone: the line has an origin
    axes.axline((0, 0), slope=1, color="gray", linewidth=1)
    axes.set(
        title=f"Each test client: {better} the line adaptation helped",
        xlabel=f"query {found.task.metric} before adapting",
        ylabel=f"query {found.task.metric} after",
        xlim=(min(both), max(both)),
        ylim=(min(both), max(both)),
    )
    axes.legend()


def paired_differences(axes: Axes, found: Results) -> None:
    """Draws what each algorithm makes of a client beyond what the baseline makes of it.

    Without a baseline, or where it runs alone, what adapting adds.
    """
    compared = found.comparison
    alone = set(compared["algorithms"]) == {compared["baseline"]}
    baseline = None if alone else compared["baseline"]
    unit = comparison_words.Unit(found.task.metric)
    key = "gain" if baseline is None else "versus_baseline"
    values = {
        name: comparison.client_values(runs, found.task.metric)
        for name, runs in found.adapted.items()
    }
    shown = [
        name
        for name, row in compared["algorithms"].items()
        # What was not trained is so far away that the others would fall together.
        if row[key] is not None and (name in found.metrics or not found.metrics)
    ]
    spread = np.random.default_rng(0)  # of the points, so that they do not hide each other
    for place, name in enumerate(shown):
        row, color = compared["algorithms"][name][key], _color(found, name)
        reference = values[name]["before"] if baseline is None else values[baseline]["after"]
        points = unit.factor * (values[name]["after"] - reference)
        height = place + spread.uniform(-0.25, 0.25, len(points))
        axes.scatter(points, height, s=12, alpha=0.3, color=color, linewidths=0)
        if None in (row["mean"], *row["ci95"]):
            continue
        mean, low, high = (unit.factor * value for value in (row["mean"], *row["ci95"]))
        axes.errorbar(
            mean,
            place,
            xerr=[[mean - low], [high - mean]],
            fmt="D",
            color=color,
            markeredgecolor="black",
            ecolor="black",
            capsize=5,
            zorder=3,
        )
    better = "right" if found.task.higher_is_better else "left"
    axes.axvline(0, color="gray", linewidth=1)
    axes.set(
        title=f"Each test client, mean and 95 %: {better} of 0 is better",
        xlabel=(
            f"gain by adapting, {unit.plural}"
            if baseline is None
            else f"adapted minus adapted {baseline}, {unit.plural}"
        ),
        yticks=range(len(shown)),
        yticklabels=shown,
        ylim=(max(len(shown), 1) - 0.5, -0.5),
    )


def by_support_size(axes: Axes, found: Results) -> None:
    """Draws the mean of test clients against the number of support examples adapted on."""
    unit = comparison_words.Unit(found.task.metric)
    for name, row in found.comparison["algorithms"].items():
        points = [point for point in row.get("support_sizes", []) if point["mean"] is not None]
        if not points:
            continue
        means = unit.factor * np.array([point["mean"] for point in points])
        bounds = [[p["mean"] if b is None else b for b in p["ci95"]] for p in points]
        low, high = unit.factor * np.array(bounds).T
        sizes = [point["size"] for point in points]
        color = _color(found, name)
        axes.errorbar(
            sizes,
            means,
            yerr=[means - low, high - means],
            fmt="o-",
            ms=4,
            capsize=3,
            color=color,
            label=name,
        )
        axes.axhline(unit.factor * row["after"]["mean"], linestyle=":", color=color, alpha=0.5)
    axes.set(
        title="Adapted on few examples (dotted: on all support)",
        xlabel="support examples",
        ylabel=f"query {found.task.metric}" + (", in %" if unit.is_share else ""),
    )
    axes.legend()


PLOTS: tuple[Panel, ...] = (by_rounds, by_budget, by_steps, by_client, paired_differences)
_COLUMNS, _HEIGHT = 3, 5  # of the panels, the height in inches


def panels(found: Results) -> tuple[Panel, ...]:
    """Returns the panels that results have something for."""
    sized = any("support_sizes" in row for row in found.comparison["algorithms"].values())
    return (*PLOTS, by_support_size) if sized else PLOTS


def plot(found: Results, kind: type[Figure] = Figure) -> Figure:
    """Draws all panels, in a figure of this kind."""
    config, task = found.config, found.task
    drawn = panels(found)
    rows = -(-(len(drawn) + 1) // _COLUMNS)  # one place is for words
    # An object of its own instead of pyplot's global state: no display is needed.
    figure = kind(figsize=(6.5 * _COLUMNS, _HEIGHT * rows), layout="constrained")
    every = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    repetitions = found.comparison["repetitions"]
    seeds = f"seed {config.seed}" + (
        f" to {config.seed + repetitions - 1}" if repetitions > 1 else ""
    )
    figure.suptitle(
        f"{config.dataset} (data source: {task.data_source}), {config.rounds} rounds of "
        f"{config.clients_per_round} clients, {seeds}"
    )
    for panel, axes in zip(drawn, every):
        panel(axes, found)
        axes.grid(alpha=0.3)
    left = list(every)
    for axes in left:
        axes.axis("off")
    if left and found.sentences:
        words = "\n\n".join(textwrap.fill(text, 60) for text in found.sentences)
        # What is said of many algorithms is long: it is set smaller, and takes no panel's room.
        size = min(11.0, 72 * _HEIGHT / (1.4 * max(1, len(words.splitlines()))))
        text = left[0].text(0, 1, words, va="top", fontsize=size, transform=left[0].transAxes)
        text.set_in_layout(False)
    return figure


def _color(found: Results, name: str) -> Any:
    index = list(found.adapted).index(name)
    return f"C{index}" if len(found.adapted) <= 10 else colormaps["tab20"](index % 20)
