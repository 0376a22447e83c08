"""A task's own measures of test clients, beside its metric: each client's, and their means."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

import numpy as np

from tff_fedmeta import client_data
from tff_fedmeta.example_client import ExampleClient

FILE = "measures_test.json"
BEFORE, AFTER = "before", "after"  # the ways to predict that algorithms differ in

Figures = Mapping[str, Mapping[str, float]]  # way to predict -> name -> figure


def measure(
    of_client: Callable[..., Figures],
    clients: Iterable[tuple[str, ExampleClient]],
    seed: int,
) -> dict[str, Any]:
    """Measures clients.

    Args:
      of_client: The task's, see `datasets.task.Measures`.
      clients: Ids and clients, as one algorithm adapts to them.
      seed: The experiment's; what is drawn for a client is the same for every algorithm.

    Returns:
      {"clients": [{"client_id": id, "figures": figures}], "summary": {way: {name: {"mean": of the
      clients that have it, "clients": how many these are}}}}.
    """
    measured: list[Mapping[str, Any]] = []
    for client_id, client in clients:
        drawing = client_data.stream_seed_int(seed, "measures", client_id)
        figures = of_client(client.support, client.query, client.before, client.after, drawing)
        measured.append({"client_id": client_id, "figures": figures})
    return {"clients": measured, "summary": summarize([row["figures"] for row in measured])}


def summarize(clients: Sequence[Figures]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the mean of each figure over the clients that have it, and how many these are."""
    values: dict[str, dict[str, list[float]]] = {}
    for figures in clients:
        for way, named in figures.items():
            for name, figure in named.items():
                values.setdefault(way, {}).setdefault(name, []).append(figure)
    return {
        way: {
            name: {"mean": float(np.mean(figures)), "clients": len(figures)}
            for name, figures in named.items()
        }
        for way, named in values.items()
    }
