"""Whose the rows of a table are, in which order, and which of them make an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

_FEWEST_CLIENTS = 3
_MOST_STEPS = 10  # median steps that windows cross at most


class Examples(NamedTuple):
    """Which rows make the examples.

    Attributes:
      rows: Client -> positions of rows, [n] or, with windows, [n, window], in the order of the
        (last) row's time.
      label_rows: Client -> the row that labels each example, [n].
      too_few: Client -> how many examples it has, of those left out for having too few.
      max_gap: The time between rows that windows did not cross, if there was one.
    """

    rows: dict[str, np.ndarray]
    label_rows: dict[str, np.ndarray]
    too_few: dict[str, int]
    max_gap: float | None


def examples(
    frame: pd.DataFrame,
    client_column: str,
    *,
    series_columns: Sequence[str] = (),
    times: np.ndarray | None = None,
    window: int | None = None,
    stride: int | None = None,
    labelled: np.ndarray | None = None,
    horizon: int = 0,
    min_rows: int = 2,
    max_gap: float | None = None,
) -> Examples:
    """Finds every client's examples.

    Args:
      frame: The table.
      client_column: Its values are the clients.
      series_columns: A window does not cross from one of their values to another.
      times: [rows], sorts the rows; None, and equal times, keep the table's order.
      window: Rows of an example, >= 1; None: each row is one.
      stride: Rows from window to window, >= 1; None: as `window`.
      labelled: bool [rows], which rows can label an example; None: all.
      horizon: How many rows of its series after the (last) row of an example labels it, >= 0.
      min_rows: The fewest examples of a client, >= 2.
      max_gap: The longest time between rows of a window, or from its last to its label, in
        seconds for dates; None: ten times the median step; infinite: any.

    Raises:
      DataError: If a value is out of its range, or fewer than three clients have enough examples.
    """
    for option, value in (("window", window), ("window_stride", stride)):
        if value is not None and value < 1:
            raise DataError(f"--{option} must be >= 1, but is {value}.")
    if stride is not None and window is None:
        raise DataError("--window_stride needs a --window.")
    order = np.arange(len(frame)) if times is None else np.argsort(times, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    grouped = frame.groupby([client_column, *series_columns], observed=True, dropna=False)
    series = grouped.ngroup().to_numpy()
    by_series = order[np.argsort(series[order], kind="stable")]
    breaks = np.diff(series[by_series]) != 0
    if times is not None and (window or horizon):
        steps = np.diff(times[by_series])
        if steps.dtype.kind == "m":
            steps = steps / np.timedelta64(1, "s")
        inside = steps[~breaks & (steps > 0)]
        if max_gap is None:
            max_gap = _MOST_STEPS * float(np.median(inside)) if len(inside) else None
        if max_gap is not None:
            breaks |= steps > max_gap
    bounds = np.r_[0, np.flatnonzero(breaks) + 1, len(by_series)]
    if window is None:
        ends = np.arange(len(by_series))
    else:
        step = stride or window
        of_series = (
            np.arange(start + window - 1, stop, step) for start, stop in zip(bounds, bounds[1:])
        )
        ends = np.concatenate([np.zeros(0, int), *of_series])
    last_of = np.repeat(bounds[1:] - 1, np.diff(bounds))  # the last place of a place's series
    ends = ends[ends + horizon <= last_of[ends]]
    label_rows = by_series[ends + horizon]
    kept = slice(None) if labelled is None else labelled[label_rows]
    ends, label_rows = ends[kept], label_rows[kept]
    rows = by_series[ends]
    clients = client_ids(frame, client_column)
    codes, names = _numbered(clients)
    by_client = np.lexsort((rank[rows], codes[rows]))
    counts = np.bincount(codes[rows], minlength=len(names))
    too_few = {name: int(n) for name, n in zip(names, counts) if n < max(min_rows, 2)}
    parts = np.split(by_client, np.cumsum(counts)[:-1])
    before = np.arange(1 - (window or 1), 1)
    found, label_of = {}, {}
    for name, chosen in zip(names, parts):
        if name in too_few:
            continue
        found[name] = rows[chosen] if window is None else by_series[ends[chosen][:, None] + before]
        label_of[name] = label_rows[chosen]
    _check_left(found, too_few, max(min_rows, 2), window)
    return Examples(found, label_of, too_few, max_gap)


def _numbered(clients: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Returns a number for each row's client, and the clients by number, sorted."""
    import pandas as pd

    codes, names = pd.factorize(clients, sort=True)
    return codes, [str(name) for name in names]


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
    names = _numbered(clients)[1]
    if split_column is None:
        alone: dict[str, tuple[str, ...]] = {client: (client,) for client in names}
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
    for client in names:
        members.setdefault(find(("client", client))[1], []).append(client)
    _check_number(
        len(members),
        f"Column {split_column!r}, whose values keep clients of {client_column!r} together, makes "
        f"{_count(members, 'group')} of them (to keep windows within a device use --series_column)",
    )
    return {name: tuple(clients) for name, clients in members.items()}


def _check_left(
    left: dict[str, Any], too_few: dict[str, int], min_rows: int, window: int | None
) -> None:
    if len(left) < _FEWEST_CLIENTS and too_few:
        small = [f"{client}: {n}" for client, n in too_few.items()]
        what = "rows with a label" if window is None else f"windows of {window} rows with a label"
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise DataError(
            f"{len(small)} of {len(small) + len(left)} clients have fewer than {min_rows} {what} "
            f"({', '.join(small[:5])}{more}), which leaves {_count(left, 'client')}, but training, "
            "validation and test need one each: use more data"
            f"{'' if window is None else ', or lower --window'}."
        )


def _check_number(number: int, what: str) -> None:
    if number < 3:
        raise DataError(f"{what}, but training, validation and test need one each: at least 3.")


def _count(things: Any, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"
