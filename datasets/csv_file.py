"""A user's own CSV or Parquet file: classification or regression, one client per person, home, ...

A row is an example; with `window`, so many consecutive rows of a client are one, labelled by the
last of them: what is known at that moment. `table` says how columns become numbers. Everything that
is learnt from the file (types, categories, what stands for missing values, normalisation, classes)
comes from training clients alone and goes beside the exported model, as `preprocessing.json`. The
normalisation is a layer of the model, which therefore takes values in the file's own units.

Without a file, `stand_ins.households` stands in: synthetic smart homes, a table that goes the same
way.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import options as schema
from datasets.data_set import About, DataSet, Request
from datasets.sources import choice
from datasets.stand_ins import households
from datasets.tables import columns, examples, models
from datasets.task import DATA_SEED, DataError, Task, split_clients

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

NAME = "csv"

# Untried; see `adjust` for their split.
_META_GRADIENTS = {
    "inner_learning_rate": 0.02,
    "server_optimizer": "adam",
    "server_learning_rate": 0.003,
    "server_decay": True,
    "server_warmup": 20,
}

DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedavg"),
    "rounds": 60,
    "clients_per_round": 5,
    "batch_size": 20,
    "inner_epochs": 1,
    "support_fraction": 0.5,
    "adaptation_steps": 50,
    "adaptation_learning_rates": (0.01, 0.02, 0.05),
    "rounds_per_evaluation": 10,
    "rounds_per_checkpoint": 10,
    "hyperparameters": {
        "reptile": {"inner_learning_rate": 0.1},
        "fedavg": {"inner_learning_rate": 0.1},
        "fedprox": {"inner_learning_rate": 0.1},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "meta_sgd", "anil")},
        "per_fedavg": {"inner_learning_rate": 0.02, "meta_learning_rate": 0.05},
    },
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of a user's own file; their `option` says what each means."""

    csv: str | None = schema.option(None, "The file, CSV (comma-separated, UTF-8) or Parquet.")
    client_column: str | None = schema.option(None, "Whose row it is: a person, a home, a device.")
    label_column: str | None = schema.option(None, "What is predicted.")
    feature_columns: str | None = schema.option(
        None, "From what, comma-separated; all other columns if not given."
    )
    time_column: str | None = schema.option(
        None,
        "Numbers or dates that sort a client's rows; support is then the earlier part of them.",
    )
    window: int | None = schema.option(
        None, "Consecutive rows that make an example; each row is one if not given.", at_least=1
    )
    window_stride: int | None = schema.option(
        None, "Rows from the start of a window to the next; the window if not given.", at_least=1
    )
    series_column: str | None = schema.option(
        None, "Which of a client's series a row belongs to; windows stay within one."
    )
    split_column: str | None = schema.option(
        None,
        "Clients that share a value, such as the devices of a person, are in the same one of "
        "training, validation and test, and num_test_clients counts those groups; windows stay "
        "within one value.",
    )
    label_kind: str | None = schema.option(
        None,
        "If not given, text, truth values and at most "
        f"{columns.MAX_CATEGORIES} different whole numbers are classes.",
        choices=("classification", "regression"),
    )
    model: str | None = schema.option(
        None,
        "If not given, mlp for rows and conv1d for windows.",
        choices=models.BUILT_IN,
    )
    normalize: bool = schema.option(
        True, "Whether a layer in front of the model standardises the features."
    )
    csv_sha256: str | None = schema.option(
        None, "SHA-256 that the file must have; a run notes it and continues on no other."
    )


ABOUT = About(
    source="file",
    clients="the values of a column of your file; embedded: 60 synthetic homes",
    model="MLP, 1-D CNN over windows, or your own Keras file",
    metric="accuracy, or mean absolute error in the label's units",
    download="none",
    licence="that of your file",
)

_PARTS = ("client_column", "label_column", "time_column", "series_column", "split_column")


def complete(options: Options) -> Options:
    """Makes the file's hash an option, so that no run continues on a changed file.

    Raises:
      DataError: If the file cannot be read.
    """
    if options.csv is None or options.csv_sha256 is not None:
        return options
    return dataclasses.replace(options, csv_sha256=columns.sha256(options.csv))


def adjust(options: Options) -> dict[str, Any]:
    """Returns how training clients split: in the order of time where evaluation does so."""
    return {"split": _split(options)}


def _split(options: Options) -> str:
    """Returns how clients split: in order of time if there is one or windows share rows."""
    if options.csv is None or options.time_column is not None:
        return "ordered"
    window, stride = options.window, options.window_stride
    return "ordered" if window and stride and stride < window else "random"


def load(request: Request) -> Task:
    """Loads a file, or the embedded smart homes if none is given.

    Nothing is downloaded: `cache_dir` has no effect. With `split_column`, `num_test_clients` counts
    groups of clients. Rows of the same time, and all rows without `time_column`, stay in the file's
    order.

    Returns:
      A `Task` whose `read_client` gives x float32 [n, channels], or [n, window, channels] with
      `window`, in the file's units, and y int32 [n] classes or float32 [n], standardised, both
      in the order of time.

    Raises:
      DataError: If the file, a column, a value, the split or the model is not usable.
    """
    options: Options = request.options
    data_source = request.data_source
    if options.csv is not None and data_source == choice.AUTO:
        data_source = ABOUT.source  # a file that was named is not replaced by something else
    if options.csv is not None and data_source == choice.EMBEDDED:
        raise DataError("--csv names a file, but --data_source=embedded uses none: drop one.")
    real = choice.RealData(
        ABOUT,
        "a file of yours",
        "smart homes",
        lambda: _check_given(options.csv),
        _advice,
        cached=False,
    )
    data_source = choice.resolve_source(data_source, real)
    if data_source != choice.EMBEDDED:
        return _build_task(data_source, _read(options), request, options)
    # What is said of the homes' columns holds; the rest is theirs.
    own: dict[str, Any] = {
        name: value for name, value in households.OPTIONS.items() if getattr(options, name) is None
    }
    frame = households.table(DATA_SEED)
    return _build_task(data_source, frame, request, dataclasses.replace(options, **own))


def _check_given(csv: str | None) -> None:
    if csv is None:
        raise DataError("--dataset=csv reads a file, but there is no --csv.")


def _advice() -> str:
    return "give --csv=FILE --client_column=... --label_column=..."


def _read(options: Options) -> pd.DataFrame:
    path, sha256 = options.csv, options.csv_sha256
    assert path is not None  # `_check_given`
    for name in ("client_column", "label_column"):
        if getattr(options, name) is None:
            raise DataError(f"--csv needs --{name}, the name of one of its columns.")
    if sha256 is not None and columns.sha256(path) != sha256:
        raise DataError(
            f"{path} is not the file that --csv_sha256 means (it has {columns.sha256(path)}): it "
            "was changed."
        )
    text_columns = (options.client_column, options.series_column, options.split_column)
    return columns.read(path, [name for name in text_columns if name is not None])


def _build_task(data_source: str, frame: pd.DataFrame, request: Request, options: Options) -> Task:
    """Puts clients, model, loss and metrics together.

    Args:
      data_source: Where the rows come from.
      frame: The rows.
      request: For the seed and the number of test clients.
      options: The request's, or the stand-in's columns in them.
    """
    import tensorflow as tf

    _check_columns(frame, options)
    client_column = options.client_column or ""  # `_read` refuses None
    rows_of, groups = _clients(frame, options)
    train, validation, test = (
        tuple(client for group in side for client in groups[group])
        for side in split_clients(groups, DATA_SEED, request.num_test_clients)
    )
    in_training = np.isin(examples.client_ids(frame, client_column), train)
    fitted = [
        columns.fit_feature(frame[column], in_training) for column in _features(frame, options)
    ]
    values = columns.encode(frame, fitted)

    label_rows = np.unique(np.concatenate([_label_rows(rows) for rows in rows_of.values()]))
    labels = frame[options.label_column].iloc[label_rows]
    label = columns.fit_label(labels, in_training[label_rows], options.label_kind)
    y = columns.encode_label(labels, label)
    y_of_row = np.zeros(len(frame), y.dtype)
    y_of_row[label_rows] = y

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        rows = rows_of[client_id]
        return values[rows], y_of_row[_label_rows(rows)]

    is_classes = "classes" in label
    shape = values[rows_of[train[0]][:1]].shape[1:]
    mean, scale = columns.normalisation(fitted)
    normalisation = (mean, scale) if options.normalize else None
    build = models.builder(
        options.model or (models.CONV1D if len(shape) == 2 else models.MLP),
        request.seed,
        shape,
        len(label["classes"]) if is_classes else 1,
        normalisation,
    )
    build()  # what does not fit is said here, not in training
    _say(len(frame), sum(map(len, rows_of.values())), shape, fitted, label)
    return Task(
        name=NAME,
        data_source=data_source,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read_client,
        build_keras_model=build,
        build_front=functools.partial(models.front, shape, normalisation),
        build_loss=_cross_entropy if is_classes else tf.keras.losses.MeanSquaredError,
        build_metrics=_accuracy if is_classes else lambda: _absolute_error(label["scale"]),
        input_spec=(
            tf.TensorSpec([None, *shape], tf.float32),
            tf.TensorSpec([None], y.dtype),
        ),
        metric="accuracy" if is_classes else "mae",
        higher_is_better=is_classes,
        split=_split(options),
        assets={
            "preprocessing.json": {
                "features": fitted,
                "channels": columns.channel_names(fitted),
                "normalisation": {"mean": mean, "scale": scale, "in_model": options.normalize},
                "label": label,
                "window": options.window,
            }
        },
    )


def _check_columns(frame: pd.DataFrame, options: Options) -> None:
    """Raises DataError unless the columns that have a part exist, each in a part of its own."""
    parts: dict[str, str] = {}
    for option in _PARTS:
        column = getattr(options, option)
        if column is None:
            continue
        columns.check_column(frame, option, column)
        other = parts.get(column)
        # The client may be its own series or group; a label that is anything else is a mistake.
        if other is not None and "label_column" in (other, option):
            raise DataError(f"--{other} and --{option} cannot both be {column!r}.")
        parts[column] = option


def _features(frame: pd.DataFrame, options: Options) -> list[str]:
    """Returns the feature columns: those named, or all that have no other part."""
    parts = [getattr(options, option) for option in _PARTS]
    if options.feature_columns is None:
        names = [column for column in frame.columns if column not in parts]
        if not names:
            raise DataError("No column is left to be a feature.")
        return names
    names = list(dict.fromkeys(name.strip() for name in options.feature_columns.split(",")))
    for column in names:
        columns.check_column(frame, "feature_columns", column)
    if options.label_column in names:
        raise DataError(f"The label {options.label_column!r} cannot be a feature too.")
    return names


def _clients(
    frame: pd.DataFrame, options: Options
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """Returns the rows of each client's examples, and the clients that stay together."""
    client_column, split_column = options.client_column or "", options.split_column
    groups = examples.groups(frame, client_column, split_column)
    series = [name for name in (options.series_column, split_column) if name is not None]
    rows_of = examples.examples(
        frame,
        client_column,
        series_columns=[name for name in dict.fromkeys(series) if name != client_column],
        time_column=options.time_column,
        window=options.window,
        stride=options.window_stride,
    )
    return rows_of, groups


def _label_rows(rows: np.ndarray) -> np.ndarray:
    """Returns the row that labels each example: the last of a window."""
    return rows if rows.ndim == 1 else rows[:, -1]


def _say(num_rows: int, num_examples: int, shape: Sequence[int], fitted: Any, label: Any) -> None:
    """Says what was made of the file: much of it was decided from the values."""
    kind = f"{len(label['classes'])} classes" if "classes" in label else "a quantity"
    listed = columns.listed([f["column"] + " (text)" * ("categories" in f) for f in fitted])
    print(
        f"{num_rows:,} rows make {num_examples:,} examples {list(shape)}; {label['column']!r} is "
        f"{kind}; features: {listed}.",
        file=sys.stderr,
        flush=True,
    )


def _cross_entropy() -> tf.keras.losses.Loss:
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _accuracy() -> list[tf.keras.metrics.Metric]:
    import tensorflow as tf

    return [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")]


def _absolute_error(scale: float) -> list[tf.keras.metrics.Metric]:
    """Builds the mean absolute error in the label's units, where y is standardised by `scale`."""
    import tensorflow as tf

    class AbsoluteError(tf.keras.metrics.MeanAbsoluteError):
        def __init__(self, scale: float, name: str = "mae", dtype: Any = None) -> None:
            super().__init__(name, dtype)
            self._scale = scale

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            # As columns: of two vectors Keras would count one error, that of the whole batch.
            y_true, y_pred = tf.reshape(y_true, [-1, 1]), tf.reshape(y_pred, [-1, 1])
            return super().update_state(y_true, y_pred, sample_weight)

        def result(self) -> tf.Tensor:
            return self._scale * super().result()

        def get_config(self) -> dict[str, Any]:
            return {"scale": self._scale, "name": self.name, "dtype": self.dtype}

    return [AbsoluteError(scale)]


DATASET = DataSet(NAME, ABOUT, Options, DEFAULTS, load, complete=complete, adjust=adjust)
