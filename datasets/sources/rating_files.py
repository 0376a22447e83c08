"""Ratings in files of one's own: MovieLens as GroupLens publishes it, or a table of the same kind.

Read are u.data (100k), ratings.dat (1M, 10M), ratings.csv (latest, 20M and more), and any table
with columns for user, item, rating and, if there is one, time. Titles come from u.item, movies.dat
or movies.csv beside the file.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from datasets.tables import columns, csv_text, files
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {
    "user": ("user", "userid", "user_id", "client", "reviewerid"),
    "item": ("item", "itemid", "item_id", "movieid", "movie_id", "movie", "asin", "product"),
    "rating": ("rating", "user_rating", "stars", "score", "overall"),
    "time": ("timestamp", "time", "date", "unixreviewtime"),
}
_TITLES = {"u.item": "|", "movies.dat": "::", "movies.csv": ","}


class RatingTable(NamedTuple):
    """A file of ratings, a row each.

    Attributes:
      users: Ids, str [rows].
      items: Ids, str [rows].
      ratings: float32 [rows].
      times: Something that sorts, [rows]; the row's number where the file has no times.
      titles: Item -> its title, where there is one.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    times: np.ndarray
    titles: dict[str, str]


def read(path: str) -> RatingTable:
    """Reads ratings and, if they lie beside them, titles.

    Raises:
      DataError: If the file cannot be read, has no such columns, or a rating is not a number.
    """
    from datasets.tables.times import times

    frame = _table(pathlib.Path(path).expanduser())
    part = _parts(path, [str(name) for name in frame.columns])
    needed = [part[name] for name in ("user", "item", "rating")]
    incomplete = frame[needed].isna().any(axis=1)
    if incomplete.any():
        row = columns.row_name(frame.index[incomplete][0])
        raise DataError(f"{path} lacks a user, an item or a rating in {row}.")
    ratings = columns.finite_numbers(frame[part["rating"]]).astype(np.float32)
    when = times(frame[part["time"]]) if "time" in part else np.arange(len(frame))
    users, items = (frame[part[name]].astype(str).to_numpy(str) for name in ("user", "item"))
    return RatingTable(users, items, ratings, when, _titles(pathlib.Path(path).expanduser()))


def _table(path: pathlib.Path) -> pd.DataFrame:
    """Reads the table; one whose first row is numbers has no header."""
    content = files.first_line(path)
    if "::" in content:
        form = csv_text.Format(separator="::", header=False)
    else:
        cells = content.replace("\t", ",").replace(";", ",").split(",")
        form = csv_text.Format(header=not _is_number(cells[2]) if len(cells) > 2 else True)
    if form.header:
        named = files.names(str(path), form)
        text = [n for n in named if n.lower() in (*_NAMES["user"], *_NAMES["item"])]
        return files.read(str(path), text, form)[0]
    form = csv_text.Format(
        separator=form.separator,
        header=False,
        column_names=("user", "item", "rating", "time")[: _width(content)],
    )
    return files.read(str(path), ["user", "item"], form)[0]


def _width(line: str) -> int:
    for separator in ("::", "\t", ";", ","):
        if separator in line:
            return len(line.split(separator))
    return len(line.split())


def _parts(path: str, names: Sequence[str]) -> dict[str, str]:
    folded = {name.lower(): name for name in names}
    found = {
        part: next(folded[known] for known in spellings if known in folded)
        for part, spellings in _NAMES.items()
        if any(known in folded for known in spellings)
    }
    absent = [part for part in ("user", "item", "rating") if part not in found]
    if absent:
        raise DataError(
            f"{path} has no column called {' or '.join(absent)}, but {columns.listed(names)}: "
            "ratings are a table of user, item, rating and, if you like, time."
        )
    return found


def _titles(path: pathlib.Path) -> dict[str, str]:
    titles = {}
    for name, separator in _TITLES.items():
        beside = path.parent / name
        if not beside.is_file():
            continue
        if separator == ",":
            frame, _, _ = files.read(str(beside), ["movieId"])
            return dict(zip(frame.iloc[:, 0].astype(str), frame.iloc[:, 1].astype(str)))
        for line in beside.read_bytes().decode("latin-1").splitlines():
            cells = line.split(separator)
            if len(cells) > 1:
                titles[cells[0]] = cells[1]
        return titles
    return titles


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
