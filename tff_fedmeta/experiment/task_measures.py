"""A task's own measures of test clients, beside its metric: each client's, and their means."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
from tqdm.contrib import concurrent

from tff_fedmeta import seeds

if TYPE_CHECKING:
    from tff_fedmeta.experiment.adapted_client import AdaptedClient

FILE = "measures_test.json"
BEFORE, AFTER = "before", "after"  # the ways to predict that algorithms differ in

Figures = Mapping[str, Mapping[str, float]]  # way to predict -> name -> figure


def measure(
    of_client: Callable[..., Figures],
    client_ids: Sequence[str],
    build_adapter: Callable[[], Callable[[str], AdaptedClient]],
    seed: int,
    title: str = "",
) -> dict[str, Any]:
    """Measures clients, as many at once as there are cores.

    Args:
      of_client: The task's, see `datasets.task.Measures`.
      client_ids: Ids of the clients.
      build_adapter: Makes what adapts to a client, given its id. Each thread makes its own.
      seed: The experiment's; what is drawn for a client is the same for every algorithm.
      title: What the progress bar calls it.

    Returns:
      {"clients": [{"client_id": id, "figures": figures}], "summary": {way: {name: {"mean": of the
      clients that have it, "clients": how many these are}}}}.
    """
    of_thread = threading.local()

    def measure_one(client_id: str) -> dict[str, Any]:
        if not hasattr(of_thread, "adapt_to"):
            of_thread.adapt_to = build_adapter()
        client = of_thread.adapt_to(client_id)
        drawing = seeds.stream_seed_int(seed, "measures", client_id)
        figures = of_client(client.support, client.query, client.before, client.after, drawing)
        finite = {
            way: {name: figure for name, figure in named.items() if math.isfinite(figure)}
            for way, named in figures.items()
        }
        return {"client_id": client_id, "figures": finite}

    measured = concurrent.thread_map(
        measure_one,
        client_ids,
        max_workers=os.cpu_count(),
        desc=title,
        unit="client",
        mininterval=1,
    )
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
