"""How well clients do after adapting on few of their support examples: a curve by their number.

The query is the same for every size. Rate and steps are chosen anew on the validation clients,
because few examples want fewer steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tff_fedmeta.config.protocol import AdaptationProtocol
from tff_fedmeta.experiment import evaluation, summary


def measure(
    sizes: Sequence[int],
    protocol: AdaptationProtocol,
    evaluators: evaluation.Evaluators,
    weights: Any,
    read: evaluation.Read,
    validation_clients: Sequence[str],
    measured: Sequence[Mapping[str, Any]],
    **options: Any,
) -> list[dict[str, Any]]:
    """Measures test clients after adapting on the first n of their support examples.

    Args:
      sizes: Each n, >= 1.
      protocol: How clients adapt.
      evaluators: Of `evaluation.build_evaluators`, for the same protocol.
      weights: The trained `ModelWeights`.
      read: Reads a client's `(x, y)`.
      validation_clients: Ids of the clients that choose.
      measured: Of each test client that can be split, its "client_id" and its "num_support".
      **options: `metric`, `higher_is_better` and `title` of `evaluation.choose_and_measure`.

    Returns:
      For each size {"size", "chosen": {"inner_learning_rate", "steps"} or None, "clients":
      [{"client_id", "after": the metric, None where adapting diverged}]}. Clients with fewer
      support examples are left out; without any, or if adapting diverges, nothing is chosen.
    """
    found = []
    for size in sizes:
        ids = [client["client_id"] for client in measured if client["num_support"] >= size]
        row: dict[str, Any] = {"size": size, "chosen": None, "clients": []}
        found.append(row)
        if not ids:
            continue
        try:
            result = evaluation.choose_and_measure(
                dataclasses.replace(protocol, support_size=size),
                evaluators,
                weights,
                read,
                validation_clients,
                ids,
                **{**options, "title": f"{options['title']} on {size} examples"},
            )
        except summary.NothingToMeasureError:
            continue
        row["chosen"] = result["chosen"]
        row["clients"] = [
            {
                "client_id": client["client_id"],
                "after": client[result["metric"]][result["chosen"]["steps"]],
            }
            for client in result["clients"]
        ]
    return found
