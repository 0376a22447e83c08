"""What a run would be and cost, without the run: its configuration, its clients, its price.

The price is measured: a few rounds of each algorithm are trained, and thrown away.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import tabulate  # type: ignore[import-untyped]

from tff_fedmeta import runtime
from tff_fedmeta.client import data as client_data
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import evaluation, results, train
from tff_fedmeta.experiment.scope import scope_of

# Rounds that are trained. The first also prepares the programs, which later ones find ready.
_ROUNDS = 3


class Price(NamedTuple):
    """What one algorithm costs, all repetitions together.

    Attributes:
      gradients: Gradient evaluations of all clients in all rounds.
      megabytes: What the server and all clients send to each other.
      training: Seconds of training.
      evaluation: Seconds of choosing the adaptation and of measuring.
    """

    gradients: float
    megabytes: float
    training: float
    evaluation: float


def report(config: ExperimentConfig, task: Any) -> str:
    """Measures what a run would cost, and says it with the resolved configuration and the split.

    Args:
      config: What is to be run.
      task: The `datasets.Task` it runs on.
    """
    with runtime.local_runtime():
        prices = {name: _price(config, task, name) for name in config.algorithms}
    return "\n".join(
        [
            config.to_json(),
            f"{config.dataset} (data source: {task.data_source}): {len(task.train_clients)} "
            f"training, {len(task.validation_clients)} validation and {len(task.test_clients)} "
            "test clients; no client is in two of them.",
            config.in_words(),
            "",
            _table(prices),
            "",
            f"Estimated from {_ROUNDS} rounds of each algorithm on this machine, in this process. "
            "Nothing was written.",
        ]
    )


def _price(config: ExperimentConfig, task: Any, algorithm: str) -> Price:
    rounds = min(_ROUNDS, config.rounds)
    few = dataclasses.replace(config, rounds=rounds, rounds_per_evaluation=rounds)
    read = client_data.cached_reader(task.read_client)
    scope = scope_of(config, algorithm)
    evaluators = evaluation.build_evaluators(config.protocol(task.split), task.model_fn, scope)
    with tempfile.TemporaryDirectory(prefix="dry-run-") as directory:
        train.train_algorithm(few, task, algorithm, read, evaluators, Path(directory))
        rows = results.read_metrics(Path(directory))
    per_client = rows["evaluation_seconds"].iloc[-1] / min(
        train.MONITORED_CLIENTS, len(task.validation_clients)
    )
    return extrapolate(config, task, rows, per_client, len(evaluators))


def extrapolate(
    config: ExperimentConfig,
    task: Any,
    rows: pd.DataFrame,
    seconds_per_client: float,
    num_rates: int,
) -> Price:
    """Returns the price of all rounds, given the rows of a few.

    Args:
      config: What is to be run.
      task: Whose clients are evaluated.
      rows: Those of `metrics.csv`, from round 0.
      seconds_per_client: What evaluating a client at one rate takes.
      num_rates: How many rates the validation clients choose from.
    """
    trained = rows.loc[1:]
    later = trained["seconds"].iloc[1:] if len(trained) > 1 else trained["seconds"]
    preparing = max(0.0, trained["seconds"].iloc[0] - later.mean())
    sent = trained[["bytes/down_per_client", "bytes/up_per_client"]].sum(axis=1).mean()
    monitored = min(train.MONITORED_CLIENTS, len(task.validation_clients))
    evaluated = monitored * (1 + -(-config.rounds // config.rounds_per_evaluation))
    evaluated += num_rates * len(task.validation_clients) + len(task.test_clients)
    price = Price(
        gradients=results.gradient_evaluations(trained).mean() * config.rounds,
        megabytes=sent * config.clients_per_round * config.rounds / 1e6,
        training=preparing + later.mean() * config.rounds,
        evaluation=seconds_per_client * evaluated,
    )
    return Price(*(config.repetitions * value for value in price))


def _table(prices: dict[str, Price]) -> str:
    rows = [
        (
            name,
            f"{p.gradients:,.0f}",
            f"{p.megabytes:,.0f}",
            *map(_time, (p.training, p.evaluation)),
        )
        for name, p in prices.items()
    ]
    total = sum(price.training + price.evaluation for price in prices.values())
    headings = ("algorithm", "gradients", "MB sent", "training", "evaluation")
    shown = tabulate.tabulate(rows, headings, tablefmt="plain", disable_numparse=True)
    return f"{shown}\n\nAltogether about {_time(total)}."


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
