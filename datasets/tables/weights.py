"""What classes and rows count in the loss of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables import columns
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd


def of_classes(options: Any, label: columns.Fitted, train_y: np.ndarray) -> list[float] | None:
    """Returns n / (classes * n of the class), so that each class counts the same; None: as it is.

    That is scikit-learn's "balanced".
    """
    if options.class_weights is None:
        return None
    if "classes" not in label:
        raise DataError(
            f"--class_weights is for classes, but {label['column']!r} is a quantity "
            "(--label_kind=classification makes classes of it)."
        )
    counts = np.bincount(train_y, minlength=len(label["classes"]))
    return [float(len(train_y) / (len(counts) * count)) for count in counts]


def beside_labels(
    frame: pd.DataFrame, options: Any, y_of_row: np.ndarray, training_rows: np.ndarray
) -> np.ndarray:
    """Returns labels [rows]; or, with weights beside them, float32 [rows, 2].

    Weights are divided by their mean over training examples, so that rates mean the same.
    """
    if options.weight_column is None:
        return y_of_row
    found = columns.finite_numbers(frame[options.weight_column])
    mean = found[training_rows].mean()
    if (found < 0).any() or not mean > 0:
        raise DataError(
            f"--weight_column: weights must be >= 0 and not all 0, but {options.weight_column!r} "
            f"has {found.min():g}."
        )
    return np.stack([y_of_row, found / mean], axis=-1).astype(np.float32)
