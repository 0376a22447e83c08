"""Compares algorithms on the same test clients: intervals and paired differences.

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
      "repetitions", "data_source"}. Where it was measured, an algorithm has "support_sizes":
      [{"size", "mean", "ci95", "num_clients"}], after adapting on so many support examples, and
      "others": {"before": mean, "after": mean, "change": {"mean", "ci95"}}, on the query of other
      clients before and after adapting. "gain" is after minus before, "versus_baseline" the
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
            **_by_support_size(results[name], seed),
            **_on_others(results[name], seed),
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
            rows.append(
                {"client_id": client["client_id"], "before": curve[0], "after": curve[after]}
            )
    return _over_repetitions([rows])


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


def _by_support_size(runs: Repetitions, seed: int) -> dict[str, Any]:
    """Returns the figures of each size of support, where all repetitions measured them."""
    if not all("support_sizes" in run for run in runs):
        return {}
    rows = []
    for parts in zip(*(run["support_sizes"] for run in runs)):
        after = _over_repetitions([part["clients"] for part in parts]).get("after", pd.Series([]))
        figures = _mean_and_interval(after.dropna(), seed)
        count = int(after.notna().sum())
        rows.append({"size": parts[0]["size"], **figures, "num_clients": count})
    return {"support_sizes": rows}


def _on_others(runs: Repetitions, seed: int) -> dict[str, Any]:
    """Returns how adapted models do on other clients, where all repetitions measured it."""
    if not all(run.get("others") for run in runs):
        return {}
    frame = _over_repetitions([run["others"] for run in runs]).dropna()
    change = _mean_and_interval(frame["after"] - frame["before"], seed)
    return {"others": {**_means(frame), "change": change}}


def _over_repetitions(parts: Sequence[Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Returns each client's mean over repetitions, a row a client; NaN if any has none."""
    frame = pd.DataFrame([row for rows in parts for row in rows])
    if frame.empty:
        return frame
    frame = frame.set_index("client_id").astype(float).replace([np.inf, -np.inf], np.nan)
    missing = frame.isna().groupby(level=0, sort=False).any()
    return frame.groupby(level=0, sort=False).mean().mask(missing)
