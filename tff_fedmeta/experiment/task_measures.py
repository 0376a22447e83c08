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
    confusion: Callable[..., np.ndarray] | None = None,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures clients, as many at once as there are cores.

    Args:
      of_client: The task's, see `datasets.task.Measures`.
      client_ids: Ids of the clients.
      build_adapter: Makes what adapts to a client, given its id. Each thread makes its own.
      seed: The experiment's; what is drawn for a client is the same for every algorithm.
      title: What the progress bar calls it.
      confusion: The task's too; None: it has no classes.
      classes: Their names.

    Returns:
      {"clients": [{"client_id": id, "figures": figures}], "summary": {way: {name: {"mean": of the
      clients that have it, "clients": how many these are}}}}, and, of classes, "confusion":
      {"classes": names, "before" | "after": counts [class, predicted class] over all clients}.
    """
    of_thread = threading.local()
    confused: dict[tuple[str, str], np.ndarray] = {}

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
        if confusion is not None:
            for way, predict in ((BEFORE, client.before), (AFTER, client.after)):
                confused[client_id, way] = confusion(client.query, predict)
        return {"client_id": client_id, "figures": finite}

    measured = concurrent.thread_map(
        measure_one,
        client_ids,
        max_workers=os.cpu_count(),
        desc=title,
        unit="client",
        mininterval=1,
    )
    result = {"clients": measured, "summary": summarize([row["figures"] for row in measured])}
    if confused:
        result["confusion"] = {"classes": list(classes)} | {
            way: np.sum([confused[client, way] for client in client_ids], axis=0).tolist()
            for way in (BEFORE, AFTER)
        }
    return result


def pool(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Puts together what `measure` returned of different clients."""
    clients = [client for part in measured for client in part["clients"]]
    result = {"clients": clients, "summary": summarize([row["figures"] for row in clients])}
    if all("confusion" in part for part in measured):
        names = {tuple(part["confusion"]["classes"]) for part in measured}
        if len(names) > 1:  # each fold knows the classes of its own training clients
            return result
        result["confusion"] = {"classes": list(names.pop())} | {
            way: np.sum([part["confusion"][way] for part in measured], axis=0).tolist()
            for way in (BEFORE, AFTER)
        }
    return result


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
