"""Evaluation on held-out clients.

Validation clients choose rate and steps of adaptation; then test clients are measured.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow_federated as tff
import tqdm

from tff_fedmeta import seeds
from tff_fedmeta.algorithms import adaptation
from tff_fedmeta.client import data as client_data
from tff_fedmeta.client import source as client_source
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.config.protocol import AdaptationProtocol
from tff_fedmeta.experiment import progress, summary
from tff_fedmeta.experiment.scope import Scope

_LOG = logging.getLogger(__name__)

# Clients evaluated in one call of TFF, whose memory grows with their number.
_CLIENTS_PER_CALL = 50
# More support examples than any client has.
_ALL = 2**31 - 1

Evaluators = Mapping[summary.Way, tff.Computation]
Read = Callable[[str], client_data.Arrays]


def build_evaluators(
    protocol: AdaptationProtocol, model_fn: ModelFn, scope: Optional[Scope] = None
) -> Evaluators:
    """Returns one evaluation for each way of adaptation to choose from: each rate with each pull.

    Learnt rates are used as they are: there is one evaluation.
    """
    scope = scope or Scope()
    rates = (None,) if scope.learned_rates else protocol.learning_rates
    strengths: Sequence[Optional[float]] = (None,)
    if not (scope.learned_rates or scope.proximal_strength or protocol.proximal_strengths == (0,)):
        strengths = protocol.proximal_strengths
    ways = [summary.Way(rate, strength) for rate in rates for strength in strengths]
    return {
        way: adaptation.build_adaptation_eval(
            model_fn,
            inner_learning_rate=way.rate or 0.0,
            inner_steps=protocol.steps,
            batch_size=protocol.batch_size,
            support_fraction=protocol.support_fraction,
            split=protocol.split,
            learned_rates=scope.learned_rates,
            head_layers=scope.head_layers,
            local_layers=scope.local_layers,
            proximal_strength=way.proximal_strength or scope.proximal_strength,
            measured_every=protocol.measured_every,
            sized_support=True,
        )
        for way in ways
    }


def adaptation_curves(
    protocol: AdaptationProtocol,
    evaluator: tff.Computation,
    weights: Any,
    client_ids: Sequence[str],
    read: Read,
    bar: Optional[tqdm.tqdm] = None,
) -> list[Mapping[str, Any]]:
    """Returns each client's result of `build_adaptation_eval`, in their order.

    The split into support and query of a client depends on the seed and its id alone, so that all
    algorithms, rates and rounds are measured on the same examples.
    """
    results: list[Mapping[str, Any]] = []
    for start in range(0, len(client_ids), _CLIENTS_PER_CALL):
        chunk = client_ids[start : start + _CLIENTS_PER_CALL]
        clients = [
            client_source.client_of(
                read,
                client,
                seeds.stream_seed(protocol.seed, "adaptation", client),
                support_size=protocol.support_size or _ALL,
            )
            for client in chunk
        ]
        results += [_by_steps(protocol, result) for result in evaluator(weights, clients)]
        if bar is not None:
            bar.update(len(chunk))
    return results


def _by_steps(protocol: AdaptationProtocol, result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a client's result with an entry for each step, NaN where none was measured."""
    found = dict(result)
    if protocol.support_size is not None and found["num_support"] < protocol.support_size:
        found["num_query"] = 0  # too small for what is asked
    if protocol.measured_every > 1:
        last = protocol.steps
        measured = [*range(0, last, protocol.measured_every), last]
        for name, points in result.items():
            if np.ndim(points):
                found[name] = np.full(last + 1, np.nan, np.float32)
                found[name][measured] = points
    return found


def validation_curves(
    protocol: AdaptationProtocol,
    evaluators: Evaluators,
    weights: Any,
    client_ids: Sequence[str],
    read: Read,
    bar: Optional[tqdm.tqdm] = None,
) -> dict[summary.Way, list[Mapping[str, Any]]]:
    """Returns the validation clients' results for each way of adaptation."""
    return {
        way: adaptation_curves(protocol, evaluator, weights, client_ids, read, bar)
        for way, evaluator in evaluators.items()
    }


def choose(
    protocol: AdaptationProtocol,
    evaluators: Evaluators,
    weights: Any,
    read: Read,
    validation_clients: Sequence[str],
    *,
    metric: str,
    higher_is_better: bool,
    bar: Optional[tqdm.tqdm] = None,
) -> tuple[summary.Way, int, dict[str, Any]]:
    """Chooses how to adapt; the arguments are those of `choose_and_measure`.

    Returns:
      (way, steps, {"mean": the metric of what was chosen, over the "clients" that chose}).
    """
    curves = validation_curves(protocol, evaluators, weights, validation_clients, read, bar)
    way, steps = summary.choose_adaptation(curves, metric, higher_is_better)
    chose = [float(row[metric][steps]) for row in summary.measurable(curves[way])]
    return way, steps, {"mean": float(np.mean(chose)), "clients": len(chose)}


def choose_and_measure(
    protocol: AdaptationProtocol,
    evaluators: Evaluators,
    weights: Any,
    read: Read,
    validation_clients: Sequence[str],
    test_clients: Sequence[str],
    *,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    title: str = "adapting",
) -> dict[str, Any]:
    """Chooses rate and steps of adaptation on validation clients, then reads the test clients.

    Args:
      protocol: How clients adapt.
      evaluators: Of `build_evaluators`, for the same protocol.
      weights: The trained `ModelWeights`, with learnt rates behind them if there are.
      read: Reads a client's `(x, y)`.
      validation_clients: Ids of the clients that choose.
      test_clients: Ids of the clients that are measured, once.
      metric: Name of the metric that chooses and is summarized.
      higher_is_better: Whether more of it is better.
      title: What the progress bar calls it.

    Returns:
      What `adaptation_test.json` holds: {"metric", "steps": [0, ..., K], "chosen":
      {"inner_learning_rate", "steps"} and "proximal_strength" if there was a choice, "validation":
      {"mean": the metric of what was chosen, over the "clients" that chose}, "clients": a dict for
      each measured client with "client_id", "num_support", "num_query" and each metric as a list of
      K + 1 numbers, null where not finite or not measured, "skipped_clients": ids of clients too
      small to split or with data that are not finite, "diverged_clients", "summary": of
      `summary.summarize`}.

    Raises:
      NothingToMeasureError: If no client can be measured; NothingFiniteError: if no setting or no
        client gives a finite figure.
    """
    total = len(evaluators) * len(validation_clients) + len(test_clients)
    with progress.bar(total, title, "client") as bar:
        way, steps, validation = choose(
            protocol,
            evaluators,
            weights,
            read,
            validation_clients,
            metric=metric,
            higher_is_better=higher_is_better,
            bar=bar,
        )
        curves = adaptation_curves(protocol, evaluators[way], weights, test_clients, read, bar)
    clients = [
        {"client_id": client, **{name: _plain(value) for name, value in result.items()}}
        for client, result in zip(test_clients, curves)
    ]
    rows = summary.measurable(clients)
    skipped = [client["client_id"] for client in clients if client["num_query"] == 0]
    if skipped:
        _LOG.warning("Test clients too small to split, or not finite: %s", ", ".join(skipped))
    diverged = [row["client_id"] for row in rows if row[metric][steps] is None]
    if diverged:
        _LOG.warning("Adapting diverged for the test clients %s: hurt.", ", ".join(diverged))
    return {
        "metric": metric,
        "steps": list(range(protocol.steps + 1)),
        "chosen": way.with_steps(steps),
        "validation": validation,
        "clients": rows,
        "skipped_clients": skipped,
        "diverged_clients": diverged,
        "summary": summary.summarize(rows, metric, steps, higher_is_better),
    }


def measure_nothing(
    protocol: AdaptationProtocol,
    evaluators: Evaluators,
    weights: Any,
    read: Read,
    test_clients: Sequence[str],
    metric: str,
) -> dict[str, Any]:
    """Returns as `choose_and_measure` does, of an algorithm that diverged.

    Its clients have their sizes, and null for every figure: none of them means anything.
    """
    way, evaluator = next(iter(evaluators.items()))
    curves = adaptation_curves(protocol, evaluator, weights, test_clients, read)
    clients = [
        {
            name: [None] * (protocol.steps + 1) if np.ndim(value) else _plain(value)
            for name, value in {"client_id": client, **result}.items()
        }
        for client, result in zip(test_clients, curves)
    ]
    rows = summary.measurable(clients)
    return {
        "metric": metric,
        "steps": list(range(protocol.steps + 1)),
        "chosen": way.with_steps(0),
        "clients": rows,
        "skipped_clients": [row["client_id"] for row in clients if row["num_query"] == 0],
        "diverged_clients": [row["client_id"] for row in rows],
        "summary": summary.summary_of_nothing(),
    }


def _plain(value: Any) -> Any:
    """Returns a NumPy value for JSON, which has no NaN or infinity: they become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str) or math.isfinite(value) else None
