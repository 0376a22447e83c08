"""Compares algorithms on the same test clients: intervals, paired differences, and both in words.

The intervals are over clients: they say how far the means would move with other clients of the same
kind. They do not say how far they would move with another training run; repetitions show that.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from tff_fedmeta import seeds
from tff_fedmeta.checks import check_choice

FILE = "comparison.json"
CONFIDENCE = 0.95
_RESAMPLES = 9999
_NUMBERS_AT_ONCE = 2_000_000  # drawn in one go: bounds the memory of many clients
# Two means over repetitions that differ by less than this are the same number, summed differently.
_TIE = 1e-9
# A difference of this many standard errors is found in four of five experiments at 95 %:
# 1.96 + 0.84, the quantiles of the normal distribution at 97.5 % and 80 %.
_STANDARD_ERRORS = scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)

Repetitions = Sequence[Mapping[str, Any]]


def compare(
    results: Mapping[str, Repetitions],
    baseline: str | None,
    higher_is_better: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares algorithms in pairs on the same clients.

    A client's value is its mean over the repetitions that tested it. A client on which adaptation
    diverged in any repetition has no value: it counts as hurt and as a loss (or, if the baseline
    alone diverged, as a win), and is left out of the means.

    Args:
      results: For each algorithm the contents of `adaptation_test.json`, one a repetition.
      baseline: The algorithm that the others are compared with; None compares none.
      higher_is_better: Whether more of the metric is better.
      seed: The experiment's; the bootstrap draws from a stream of it.

    Returns:
      {"metric", "baseline", "algorithms": {name: {"before"|"after": {"mean", "std", "p10", "p50",
      "p90", "ci95": [low, high]}, "share_hurt", "gain": {"mean", "ci95"}, "versus_baseline":
      {"mean", "ci95", "wins", "ties", "losses"} | None, "diverged": number of clients,
      "repetitions": [{"before", "after"}: mean over clients of each repetition]}}, "num_clients",
      "repetitions", "data_source"}. "gain" is after minus before, "versus_baseline" the
      algorithm's after minus the baseline's, in the metric's own unit, so it is negative where a
      lower metric is lower still. An interval of fewer than two clients is [None, None], as is a
      mean of none.

    Raises:
      ValueError: If the baseline is not among the algorithms, or the algorithms were not tested on
        the same clients and in the same number of repetitions.
    """
    if baseline is not None:
        check_choice("--baseline", baseline, results)
    metric = _only({run["metric"] for runs in results.values() for run in runs}, "metric")
    source = _only({run["data_source"] for runs in results.values() for run in runs}, "data source")
    values = {name: client_values(runs, metric) for name, runs in results.items()}
    ids = next(iter(values.values())).index
    for name, frame in values.items():
        if set(frame.index) != set(ids):
            raise ValueError(f"{name} was not tested on the same clients as {next(iter(values))}.")
    count = _only({len(runs) for runs in results.values()}, "number of repetitions")
    values = {name: frame.loc[ids] for name, frame in values.items()}
    reference = None if baseline is None else values[baseline]["after"]
    sign = 1 if higher_is_better else -1
    algorithms = {}
    for name, frame in values.items():
        both = frame.dropna()
        gains = frame["after"] - frame["before"]
        algorithms[name] = {
            "before": distribution(both["before"], seed),
            "after": distribution(both["after"], seed),
            "share_hurt": float(np.mean(~(sign * gains >= -_TIE))),  # NaN is hurt as well
            "gain": _mean_and_interval(gains.dropna(), seed),
            "versus_baseline": None
            if reference is None or name == baseline
            else _versus(frame["after"], reference, sign, seed),
            "diverged": int(len(frame) - len(both)),
            "repetitions": [_means(client_values([run], metric)) for run in results[name]],
        }
    return {
        "metric": metric,
        "baseline": baseline,
        "algorithms": algorithms,
        "num_clients": len(ids),
        "repetitions": count,
        "data_source": source,
    }


def _only(values: set[Any], what: str) -> Any:
    if len(values) != 1:
        raise ValueError(f"The results do not have the same {what}: {sorted(map(str, values))}.")
    return values.pop()


def client_values(runs: Repetitions, metric: str) -> pd.DataFrame:
    """Returns "before" and "after" of each client, a row a client; NaN where adapting diverged."""
    rows = []
    for run in runs:
        after = run["chosen"]["steps"]
        for client in run["clients"]:
            curve = client[metric]
            rows.append((client["client_id"], curve[0], curve[after]))
    frame = pd.DataFrame(rows, columns=["client_id", "before", "after"]).set_index("client_id")
    frame = frame.astype(float).replace([np.inf, -np.inf], np.nan)
    diverged = frame.isna().groupby(level=0, sort=False).any()
    return frame.groupby(level=0, sort=False).mean().mask(diverged)


def distribution(values: Any, seed: int = 0) -> dict[str, Any]:
    """Returns mean, standard deviation, percentiles and interval of clients' values, all finite."""
    values = np.asarray(values, float)
    if not values.size:
        return dict.fromkeys(("mean", "std", "p10", "p50", "p90")) | {"ci95": [None, None]}
    p10, p50, p90 = np.percentile(values, [10, 50, 90])
    figures = {"mean": np.mean(values), "std": np.std(values), "p10": p10, "p50": p50, "p90": p90}
    return {
        **{name: float(value) for name, value in figures.items()},
        "ci95": interval(values, seed),
    }


def interval(values: Any, seed: int = 0) -> list[float | None]:
    """Returns a 95 % interval of the mean: the bootstrap's expanded percentile interval.

    The plain percentile interval is too narrow for few values. Its quantiles are moved outwards by
    sqrt(n / (n - 1)) and from the normal's to Student's (Hesterberg, "What Teachers Should Know
    About the Bootstrap", The American Statistician 69(4), 2015, section 5.3): by 5 % for 40 values.

    Args:
      values: [n] finite numbers. Every call with the same n and seed draws the same indices, so
        equal values have equal intervals.
      seed: The experiment's.

    Returns:
      [low, high]; [None, None] for fewer than two values.
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 2:
        return [None, None]
    if np.ptp(values) == 0:  # of which SciPy's answer is NaN
        return [float(values[0])] * 2
    student = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    level = 1 - 2 * scipy.stats.norm.sf(math.sqrt(n / (n - 1)) * student)
    result = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _NUMBERS_AT_ONCE // n),
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seeds.stream_seed_int(seed, "bootstrap")),
    )
    return [float(bound) for bound in result.confidence_interval]


def _mean_and_interval(values: pd.Series, seed: int) -> dict[str, Any]:
    mean = float(values.mean()) if len(values) else None
    return {"mean": mean, "ci95": interval(values, seed)}


def _versus(after: pd.Series, reference: pd.Series, sign: int, seed: int) -> dict[str, Any]:
    difference = after - reference
    better = (sign * difference > _TIE) | (after.notna() & reference.isna())
    worse = (sign * difference < -_TIE) | (after.isna() & reference.notna())
    wins, losses = int(better.sum()), int(worse.sum())
    return {
        **_mean_and_interval(difference.dropna(), seed),
        "wins": wins,
        "ties": len(difference) - wins - losses,
        "losses": losses,
    }


def _means(frame: pd.DataFrame) -> dict[str, float | None]:
    finite = frame.dropna()
    return {name: float(finite[name].mean()) if len(finite) else None for name in finite}


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
    if len(pairs) < 2 or any(None in pair for pair in pairs):
        return ""
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
    """How a metric's figures are written: shares in points of a hundred, others as they are."""

    def __init__(self, metric: str):
        self.is_share = "accuracy" in metric
        self.plural = "points" if self.is_share else f"of {metric}"

    def number(self, value: float) -> str:
        """Writes a difference without a sign's plus."""
        return f"{100 * value:.1f}" if self.is_share else f"{value:.3g}"

    def signed(self, value: float) -> str:
        """Writes a difference with its sign."""
        return f"{100 * value:+.1f}" if self.is_share else f"{value:+.3g}"
