"""A comparison in words: which algorithm is better on these clients, by how much, and how surely.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import scipy.stats

# A difference of this many standard errors is found in four of five experiments at 95 %:
# 1.96 + 0.84, the quantiles of the normal distribution at 97.5 % and 80 %.
_STANDARD_ERRORS = scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)


def sentences(
    comparison: Mapping[str, Any], higher_is_better: bool = True, clients: str = "test clients"
) -> list[str]:
    """Says in words how each algorithm does against the baseline, a sentence each.

    Args:
      comparison: What `compare` returned.
      higher_is_better: Whether more of the metric is better.
      clients: What the clients are, such as "writers".
    """
    return [
        _sentence(comparison, name, higher_is_better, clients)
        for name, row in comparison["algorithms"].items()
        if row["versus_baseline"] is not None
    ]


def _sentence(
    comparison: Mapping[str, Any], name: str, higher_is_better: bool, clients: str
) -> str:
    baseline, count = comparison["baseline"], comparison["num_clients"]
    row = comparison["algorithms"][name]
    versus, unit = row["versus_baseline"], Unit(comparison["metric"])
    mean, (low, high) = versus["mean"], versus["ci95"]
    where = f"these {count:,} {clients}"
    if mean is None or low is None:
        text = f"{name} and {baseline} cannot be compared: fewer than two of {where} have a value"
    elif low == high == 0:
        text = f"{name} and {baseline} do exactly alike on each of {where}"
    elif low <= 0 <= high:
        signed = f"{unit.signed(mean)} {unit.plural} (95 %: {unit.signed(low)} to "
        text = (
            f"no difference between {name} and {baseline} can be told on {where}: {signed}"
            f"{unit.signed(high)}); {_clients_needed(comparison, name, clients)}"
        )
    else:
        better = (mean > 0) == higher_is_better
        low, high = sorted((abs(low), abs(high)))
        text = (
            f"on {where} {name} is {'better' if better else 'worse'} than {baseline} by "
            f"{unit.number(abs(mean))} {unit.plural} (95 %: {unit.number(low)} to "
            f"{unit.number(high)})"
        )
    return (
        text[0].upper()
        + text[1:]
        + _of_seeds(comparison, name, unit)
        + _diverged(comparison, name, clients)
        + "."
    )


def _clients_needed(comparison: Mapping[str, Any], name: str, clients: str) -> str:
    """Says how many clients would show a difference worth having, four times of five."""
    low, high = comparison["algorithms"][name]["versus_baseline"]["ci95"]
    after = comparison["algorithms"][comparison["baseline"]]["after"]["mean"]
    if Unit(comparison["metric"]).is_share:
        worth, words = 0.01, "one of a point"
    else:
        worth, words = abs(after) / 10, f"one of a tenth of {comparison['baseline']}'s"
    if not worth:
        return "more clients may tell"
    count = comparison["num_clients"]
    deviation = (high - low) / 2 / scipy.stats.norm.ppf(0.975) * math.sqrt(count)
    needed = max(2, math.ceil((_STANDARD_ERRORS * deviation / worth) ** 2))
    if needed <= count:
        return f"{words} would have been seen here in four of five such tests"
    digits = 10 ** max(0, len(str(needed)) - 2)
    return (
        f"about {math.ceil(needed / digits) * digits:,} {clients} would be needed to see {words} "
        "(in four of five such tests)"
    )


def _of_seeds(comparison: Mapping[str, Any], name: str, unit: Unit) -> str:
    """Says the difference of each repetition, which the interval over clients does not cover."""
    mine = comparison["algorithms"][name]["repetitions"]
    theirs = comparison["algorithms"][comparison["baseline"]]["repetitions"]
    pairs = [(a["after"], b["after"]) for a, b in zip(mine, theirs)]
    if len(pairs) < 2 or any(None in pair for pair in pairs) or "folds" in comparison:
        return ""  # folds differ by their clients
    return f"; by repetition: {', '.join(unit.signed(a - b) for a, b in pairs)}"


def _diverged(comparison: Mapping[str, Any], name: str, clients: str) -> str:
    counts = {
        one: comparison["algorithms"][one]["diverged"] for one in (name, comparison["baseline"])
    }
    said = " and ".join(f"with {one} on {count:,}" for one, count in counts.items() if count)
    if not said:
        return ""
    return f"; adapting diverged {said} of the {clients}, who are in no mean but count as lost"


class Unit:
    """How a metric's figures are written: shares in points of a hundred, others as they are.

    Attributes:
      is_share: Whether the metric is a share, such as an accuracy.
      factor: What figures are multiplied by to be in the unit.
      plural: The unit's name after a difference.
    """

    def __init__(self, metric: str):
        self.is_share = "accuracy" in metric
        self.factor = 100 if self.is_share else 1
        self.plural = "points" if self.is_share else f"of {metric}"

    def number(self, value: float | None) -> str:
        """Writes a figure, without a plus."""
        return self._write(value, "")

    def signed(self, value: float | None) -> str:
        """Writes a difference, with its sign."""
        return self._write(value, "+")

    def _write(self, value: float | None, sign: str) -> str:
        if value is None:
            return "-"
        return f"{100 * value:{sign}.1f}" if self.is_share else f"{value:{sign}.3g}"
