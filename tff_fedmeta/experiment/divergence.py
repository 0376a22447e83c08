"""Whether training diverged, from the figures of its rounds.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

# A loss is beyond reason at this many times the untrained model's loss (or 1, if that is more):
# a model that knows nothing is far better.
FACTOR = 1000.0

_LOSSES = ("train/loss", "validation/loss_before")


class Divergence(NamedTuple):
    """Where training left reason.

    Attributes:
      round_num: The first round of those to the last with such a loss.
      loss: The loss in it; not finite if it is NaN or infinite.
      limit: What it exceeds.
    """

    round_num: int
    loss: float
    limit: float

    def in_words(self, algorithm: str) -> str:
        """Says it, and the way out, in a sentence."""
        loss = f"{self.loss:.3g}" if math.isfinite(self.loss) else "not finite"
        return (
            f"{algorithm} diverged in round {self.round_num}: the loss is {loss}, more than "
            f"{FACTOR:g} times the loss of an untrained model. Lower its rate "
            f"(--hparam={algorithm}.inner_learning_rate=...), or clip its gradients "
            "(--inner_clip_norm=1)."
        )


class AllDivergedError(RuntimeError):
    """No algorithm of a run has a result; the message says why and what to do."""


class Watch:
    """Tells the first time that a run leaves reason, and no more after that.

    Args:
      rows: Those of the rounds so far, in their order.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        self._limit = limit_of(rows[0]) if rows and rows[0].get("round") == 0 else FACTOR
        self._told = any(loss_beyond_reason(row, self._limit) is not None for row in rows)

    def see(self, round_num: int, row: Mapping[str, Any]) -> Divergence | None:
        """Returns where a run diverged if this round is the first of it."""
        loss = loss_beyond_reason(row, self._limit)
        if loss is None or self._told:
            return None
        self._told = True
        return Divergence(round_num, loss, self._limit)


def limit_of(first: Mapping[str, Any]) -> float:
    """Returns the largest loss within reason, given the figures before the first round."""
    start = first.get("validation/loss_before", math.nan)
    return FACTOR * max(1.0, start) if math.isfinite(start) else FACTOR


def loss_beyond_reason(row: Mapping[str, Any], limit: float) -> float | None:
    """Returns the loss of a round, if it has one and is not finite or exceeds `limit`.

    A round whose clients all sent something that is not finite has an infinite loss.
    """
    if row.get("clients/non_finite", 0) > 0 and row.get("train/num_examples") == 0:
        return math.inf
    for name in _LOSSES:
        loss = row.get(name)
        if loss is not None and not loss <= limit:
            return float(loss)
    return None


def find(metrics: pd.DataFrame) -> Divergence | None:
    """Returns where training left reason for good, from the rows of `metrics.csv`; None: nowhere.

    Args:
      metrics: A row a round, indexed by it; round 0, where there is one, is before training.
    """
    rows = _measured(metrics)
    limit = limit_of(rows.get(0, {}))
    found = None
    for round_num, row in rows.items():
        loss = loss_beyond_reason(row, limit)
        if loss is None:
            found = None  # it came back
        elif found is None:
            found = Divergence(int(round_num), loss, limit)
    return found


def within_reason(metrics: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of `metrics.csv` whose losses, where they have some, are within reason."""
    rows = _measured(metrics)
    limit = limit_of(rows.get(0, {}))
    return metrics[
        [loss_beyond_reason(rows.get(number, {}), limit) is None for number in metrics.index]
    ]


def _measured(metrics: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """Returns round -> what was measured in it, for the rounds in which a loss was."""
    rows = {
        int(round_num): {name: value for name, value in row.items() if not _is_missing(value)}
        for round_num, row in metrics.to_dict("index").items()
    }
    names = {*_LOSSES, "clients/non_finite"}
    return {round_num: row for round_num, row in rows.items() if names & row.keys()}


def _is_missing(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and math.isnan(value)
