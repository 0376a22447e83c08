"""Adapting to clients that were not trained on: what an experiment measures, and how it chooses."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import tensorflow_federated as tff
import tqdm

from tff_fedmeta import seeds
from tff_fedmeta.algorithms import adaptation
from tff_fedmeta.client import data as client_data
from tff_fedmeta.config import ExperimentConfig

_LOG = logging.getLogger(__name__)

# Clients evaluated in one call of TFF, whose memory grows with their number.
_CLIENTS_PER_CALL = 50


def adaptation_curves(
    config: ExperimentConfig,
    evaluator: tff.Computation,
    weights: Any,
    client_ids: Sequence[str],
    read: Callable[[str], client_data.Arrays],
    bar: Optional[tqdm.tqdm] = None,
) -> list[Mapping[str, Any]]:
    """Returns each client's result of `adaptation.build_adaptation_eval`, in their order.

    The split into support and query of a client depends on the seed and its id alone, so that all
    algorithms, rates and rounds are measured on the same examples.
    """
    results: list[Mapping[str, Any]] = []
    for start in range(0, len(client_ids), _CLIENTS_PER_CALL):
        chunk = client_ids[start : start + _CLIENTS_PER_CALL]
        clients = [
            client_data.client_dataset(
                *read(client), seed=seeds.stream_seed(config.seed, "adaptation", client)
            )
            for client in chunk
        ]
        results += evaluator(weights, clients)
        if bar is not None:
            bar.update(len(chunk))
    return results


Evaluators = Mapping[Optional[float], tff.Computation]


def build_evaluators(
    config: ExperimentConfig, task: Any, learned_rates: bool = False
) -> Evaluators:
    """Returns one evaluation for each learning rate of adaptation to choose from.

    An algorithm that learnt its rates has those alone: there is one evaluation, under None.
    """
    rates = (None,) if learned_rates else config.adaptation_learning_rates
    return {
        rate: adaptation.build_adaptation_eval(
            task.model_fn,
            inner_learning_rate=rate or 0.0,
            inner_steps=config.adaptation_steps,
            batch_size=config.adaptation_batch_size,
            support_fraction=config.support_fraction,
            split=task.split,
            learned_rates=learned_rates,
        )
        for rate in rates
    }


def validation_curves(
    config: ExperimentConfig,
    task: Any,
    weights: Any,
    read: Callable[[str], client_data.Arrays],
    evaluators: Evaluators,
    bar: Optional[tqdm.tqdm] = None,
) -> dict[Optional[float], list[Mapping[str, Any]]]:
    """Returns the validation clients' results for each learning rate of adaptation."""
    return {
        rate: adaptation_curves(config, evaluator, weights, task.validation_clients, read, bar)
        for rate, evaluator in evaluators.items()
    }


def adapt(config, task, algorithm, weights, read, evaluators) -> dict[str, Any]:
    """Chooses rate and steps of adaptation on validation clients, then reads the test clients."""
    total = len(evaluators) * len(task.validation_clients) + len(task.test_clients)
    with tqdm.tqdm(total=total, desc=f"{algorithm}, adapting", unit="client") as bar:
        validation = validation_curves(config, task, weights, read, evaluators, bar)
        rate, steps = adaptation.choose_adaptation(validation, task.metric, task.higher_is_better)
        curves = adaptation_curves(config, evaluators[rate], weights, task.test_clients, read, bar)
    clients = [
        {"client_id": client, **{name: _plain(value) for name, value in result.items()}}
        for client, result in zip(task.test_clients, curves)
    ]
    rows = adaptation.measurable(clients)
    skipped = [client["client_id"] for client in clients if client["num_query"] == 0]
    if skipped:
        _LOG.warning("Test clients too small to split, or not finite: %s", ", ".join(skipped))
    diverged = [row["client_id"] for row in rows if row[task.metric][steps] is None]
    if diverged:
        _LOG.warning("Adapting diverged for the test clients %s: hurt.", ", ".join(diverged))
    return {
        "data_source": task.data_source,
        "metric": task.metric,
        "steps": list(range(config.adaptation_steps + 1)),
        "chosen": {"inner_learning_rate": rate, "steps": steps},
        "clients": rows,
        "skipped_clients": skipped,
        "diverged_clients": diverged,
        "summary": adaptation.summarize(rows, task.metric, steps, task.higher_is_better),
    }


def _plain(value: Any) -> Any:
    """Returns a NumPy value for JSON, which has no NaN or infinity: they become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if math.isfinite(value) else None
