"""Which columns of a table are features, and what is learnt of each; what is suspicious is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables import clients, columns, selection, times
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd


def fit(
    frame: pd.DataFrame, options: Any, in_training: np.ndarray, report: dict[str, Any]
) -> list[columns.Fitted]:
    """Learns all features but empty ones; says all that is wrong in one error.

    Ids for embeddings come last.
    """
    import tqdm

    kinds = selection.kinds(frame, options)
    most = (options.feature_range or None) if options.normalize else None
    fitted: list[columns.Fitted] = []
    problems, empty = [], []
    names = selection.features(frame, options)
    for name in tqdm.tqdm(names, "columns", delay=5, mininterval=5):
        if options.feature_columns is None and frame[name].isna().all():
            empty.append(name)
            continue
        try:
            if kinds.get(name) == columns.IDS:
                fitted.append(columns.fit_ids(frame[name], in_training))
                continue
            fitted.append(columns.fit_feature(frame[name], in_training, kinds.get(name), most))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(" ".join(problems))
    for clock in selection.clocks(options):
        column = clients.time_column(frame, options)
        assert column is not None  # `selection.clocks`
        fitted.append(
            {
                "column": f"{clock} of {column.name}",
                "clock": clock,
                "columns": selection.listed(options.time_column),
                "reading": times.reading(column, options.time_format),
            }
        )
    fitted.sort(key=lambda feature: "ids" in feature)
    if not fitted:
        raise DataError("No column is left to be a feature: all others are empty.")
    if empty:
        report["empty_columns"] = {name: len(frame) for name in empty}
    return fitted


def beyond_limits(frame: pd.DataFrame, fitted: Sequence[columns.Fitted]) -> dict[str, int]:
    """Returns how many values of each column count as the limit of what a feature may be."""
    from datasets.tables import prepare

    counts = {}
    for feature in fitted:
        if feature.get("limits"):
            values = prepare.numbers(frame[feature["column"]])
            low, high = feature["limits"]
            counts[feature["column"]] = int(((values < low) | (values > high)).sum())
    return {name: count for name, count in counts.items() if count}


def suspicious(
    frame: pd.DataFrame,
    options: Any,
    fitted: Sequence[columns.Fitted],
    in_training: np.ndarray,
    labels: pd.Series,
) -> list[str]:
    """Warns of features that count rows, are ids, or say what the label is."""
    import pandas as pd

    from datasets.tables import prepare

    found = []
    rows = frame.loc[labels.index]
    codes, num_labels = pd.factorize(labels)[0], labels.nunique()
    for feature in fitted:
        name = feature["column"]
        if "clock" in feature or "ids" in feature:
            continue
        column = rows[name]
        if "categories" not in feature:
            steps = np.diff(prepare.numbers(frame[name]))
            if len(steps) > 2 and (steps == 1).all():
                found.append(f"{name!r} numbers the rows: leave it out (--exclude_columns).")
                continue
            if len(column) > 20 and column.nunique() == len(column) and column.dtype.kind in "iu":
                found.append(f"{name!r} is different in every row, as an id is.")
        if name == options.label_column or len(column) < 10:
            continue
        if not 1 < num_labels == column.nunique() < len(labels) // 2:
            continue
        if len(np.unique(codes * num_labels + pd.factorize(column)[0])) == num_labels:
            found.append(
                f"{name!r} says what the label is, value for value: leave it out unless it will be "
                "known where the model is used."
            )
    return [f"WARNING: column {text}" for text in found]
