"""What a run would be and cost, without the run: its configuration, its clients, its price.

The price is measured: a few rounds of each algorithm are trained, and thrown away.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import tabulate  # type: ignore[import-untyped]

from tff_fedmeta import runtime
from tff_fedmeta.algorithms.registry import REGISTRY, trains
from tff_fedmeta.client import data as client_data
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import evaluation, protocols, results, train
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
    read = client_data.cached_reader(task.read_client)
    protocol = protocols.protocol_of(config, task.split, algorithm)
    scope = scope_of(config, algorithm)
    evaluators = evaluation.build_evaluators(protocol, task.model_fn, scope)
    if trains(algorithm):
        rounds = min(_ROUNDS, config.rounds)
        few = dataclasses.replace(config, rounds=rounds, rounds_per_evaluation=rounds)
        with tempfile.TemporaryDirectory(prefix="dry-run-") as directory:
            train.train_algorithm(few, task, algorithm, read, evaluators, Path(directory))
            rows = results.read_metrics(Path(directory))
        seconds = rows["evaluation_seconds"].iloc[-1]
    else:
        rows = None
        weights, monitored = REGISTRY[algorithm].build(task.model_fn), _monitored(task)
        for _ in range(2):  # the first time prepares the programs
            start = time.perf_counter()
            evaluator = next(iter(evaluators.values()))
            evaluation.adaptation_curves(protocol, evaluator, weights, monitored, read)
            seconds = time.perf_counter() - start
    return extrapolate(config, task, rows, seconds / len(_monitored(task)), len(evaluators))


def _monitored(task: Any) -> Sequence[str]:
    return task.validation_clients[: train.MONITORED_CLIENTS]


def extrapolate(
    config: ExperimentConfig,
    task: Any,
    rows: pd.DataFrame | None,
    seconds_per_client: float,
    num_rates: int,
) -> Price:
    """Returns the price of all rounds, given the rows of a few.

    Args:
      config: What is to be run.
      task: Whose clients are evaluated.
      rows: Those of `metrics.csv`, from round 0; None: nothing is trained.
      seconds_per_client: What evaluating a client at one rate takes.
      num_rates: How many rates the validation clients choose from.
    """
    choosing = protocols.choosing_clients(config, task)
    evaluated = num_rates * len(choosing) + len(task.test_clients)
    gradients = sent = training = 0.0
    if rows is not None:
        evaluated += len(_monitored(task)) * (1 + -(-config.rounds // config.rounds_per_evaluation))
        trained = rows.loc[1:]
        later = trained["seconds"].iloc[1:] if len(trained) > 1 else trained["seconds"]
        preparing = max(0.0, trained["seconds"].iloc[0] - later.mean())
        training = preparing + later.mean() * config.rounds
        gradients = results.gradient_evaluations(trained).mean() * config.rounds
        of_client = trained[["bytes/down_per_client", "bytes/up_per_client"]].sum(axis=1).mean()
        sent = of_client * config.clients_per_round * config.rounds
    price = Price(gradients, sent / 1e6, training, seconds_per_client * evaluated)
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
