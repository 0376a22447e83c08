"""What is predicted: classes or a quantity, learnt from training clients' examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables.columns import MAX_CATEGORIES, Fitted, finite_numbers, is_numeric
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

CLASSIFICATION, REGRESSION = "classification", "regression"


def fit(column: pd.Series, training: np.ndarray, kind: str | None = None) -> Fitted:
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
    seen = column[training]
    if seen.nunique() < 2:
        raise DataError(
            f"All examples of training clients have the same label, {_plain(seen.iloc[0])!r}, in "
            f"column {column.name!r}: there is nothing to learn (empty cells, NA and None are not "
            "labels but missing ones)."
        )
    is_number = seen.dtype != bool and is_numeric(seen)
    if kind is None:
        whole = is_number and bool((finite_numbers(seen) % 1 == 0).all())
        few = seen.nunique() <= MAX_CATEGORIES
        kind = CLASSIFICATION if not is_number or (whole and few) else REGRESSION
    if kind == REGRESSION:
        values = finite_numbers(seen)
        return {"column": column.name, "mean": float(values.mean()), "scale": float(values.std())}
    classes = sorted(set(_classes(seen, is_number)))
    if len(classes) > max(2, len(seen) // 2):
        raise DataError(
            f"Column {column.name!r} does not hold classes: the {len(seen):,} examples of training "
            f"clients have {len(classes):,} different labels."
        )
    return {"column": column.name, "classes": classes}


def encode(column: pd.Series, label: Fitted) -> np.ndarray:
    """Turns labels into class indices, int32 [n], or standardised quantities, float32 [n].

    A class that training examples have not is -1.

    Raises:
      DataError: If a quantity is not finite.
    """
    if "classes" not in label:
        values = (finite_numbers(column) - label["mean"]) / label["scale"]
        return values.astype(np.float32)
    number = {name: index for index, name in enumerate(label["classes"])}
    classes = _classes(column, as_numbers=not isinstance(label["classes"][0], (str, bool)))
    return np.array([number.get(name, -1) for name in classes], np.int32)


def has_label(column: pd.Series) -> np.ndarray:
    """Returns which rows have a label, bool [rows]: not those with an empty cell or nan."""
    if column.dtype.kind in "biuf":
        return column.notna().to_numpy()
    texts = column.astype(str).str.strip().str.lower()
    return (column.notna() & ~texts.isin(("nan", ""))).to_numpy()


def _classes(column: pd.Series, as_numbers: bool) -> list[Any]:
    """Returns labels as JSON has them: whole or other numbers, truth values, text."""
    if as_numbers and column.dtype.kind in "iu":  # exactly: float64 merges those beyond 2**53
        return column.tolist()
    if as_numbers:
        return [_plain(value) for value in finite_numbers(column)]
    return column.tolist() if column.dtype == bool else [str(v).strip() for v in column]


def _plain(value: Any) -> Any:
    """Returns a value as users write it: 3.0 as 3."""
    is_whole = isinstance(value, (float, np.floating)) and value % 1 == 0
    return int(value) if is_whole else value.item() if isinstance(value, np.generic) else value
