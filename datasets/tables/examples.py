"""Whose the rows of a table are, in which order, and which of them make an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables import columns
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd


def examples(
    frame: pd.DataFrame,
    client_column: str,
    *,
    series_columns: Sequence[str] = (),
    time_column: str | None = None,
    window: int | None = None,
    stride: int | None = None,
) -> dict[str, np.ndarray]:
    """Finds every client's examples.

    Args:
      frame: The table.
      client_column: Its values are the clients.
      series_columns: A window does not cross from one of their values to another.
      time_column: Sorts the rows; None, and equal times, keep the table's order.
      window: Rows of an example, >= 1; None: each row is one.
      stride: Rows from window to window, >= 1; None: as `window`.

    Returns:
      client -> positions of rows, [n] or, with `window`, [n, window]; n >= 2, in the order of the
      (last) row's time.

    Raises:
      DataError: If a client, a series or a time is missing, a client has fewer than two examples,
        or a value is out of its range.
    """
    for option, value in (("window", window), ("window_stride", stride)):
        if value is not None and value < 1:
            raise DataError(f"--{option} must be >= 1, but is {value}.")
    if stride is not None and window is None:
        raise DataError("--window_stride needs a --window.")
    for column in (client_column, *series_columns):
        missing = np.flatnonzero(frame[column].isna())
        if len(missing):
            raise DataError(f"Column {column!r} has no value in {columns.row_name(missing[0])}.")
    if time_column is None:
        order = np.arange(len(frame))
    else:
        order = np.argsort(columns.times(frame[time_column]), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))

    series = frame.groupby([client_column, *series_columns], observed=True).ngroup().to_numpy()
    clients = client_ids(frame, client_column)
    found: dict[str, list[np.ndarray]] = {str(client): [] for client in np.unique(clients)}
    for rows in _split_by(series, order):
        if len(rows) >= (window or 1):
            windows = np.lib.stride_tricks.sliding_window_view(rows, window or 1)
            found[clients[rows[0]]].append(windows[:: stride or window or 1])
    _check_sizes({client: sum(map(len, parts)) for client, parts in found.items()}, window)
    result = {}
    for client, parts in found.items():
        rows = np.concatenate(parts)
        rows = rows[np.argsort(rank[rows[:, -1]], kind="stable")]
        result[client] = rows[:, 0] if window is None else rows
    return result


def client_ids(frame: pd.DataFrame, client_column: str) -> np.ndarray:
    """Returns the client of every row, as text: str [rows]."""
    return frame[client_column].astype(str).to_numpy(object)


def groups(
    frame: pd.DataFrame, client_column: str, split_column: str | None
) -> dict[str, tuple[str, ...]]:
    """Finds which clients must stay together when they are split.

    Args:
      frame: The table.
      client_column: Its values are the clients.
      split_column: Clients that share a value of it stay together, directly or through others;
        None: each is on its own.

    Returns:
      A name of the group -> its clients, sorted. At least three groups.

    Raises:
      DataError: If there are fewer.
    """
    clients = client_ids(frame, client_column)
    if split_column is None:
        alone: dict[str, tuple[str, ...]] = {str(c): (str(c),) for c in np.unique(clients)}
        _check_number(len(alone), f"Column {client_column!r} has {_count(alone, 'client')}")
        return alone
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        while leader.setdefault(node, node) != node:
            node = leader[node]
        return node

    values = frame[split_column].astype(str)
    for client, value in sorted(set(zip(clients, values))):
        leader[find(("client", client))] = find(("value", value))
    members: dict[str, list[str]] = {}
    for client in np.unique(clients):
        members.setdefault(find(("client", str(client)))[1], []).append(str(client))
    _check_number(
        len(members),
        f"Column {split_column!r}, whose values keep clients of {client_column!r} together, makes "
        f"{_count(members, 'group')} of them (to keep windows within a device use --series_column)",
    )
    return {name: tuple(clients) for name, clients in members.items()}


def _split_by(keys: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Splits the positions in `order` by the integer key of each, keeping their order."""
    sorted_by_key = order[np.argsort(keys[order], kind="stable")]
    cuts = np.flatnonzero(np.diff(keys[sorted_by_key])) + 1
    return np.split(sorted_by_key, cuts)


def _check_sizes(num_examples: dict[str, int], window: int | None) -> None:
    small = [f"{client}: {n}" for client, n in num_examples.items() if n < 2]
    if small:
        what = "rows" if window is None else f"windows of {window} rows"
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise DataError(
            f"{len(small)} of {len(num_examples)} clients have fewer than the two {what} that a "
            f"split into support and query needs ({', '.join(small[:5])}{more}): take them out of "
            f"the file{'' if window is None else ', or lower --window'}."
        )


def _check_number(number: int, what: str) -> None:
    if number < 3:
        raise DataError(f"{what}, but training, validation and test need one each: at least 3.")


def _count(things: Any, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"
