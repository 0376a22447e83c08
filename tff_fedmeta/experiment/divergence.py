"""Whether training diverged, from the figures of its rounds.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

# A loss this many times that of the untrained model (or of 1, if that is more) is beyond reason:
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
            f"{algorithm} diverged in round {self.round_num}: the loss is {loss}, above "
            f"{self.limit:.4g}, {FACTOR:g} times what it was or might be at the start. Lower its rate "
            f"(--hparam={algorithm}.inner_learning_rate=...), or clip its gradients "
            "(--inner_clip_norm=1)."
        )


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
    rows = {
        round_num: {name: value for name, value in row.items() if not _is_missing(value)}
        for round_num, row in metrics.to_dict("index").items()
    }
    limit = limit_of(rows.get(0, {}))
    found = None
    for round_num, row in rows.items():
        if not any(name in row for name in (*_LOSSES, "clients/non_finite")):
            continue  # nothing was measured
        loss = loss_beyond_reason(row, limit)
        if loss is None:
            found = None  # it came back
        elif found is None:
            found = Divergence(int(round_num), loss, limit)
    return found


def _is_missing(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and math.isnan(value)
