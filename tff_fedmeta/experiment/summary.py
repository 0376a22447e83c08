"""What the curves of clients say: how to adapt, and how much adapting helped."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np


class NothingToMeasureError(ValueError):
    """No figure can be computed; the message says why and what to do."""


class NothingFiniteError(NothingToMeasureError):
    """What was trained has diverged: no figure is finite."""


def choose_adaptation(
    curves: Mapping[Optional[float], Sequence[Mapping[str, Any]]],
    metric: str,
    higher_is_better: bool = True,
) -> tuple[Optional[float], int]:
    """Chooses how to adapt from what validation clients showed.

    Args:
      curves: For each learning rate tried, the clients' results of `build_adaptation_eval`. The
        rate None stands for learnt rates.
      metric: The metric whose mean over clients decides.
      higher_is_better: Whether more of it is better.

    Returns:
      (learning rate, steps), steps 0 where no adaptation did better. Ties go to fewer steps,
      then to the smaller rate.

    Raises:
      NothingToMeasureError: If no client has a query to measure on; NothingFiniteError: if no
        setting has a finite mean.
    """
    best, best_rate = None, None
    for rate in sorted(curves, key=_as_number):
        means = np.mean([client[metric] for client in measurable(curves[rate])], axis=0)
        for steps, mean in enumerate(means.tolist()):
            score = mean if higher_is_better else -mean
            candidate = (score, -steps, -_as_number(rate))
            if math.isfinite(score) and (best is None or candidate > best):
                best, best_rate = candidate, rate
    if best is None:
        raise NothingFiniteError(
            f"No setting gave a finite {metric} on the validation clients; use a smaller "
            "inner_learning_rate for training."
        )
    return best_rate, -best[1]


def _as_number(rate: Optional[float]) -> float:
    return 0.0 if rate is None else rate


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
