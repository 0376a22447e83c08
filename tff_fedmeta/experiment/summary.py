"""What the curves of clients say: how to adapt, and how much adapting helped."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np


class NothingToMeasureError(ValueError):
    """No figure can be computed; the message says why and what to do."""


class NothingFiniteError(NothingToMeasureError):
    """What was trained has diverged: no figure is finite."""


class Way(NamedTuple):
    """A way to adapt.

    Attributes:
      rate: The learning rate; None stands for learnt rates.
      proximal_strength: How strongly steps are held to the trained weights, where it is chosen;
        None: it is not.
    """

    rate: Optional[float]
    proximal_strength: Optional[float] = None

    def with_steps(self, steps: int) -> dict[str, Any]:
        """Returns what result files and metadata say was chosen."""
        chosen = {"inner_learning_rate": self.rate, "steps": steps}
        if self.proximal_strength is not None:
            chosen["proximal_strength"] = self.proximal_strength
        return chosen


def choose_adaptation(
    curves: Mapping[Way, Sequence[Mapping[str, Any]]],
    metric: str,
    higher_is_better: bool = True,
) -> tuple[Way, int]:
    """Chooses how to adapt from what validation clients showed.

    Args:
      curves: For each way tried, the clients' results of `build_adaptation_eval`.
      metric: The metric whose mean over clients decides.
      higher_is_better: Whether more of it is better.

    Returns:
      (way, steps), steps 0 where no adaptation did better. Ties go to fewer steps, then to the
      smaller rate, then to the weaker pull.

    Raises:
      NothingToMeasureError: If no client has a query to measure on; NothingFiniteError: if no
        setting has a finite mean.
    """
    best, best_way = None, None
    for way in sorted(curves, key=_as_numbers):
        means = np.mean([client[metric] for client in measurable(curves[way])], axis=0)
        for steps, mean in enumerate(means.tolist()):
            score = mean if higher_is_better else -mean
            candidate = (score, -steps, *(-number for number in _as_numbers(way)))
            if math.isfinite(score) and (best is None or candidate > best):
                best, best_way = candidate, way
    if best is None or best_way is None:
        raise NothingFiniteError(
            f"No setting gave a finite {metric} on the validation clients; use a smaller "
            "inner_learning_rate for training."
        )
    return best_way, -int(best[1])


def _as_numbers(way: Way) -> tuple[float, float]:
    return way.rate or 0.0, way.proximal_strength or 0.0


def measurable(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the results of the clients that were measured: large enough to split, and finite.

    Raises:
      NothingToMeasureError: If there is none.
    """
    kept = [result for result in results if result["num_query"] > 0]
    if not kept:
        raise NothingToMeasureError(
            f"None of the {len(results)} clients has the two examples, all finite, that a split "
            "into support and query needs."
        )
    return kept


def summarize(
    results: Sequence[Mapping[str, Any]], metric: str, steps: int, higher_is_better: bool = True
) -> dict[str, Any]:
    """Summarizes clients before and after adapting for `steps`.

    Args:
      results: The clients' results of `build_adaptation_eval`, each with a query.
      metric: The metric to summarize.
      steps: The entry of the curves that counts as "after".
      higher_is_better: Whether more of it is better.

    Returns:
      {"before": {"mean", "std", "p10", "p50", "p90"}, "after": the same, "share_hurt": the share of
      clients, in [0, 1], whom adapting left worse off}. Every client counts the same. One whose
      metric is not finite, where adapting diverged, counts as hurt, and nowhere else.

    Raises:
      NothingFiniteError: If no client's metric is finite.
    """
    curves = np.array([result[metric] for result in results], np.float64)  # None becomes NaN
    before, after = curves[:, 0], curves[:, steps]
    finite = np.isfinite(before) & np.isfinite(after)
    if not finite.any():
        raise NothingFiniteError(
            f"No client has a finite {metric} after adapting; use a smaller inner_learning_rate "
            "for training, or smaller adaptation_learning_rates."
        )
    hurt = ~finite | (after < before if higher_is_better else after > before)
    return {
        "before": _distribution(before[finite]),
        "after": _distribution(after[finite]),
        "share_hurt": float(np.mean(hurt)),
    }


def summary_of_nothing() -> dict[str, Any]:
    """Returns what `summarize` does, of an algorithm that diverged: no figure, all hurt."""
    nothing = dict.fromkeys(("mean", "std", "p10", "p50", "p90"))
    return {"before": nothing, "after": nothing, "share_hurt": 1.0}


def _distribution(values: np.ndarray) -> dict[str, float]:
    p10, p50, p90 = np.percentile(values, [10, 50, 90])
    summary = dict(mean=np.mean(values), std=np.std(values), p10=p10, p50=p50, p90=p90)
    return {name: float(value) for name, value in summary.items()}
