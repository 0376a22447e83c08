"""Whose the rows of a table are, which of them are used, and who trains, validates and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables import columns, examples, selection, times
from datasets.task import (
    DATA_SEED,
    TEST_FRACTION,
    VALIDATION_FRACTION,
    DataError,
    Fold,
    Sides,
    split_clients,
)

if TYPE_CHECKING:
    import pandas as pd

_NAMED = ("test", "validation")  # sides of which the user may name the clients


def rows_with_a_client(frame: pd.DataFrame, options: Any, report: dict[str, Any]) -> pd.DataFrame:
    """Leaves out and counts rows that are empty or nobody's; the index keeps the numbers."""
    empty = frame.isna().all(axis=1)
    needed = [options.client_column, *selection.listed(options.time_column)]
    more = (options.series_column, options.split_column, options.weight_column)
    needed += [name for name in more if name is not None]
    report["empty_rows"] = int(empty.sum())
    kept = ~empty
    for column in dict.fromkeys(needed):
        without = kept & frame[column].isna()
        if without.any():
            report[f"rows_without_{column}"] = int(without.sum())
            kept &= ~without
    if not kept.any():
        raise DataError(f"No row has a value in each of {columns.listed(needed)}.")
    return frame if kept.all() else frame[kept]


def times_of(frame: pd.DataFrame, options: Any) -> np.ndarray | None:
    """Returns the time of each row, which sorts; None if the user named no column."""
    column = time_column(frame, options)
    return None if column is None else times.times(column, options.time_format)


def days(when: np.ndarray | None, options: Any) -> np.ndarray | None:
    """Returns the day of each row, datetime64[D]; None if the user does not want days.

    Raises:
      DataError: If times are not dates.
    """
    if not options.day_by_day:
        return None
    if when is None or when.dtype.kind != "M":
        raise DataError("--day_by_day needs a --time_column of dates.")
    return when.astype("datetime64[D]")


def time_column(frame: pd.DataFrame, options: Any) -> pd.Series | None:
    """Returns the column of times; several, such as a date and a clock, are put together."""
    from datasets.tables import prepare

    named = selection.listed(options.time_column)
    return prepare.joined(frame, named) if named else None


def find_examples(
    frame: pd.DataFrame, options: Any, labelled: np.ndarray, when: np.ndarray | None
) -> tuple[examples.Examples, dict[str, tuple[str, ...]]]:
    """Returns the examples, and the clients that stay together, by group."""
    client_column, split_column = options.client_column, options.split_column
    groups = examples.groups(frame, client_column, split_column)
    series = [name for name in (options.series_column, split_column) if name is not None]
    found = examples.examples(
        frame,
        client_column,
        series_columns=[name for name in dict.fromkeys(series) if name != client_column],
        times=when,
        window=options.window,
        stride=options.window_stride,
        labelled=labelled,
        horizon=options.horizon,
        min_rows=options.min_rows,
        max_gap=options.max_gap,
    )
    groups = {
        name: tuple(client for client in clients if client in found.rows)
        for name, clients in groups.items()
    }
    return found, {name: clients for name, clients in groups.items() if clients}


def split(
    groups: Mapping[str, tuple[str, ...]],
    options: Any,
    num_test_clients: int | None,
    fold: Fold | None = None,
    seed: int = DATA_SEED,
) -> Sides:
    """Returns training, validation and test clients; those that the user names have their side.

    Raises:
      DataError: If a name is unknown or on two sides, or a side has no client.
    """
    sides = split_named(
        groups,
        {side: selection.listed(getattr(options, f"{side}_clients")) for side in _NAMED},
        num_test_clients,
        fold,
        seed,
    )
    train, validation, test = (
        tuple(client for group in side for client in groups[group]) for side in sides
    )
    return train, validation, test


def split_named(
    groups: Mapping[str, tuple[str, ...]],
    named: Mapping[str, list[str]],
    num_test_clients: int | None,
    fold: Fold | None = None,
    seed: int = DATA_SEED,
) -> Sides:
    """Returns the groups that train, validate and test.

    Args:
      groups: A group's name -> its clients.
      named: "test" and "validation" -> the clients that the user wants there, maybe none.
      num_test_clients: How many groups are tested; None: 15 %.
      fold: Which groups are tested, where each is once.
      seed: Decides who is drawn, >= 0.

    Raises:
      DataError: As `split`.
    """
    if not any(named.values()):
        return split_clients(groups, seed, num_test_clients, fold)
    if fold is not None:
        raise DataError("--folds tests every client once: drop --test_clients and the like.")
    group_of = {client: group for group, clients in groups.items() for client in clients}
    chosen: dict[str, tuple[str, ...]] = {}
    for side, clients in named.items():
        absent = [client for client in clients if client not in group_of]
        if absent:
            raise DataError(
                f"--{side}_clients: the table has no client {columns.listed(absent)} with enough "
                f"examples; some are {columns.listed(sorted(group_of)[:5])}."
            )
        chosen[side] = tuple(sorted({group_of[client] for client in clients}))
    twice = set(chosen["test"]) & set(chosen["validation"])
    if twice:
        raise DataError(
            f"--test_clients and --validation_clients both have {columns.listed(sorted(twice))}."
        )
    rest = sorted(set(groups) - set(chosen["test"]) - set(chosen["validation"]))
    order = [rest[i] for i in np.random.default_rng(seed).permutation(len(rest))]
    for side, share in (("test", TEST_FRACTION), ("validation", VALIDATION_FRACTION)):
        if not chosen[side]:
            number = num_test_clients if side == "test" else None
            count = number or max(1, round(share * len(groups)))
            chosen[side], order = tuple(order[:count]), order[count:]
    if not (order and chosen["validation"]):
        raise DataError(
            "--test_clients and --validation_clients leave too few clients: training and "
            "validation need one each. Name fewer."
        )
    return tuple(order), chosen["validation"], chosen["test"]
