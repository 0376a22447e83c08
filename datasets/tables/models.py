"""Models for tables: an MLP, or a 1-D CNN over windows.

Each has a `Normalization` layer in front, with mean and scale as constants, so that the exported
model takes values in the units of the table.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from datasets.task import DataError, initializer_seeds

if TYPE_CHECKING:
    import tensorflow as tf

MLP, CONV1D = BUILT_IN = ("mlp", "conv1d")


def builder(
    model: str,
    seed: int,
    input_shape: Sequence[int],
    num_outputs: int,
    normalisation: tuple[list[float], list[float]] | None,
) -> Callable[[], tf.keras.Model]:
    """Returns a function that builds the same uncompiled model at every call, in any graph.

    Args:
      model: "mlp" or "conv1d".
      seed: >= 0; fixes the initial weights.
      input_shape: Of one example: [channels] or, for windows, [rows, channels].
      num_outputs: Logits, or 1 for a quantity.
      normalisation: Mean and scale of the channels; None leaves the layer out.

    Raises:
      DataError: If the model does not fit.
    """
    if model == CONV1D and len(input_shape) != 2:
        raise DataError("--model=conv1d walks along windows: give --window, or --model=mlp.")
    body = functools.partial({MLP: _mlp, CONV1D: _conv1d}[model], seed, num_outputs)

    def build() -> tf.keras.Model:
        import tensorflow as tf

        return tf.keras.Sequential([*front(input_shape, normalisation), *body()])

    return build


def front(
    input_shape: Sequence[int], normalisation: tuple[list[float], list[float]] | None
) -> list[tf.keras.layers.Layer]:
    """Returns the layers in front of every network: the input, and its normalisation."""
    import tensorflow as tf

    layers = [tf.keras.Input(input_shape)]
    if normalisation is not None:
        mean, scale = normalisation
        layers.append(tf.keras.layers.Normalization(mean=mean, variance=[s**2 for s in scale]))
    return layers


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

    return [tf.keras.initializers.GlorotUniform(seed=s) for s in initializer_seeds(seed, number)]
