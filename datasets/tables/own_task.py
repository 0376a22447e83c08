"""A table as a `Task`: clients, examples, features, label, model, loss and metrics together."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.tables import columns, examples, labels, meaning, metrics, selection
from datasets.task import DATA_SEED, DataError, Task, split_clients

if TYPE_CHECKING:
    import pandas as pd

    from datasets.data_set import Request

REPORT = "data_report.json"
PREPROCESSING = "preprocessing.json"
PREPARE = "prepare.py"


def build(
    name: str,
    data_source: str,
    frame: pd.DataFrame,
    options: Any,
    *,
    split: str,
    request: Request,
    file: Mapping[str, Any] | None = None,
    said: Sequence[str] = (),
) -> Task:
    """Makes the task of a table.

    Everything about the columns is checked before TensorFlow is imported.

    Args:
      name: The data set's name.
      data_source: Where the rows come from.
      frame: The rows.
      options: Has what the user said of the columns as attributes; see `csv_file`.
      split: How clients split into support and query.
      request: For the seed, the number of test clients and a model of the user's.
      file: How the file spells values: {"decimal", "missing_values"}.
      said: What was decided in reading the file, in sentences.

    Raises:
      DataError: If a column, a value, the split or the model is not usable.
    """
    selection.check([str(column) for column in frame.columns], options)
    report: dict[str, Any] = {"rows": len(frame)}
    frame = _rows_with_a_client(frame, options, report)
    label_column = options.label_column
    labelled = labels.has_label(frame[label_column])
    report["rows_without_label"] = int((~labelled).sum())
    found, groups = _examples(frame, options, labelled)
    report["clients_with_too_few_examples"] = found.too_few
    train, validation, test = _sides(groups, options, request.num_test_clients)
    in_training = frame[options.client_column].astype(str).isin(set(train)).to_numpy()

    label_rows = np.unique(np.concatenate(list(found.label_rows.values())))
    labelling = frame[label_column].iloc[label_rows]
    label = labels.fit(labelling, in_training[label_rows], options.label_kind)
    y_of_labelled = labels.encode(labelling, label)
    unseen = np.zeros(len(frame), bool)
    if "classes" in label and (y_of_labelled < 0).any():
        # Nobody can be told to find a class that no training client has.
        unseen[label_rows[y_of_labelled < 0]] = True
        report["classes_of_no_training_client"] = (
            labelling[y_of_labelled < 0].astype(str).value_counts().to_dict()
        )
        held_out = set(validation) | set(test)
        found, groups = _examples(frame, options, labelled & ~unseen)
        report["clients_with_too_few_examples"] = found.too_few
        train, validation, test = (
            tuple(client for client in side if client in found.rows)
            for side in (train, validation, test)
        )
        if not (validation and test):
            raise DataError(
                f"All labels in {label_column!r} of validation or test clients "
                f"({columns.listed(sorted(held_out))}) are ones that no training client has, such "
                f"as {labelling[y_of_labelled < 0].iloc[0]!r}: use a smaller --num_test_clients."
            )
    y_of_row = np.zeros(len(frame), y_of_labelled.dtype)
    y_of_row[label_rows] = y_of_labelled

    fitted = _fit_features(frame, options, in_training, report)
    values = columns.encode(frame, fitted, file)
    report["values_brought_to_limits"] = _beyond_limits(frame, fitted)
    is_classes = "classes" in label
    choices = metrics.OF_CLASSES if is_classes else metrics.OF_QUANTITIES
    if options.metric not in (None, *choices):
        kind = "classes" if is_classes else "a quantity"
        raise DataError(
            f"--metric must be one of {', '.join(choices)}, as {label_column!r} is {kind}, but is "
            f"{options.metric}."
        )
    train_y = np.concatenate([y_of_row[found.label_rows[client]] for client in train])
    request.announce(train, y_of_row.dtype)
    warnings = _suspicious(frame, options, fitted, in_training, labelling)
    _say(frame, found, fitted, label, report, [*said, *warnings])

    import tensorflow as tf

    from datasets.tables import judging, models

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        return values[found.rows[client_id]], y_of_row[found.label_rows[client_id]]

    shape = values[found.rows[train[0]][:1]].shape[1:]
    mean, scale = columns.normalisation(fitted)
    normalisation = (mean, scale) if options.normalize else None
    build_model = models.builder(
        options.model or (models.CONV1D if len(shape) == 2 else models.MLP),
        request.seed,
        shape,
        len(label["classes"]) if is_classes else 1,
        normalisation,
    )
    build_model()  # what does not fit is said here, not in training
    if is_classes:
        majority = int(np.bincount(train_y).argmax())
        measures = judging.of_classes(majority, len(label["classes"]))
    else:
        measures = judging.of_quantities(label["scale"])
    return Task(
        name=name,
        data_source=data_source,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read_client,
        build_keras_model=build_model,
        build_front=functools.partial(models.front, shape, normalisation),
        build_loss=metrics.cross_entropy if is_classes else tf.keras.losses.MeanSquaredError,
        build_metrics=functools.partial(metrics.of_classes, len(label["classes"]))
        if is_classes
        else functools.partial(metrics.of_quantities, label["scale"]),
        input_spec=(
            tf.TensorSpec([None, *shape], tf.float32),
            tf.TensorSpec([None], y_of_row.dtype),
        ),
        metric=options.metric or choices[0],
        higher_is_better=is_classes,
        split=split,
        measures=measures,
        meaning=meaning.of_table(shape, fitted, label, PREPARE),
        assets={
            PREPROCESSING: {
                "features": fitted,
                "channels": columns.channel_names(fitted),
                "normalisation": {"mean": mean, "scale": scale, "in_model": options.normalize},
                "label": label,
                "window": options.window,
                "window_stride": options.window_stride or options.window,
                "horizon": options.horizon,
                "file": dict(file or {}),
            },
            PREPARE: (pathlib.Path(__file__).parent / PREPARE).read_text(),
            REPORT: report,
        },
    )


def _rows_with_a_client(frame: pd.DataFrame, options: Any, report: dict[str, Any]) -> pd.DataFrame:
    """Leaves out and counts rows that are empty or nobody's; the index keeps the numbers."""
    empty = frame.isna().all(axis=1)
    needed = [options.client_column, *selection.listed(options.time_column)]
    needed += [n for n in (options.series_column, options.split_column) if n is not None]
    report["empty_rows"] = int(empty.sum())
    kept = ~empty
    for column in dict.fromkeys(needed):
        without = kept & frame[column].isna()
        if without.any():
            report[f"rows_without_{column}"] = int(without.sum())
            kept &= ~without
    if not kept.any():
        raise DataError(f"No row has a value in each of {columns.listed(needed)}.")
    return frame if kept.all() else frame[kept]


def _examples(
    frame: pd.DataFrame, options: Any, labelled: np.ndarray
) -> tuple[examples.Examples, dict[str, tuple[str, ...]]]:
    """Returns the examples, and the clients that stay together, by group."""
    from datasets.tables import times

    client_column, split_column = options.client_column, options.split_column
    groups = examples.groups(frame, client_column, split_column)
    series = [name for name in (options.series_column, split_column) if name is not None]
    time_columns = selection.listed(options.time_column)
    when = None
    if time_columns:
        column = frame[time_columns[0]]
        for more in time_columns[1:]:
            column = column.astype(str).str.strip() + " " + frame[more].astype(str).str.strip()
        when = times.times(column.rename(", ".join(time_columns)), options.time_format)
    found = examples.examples(
        frame,
        client_column,
        series_columns=[name for name in dict.fromkeys(series) if name != client_column],
        times=when,
        window=options.window,
        stride=options.window_stride,
        labelled=labelled,
        horizon=options.horizon,
        min_rows=options.min_rows,
        max_gap=options.max_gap,
    )
    groups = {
        name: tuple(client for client in clients if client in found.rows)
        for name, clients in groups.items()
    }
    return found, {name: clients for name, clients in groups.items() if clients}


def _sides(
    groups: Mapping[str, tuple[str, ...]],
    options: Any,
    num_test_clients: int | None,
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Returns training, validation and test clients; those that the user names are tested."""
    named = selection.listed(options.test_clients)
    if not named:
        sides = split_clients(groups, DATA_SEED, num_test_clients)
    else:
        group_of = {client: group for group, clients in groups.items() for client in clients}
        absent = [client for client in named if client not in group_of]
        if absent:
            raise DataError(
                f"--test_clients: there is no client {columns.listed(absent)} with enough "
                f"examples; some are {columns.listed(sorted(group_of)[:5])}."
            )
        tested = sorted({group_of[client] for client in named})
        rest = [group for group in groups if group not in tested]
        if len(rest) < 2:
            raise DataError(
                f"--test_clients leaves {len(rest)} clients, but training and validation need one "
                "each: name fewer."
            )
        count = max(1, round(0.1 * len(groups)))
        order = [sorted(rest)[i] for i in np.random.default_rng(DATA_SEED).permutation(len(rest))]
        count = min(count, len(rest) - 1)
        sides = tuple(order[count:]), tuple(order[:count]), tuple(tested)
    train_groups, validation_groups, test_groups = sides
    most = options.max_validation_clients  # they are adapted once for every rate
    sides = (*train_groups, *validation_groups[most:]), validation_groups[:most], test_groups
    train, validation, test = (
        tuple(client for group in side for client in groups[group]) for side in sides
    )
    return train, validation, test


def _fit_features(
    frame: pd.DataFrame, options: Any, in_training: np.ndarray, report: dict[str, Any]
) -> list[columns.Fitted]:
    """Learns all features but empty ones; says all that is wrong in one error."""
    kinds = selection.kinds(frame, options)
    most = (options.feature_range or None) if options.normalize else None
    fitted: list[columns.Fitted] = []
    problems, empty = [], []
    for name in selection.features(frame, options):
        if options.feature_columns is None and frame[name].isna().all():
            empty.append(name)
            continue
        try:
            fitted.append(columns.fit_feature(frame[name], in_training, kinds.get(name), most))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(" ".join(problems))
    if not fitted:
        raise DataError("No column is left to be a feature: all others are empty.")
    if empty:
        report["empty_columns"] = {name: len(frame) for name in empty}
    return fitted


def _beyond_limits(frame: pd.DataFrame, fitted: Sequence[columns.Fitted]) -> dict[str, int]:
    from datasets.tables import prepare

    counts = {}
    for feature in fitted:
        if feature.get("limits"):
            values = prepare.numbers(frame[feature["column"]])
            low, high = feature["limits"]
            counts[feature["column"]] = int(((values < low) | (values > high)).sum())
    return {name: count for name, count in counts.items() if count}


def _suspicious(
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


def _say(
    frame: pd.DataFrame,
    found: examples.Examples,
    fitted: Sequence[columns.Fitted],
    label: columns.Fitted,
    report: Mapping[str, Any],
    said: Sequence[str],
) -> None:
    """Says what was made of the file: much of it was decided from the values."""
    some = next(iter(found.rows.values()))
    number = sum(len(rows) for rows in found.rows.values())
    channels = len(columns.channel_names(fitted))
    shape = [channels] if some.ndim == 1 else [some.shape[1], channels]
    kind = f"{len(label['classes'])} classes" if "classes" in label else "a quantity"
    listed = columns.listed([f["column"] + " (text)" * ("categories" in f) for f in fitted])
    lines = [
        *said,
        f"{report['rows']:,} rows make {number:,} examples {shape}; {label['column']!r} is "
        f"{kind}; features: {listed}.",
    ]
    if found.max_gap is not None and np.isfinite(found.max_gap) and some.ndim == 2:
        lines.append(f"Windows do not cross gaps of more than {found.max_gap:.4g} in time.")
    for what, count in report.items():
        if what == "rows" or not count:
            continue
        plain = what.replace("_", " ")
        if isinstance(count, dict):
            first = ", ".join(f"{name}: {n:,}" for name, n in list(count.items())[:5])
            more = f" and {len(count) - 5} more" if len(count) > 5 else ""
            verb = "" if what.startswith("values") else "Left out, "
            start = f"{verb}{plain}"
            lines.append(f"{start[0].upper()}{start[1:]} ({len(count)}): {first}{more}.")
        else:
            lines.append(f"Left out, {plain}: {count:,}.")
    print("\n".join(lines), file=sys.stderr, flush=True)
