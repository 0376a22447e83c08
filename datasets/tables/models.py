"""Models for tables: an MLP, a 1-D CNN over windows, or a Keras file of the user's.

Each has a `Normalization` layer in front, with mean and scale as constants, so that the exported
model takes values in the units of the table.
"""

from __future__ import annotations

import functools
import json
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets.task import DataError

if TYPE_CHECKING:
    import tensorflow as tf

MLP, CONV1D = "mlp", "conv1d"


def builder(
    model: str,
    seed: int,
    input_shape: Sequence[int],
    num_outputs: int,
    normalisation: tuple[list[float], list[float]] | None,
) -> Callable[[], tf.keras.Model]:
    """Returns a function that builds the same uncompiled model at every call, in any graph.

    Args:
      model: "mlp", "conv1d" or the path of a `.keras` file, whose weights are what training starts
        from.
      seed: >= 0; fixes the initial weights of the first two.
      input_shape: Of one example: [channels] or, for windows, [rows, channels].
      num_outputs: Logits, or 1 for a quantity.
      normalisation: Mean and scale of the channels; None leaves the layer out.

    Raises:
      DataError: If there is no such model, or it does not fit.
    """
    body: Callable[[], list[tf.keras.layers.Layer]]
    if model == MLP:
        body = functools.partial(_mlp, seed, num_outputs)
    elif model == CONV1D:
        if len(input_shape) != 2:
            raise DataError("--model=conv1d walks along windows: give --window, or --model=mlp.")
        body = functools.partial(_conv1d, seed, num_outputs)
    else:
        body = _from_file(model, input_shape, num_outputs)

    def build() -> tf.keras.Model:
        import tensorflow as tf

        front = [tf.keras.Input(input_shape)]
        if normalisation is not None:
            mean, scale = normalisation
            variance = [s**2 for s in scale]
            front.append(tf.keras.layers.Normalization(mean=mean, variance=variance))
        return tf.keras.Sequential(front + body())

    return build


def _mlp(seed: int, num_outputs: int) -> list[tf.keras.layers.Layer]:
    import tensorflow as tf

    layers = tf.keras.layers
    first, second, last = _initializers(seed, 3)
    return [
        layers.Flatten(),
        layers.Dense(64, activation="relu", kernel_initializer=first),
        layers.Dense(64, activation="relu", kernel_initializer=second),
        layers.Dense(num_outputs, kernel_initializer=last),
    ]


def _conv1d(seed: int, num_outputs: int) -> list[tf.keras.layers.Layer]:
    import tensorflow as tf

    layers = tf.keras.layers
    first, second, third, last = _initializers(seed, 4)
    same = {"padding": "same", "activation": "relu"}
    return [
        layers.Conv1D(32, 5, kernel_initializer=first, **same),
        layers.MaxPool1D(2, padding="same"),
        layers.Conv1D(64, 5, kernel_initializer=second, **same),
        layers.GlobalAveragePooling1D(),
        layers.Dense(64, activation="relu", kernel_initializer=third),
        layers.Dense(num_outputs, kernel_initializer=last),
    ]


def _initializers(seed: int, number: int) -> list[Any]:
    import tensorflow as tf

    # Operation seeds, not a global one: they hold in any graph that the model is built in.
    seeds = np.random.SeedSequence(seed).generate_state(number) // 2  # int32 for TensorFlow
    return [tf.keras.initializers.GlorotUniform(seed=int(s)) for s in seeds]


def _from_file(
    path: str, input_shape: Sequence[int], num_outputs: int
) -> Callable[[], list[tf.keras.layers.Layer]]:
    """Opens a Keras file and returns what builds a copy of its model, weights included."""
    import tensorflow as tf

    saved = _open(path)
    _check_fit(path, saved, input_shape, num_outputs)

    def clone(creator: Callable[..., tf.Variable]) -> tf.keras.Model:
        with tf.variable_creator_scope(creator):
            return tf.keras.models.clone_model(saved)

    created: list[tf.Variable] = []

    # Only weights state a shape; Keras' random generators, which come and go, do not.
    def record(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        variable = next_creator(**options)
        if options.get("shape") is not None:
            created.append(variable)
        return variable

    value_of = dict(zip(map(id, clone(record).weights), saved.get_weights()))
    values = [value_of[id(variable)] for variable in created]

    def build() -> list[tf.keras.layers.Layer]:
        # As initial values, because TFF reads them from the graph, where nothing can be assigned.
        remaining = iter(values)

        def create(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
            if options.get("shape") is not None:
                options["initial_value"] = functools.partial(tf.constant, next(remaining))
            return next_creator(**options)

        return [clone(create)]

    return build


def _open(path: str) -> tf.keras.Model:
    import tensorflow as tf

    if not pathlib.Path(path).exists():
        raise DataError(
            f"--model must be {MLP}, {CONV1D} or a .keras file, but there is no file {path!r}."
        )
    # Keras' safe mode, which runs no code of the file's, holds for this format alone.
    if not (path.endswith(".keras") and zipfile.is_zipfile(path)):
        raise DataError(f"{path} is no .keras file: save the model as such, with Keras 2.")
    _refuse_python(path)
    try:
        return tf.keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever an unfit file makes Keras raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise DataError(
            f"{path} cannot be opened by Keras of TensorFlow {tf.__version__} in safe mode, which "
            f"takes built-in layers other than Lambda: {reason}."
        ) from error


def _refuse_python(path: str) -> None:
    """Raises DataError if opening the file could run Python that safe mode lets pass.

    Keras 2.14 imports whatever module a configuration names, and unpickles weights that are kept as
    NumPy's files instead of HDF5.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        try:
            config = json.loads(archive.read("config.json"))
        except (KeyError, ValueError) as error:
            raise DataError(f"{path} is no .keras file: it has no config.json.") from error
    if any(name.endswith((".npz", ".npy", ".pkl")) for name in names):
        raise DataError(f"{path} keeps weights in a form that could run code: save it as HDF5.")
    for module in _modules(config):
        within_keras = module == "keras" or module.startswith("keras.")
        if module != "builtins" and (not within_keras or module.startswith("keras.utils")):
            raise DataError(
                f"{path} wants {module!r} imported, but as in Keras' safe mode only built-in "
                "layers other than Lambda are taken."
            )


def _modules(config: Any) -> Iterator[str]:
    """Yields the Python modules that a Keras configuration names."""
    if isinstance(config, dict):
        if config.get("module") is not None:
            yield str(config["module"])
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _modules(value)


def _check_fit(
    path: str, model: tf.keras.Model, input_shape: Sequence[int], num_outputs: int
) -> None:
    """Raises DataError unless the model maps examples to logits, or to a quantity."""
    import tensorflow as tf

    if not model.built or not isinstance(model, tf.keras.Model) or len(model.inputs or []) != 1:
        raise DataError(f"{path} must be a Keras model with one input of a known shape.")
    wanted = (None, *input_shape)
    (entry,) = model.inputs
    if not entry.shape.is_compatible_with(wanted) or not entry.dtype.is_floating:
        raise DataError(
            f"{path} takes {_shape(entry.shape)} {entry.dtype.name}, but the examples are "
            f"{_shape(wanted)} float32: change the model's input, the features or --window."
        )
    outputs = model.outputs
    fits = [(None, num_outputs)] + [(None,)] * (num_outputs == 1)
    if len(outputs) != 1 or tuple(outputs[0].shape) not in fits:
        given = ", ".join(_shape(output.shape) for output in outputs)
        raise DataError(
            f"{path} gives {given}, but {_shape(fits[0])} is needed: a logit for each class, or "
            "one number in regression."
        )
    if num_outputs > 1:
        shape = [8, *(size or 8 for size in entry.shape[1:])]
        probed = model(np.random.default_rng(0).normal(size=shape).astype(np.float32)).numpy()
        if (probed >= 0).all() and np.allclose(probed.sum(axis=-1), 1, atol=1e-3):
            raise DataError(
                f"{path} gives probabilities, but logits are needed: take the softmax off its end."
            )


def _shape(shape: Any) -> str:
    return f"[{', '.join('n' if size is None else str(size) for size in shape)}]"
