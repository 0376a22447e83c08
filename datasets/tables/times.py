"""Times of rows: numbers or dates, in whichever way a file writes them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables.columns import row_name
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

# Two numbers of which each could be the day, and a year: 06/01/2015, 6-1-15 10:30.
_DAY_AND_MONTH = re.compile(r"^\s*(\d{1,2})([/.-])(\d{1,2})[/.-](\d{4}|\d{2})\b(.*)", re.DOTALL)


def times(column: pd.Series, time_format: str | None = None) -> np.ndarray:
    """Returns a column of numbers or dates as something that sorts.

    Whether the day or the month comes first is decided by the whole column, never by a single date.

    Args:
      column: The column.
      time_format: How dates are written, as Python's strptime has it, such as "%d/%m/%Y %H:%M";
        None: as numbers, by ISO 8601 in any detail, by day, month and year, or with a month's name.

    Returns:
      [rows]: datetime64[ns] in UTC for dates, int64 for whole numbers, otherwise float64.

    Raises:
      DataError: If a value is missing or neither, which names the row, or day and month cannot be
        told apart, which gives both readings.
    """
    import pandas as pd

    if time_format is None and column.dtype.kind in "iu":
        return column.to_numpy(np.uint64 if column.dtype.kind == "u" else np.int64)
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        return _nanoseconds(column, pd.to_datetime(column, utc=True))
    if time_format is not None:
        found = _of_each(column, lambda texts: _dates_written(texts, time_format))
        return _nanoseconds(column, found, f"a time written as --time_format={time_format} says")
    plain = column if column.dtype.kind in "biuf" else column.astype(str).str.strip()
    found = pd.to_numeric(plain, errors="coerce")
    if found.notna().mean() >= 0.5:
        _refuse(column, ~np.isfinite(found.to_numpy(np.float64, na_value=np.nan)))
        return found.to_numpy()
    return _nanoseconds(column, _of_each(column, _dates))


def reading(column: pd.Series, time_format: str | None = None) -> dict[str, Any]:
    """Returns what `pandas.to_datetime` must be told to read a column as `times` does.

    Raises:
      DataError: If the column is not dates: numbers have no weekday.
    """
    import pandas as pd

    if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        return {"format": "ISO8601"}
    if time_format is not None:
        return {"format": time_format}
    if times(column).dtype.kind != "M":
        raise DataError(
            f"--time_features needs dates, but column {column.name!r} has numbers: write them as "
            "dates such as 2024-05-31 18:00:00."
        )
    texts = pd.Series(column.astype(str).str.strip().unique(), name=column.name)
    if pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True).notna().all():
        return {"format": "ISO8601"}
    parts = texts.str.extract(_DAY_AND_MONTH)
    if parts[0].notna().mean() < 0.5:
        return {"format": "mixed"}
    return {"format": "mixed", "dayfirst": _has_day_first(texts, parts)}


def _of_each(column: pd.Series, parse: Callable[[pd.Series], pd.Series]) -> pd.Series:
    """Parses every different text once: series of one clock share most of their times."""
    import pandas as pd

    codes, texts = pd.factorize(column.astype(str).str.strip())
    found = parse(pd.Series(texts, name=column.name))
    return pd.Series(found.to_numpy("datetime64[ns]")[codes], column.index).dt.tz_localize("UTC")


def _dates_written(texts: pd.Series, time_format: str) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(texts, format=time_format, errors="coerce", utc=True)


def _dates(texts: pd.Series) -> pd.Series:
    """Returns dates in UTC, NaT for what is not one."""
    import pandas as pd

    found = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    if found.notna().all():
        return found
    parts = texts.str.extract(_DAY_AND_MONTH)
    if parts[0].notna().mean() >= 0.5:
        return _of_parts(texts, parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats: what cannot be read is said by the caller
        return pd.to_datetime(texts, format="mixed", errors="coerce", utc=True)


def _has_day_first(column: pd.Series, parts: pd.DataFrame) -> bool:
    """Returns whether the day comes before the month, by the parts of all dates."""
    import pandas as pd

    first, second = (pd.to_numeric(parts[n], errors="coerce") for n in (0, 2))
    days_first, months_first = bool((first > 12).any()), bool((second > 12).any())
    _refuse_years_first(column, first, parts)
    if days_first and months_first:
        raise DataError(
            f"Column {column.name!r} has dates with the day first, such as "
            f"{column[first.idxmax()]!r}, and with the month first, such as "
            f"{column[second.idxmax()]!r}: write all in one way, best as 2024-05-31."
        )
    if not (days_first or months_first) and (parts[1] == ".").any():
        days_first = True  # no country puts a month before a point and a day behind it
    same = bool((first == second).all())
    if not (days_first or months_first or same):
        some = column[(first != second).idxmax()]
        raise DataError(
            f"Column {column.name!r} has dates such as {some!r}, in which day and month cannot be "
            "told apart, as none of them is over 12: give --time_format=%d/%m/%Y if the day comes "
            "first, or --time_format=%m/%d/%Y if the month does (with the time of day as it is "
            "written, such as %d/%m/%Y %H:%M)."
        )
    return not months_first


def _of_parts(column: pd.Series, parts: pd.DataFrame) -> pd.Series:
    """Returns dates in UTC, given their parts: two numbers, a year and the rest."""
    import pandas as pd

    first_is_day = _has_day_first(column, parts)
    day, month = (parts[0], parts[2]) if first_is_day else (parts[2], parts[0])
    year = parts[3].where(parts[3].str.len() == 4, "20" + parts[3])
    rest = parts[4].fillna("").str.strip().str.lstrip("T, ")
    date = year + "-" + month.str.zfill(2) + "-" + day.str.zfill(2)
    written = date + " " + rest.where(rest != "", "00:00")
    found = pd.to_datetime(written, format="ISO8601", errors="coerce", utc=True)
    if found.notna().all():
        return found
    return pd.to_datetime(written, format="mixed", errors="coerce", utc=True)


def _refuse_years_first(column: pd.Series, first: pd.Series, parts: pd.DataFrame) -> None:
    """Raises DataError if 15/01/27 is rather the 27th of a month of 2015, as the numbers vary."""
    short = bool((parts[3].str.len() == 2).all()) and bool((first > 12).any())
    if short and first.nunique() < parts[3].nunique():
        raise DataError(
            f"Column {column.name!r} has dates such as {column.iloc[0]!r}, in which the year seems "
            "to come first: give --time_format=%y/%m/%d, or %d/%m/%y if the day does."
        )


def _nanoseconds(
    column: pd.Series,
    found: pd.Series,
    expected: str = "a time, a number or a date such as 2024-05-31 18:00:00",
) -> np.ndarray:
    _refuse(column, found.isna().to_numpy(), expected)
    return found.dt.tz_convert(None).dt.as_unit("ns").to_numpy()


def _refuse(
    column: pd.Series,
    bad: np.ndarray,
    expected: str = "a time, a number or a date such as 2024-05-31 18:00:00",
) -> None:
    if bad.any():
        place = int(np.argmax(bad))
        raise DataError(
            f"Column {column.name!r} has {column.iloc[place]!r} in "
            f"{row_name(column.index[place])}: every row needs {expected}."
        )
