"""Day by day: a client adapts on all of its past and is measured on the day that follows.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from tff_fedmeta.config.protocol import AdaptationProtocol
from tff_fedmeta.experiment import progress

if TYPE_CHECKING:
    from tff_fedmeta.experiment.adapted_client import AdaptedClient

FILE = "day_by_day.json"

# A protocol and what reads a client -> what adapts to a client.
BuildAdapter = Callable[..., "Callable[[str], AdaptedClient]"]


def measure(
    task: Any,
    client_ids: Sequence[str],
    build_adapter: BuildAdapter,
    protocol: AdaptationProtocol,
    read: Callable[[str], tuple[Any, Any]],
    title: str = "",
) -> dict[str, Any]:
    """Measures test clients on each of their days but the first.

    The day's examples have no part in what is measured on it: support is all examples of earlier
    days, and rate and steps are those that validation clients chose.

    Args:
      task: The `datasets.Task`, which has `days_of`.
      client_ids: Ids of the clients.
      build_adapter: `adapted_client.build_adapter` with all but its `protocol` and its `read`.
      protocol: How clients adapt.
      read: Reads a client's `(x, y)`.
      title: What the progress bar calls it.

    Returns:
      {"metric", "clients": [{"client_id", "days": [{"day": "2024-05-31", "num_support",
      "num_query", "before", "after"}]}], "summary": {"before", "after": means over all days of all
      clients, "days": how many these are}}.
    """
    past: dict[str, tuple[Any, Any]] = {}
    # All that is read is support: the day itself never gets here.
    adapt_to = build_adapter(
        protocol=dataclasses.replace(protocol, split="same"), read=past.__getitem__
    )
    clients = []
    with progress.bar(len(client_ids), title, "client") as bar:
        for client_id in client_ids:
            x, y = read(client_id)
            rows = []
            for start, stop, day in _days(task.days_of(client_id)):
                past[client_id] = (x[:start], y[:start])
                adapted = adapt_to(client_id)
                query = x[start:stop], y[start:stop]
                rows.append(
                    {
                        "day": day,
                        "num_support": start,
                        "num_query": stop - start,
                        "before": _metric(task, query, adapted.before),
                        "after": _metric(task, query, adapted.after),
                    }
                )
            past.clear()
            clients.append({"client_id": client_id, "days": rows})
            bar.update()
    return {"metric": task.metric, "clients": clients, "summary": summarize(clients)}


def summarize(clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns means over all days of all clients; None where there are none."""
    days = [day for client in clients for day in client["days"]]
    means = {
        way: float(np.mean([day[way] for day in days])) if days else None
        for way in ("before", "after")
    }
    return {**means, "days": len(days)}


def _days(day_of: np.ndarray) -> list[tuple[int, int, str]]:
    """Returns first and last example, and the name, of each day but the first."""
    starts = np.flatnonzero(day_of[1:] != day_of[:-1]) + 1
    stops = [*starts[1:], len(day_of)]
    return [(int(start), int(stop), str(day_of[start])) for start, stop in zip(starts, stops)]


def _metric(task: Any, query: tuple[Any, Any], predict: Callable[[Any], np.ndarray]) -> float:
    import tensorflow as tf

    (metric,) = (found for found in task.build_metrics() if found.name == task.metric)
    metric.update_state(tf.constant(query[1]), tf.constant(predict(query[0])))
    return float(metric.result())
