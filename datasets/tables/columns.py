"""How a table's columns become numbers: what is learnt of each from training rows alone.

That (a column's type, its categories, what stands for a missing value, mean and scale) is a plain
dict that JSON can hold. It is exported beside the model, and `prepare.encode` applies it to rows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

NUMBERS, CATEGORIES, IDS = "numbers", "categories", "ids"
MAX_CATEGORIES = 50  # distinct strings of a feature, and distinct whole numbers of class labels

RANGE = 10.0  # how many standard deviations from the mean a feature may be

# Values further from the median than this many standard deviations, told by the quartiles, have no
# part in mean and scale.
_FAR = 20.0
_QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution
# Below so many units in the last place of the largest value a spread is noise of rounding.
_NOISE = 64.0
# Above so many standard deviations from 0 float32 would lose what tells values apart.
_OFFSET = 1000.0

# So many different numbers beside a few words are numbers, and the words missing values.
_FEW_NUMBERS = 3
# So many different numbers in one unit are measurements rather than categories.
_FEW_MEASUREMENTS = 5
_WRITTEN = re.compile(
    r"([$€£¥]?)\s*[+-]?(?:\d{1,3}(?:[,.' ]\d{3})+|\d+)(?:[.,]\d+)?\s*(%|[A-Za-zµ°€$£][^\d\s]{0,5})?"
)

# One feature or the label, as JSON has it: see `fit_feature` and `labels.fit`.
Fitted = dict[str, Any]


def unknown(names: Sequence[Any], option: str, column: str) -> str:
    """Says that a table has no such column, and which are closest."""
    names = [str(name) for name in names]
    of_folded = {name.casefold(): name for name in names}
    folded = difflib.get_close_matches(column.casefold(), of_folded, n=3, cutoff=0.5)
    close = [of_folded[name] for name in folded]
    hint = f"the closest are {', '.join(map(repr, close))}" if close else f"it has {listed(names)}"
    return f"--{option}: the table has no column {column!r}; {hint}."


def listed(names: Sequence[Any], most: int = 12) -> str:
    """Lists names, not too many."""
    first = ", ".join(repr(name) for name in names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def fit_feature(
    column: pd.Series,
    training: np.ndarray,
    kind: str | None = None,
    most: float | None = RANGE,
) -> Fitted:
    """Learns from a column's training rows how it becomes numbers.

    Args:
      column: The whole column.
      training: Which rows are training clients', bool [rows].
      kind: "numbers" or "categories"; None: numbers if at least half of the values are.
      most: How many standard deviations from the mean a number may be; None: any.

    Returns:
      For numbers `{"column", "mean", "scale", "indicator", "offset", "limits"}`: a missing value
      becomes the mean; the scale is the standard deviation, 1 for a constant (up to rounding), both
      without values that are far out; a value beyond limits counts as the limit; the offset is what
      float32 could not hold, else 0; with the indicator, which there is if training rows lack
      values, a second number says 1 where the value was missing. For text `{"column",
      "categories"}`: a 0 or 1 for each, in sorted order, null for missing if training rows lack
      values; a category that they have not is all zeros.

    Raises:
      DataError: If training rows have no value, an infinite one, numbers mixed with text, or more
        than 50 distinct strings or one for every second row: too many for categories.
    """
    from datasets.tables import prepare

    seen = column[training].dropna()
    if not len(seen):
        raise DataError(
            f"Column {column.name!r} has no values in training clients: leave it out of "
            "--feature_columns."
        )
    indicator = bool(column[training].isna().any())
    if kind == NUMBERS or (kind is None and is_numeric(seen)):
        try:
            values = finite_numbers(seen)
        except DataError as error:
            hint = f" Or take it as categories: --categorical_columns={column.name}."
            raise DataError(str(error) + hint * (kind is None)) from None
        mean, scale = _mean_and_scale(values, seen.dtype)
        limits = None if most is None else [mean - most * scale, mean + most * scale]
        return {
            "column": column.name,
            "mean": mean,
            "scale": scale,
            "indicator": indicator,
            "offset": mean if abs(mean) > _OFFSET * scale else 0.0,
            "limits": limits,
        }
    found = prepare.texts(seen)
    categories: list[Any] = sorted(set(found))
    if kind is None:
        _refuse_written_numbers(column.name, categories)
    if len(categories) > min(MAX_CATEGORIES, max(2, len(seen) // 2)):
        raise DataError(
            f"Column {column.name!r} is neither numbers nor categories: training clients have "
            f"{len(categories):,} different texts in it, such as {categories[0]!r} in "
            f"{row_name(seen.index[int(np.argmin(found))])}. Turn it into numbers, or leave "
            "it out of --feature_columns."
        )
    return {"column": column.name, "categories": categories + [None] * indicator}


def _refuse_written_numbers(name: Any, texts: Sequence[str]) -> None:
    """Raises DataError if all texts are numbers with a unit, a currency or cut into thousands."""
    found = [_WRITTEN.fullmatch(text) for text in texts]
    units = {match.groups() for match in found if match}
    if len(texts) >= _FEW_MEASUREMENTS and all(found) and len(units) == 1:
        raise DataError(
            f"Column {name!r} has numbers written such as {texts[0]!r}: write them as 1234.5 "
            f"(--decimal=, reads decimal commas), leave the column out (--exclude_columns={name}), "
            f"or take each as a category (--categorical_columns={name})."
        )


def _mean_and_scale(values: np.ndarray, dtype: Any) -> tuple[float, float]:
    """Returns mean and standard deviation without values that are far out; 1 for a constant."""
    low, median, high = np.percentile(values, [25, 50, 75])
    if high > low:
        values = values[np.abs(values - median) <= _FAR * (high - low) / _QUARTILES]
    scale = float(values.std())
    digits = np.finfo(dtype if dtype in (np.float16, np.float32) else np.float64).eps
    noise = _NOISE * float(digits) * float(np.abs(values).max())
    return float(values.mean()), scale if scale > noise else 1.0


def encode(
    frame: pd.DataFrame, features: Sequence[Fitted], file: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Turns rows into numbers: `prepare.encode`, whose errors become `DataError`."""
    from datasets.tables import prepare

    try:
        return prepare.encode(frame, features, file)
    except ValueError as error:
        raise DataError(str(error)) from None


def fit_ids(column: pd.Series, training: np.ndarray) -> Fitted:
    """Learns which ids a column has, for an embedding.

    Args:
      column: The whole column.
      training: Which rows are training clients', bool [rows].

    Returns:
      `{"column", "ids"}`, sorted: ids of at least two training rows. An id's number is its place
      counted from 1; 0 stands for all others, so that training rows with a rare id teach what to
      think of an unknown one.

    Raises:
      DataError: If no id is in two rows.
    """
    import pandas as pd

    from datasets.tables import prepare

    counts = pd.Series(prepare.texts(column[training].dropna())).value_counts()
    ids = sorted(counts.index[counts >= 2])
    if not ids:
        raise DataError(
            f"--embedding_columns: every id of {column.name!r} is in one row alone, so nothing can "
            "be learnt of it: leave the column out."
        )
    return {"column": column.name, "ids": ids}


def is_numeric(column: pd.Series) -> bool:
    """Returns whether most values are numbers, or most different values are.

    One word among numbers is a mistake in the file, and a word between many different numbers is
    how it spells a missing value. What a broken computation left (nan) is not a category.
    """
    from datasets.tables import prepare

    if column.dtype.kind in "biuf":
        return bool(column.notna().any())
    texts = column.astype(str).str.strip().str.lower()
    is_number = ~np.isnan(prepare.numbers(column))
    is_nan = texts.isin(("nan", "+nan", "-nan")).to_numpy()
    counted = is_number[~is_nan]
    if len(counted) and counted.mean() > 0.5:
        return True
    different, words = texts[is_number].nunique(), texts[~is_number].nunique()
    return different >= _FEW_NUMBERS and different > 2 * words


def row_name(index: Any) -> str:
    """Names a row as users count: from 1, below the header."""
    from datasets.tables import prepare

    return prepare.row_name(index)


def finite_numbers(column: pd.Series) -> np.ndarray:
    """Returns float64 [n]; raises DataError, naming row and column, unless all fit a float32."""
    from datasets.tables import prepare

    try:
        return prepare.finite_numbers(column)
    except ValueError as error:
        raise DataError(str(error)) from None
