"""Models for tables: an MLP, or a 1-D CNN over windows.

In front of each, a `Normalization` layer has mean and scale as constants, so that the exported
model takes values in the units of the table, and each column of ids has an `Embedding`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from datasets.task import DataError, initializer_seeds

if TYPE_CHECKING:
    import tensorflow as tf

MLP, CONV1D = BUILT_IN = ("mlp", "conv1d")
EMBEDDING_SIZE = 8


class Front(NamedTuple):
    """What is in front of a network.

    Attributes:
      shape: Of one example: [channels] or, for windows, [rows, channels].
      normalisation: Mean and scale of the channels; None leaves the layer out.
      ids: How many known ids each of the last channels has, which are embedded.
      seed: >= 0; fixes the initial embeddings.
    """

    shape: Sequence[int]
    normalisation: tuple[list[float], list[float]] | None
    ids: Sequence[int] = ()
    seed: int = 0


def builder(
    model: str, seed: int, num_outputs: int, front_of_model: Front
) -> Callable[[], tf.keras.Model]:
    """Returns a function that builds the same uncompiled model at every call, in any graph.

    Args:
      model: "mlp" or "conv1d".
      seed: >= 0; fixes the initial weights.
      num_outputs: Logits, or 1 for a quantity.
      front_of_model: What is in front of it.

    Raises:
      DataError: If the model does not fit.
    """
    if model == CONV1D and len(front_of_model.shape) != 2:
        raise DataError("--model=conv1d walks along windows: give --window, or --model=mlp.")
    body = functools.partial({MLP: _mlp, CONV1D: _conv1d}[model], seed, num_outputs)

    def build() -> tf.keras.Model:
        import tensorflow as tf

        return tf.keras.Sequential([*front(front_of_model), *body()])

    return build


def front(of_model: Front) -> list[tf.keras.layers.Layer]:
    """Returns the layers in front of every network: the input, then one that prepares it."""
    import tensorflow as tf

    layers = [tf.keras.Input(of_model.shape)]
    if of_model.ids:
        layers.append(_with_embeddings(of_model))
    elif of_model.normalisation is not None:
        layers.append(_normalisation(of_model, of_model.shape[-1]))
    return layers


def _normalisation(of_model: Front, number: int) -> tf.keras.layers.Layer:
    import tensorflow as tf

    assert of_model.normalisation is not None
    mean, scale = (values[:number] for values in of_model.normalisation)
    return tf.keras.layers.Normalization(mean=mean, variance=[s**2 for s in scale])


def _with_embeddings(of_model: Front) -> tf.keras.Model:
    """Returns [..., channels] -> [..., numbers + embeddings], of Keras' own layers alone."""
    import tensorflow as tf

    layers = tf.keras.layers
    *rows, channels = of_model.shape
    numbers = channels - len(of_model.ids)
    x = tf.keras.Input(of_model.shape)
    # Keras cuts along the first dimension: of rows the channels become it.
    turned = layers.Permute((2, 1))(x) if rows else layers.Reshape((channels, 1))(x)
    parts = []
    if numbers:
        kept = layers.Cropping1D((0, len(of_model.ids)))(turned)
        kept = layers.Permute((2, 1))(kept) if rows else layers.Reshape((numbers,))(kept)
        if of_model.normalisation is not None:
            kept = _normalisation(of_model, numbers)(kept)
        parts.append(kept)
    seeds = initializer_seeds(of_model.seed, 8 + len(of_model.ids))[8:]  # not those of the network
    for number, (count, seed) in enumerate(zip(of_model.ids, seeds)):
        places = layers.Cropping1D((numbers + number, len(of_model.ids) - 1 - number))(turned)
        places = layers.Reshape((*rows,) if rows else (1,))(places)
        vectors = layers.Embedding(
            count + 1,  # 0 stands for unknown ids
            EMBEDDING_SIZE,
            embeddings_initializer=tf.keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
        )(places)
        parts.append(vectors if rows else layers.Reshape((EMBEDDING_SIZE,))(vectors))
    out = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    return tf.keras.Model(x, out, name="columns")


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
