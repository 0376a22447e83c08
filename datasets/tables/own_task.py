"""A table as a `Task`: clients, examples, features, label, model, loss and metrics together."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datasets.tables import (
    channels,
    clients,
    columns,
    examples,
    features,
    labels,
    meaning,
    metrics,
    narration,
    selection,
    weights,
)
from datasets.task import DataError, Sides, Task

if TYPE_CHECKING:
    import pandas as pd

    from datasets.data_set import Request

REPORT = "data_report.json"
PREPROCESSING = "preprocessing.json"
PREPARE = "prepare.py"


class _Labelled(NamedTuple):
    """A table's examples with their labels.

    Attributes:
      found: Which rows make the examples.
      sides: The clients that train, validate and test.
      label: What was learnt of the label.
      of_row: The label of each row as the model has it, [rows]; 0 where it labels nothing.
      labelling: The labels as they are written, of the rows that label an example.
      in_training: Which rows are training clients', bool [rows].
      day_of_row: The day of each row, datetime64[D] [rows], if the user wants days.
    """

    found: examples.Examples
    sides: Sides
    label: columns.Fitted
    of_row: np.ndarray
    labelling: pd.Series
    in_training: np.ndarray
    day_of_row: np.ndarray | None


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
      options: Has what the user said of the columns as attributes; see `options.Options`.
      split: How clients split into support and query.
      request: For the seed, the clients that are tested and a model of the user's.
      file: How the file spells values: {"decimal", "missing_values"}.
      said: What was decided in reading the file, in sentences.

    Raises:
      DataError: If a column, a value, the split or the model is not usable.
    """
    selection.check([str(column) for column in frame.columns], options)
    report: dict[str, Any] = {"rows": len(frame)}
    frame = clients.rows_with_a_client(frame, options, report)
    labelled = _label(frame, options, request, report)
    found, label = labelled.found, labelled.label
    train, validation, test = labelled.sides
    fitted = features.fit(frame, options, labelled.in_training, report)
    values = columns.encode(frame, fitted, file)
    report["values_brought_to_limits"] = features.beyond_limits(frame, fitted)
    is_classes = "classes" in label
    metric = _metric(options, is_classes)
    training_rows = np.concatenate([found.label_rows[client] for client in train])
    class_weights = weights.of_classes(options, label, labelled.of_row[training_rows])
    y_of_row = weights.beside_labels(frame, options, labelled.of_row, training_rows)
    request.announce(train, y_of_row.dtype)
    warnings = features.suspicious(frame, options, fitted, labelled.in_training, labelled.labelling)
    narration.say(found, fitted, label, report, [*said, *warnings])

    import tensorflow as tf

    from datasets.tables import judging, models

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        return values[found.rows[client_id]], y_of_row[found.label_rows[client_id]]

    def days_of(client_id: str) -> np.ndarray:
        assert labelled.day_of_row is not None
        return labelled.day_of_row[found.label_rows[client_id]]

    shape = values[found.rows[train[0]][:1]].shape[1:]
    mean, scale = channels.normalisation(fitted)
    ids = [len(feature["ids"]) for feature in fitted if "ids" in feature]
    front = models.Front(shape, (mean, scale) if options.normalize else None, ids, request.seed)
    build_model = models.builder(
        options.model or (models.CONV1D if len(shape) == 2 else models.MLP),
        request.seed,
        len(label["classes"]) if is_classes else 1,
        front,
    )
    build_model()  # what does not fit is said here, not in training
    weighs_rows = options.weight_column is not None
    if is_classes:
        majority = int(np.bincount(labelled.of_row[training_rows]).argmax())
        measures = judging.of_classes(majority, len(label["classes"]))
        build_loss = functools.partial(metrics.cross_entropy, class_weights, weighs_rows)
        build_metrics = functools.partial(metrics.of_classes, len(label["classes"]), weighs_rows)
    else:
        measures = judging.of_quantities(label["scale"], _last_known(fitted, label))
        build_loss = functools.partial(metrics.squared_error, weighs_rows)
        build_metrics = functools.partial(metrics.of_quantities, label["scale"])
    return Task(
        name=name,
        data_source=data_source,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read_client,
        build_keras_model=build_model,
        build_front=functools.partial(models.front, front),
        build_loss=build_loss,
        build_metrics=build_metrics,
        input_spec=(
            tf.TensorSpec([None, *shape], tf.float32),
            tf.TensorSpec([None, *y_of_row.shape[1:]], y_of_row.dtype),
        ),
        metric=metric,
        higher_is_better=is_classes,
        split=split,
        measures=measures,
        days_of=days_of if options.day_by_day else None,
        meaning=meaning.of_table(shape, fitted, label, PREPARE, options.weight_column),
        assets={
            PREPROCESSING: {
                "features": fitted,
                "channels": channels.names(fitted),
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


def _label(
    frame: pd.DataFrame, options: Any, request: Request, report: dict[str, Any]
) -> _Labelled:
    """Finds examples, splits clients and learns the label; counts what is left out."""
    column = frame[options.label_column]
    labelled = labels.has_label(column)
    report["rows_without_label"] = int((~labelled).sum())
    when = clients.times_of(frame, options)
    found, groups = clients.find_examples(frame, options, labelled, when)
    sides = clients.split(
        groups, options, request.num_test_clients, request.fold, request.split_seed
    )
    in_training = frame[options.client_column].astype(str).isin(set(sides[0])).to_numpy()
    label_rows = np.unique(np.concatenate(list(found.label_rows.values())))
    labelling = column.iloc[label_rows]
    label = labels.fit(labelling, in_training[label_rows], options.label_kind)
    of_labelled = labels.encode(labelling, label)
    of_row = np.zeros(len(frame), of_labelled.dtype)
    of_row[label_rows] = of_labelled
    if "classes" in label and (of_labelled < 0).any():
        # Nobody can be told to find a class that no training client has.
        unseen = labelling[of_labelled < 0]
        report["classes_of_no_training_client"] = unseen.astype(str).value_counts().to_dict()
        found, _ = clients.find_examples(frame, options, labelled & (of_row >= 0), when)
        held_out = sorted({*sides[1], *sides[2]})
        train, validation, test = (
            tuple(client for client in side if client in found.rows) for side in sides
        )
        sides = train, validation, test
        if not (validation and test):
            raise DataError(
                f"All labels in {options.label_column!r} of validation or test clients "
                f"({columns.listed(held_out)}) are ones that no training client has, such "
                f"as {unseen.iloc[0]!r}: use a smaller --num_test_clients."
            )
    report["clients_with_too_few_examples"] = found.too_few
    days = clients.days(when, options)
    return _Labelled(found, sides, label, of_row, labelling, in_training, days)


def _metric(options: Any, is_classes: bool) -> str:
    """Returns the metric that decides."""
    choices = metrics.OF_CLASSES if is_classes else metrics.OF_QUANTITIES
    if options.metric in (None, *choices):
        return options.metric or choices[0]
    kind = "classes" if is_classes else "a quantity"
    raise DataError(
        f"--metric must be one of {', '.join(choices)}, as {options.label_column!r} is {kind}, but "
        f"is {options.metric}."
    )


def _last_known(
    fitted: Sequence[columns.Fitted], label: columns.Fitted
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Returns what gives the label's value in the last row of an example, standardised.

    A label that is a feature is a forecast's; None: it is none.
    """
    place = channels.place_of(fitted, label["column"])
    if place is None:
        return None
    offset = next(each["offset"] for each in fitted if each["column"] == label["column"])

    def last_known(x: np.ndarray) -> np.ndarray:
        last = x[..., place] if x.ndim == 2 else x[:, -1, place]
        return (last.astype(np.float64) + offset - label["mean"]) / label["scale"]

    return last_known
