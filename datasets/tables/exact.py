"""Whole numbers beyond 2**53 with gaps between them: float64, pandas' choice, would merge them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 2**53  # below it float64 holds every whole number


def whole_numbers(frame: pd.DataFrame, read_again: Callable[[Any], pd.Series]) -> pd.DataFrame:
    """Reads columns again whose whole numbers float64 has merged.

    Args:
      frame: The table as pandas reads it.
      read_again: Name of a column -> its values as the file has them, text or int or missing.

    Returns:
      The table, with Int64 columns where there are such numbers.
    """
    import pandas as pd

    for name in list(frame.columns):
        column = frame[name]
        if not isinstance(column, pd.Series) or column.dtype.kind != "f":
            continue
        if not (column.abs() >= LARGEST).any():
            continue
        raw = read_again(name)
        values = [None if pd.isna(value) else _whole(value) for value in raw]
        if all(value is not None or gap for value, gap in zip(values, raw.isna())):
            frame[name] = pd.Series(pd.array(values, dtype="Int64"), frame.index)
    return frame


def narrowed(frame: pd.DataFrame) -> pd.DataFrame:
    """Makes nullable whole numbers NumPy's again, where this loses nothing."""
    import pandas as pd

    for name in list(frame.columns):
        column = frame[name]
        if not (isinstance(column, pd.Series) and isinstance(column.dtype, pd.Int64Dtype)):
            continue
        if not column.isna().any():
            frame[name] = column.astype(np.int64)
        elif not (column.abs() >= LARGEST).any():
            frame[name] = column.astype(np.float64)
    return frame


def ids(column: pd.Series) -> pd.Series:
    """Returns ids as text: a number that stands for someone is "7", with gaps beside it or not."""
    is_number = column.dtype.kind == "f"
    if is_number and bool((column.dropna() % 1 == 0).all()):
        column = column.astype("Int64")
    return column.astype(object).where(column.isna(), column.astype(str))


def _whole(value: Any) -> int | None:
    try:
        found = int(value)
    except (TypeError, ValueError):
        return None
    return (
        found
        if -(2**63) <= found < 2**63 and str(value).strip().lstrip("+") == str(found)
        else None
    )
