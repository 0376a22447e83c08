"""A user's table: its rows, and how its columns become numbers.

What is learnt from data (a column's type, its categories, what stands for a missing value, mean
and scale) comes from training rows alone and is a plain dict that JSON can hold: it is exported
beside the model, and `encode` applies it to any other row.

In a CSV, an empty cell (or NA, N/A, null, None) is a missing value; `nan` and `inf` are what a
broken computation left, and an error. Parquet does not tell NaN from missing.
"""

from __future__ import annotations

import difflib
import hashlib
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

CLASSIFICATION, REGRESSION = "classification", "regression"
MAX_CATEGORIES = 50  # distinct strings of a feature, and distinct whole numbers of class labels

_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None"]
_PARQUET = b"PAR1"  # begins every such file

# One feature or the label, as JSON has it: see `fit_feature` and `fit_label`.
Fitted = dict[str, Any]


def sha256(path: str) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal.

    Raises:
      DataError: If the file cannot be read.
    """
    digest = hashlib.sha256()
    _check_regular(path)
    try:
        with pathlib.Path(path).open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _check_regular(path: str) -> None:
    # A pipe would be waited for, and could not be read twice.
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():
        raise DataError(f"{path} cannot be read: it is not an ordinary file.")


def read(path: str, text_columns: Iterable[str] = ()) -> pd.DataFrame:
    """Reads a CSV (comma-separated, with a header, UTF-8) or Parquet file.

    Args:
      path: The file; Parquet is told by its first bytes.
      text_columns: Columns of a CSV that stay text, such as ids ("007" is not 7).

    Returns:
      The table, its index counting the rows from 0.

    Raises:
      DataError: If the file cannot be read, or has no rows.
    """
    import pandas as pd

    _check_regular(path)
    try:
        with pathlib.Path(path).open("rb") as file:
            is_parquet = file.read(len(_PARQUET)) == _PARQUET
        if is_parquet:
            frame = pd.read_parquet(path).reset_index(drop=True)
        else:
            frame = pd.read_csv(
                path,
                dtype={column: str for column in text_columns},
                keep_default_na=False,
                na_values=_MISSING,
                low_memory=False,  # or a column's type could change within it
                index_col=False,
            )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # pandas' and Arrow's own errors are
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} is no CSV (UTF-8) or Parquet file: {reason}.") from error
    if not len(frame):
        raise DataError(f"{path} has a header but no rows.")
    return frame


def check_column(frame: pd.DataFrame, option: str, column: str) -> None:
    """Raises DataError, naming the closest ones, unless the table has the column."""
    if column in frame.columns:
        return
    names = [str(name) for name in frame.columns]
    of_folded = {name.casefold(): name for name in names}
    folded = difflib.get_close_matches(column.casefold(), of_folded, n=3, cutoff=0.5)
    close = [of_folded[name] for name in folded]
    hint = f"the closest are {', '.join(map(repr, close))}" if close else f"it has {listed(names)}"
    raise DataError(f"--{option}: the table has no column {column!r}; {hint}.")


def listed(names: Sequence[Any], most: int = 12) -> str:
    """Lists names, not too many."""
    first = ", ".join(repr(name) for name in names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def row_name(index: int) -> str:
    """Names a row as users count: from 1, below the header."""
    return f"row {index + 1} (the first below the header is row 1)"


def fit_feature(column: pd.Series, training: np.ndarray) -> Fitted:
    """Learns from a column's training rows how it becomes numbers.

    Args:
      column: The whole column.
      training: Which rows are training clients', bool [rows].

    Returns:
      For numbers `{"column", "mean", "scale", "indicator"}`: a missing value becomes the mean; the
      scale is the standard deviation, 1 for a constant; with the indicator, which there is if
      training rows lack values, a second number says 1 where the value was missing. For text
      `{"column", "categories"}`: a 0 or 1 for each, in sorted order, null for missing if training
      rows lack values; a category that they have not is all zeros.

    Raises:
      DataError: If training rows have no value, an infinite one, numbers mixed with text, or more
        than 50 distinct strings or one for every second row: that is no set of categories.
    """
    seen = column[training].dropna()
    if not len(seen):
        raise DataError(
            f"Column {column.name!r} has no values in training clients: leave it out of "
            "--feature_columns."
        )
    indicator = bool(column[training].isna().any())
    if _is_numeric(seen):
        values = _finite_numbers(seen)
        scale = float(values.std())
        return {
            "column": column.name,
            "mean": float(values.mean()),
            "scale": scale if scale > 0 else 1.0,
            "indicator": indicator,
        }
    categories: list[Any] = sorted(set(_texts(seen)))
    if len(categories) > min(MAX_CATEGORIES, max(2, len(seen) // 2)):
        raise DataError(
            f"Column {column.name!r} is neither numbers nor categories: training clients have "
            f"{len(categories):,} different texts in it, such as {categories[0]!r} in "
            f"{row_name(seen.index[int(np.argmin(_texts(seen)))])}. Turn it into numbers, or leave "
            "it out of --feature_columns."
        )
    return {"column": column.name, "categories": categories + [None] * indicator}


def encode(frame: pd.DataFrame, features: Sequence[Fitted]) -> np.ndarray:
    """Turns rows into numbers.

    Args:
      frame: Has the features' columns; others are ignored.
      features: From `fit_feature`, or the list "features" of `preprocessing.json`.

    Returns:
      float32 [rows, len(channel_names(features))], not normalised.

    Raises:
      DataError: If a value of a numeric feature is no finite number; names row and column.
    """
    channels: list[Any] = []
    for feature in features:
        column = frame[feature["column"]]
        missing = column.isna().to_numpy()
        if "categories" in feature:
            texts = _texts(column)
            channels += [
                missing if category is None else ~missing & (texts == category)
                for category in feature["categories"]
            ]
        else:
            values = np.full(len(column), feature["mean"])
            values[~missing] = _finite_numbers(column[~missing])
            channels += [values, missing] if feature["indicator"] else [values]
    return np.stack(channels, axis=-1).astype(np.float32)


def channel_names(features: Sequence[Fitted]) -> list[str]:
    """Names what `encode` gives for each row, e.g. "power", "power is missing", "mode=eco"."""
    names = []
    for feature in features:
        column = feature["column"]
        if "categories" in feature:
            names += [
                f"{column} is missing" if category is None else f"{column}={category}"
                for category in feature["categories"]
            ]
        else:
            names += [column, f"{column} is missing"] if feature["indicator"] else [column]
    return names


def normalisation(features: Sequence[Fitted]) -> tuple[list[float], list[float]]:
    """Returns mean and scale of each number that `encode` gives; 0 and 1 for those of 0 and 1."""
    mean, scale = [], []
    for feature in features:
        if "categories" in feature:
            others = len(feature["categories"])
        else:
            mean.append(feature["mean"])
            scale.append(feature["scale"])
            others = int(feature["indicator"])
        mean += [0.0] * others
        scale += [1.0] * others
    return mean, scale


def fit_label(column: pd.Series, training: np.ndarray, kind: str | None = None) -> Fitted:
    """Learns the label from training examples.

    Args:
      column: The labels of all examples, indexed by row.
      training: Which are training clients', bool [examples].
      kind: "classification" or "regression"; None decides by what the labels are: text, truth
        values and at most 50 different whole numbers are classes, other numbers are quantities.

    Returns:
      `{"column", "classes"}`, sorted, or `{"column", "mean", "scale"}`.

    Raises:
      DataError: If a label is missing, or training examples all have the same one.
    """
    if kind not in (None, CLASSIFICATION, REGRESSION):
        raise DataError(f"label_kind must be {CLASSIFICATION} or {REGRESSION}, but is {kind!r}.")
    missing = column.index[column.isna() | (column.astype(str).str.lower() == "nan")]
    if len(missing):
        raise DataError(f"Column {column.name!r} has no label in {row_name(missing[0])}.")
    seen = column[training]
    if seen.nunique() < 2:
        raise DataError(
            f"All examples of training clients have the same label, {_plain(seen.iloc[0])!r}, in "
            f"column {column.name!r}: there is nothing to learn."
        )
    is_number = seen.dtype != bool and _is_numeric(seen)
    if kind is None:
        whole = is_number and bool((_numbers(seen) % 1 == 0).all())
        few = seen.nunique() <= MAX_CATEGORIES
        kind = CLASSIFICATION if not is_number or (whole and few) else REGRESSION
    if kind == REGRESSION:
        values = _finite_numbers(seen)
        return {"column": column.name, "mean": float(values.mean()), "scale": float(values.std())}
    classes = sorted(set(_classes(seen, is_number)))
    if len(classes) > max(2, len(seen) // 2):
        raise DataError(
            f"Column {column.name!r} is no set of classes: the {len(seen):,} examples of training "
            f"clients have {len(classes):,} different labels."
        )
    return {"column": column.name, "classes": classes}


def encode_label(column: pd.Series, label: Fitted) -> np.ndarray:
    """Turns labels into class indices, int32 [n], or standardised quantities, float32 [n].

    Raises:
      DataError: If a class is not among those of training examples, or a quantity is not finite.
    """
    if "classes" not in label:
        values = (_finite_numbers(column) - label["mean"]) / label["scale"]
        return values.astype(np.float32)
    number = {name: index for index, name in enumerate(label["classes"])}
    classes = _classes(column, as_numbers=not isinstance(label["classes"][0], (str, bool)))
    unseen = sorted({name for name in classes if name not in number}, key=str)
    if unseen:
        row = column.index[classes.index(unseen[0])]
        raise DataError(
            f"Validation or test clients have labels that no training client has: {listed(unseen)} "
            f"in column {column.name!r}, first in {row_name(row)}. Take those rows out, or train "
            "on more clients (a smaller --num_test_clients)."
        )
    return np.array([number[name] for name in classes], np.int32)


def times(column: pd.Series) -> np.ndarray:
    """Returns a column of numbers or dates as something that sorts, [rows].

    Raises:
      DataError: If a value is missing or neither; names the row.
    """
    import pandas as pd

    if _is_numeric(column):
        values = _numbers(column).replace([np.inf, -np.inf], np.nan)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas' on formats: what it cannot read is said below
            values = pd.to_datetime(column, errors="coerce", utc=True)
    bad = column.index[values.isna()]
    if len(bad):
        raise DataError(
            f"Column {column.name!r} has {column[bad[0]]!r} in {row_name(bad[0])}: every row needs "
            "a time, a number or a date such as 2024-05-31 18:00:00."
        )
    return values.astype(np.int64).to_numpy() if values.dtype.kind == "M" else values.to_numpy()


def _is_numeric(column: pd.Series) -> bool:
    """Returns whether most values are numbers; one word among them is a mistake in the file."""
    return bool(np.isnan(_numbers(column)).mean() < 0.5)


def _texts(column: pd.Series) -> np.ndarray:
    return column.astype(str).to_numpy(object)


def _classes(column: pd.Series, as_numbers: bool) -> list[Any]:
    """Returns labels as JSON has them: whole or other numbers, truth values, text."""
    if as_numbers:
        return [_plain(value) for value in _finite_numbers(column)]
    return column.tolist() if column.dtype == bool else list(_texts(column))


def _plain(value: Any) -> Any:
    """Returns a value as users write it: 3.0 as 3."""
    is_whole = isinstance(value, (float, np.floating)) and value % 1 == 0
    return int(value) if is_whole else value.item() if isinstance(value, np.generic) else value


def _numbers(column: pd.Series) -> pd.Series:
    """Returns float64, NaN for whatever is no number."""
    import pandas as pd

    if column.dtype.kind == "M":  # dates are counts of nanoseconds to pandas, features to nobody
        return pd.Series(np.nan, column.index)
    return pd.to_numeric(column, errors="coerce").astype(np.float64)


def _finite_numbers(column: pd.Series) -> np.ndarray:
    """Returns float64 [n]; raises DataError, naming row and column, unless all fit a float32."""
    values = _numbers(column).to_numpy()
    bad = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max))
    if len(bad):
        raise DataError(
            f"Column {column.name!r} has {column.iloc[bad[0]]!r} in "
            f"{row_name(column.index[bad[0]])}, but finite numbers are expected: correct it, or "
            "leave the cell empty if the value is missing."
        )
    return values
