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

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.sources import choice
from datasets.stand_ins import households
from datasets.tables import columns, examples, models
from datasets.task import DataError, Task, split_clients, splitting

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

NAME = "csv"

# Untried; see `configure` for their split.
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

OPTIONS = {
    "csv": choice.Option(str, None, "The file, CSV (comma-separated, UTF-8) or Parquet."),
    "client_column": choice.Option(str, None, "Whose row it is: a person, a home, a device."),
    "label_column": choice.Option(str, None, "What is predicted."),
    "feature_columns": choice.Option(
        str, None, "From what, comma-separated; all other columns if not given."
    ),
    "time_column": choice.Option(
        str,
        None,
        "Numbers or dates that sort a client's rows; support is then the earlier part of them.",
    ),
    "window": choice.Option(
        int, None, "Consecutive rows that make an example, >= 1; each row is one if not given."
    ),
    "window_stride": choice.Option(
        int, None, "Rows from the start of a window to the next, >= 1; the window if not given."
    ),
    "series_column": choice.Option(
        str, None, "Which of a client's series a row belongs to; windows stay within one."
    ),
    "split_column": choice.Option(
        str,
        None,
        "Clients that share a value, such as the devices of a person, are in the same one of "
        "training, validation and test, and num_test_clients counts those groups; windows stay "
        "within one value.",
    ),
    "label_kind": choice.Option(
        str,
        None,
        "classification or regression. If not given, text, truth values and at most "
        f"{columns.MAX_CATEGORIES} different whole numbers are classes.",
    ),
    "model": choice.Option(
        str, None, "mlp, conv1d or a .keras file; mlp for rows, conv1d for windows if not given."
    ),
    "normalize": choice.Option(
        bool, True, "Whether a layer in front of the model standardises the features."
    ),
    "csv_sha256": choice.Option(
        str, None, "SHA-256 that the file must have; a run notes it and continues on no other."
    ),
}
ABOUT = choice.About(
    source="file",
    clients="the values of a column of your file; embedded: 60 synthetic homes",
    model="MLP, 1-D CNN over windows, or your own Keras file",
    metric="accuracy, or mean absolute error in the label's units",
    download="none",
    licence="that of your file",
)

_PARTS = ("client_column", "label_column", "time_column", "series_column", "split_column")

# The same clients are held out in every run, as in every data set here.
_DATA_SEED = 0


def configure(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns options and DEFAULTS of a run, completed by what the options given entail.

    The file's hash becomes an option, so that no run continues on a changed file. Algorithms that
    split training clients do it in time order where evaluation does.

    Raises:
      DataError: If the file cannot be read.
    """
    options = dict(options)
    if options["csv"] is not None and options["csv_sha256"] is None:
        options["csv_sha256"] = columns.sha256(options["csv"])
    hyperparameters = splitting(DEFAULTS["hyperparameters"], split=_split(options))
    return options, {**DEFAULTS, "hyperparameters": hyperparameters}


def _split(options: Mapping[str, Any]) -> str:
    """Returns how clients split: in order of time if there is one or windows share rows."""
    if options["csv"] is None or options["time_column"] is not None:
        return "ordered"
    window, stride = options["window"], options["window_stride"]
    return "ordered" if window and stride and stride < window else "random"


def load(
    *,
    data_source: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    num_test_clients: int | None = None,
    csv: str | None = None,
    client_column: str | None = None,
    label_column: str | None = None,
    feature_columns: str | None = None,
    time_column: str | None = None,
    window: int | None = None,
    window_stride: int | None = None,
    series_column: str | None = None,
    split_column: str | None = None,
    label_kind: str | None = None,
    model: str | tf.keras.Model | None = None,
    normalize: bool = True,
    csv_sha256: str | None = None,
) -> Task:
    """Loads a file, or the embedded smart homes if none is given.

    Args:
      data_source: "file": the file, or an error; "embedded": the stand-in; "auto": the file if
        there is one, otherwise the stand-in with a warning on stderr.
      cache_dir: Unused: nothing is downloaded.
      seed: >= 0; fixes the initial weights.
      num_test_clients: >= 1; None means 15 % of the clients.
      csv: Path of the file.
      client_column: Its values are the clients; at least three.
      label_column: What is predicted.
      feature_columns: Comma-separated; None: all columns without another part.
      time_column: Sorts each client's rows, and makes support the earlier part. Rows of the same
        time, and all rows if it is None, stay in the file's order.
      window: Rows of an example, >= 1; None: each row is one.
      window_stride: Rows from window to window, >= 1; None: the window, so that none overlap.
      series_column: Windows do not cross from one of its values to another.
      split_column: The same, and clients that share a value are in the same one of training,
        validation and test; `num_test_clients` then counts such groups.
      label_kind: "classification" or "regression"; None: as `table.fit_label` decides.
      model: "mlp", "conv1d" or a Keras model; None: "conv1d" for windows, else "mlp". Models from
        elsewhere are opened with `tff_fedmeta.open_model`.
      normalize: Whether the model begins with a layer that standardises the features.
      csv_sha256: What the file's SHA-256 must be; None: it does not matter.

    Returns:
      A `Task` whose `read_client` gives x float32 [n, channels], or [n, window, channels] with
      `window`, in the file's units, and y int32 [n] classes or float32 [n], standardised, both
      in the order of time.

    Raises:
      DataError: If the file, a column, a value, the split or the model is not usable.
    """
    options: dict[str, Any] = {
        "csv": csv,
        "client_column": client_column,
        "label_column": label_column,
        "feature_columns": feature_columns,
        "time_column": time_column,
        "window": window,
        "window_stride": window_stride,
        "series_column": series_column,
        "split_column": split_column,
    }
    if csv is not None and data_source == choice.AUTO:
        data_source = ABOUT.source  # a file that was named is not replaced by something else
    if csv is not None and data_source == choice.EMBEDDED:
        raise DataError("--csv names a file, but --data_source=embedded uses none: drop one.")
    real = choice.RealData(
        ABOUT, "a file of yours", "smart homes", lambda: _check_given(csv), _advice, cached=False
    )
    data_source = choice.choose(data_source, real)
    if data_source == choice.EMBEDDED:
        given = {name: value for name, value in options.items() if value is not None}
        options = {**options, **households.OPTIONS, **given}
        frame = households.table(_DATA_SEED)
    else:
        frame = _read(options, csv_sha256)
    return _build_task(
        data_source, frame, options, seed, num_test_clients, label_kind, model, normalize
    )


def _check_given(csv: str | None) -> None:
    if csv is None:
        raise DataError("--dataset=csv reads a file, but there is no --csv.")


def _advice() -> str:
    return "give --csv=FILE --client_column=... --label_column=..."


def _read(options: Mapping[str, Any], sha256: str | None) -> pd.DataFrame:
    path = options["csv"]
    for option in ("client_column", "label_column"):
        if options[option] is None:
            raise DataError(f"--csv needs --{option}, the name of one of its columns.")
    if sha256 is not None and columns.sha256(path) != sha256:
        raise DataError(
            f"{path} is not the file that --csv_sha256 means (it has {columns.sha256(path)}): it "
            "was changed."
        )
    names = ("client_column", "series_column", "split_column")
    return columns.read(path, [options[name] for name in names if options[name] is not None])


def _build_task(
    data_source: str,
    frame: pd.DataFrame,
    options: Mapping[str, Any],
    seed: int,
    num_test_clients: int | None,
    label_kind: str | None,
    model: str | tf.keras.Model | None,
    normalize: bool,
) -> Task:
    """Puts clients, model, loss and metrics together."""
    import tensorflow as tf

    _check_columns(frame, options)
    client_column = options["client_column"]
    rows_of, groups = _clients(frame, options)
    train, validation, test = (
        tuple(client for group in side for client in groups[group])
        for side in split_clients(groups, _DATA_SEED, num_test_clients)
    )
    in_training = np.isin(examples.client_ids(frame, client_column), train)
    fitted = [
        columns.fit_feature(frame[column], in_training) for column in _features(frame, options)
    ]
    values = columns.encode(frame, fitted)

    label_rows = np.unique(np.concatenate([_label_rows(rows) for rows in rows_of.values()]))
    labels = frame[options["label_column"]].iloc[label_rows]
    label = columns.fit_label(labels, in_training[label_rows], label_kind)
    y = columns.encode_label(labels, label)
    y_of_row = np.zeros(len(frame), y.dtype)
    y_of_row[label_rows] = y

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        rows = rows_of[client_id]
        return values[rows], y_of_row[_label_rows(rows)]

    is_classes = "classes" in label
    shape = values[rows_of[train[0]][:1]].shape[1:]
    mean, scale = columns.normalisation(fitted)
    if model is None:
        model = models.CONV1D if len(shape) == 2 else models.MLP
    build = models.builder(
        model,
        seed,
        shape,
        len(label["classes"]) if is_classes else 1,
        (mean, scale) if normalize else None,
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
                "normalisation": {"mean": mean, "scale": scale, "in_model": normalize},
                "label": label,
                "window": options["window"],
            }
        },
    )


def _check_columns(frame: pd.DataFrame, options: Mapping[str, Any]) -> None:
    """Raises DataError unless the columns that have a part exist, each in a part of its own."""
    parts: dict[str, str] = {}
    for option in _PARTS:
        column = options[option]
        if column is None:
            continue
        columns.check_column(frame, option, column)
        other = parts.get(column)
        # The client may be its own series or group; a label that is anything else is a mistake.
        if other is not None and "label_column" in (other, option):
            raise DataError(f"--{other} and --{option} cannot both be {column!r}.")
        parts[column] = option


def _features(frame: pd.DataFrame, options: Mapping[str, Any]) -> list[str]:
    """Returns the feature columns: those named, or all that have no other part."""
    parts = [options[option] for option in _PARTS]
    if options["feature_columns"] is None:
        names = [column for column in frame.columns if column not in parts]
        if not names:
            raise DataError("No column is left to be a feature.")
        return names
    names = list(dict.fromkeys(name.strip() for name in options["feature_columns"].split(",")))
    for column in names:
        columns.check_column(frame, "feature_columns", column)
    if options["label_column"] in names:
        raise DataError(f"The label {options['label_column']!r} cannot be a feature too.")
    return names


def _clients(
    frame: pd.DataFrame, options: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """Returns the rows of each client's examples, and the clients that stay together."""
    client_column, split_column = options["client_column"], options["split_column"]
    groups = examples.groups(frame, client_column, split_column)
    series = [name for name in (options["series_column"], split_column) if name is not None]
    rows_of = examples.examples(
        frame,
        client_column,
        series_columns=[name for name in dict.fromkeys(series) if name != client_column],
        time_column=options["time_column"],
        window=options["window"],
        stride=options["window_stride"],
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
