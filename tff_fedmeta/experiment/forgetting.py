"""What adapting to one client costs on others: the adapted model on other clients' query.

A personal model may do better at home and worse elsewhere; Wu et al. ask for both ("Motley:
Benchmarking Heterogeneity and Personalization in Federated Learning", arXiv:2206.09262).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from tff_fedmeta import seeds
from tff_fedmeta.experiment import progress
from tff_fedmeta.experiment.adapted_client import AdaptedClient, Predict

_CACHED = 1000  # clients whose query is kept


def measure(
    task: Any,
    client_ids: Sequence[str],
    adapt_to: Callable[[str], AdaptedClient],
    num_others: int,
    seed: int,
    title: str = "",
) -> list[dict[str, Any]]:
    """Measures each client's adapted model on the query of other clients.

    Args:
      task: The `datasets.Task`, of whose metric figures are.
      client_ids: Ids of clients that can be split.
      adapt_to: Adapts to a client, of `adapted_client.build_adapter`.
      num_others: How many other clients are drawn for each, >= 1; all, if there are not so many.
      seed: The experiment's; who is drawn for a client is the same for every algorithm.
      title: What the progress bar calls it.

    Returns:
      For each client {"client_id", "before", "after"}: the mean of the metric over the other
      clients, with the trained weights and with those adapted to the client; None where not finite.
      Without another client there is nothing to return.
    """
    if len(client_ids) < 2:
        return []
    figure = figure_of(task)

    @functools.lru_cache(_CACHED)
    def query_and_figure(client: str) -> tuple[Any, float]:
        """A client's query, and how the trained weights do on it."""
        home = adapt_to(client)
        return home.query, figure(home.before, home.query)

    rows = []
    with progress.bar(len(client_ids), title, "client") as bar:
        for client in client_ids:
            others = _others(client, client_ids, num_others, seed)
            queries, before = zip(*(query_and_figure(other) for other in others))
            predict = adapt_to(client).after
            after = [figure(predict, query) for query in queries]
            figures = {"before": np.mean(before), "after": np.mean(after)}
            rows.append(
                {
                    "client_id": client,
                    **{k: float(v) if math.isfinite(v) else None for k, v in figures.items()},
                }
            )
            bar.update()
    return rows


def _others(client: str, client_ids: Sequence[str], count: int, seed: int) -> list[str]:
    """Draws other clients, a pure function of the seed, the client and who there is."""
    rest = sorted(set(client_ids) - {client})
    rng = np.random.default_rng(seeds.stream_seed_int(seed, "forgetting", client))
    return [rest[i] for i in rng.permutation(len(rest))[:count]]


def figure_of(task: Any) -> Callable[[Predict, tuple[Any, Any]], float]:
    """Returns what measures predictions on examples (x, y) by the task's metric."""
    if task.metric == "loss":
        loss = task.build_loss()
        return lambda predict, examples: float(loss(examples[1], predict(examples[0])))
    (metric,) = (metric for metric in task.build_metrics() if metric.name == task.metric)

    def figure(predict: Predict, examples: tuple[Any, Any]) -> float:
        metric.reset_state()
        metric.update_state(examples[1], predict(examples[0]))
        return float(metric.result())

    return figure
