"""Models for tables: an MLP, a 1-D CNN over windows, or a Keras model of the user's.

Each has a `Normalization` layer in front, with mean and scale as constants, so that the exported
model takes values in the units of the table.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets.tables import keras_model
from datasets.task import DataError

if TYPE_CHECKING:
    import tensorflow as tf

MLP, CONV1D = BUILT_IN = ("mlp", "conv1d")


def builder(
    model: str | tf.keras.Model,
    seed: int,
    input_shape: Sequence[int],
    num_outputs: int,
    normalisation: tuple[list[float], list[float]] | None,
) -> Callable[[], tf.keras.Model]:
    """Returns a function that builds the same uncompiled model at every call, in any graph.

    Args:
      model: "mlp", "conv1d" or a Keras model, whose weights are what training starts from.
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
        if isinstance(model, str):
            raise DataError(
                f"--model must be {MLP}, {CONV1D} or an opened Keras model, but is {model!r}."
            )
        body = keras_model.layers_of(model, input_shape, num_outputs)

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
