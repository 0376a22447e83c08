"""The comparison of a run, from the files its algorithms left: a table and a plot."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tff_fedmeta.config import ExperimentConfig, aggregator_options
from tff_fedmeta.experiment import divergence, run_directory, task_measures
from tff_fedmeta.experiment.adapted_client import AdaptedClient

_PERCENTILES = ("before p10 / p50 / p90", "after p10 / p50 / p90")
EXAMPLE = "example_client.png"
_STAND_IN = "embedded (synthetic, not comparable with published figures)"
# What Reptile's hyperparameters mean where they are not FedAvg's.
_IN_WORDS = {
    ("server_decay", True): "its server step falls linearly to 0 over the run",
    ("client_weighting", "uniform"): "it weighs clients equally, not by size",
}


def write_comparison(config: ExperimentConfig, task: Any, output_dir: Path) -> str:
    """Writes `comparison.png`, then `comparison.md`, and returns the latter's text.

    Reads each algorithm's `metrics.csv`, `adaptation_test.json` and, where the task has measures of
    its own, `measures_test.json`, so that it can be run again on the files alone.
    """
    metrics = {name: read_metrics(output_dir / name) for name in config.algorithms}
    adapted = {
        name: json.loads((output_dir / name / "adaptation_test.json").read_text())
        for name in config.algorithms
    }
    _write_figure(output_dir / "comparison.png", plot(config, task, metrics, adapted))
    text = table(config, task, metrics, adapted)
    if task.measures is not None:
        measured = {
            name: json.loads((output_dir / name / task_measures.FILE).read_text())["summary"]
            for name in config.algorithms
            if not adapted[name].get("diverged")
        }
        text += "" if not measured else measures_table(measured, task.measures.explanation)
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


def read_metrics(directory: Path) -> pd.DataFrame:
    """Reads an algorithm's `metrics.csv`, one row a round."""
    return pd.read_csv(directory / "metrics.csv").set_index("round")


def table(
    config: ExperimentConfig,
    task: Any,
    metrics: dict[str, pd.DataFrame],
    adapted: dict[str, dict[str, Any]],
) -> str:
    """Returns the comparison as Markdown: a row for each algorithm, and what the rows mean."""
    rows = {
        name: _row(metrics[name], adapted[name], config.clients_per_round)
        for name in config.algorithms
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    some = next(iter(adapted.values()))
    stands_in = task.data_source == "embedded" and task.has_real_data
    lines = [
        f"# {config.dataset}: {task.metric} on clients never trained on"
        f"{'' if task.higher_is_better else ' (lower is better)'}",
        "",
        f"Data source: **{_STAND_IN if stands_in else task.data_source}**. "
        f"{len(task.train_clients)} training, {len(task.validation_clients)} validation and "
        f"{len(task.test_clients)} test clients; the figures are over the {len(some['clients'])} "
        "test clients that can be split, each counting the same.",
        "",
        _markdown(frame),
        "",
        f"*before*: the trained model as it is; *after*: adapted on a client's support "
        f"({config.support_fraction:.0%} of its examples), both measured on its query (the rest). "
        "Steps and rate of adaptation were chosen on validation clients, the same way for every "
        "row (learnt rates are used as they are); test clients were read once, afterwards. "
        "*hurt*: share of clients whom adapting left worse off. Every row had the same rounds and "
        "cohorts; *examples* are those that clients walked in training. A *gradient evaluation* is "
        "a batch; a Hessian-vector product is two.",
        "",
        f"Updates were aggregated by {_aggregation(config)}. *MB down / up*: what the server sends "
        "to a client in a round, and a client to the server: weights, updates as the aggregator "
        "encodes them, metrics and counts, without what transport and cryptography add; *MB in "
        "all*: of all clients in all rounds of training.",
        "",
        *(f"- {line}" for line in _differences(config)),
        *(f"- {one['diverged']}" for one in adapted.values() if one.get("diverged")),
        *(f"- {line}" for line in _failures(config) + _privacy(config, task, metrics)),
        "",
        f"Configuration {config.hash}, seed {config.seed}; see config.json.",
        "",
    ]
    return "\n".join(lines)


def _row(metrics: pd.DataFrame, adapted: dict[str, Any], clients_per_round: int) -> dict[str, str]:
    summary, chosen = adapted["summary"], adapted["chosen"]
    down, up = (metrics[f"bytes/{way}_per_client"] for way in ("down", "up"))
    sampled = metrics.get("clients/sampled", clients_per_round)
    answered = sampled - metrics.get("clients/dropped", 0)
    before, after = summary["before"], summary["after"]
    figures = dict.fromkeys(("before", "after", *_PERCENTILES, "hurt", "adaptation"), "diverged")
    if not adapted.get("diverged"):
        figures = {
            "before": f"{before['mean']:.4f} ± {before['std']:.4f}",
            "after": f"{after['mean']:.4f} ± {after['std']:.4f}",
            "before p10 / p50 / p90": "{p10:.3f} / {p50:.3f} / {p90:.3f}".format(**before),
            "after p10 / p50 / p90": "{p10:.3f} / {p50:.3f} / {p90:.3f}".format(**after),
            "hurt": f"{summary['share_hurt']:.1%}",
            "adaptation": f"{chosen['steps']} steps at {_rate_in_words(chosen)}",
        }
    return {
        **figures,
        "rounds": f"{metrics.index.max():,}",
        "examples": f"{int(_examples(metrics).sum()):,}",
        "gradient evaluations": f"{int(_gradient_evaluations(metrics).sum()):,}",
        "MB down / up": f"{_megabytes(down.max())} / {_megabytes(up.max())}",
        "MB in all": _megabytes((down * sampled + up * answered).sum()),
        "training seconds": f"{metrics['seconds'].sum():.0f}",
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
    return f"\n{_markdown(pd.DataFrame.from_dict(rows, orient='index'))}\n\n{explanation}\n"


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f}" if count >= 1e9 else f"{count / 1e6:.3g}"


def _aggregation(config: ExperimentConfig) -> str:
    options = ", ".join(f"{name} {value}" for name, value in config.aggregator_options.items())
    return f"**{config.aggregator}**" + (f" ({options})" if options else "")


def _rate_in_words(chosen: dict[str, Any]) -> str:
    rate = chosen["inner_learning_rate"]
    return "learnt rates" if rate is None else f"{rate:g}"


def _examples(metrics: pd.DataFrame) -> pd.Series:
    """Returns the examples that clients walked in each round."""
    # TFF's own algorithms train on all that they measure; ours count apart.
    column = "work/examples" if "work/examples" in metrics else "train/num_examples"
    return metrics[column].fillna(0)


def _gradient_evaluations(metrics: pd.DataFrame) -> pd.Series:
    """Returns the batches that clients took gradients of in each round."""
    column = "work/gradient_evaluations"
    return metrics[column if column in metrics else "train/num_batches"].fillna(0)


def _markdown(frame: pd.DataFrame) -> str:
    """Returns a frame of strings as a Markdown table (pandas' own needs another package)."""
    header = ["algorithm", *frame.columns]
    body = [[str(name), *row] for name, row in zip(frame.index, frame.to_numpy().tolist())]
    rows = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _differences(config: ExperimentConfig) -> list[str]:
    """Says how each algorithm was set, and where two rows are the same algorithm."""
    lines = [
        f"{name}: "
        + ", ".join(f"{key} {value}" for key, value in config.hyperparameters[name].items())
        for name in config.algorithms
    ]
    if {"reptile", "fedavg"} <= set(config.algorithms):
        reptile, fedavg = config.hyperparameters["reptile"], config.hyperparameters["fedavg"]
        reasons = [
            _IN_WORDS.get((name, value), f"its {name} is {value} instead of {fedavg[name]}")
            for name, value in reptile.items()
            if value != fedavg[name]
        ]
        if reptile["client_weighting"] == "examples" and config.inner_steps is not None:
            reasons.append("it weighs clients by size, not by the examples of their steps")
        lines.append(
            f"reptile differs from fedavg in that {', '.join(reasons)}; "
            "otherwise the two would be the same algorithm."
            if reasons
            else "reptile and fedavg coincide: same server step, local epochs, rates and weights."
        )
    return lines


def _failures(config: ExperimentConfig) -> list[str]:
    """Says how clients failed, if they did."""
    if not config.failures.any:
        return []
    how = ", ".join(f"{name} {value}" for name, value in vars(config.failures).items())
    return [f"clients failed in every row alike, as metrics.csv counts: {how}"]


def _privacy(config: ExperimentConfig, task: Any, metrics: dict[str, pd.DataFrame]) -> list[str]:
    """Says what a private run guarantees, and of what."""
    if config.aggregator not in aggregator_options.PRIVATE:
        return []
    from tff_fedmeta.aggregation import privacy

    count, rounds = len(task.train_clients), config.rounds
    promise = privacy.guarantee(config.aggregator_options, config.clients_per_round, count, rounds)
    if promise.noise_multiplier == 0:
        return ["privacy: none, because there is no noise"]
    spent = max(frame["privacy/epsilon"].max() for frame in metrics.values())
    poisson = promise.sampling == "poisson"
    return [
        f"privacy: the weights of each row are ({spent:.3g}, {promise.delta:.3g})-differentially "
        f"private for a training client {'added or removed' if poisson else 'replaced'}, with "
        f"noise multiplier {promise.noise_multiplier:.4g} and "
        f"{promise.sampling} cohorts of {config.clients_per_round} from {count}, over "
        f"{rounds:,} rounds (the event of a round is {promise.event}); rows add up, for whoever "
        "sees several. Outside of the guarantee: the "
        "figures on training clients in metrics.csv, which have no noise, what was chosen with "
        "their help, and, for whoever knows the seed, that cohorts are secret"
    ]


def plot(
    config: ExperimentConfig,
    task: Any,
    metrics: dict[str, pd.DataFrame],
    adapted: dict[str, dict[str, Any]],
) -> Figure:
    """Draws learning curves, the metric against adaptation steps, and every client's change."""
    # An object of its own instead of pyplot's global state: no display is needed.
    figure = Figure(figsize=(16, 9.5), layout="constrained")
    (rounds_axes, budget_axes), (steps_axes, clients_axes) = figure.subplots(2, 2)
    figure.suptitle(
        f"{config.dataset} (data source: {task.data_source}), {config.rounds} rounds of "
        f"{config.clients_per_round} clients, seed {config.seed}"
    )
    column = f"validation/{task.metric}"
    for index, name in enumerate(config.algorithms):
        color = f"C{index}"
        sound = divergence.within_reason(metrics[name])
        evaluated = sound.dropna(subset=[f"{column}_after"])
        gradients = _gradient_evaluations(metrics[name]).cumsum()[evaluated.index]
        for axes, x in ((rounds_axes, evaluated.index), (budget_axes, gradients)):
            axes.plot(x, evaluated[f"{column}_after"], "o-", color=color, label=f"{name}, adapted")
            axes.plot(
                x,
                evaluated[f"{column}_before"],
                "o--",
                color=color,
                alpha=0.6,
                label=f"{name}, before adapting",
            )
        if adapted[name].get("diverged"):
            rounds_axes.plot([], [], color=color, label=f"{name} diverged")
            continue
        _plot_adaptation(steps_axes, adapted[name], task.metric, name, color)
        _plot_clients(clients_axes, adapted[name], task.metric, name, color)
    rounds_axes.set(title="Validation clients during training", xlabel="round", ylabel=task.metric)
    budget_axes.set(
        title="The same against the work of the clients",
        xlabel="gradient evaluations",
        ylabel=task.metric,
    )
    steps_axes.set(
        title="Test clients: mean and 10th to 90th percentile",
        xlabel="adaptation steps on support",
        ylabel=f"query {task.metric}",
    )
    better = "above" if task.higher_is_better else "below"
    clients_axes.set(
        title=f"Test clients, one point each: {better} the line adaptation helped",
        xlabel=f"query {task.metric} before adapting",
        ylabel=f"query {task.metric} after",
    )
    clients_axes.axline((0, 0), slope=1, color="gray", linewidth=1)
    both = [*clients_axes.get_xlim(), *clients_axes.get_ylim()]
    clients_axes.set(xlim=(min(both), max(both)), ylim=(min(both), max(both)))
    for axes in (rounds_axes, budget_axes, steps_axes):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (rounds_axes, budget_axes, steps_axes, clients_axes):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def _plot_adaptation(axes: Any, result: Any, metric: str, name: str, color: str) -> None:
    curves = np.array([client[metric] for client in result["clients"]], np.float64)
    curves = curves[np.isfinite(curves).all(axis=1)]  # without those that diverged at any step
    rate, chosen = _rate_in_words(result["chosen"]), result["chosen"]["steps"]
    if not len(curves):
        return
    mean = curves.mean(axis=0)
    axes.plot(result["steps"], mean, color=color, label=f"{name} at {rate}")
    axes.fill_between(
        result["steps"], *np.percentile(curves, [10, 90], axis=0), color=color, alpha=0.12
    )
    axes.plot(chosen, mean[chosen], "o", color=color, ms=9, label=f"chosen: {chosen} steps")


def _plot_clients(axes: Any, result: Any, metric: str, name: str, color: str) -> None:
    steps = result["chosen"]["steps"]
    curves = np.array([client[metric] for client in result["clients"]], np.float64)
    before, after = curves[:, 0], curves[:, steps]
    hurt = result["summary"]["share_hurt"]
    axes.scatter(before, after, s=24, alpha=0.6, color=color, label=f"{name}: {hurt:.0%} hurt")
