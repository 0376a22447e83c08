"""Turns rows of a table into what the exported model takes. It needs NumPy and pandas alone.

A run writes it, with `preprocessing.json`, beside its Keras model. Training reads rows by the same
functions: a row becomes the same bits.

    x = prepare.prepare(pd.read_csv("new_rows.csv"))
    print(prepare.labels(model.predict(x)))
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_WORDS = {"true": "True", "false": "False"}
# The zone of a time, behind minutes or seconds.
_ZONE = re.compile(r"(:\d\d(?:\.\d+)?)\s*(?:Z|UTC|[+-]\d\d:?\d\d)$")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def prepare(rows: pd.DataFrame, how: Mapping[str, Any] | None = None) -> np.ndarray:
    """Returns what the model takes.

    Args:
      rows: Has the feature columns; others are ignored. Where the model takes windows, the rows of
        one series in the order of time: from the first on, a window begins every so many rows as in
        training (`how["window_stride"]`).
      how: The content of `preprocessing.json`; None reads the file beside this one.

    Returns:
      float32 [rows, channels], or [windows, window, channels]; `how["channels"]` names them.

    Raises:
      ValueError: If a column is not there, or a value of a numeric column is not a finite number.
    """
    how = _read() if how is None else how
    names = [feature["column"] for feature in how["features"] if "clock" not in feature]
    names += [name for feature in how["features"] for name in feature.get("columns", ())]
    absent = [name for name in dict.fromkeys(names) if name not in rows.columns]
    if absent:
        raise ValueError(f"The rows have no column {', '.join(map(repr, absent))}.")
    x = encode(rows, how["features"], how.get("file", {}))
    if not how.get("window"):
        return x
    size = how["window"]
    starts = np.arange(0, len(x) - size + 1, how.get("window_stride") or size)
    return x[starts[:, None] + np.arange(size)]


def labels(outputs: Any, how: Mapping[str, Any] | None = None) -> np.ndarray:
    """Returns the classes of a model's outputs, or quantities in the units of the label's column.

    Args:
      outputs: [n, classes] logits or [n, 1].
      how: As in `prepare`.
    """
    label = (_read() if how is None else how)["label"]
    outputs = np.asarray(outputs)
    if "classes" in label:
        return np.array(label["classes"])[outputs.argmax(axis=-1)]
    return outputs.reshape(-1).astype(np.float64) * label["scale"] + label["mean"]


def encode(
    rows: pd.DataFrame,
    features: Sequence[Mapping[str, Any]],
    file: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Turns rows into numbers, each column as its feature says.

    A number is brought between `limits`, where there are some, and `offset` is subtracted, both in
    float64: float32 does not tell 1,700,000,000.1 from 1,700,000,000.2.

    Args:
      rows: Has the features' columns.
      features: The list "features" of `preprocessing.json`.
      file: How the file spelled values: {"decimal", "missing_values"}.

    Returns:
      float32 [rows, channels].

    Raises:
      ValueError: If a value of a numeric column is not a finite number.
    """
    channels: list[Any] = []
    for feature in features:
        if "clock" in feature:
            channels += _clock_channels(rows, feature)
            continue
        column = rows[feature["column"]]
        missing = is_missing(column, file)
        if "ids" in feature:  # 0 stands for missing and unknown ones
            places = pd.Index(feature["ids"], dtype=object).get_indexer(texts(column)) + 1
            channels.append(np.where(missing, 0, places))
            continue
        if "categories" in feature:
            found = texts(column)
            channels += [
                missing if category is None else ~missing & (found == category)
                for category in feature["categories"]
            ]
            continue
        values = np.full(len(column), feature["mean"], np.float64)
        values[~missing] = finite_numbers(column[~missing], file)
        if feature.get("limits"):
            values = np.clip(values, *feature["limits"])
        values -= feature.get("offset", 0.0)
        channels += [values, missing] if feature["indicator"] else [values]
    return np.stack(channels, axis=-1).astype(np.float32)


def _clock_channels(rows: pd.DataFrame, feature: Mapping[str, Any]) -> list[np.ndarray]:
    """Returns sine and cosine of the time of day, or a 0 or 1 for each weekday."""
    when = clock(joined(rows, feature["columns"]), feature["reading"])
    if feature["clock"] == "weekday":
        return [(when.dt.dayofweek == day).to_numpy() for day in range(len(WEEKDAYS))]
    angle = 2 * np.pi * ((when - when.dt.normalize()) / pd.Timedelta("1D")).to_numpy(np.float64)
    return [np.sin(angle), np.cos(angle)]


def joined(rows: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Returns a column, or several such as a date and a clock, put together."""
    column = rows[names[0]]
    for more in names[1:]:
        column = column.astype(str).str.strip() + " " + rows[more].astype(str).str.strip()
    return column.rename(", ".join(names))


def clock(column: pd.Series, reading: Mapping[str, Any]) -> pd.Series:
    """Returns dates and times as the clock showed them where they were written, without a zone.

    Args:
      column: Dates, or text.
      reading: What `pandas.to_datetime` is told of the text.

    Raises ValueError if a value is not a date.
    """
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        return pd.to_datetime(column).dt.tz_localize(None)
    codes, found = pd.factorize(column.astype(str).str.strip())
    written = pd.Series(found).str.replace(_ZONE, r"\1", regex=True)
    dates = pd.to_datetime(written, errors="coerce", **reading)
    when = pd.Series(dates.dt.tz_localize(None).to_numpy()[codes], column.index)
    if when.isna().any():
        row = row_name(column.index[when.isna().to_numpy()][0])
        raise ValueError(f"Column {column.name!r} has no date in {row}.")
    return when


def is_missing(column: pd.Series, file: Mapping[str, Any] | None = None) -> np.ndarray:
    """Returns which values are missing, bool [rows]: empty ones, and those that the file says."""
    missing = column.isna().to_numpy(bool)
    spelled = set((file or {}).get("missing_values", ()))
    if not spelled:
        return missing
    codes, values = pd.factorize(_plain(column))
    said = {canonical(text) for text in spelled}
    hits = np.array([*(canonical(value) in said for value in values), False])
    return missing | hits[codes]


def numbers(column: pd.Series, file: Mapping[str, Any] | None = None) -> np.ndarray:
    """Returns float64 [rows], NaN for whatever is not a number."""
    plain = _plain(column)
    if plain.dtype.kind in "mM":  # pandas counts nanoseconds here, which is not a feature
        return np.full(len(plain), np.nan)
    if plain.dtype.kind in "biuf":
        return plain.to_numpy().astype(np.float64)
    if (file or {}).get("decimal", ".") != ".":
        decimal = file["decimal"]  # type: ignore[index]
        plain = plain.map(lambda v: v.replace(decimal, ".") if isinstance(v, str) else v)
    return pd.to_numeric(plain, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def finite_numbers(column: pd.Series, file: Mapping[str, Any] | None = None) -> np.ndarray:
    """Returns float64 [rows]; raises ValueError, naming row and column, unless all are finite."""
    values = numbers(column, file)
    bad = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max))
    if len(bad):
        raise ValueError(
            f"Column {column.name!r} has {column.iloc[bad[0]]!r} in "
            f"{row_name(column.index[bad[0]])}, but finite numbers are expected: correct it, or "
            f"leave the cell empty if the value is missing (--missing_values={column.iloc[bad[0]]} "
            "makes it so)."
        )
    return values


def row_name(index: Any) -> str:
    """Names a row as users count: from 1, below the header."""
    if isinstance(index, (int, np.integer)):
        return f"row {index + 1} (the first below the header is row 1)"
    return f"row {index!r}"


def texts(column: pd.Series) -> np.ndarray:
    """Returns values as text, each in one spelling, object [rows]; missing ones as "nan"."""
    codes, values = pd.factorize(_plain(column))
    spelled = np.array([*(canonical(value) for value in values), "nan"], object)
    return spelled[codes]


def canonical(value: Any) -> str:
    """Returns the one spelling of a value, however a file or pandas had it.

    A column of 0, a and b is text; one that happens to have only 0 is whole numbers to pandas, and
    with a gap in it 0.0. All are "0".
    """
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if not _NUMBER.fullmatch(text):
            return text
        whole, _, rest = text.partition(".")
        if not rest.strip("0"):
            return str(int(whole))
        return repr(float(text))
    if isinstance(value, (float, np.floating)):
        whole_number = float(value).is_integer() and abs(float(value)) < 1e15
        return str(int(value)) if whole_number else repr(float(value))
    return str(value)


def _plain(column: pd.Series) -> pd.Series:
    """Returns a column without pandas' own types: categories, nullable numbers, Arrow's."""
    if isinstance(column.dtype, np.dtype):
        return column
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert(None)
    if pd.api.types.is_bool_dtype(column.dtype) or isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(object)
    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        return column.astype(np.int64 if column.min() < 0 else np.uint64)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index)
    return column.astype(object)


def _read() -> dict[str, Any]:
    return json.loads((pathlib.Path(__file__).parent / "preprocessing.json").read_text())
