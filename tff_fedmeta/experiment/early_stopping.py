"""When training stops early, and which round it keeps. Importing this needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Patience:
    """Stops training after so many evaluations without a better one; the best round is kept.

    What it says depends on the rows alone, so that a continued run stops where an uninterrupted
    one does.

    Attributes:
      evaluations: How many, >= 1.
      column: What is compared, such as "validation/accuracy_after".
      higher_is_better: Whether a larger value is the better one.
    """

    evaluations: int
    column: str
    higher_is_better: bool

    def best_round(self, rows: Sequence[Mapping[str, Any]]) -> int | None:
        """Returns the first of the rounds with the best value; None: no round has one.

        Round 0, before training, is not one to keep.
        """
        measured = [(value, number) for number, value in self._evaluated(rows) if value is not None]
        sign = -1 if self.higher_is_better else 1
        return min(measured, key=lambda pair: sign * pair[0], default=(0, None))[1]

    def is_exhausted(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Returns whether the last `evaluations` evaluations were no better than one before."""
        best = self.best_round(rows)
        later = [number for number, _ in self._evaluated(rows) if best is None or number > best]
        return len(later) >= self.evaluations

    def _evaluated(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float | None]]:
        """Returns round and value of each evaluation; None for a value that is not finite."""
        evaluated = []
        for row in rows:
            value = row.get(self.column)
            # Rows that are read back have NaN where nothing was measured, rows of a round have
            # nothing; `evaluation_seconds` tells an evaluation that measured NaN.
            seconds = row.get("evaluation_seconds", math.nan)
            if row["round"] > 0 and not math.isnan(seconds):
                if value is not None and not math.isfinite(value):
                    value = None
                evaluated.append((int(row["round"]), value))
        return evaluated
