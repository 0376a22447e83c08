"""N-way K-shot tasks as clients: drawing one, the network of the Reptile paper, two accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

import numpy as np

from datasets.task import initializer_seeds

if TYPE_CHECKING:
    import tensorflow as tf


def draw_client(
    client_id: str, images: Sequence[np.ndarray], ways: int, per_class: int, rotations: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a client's classes and images from its id.

    Args:
      client_id: Any text.
      images: For each class its images, uint8 [>= per_class, size, size, channels].
      ways: How many classes.
      per_class: How many images of each.
      rotations: Whether each class turned by quarters counts as three further ones.

    Returns:
      x float32 [per_class * ways, size, size, channels], 0 = white and 1 = black, and y int32 that
      counts 0, 1, ..., ways - 1, 0, 1, ...: an ordered split by shots leaves the classes balanced.
    """
    rng = np.random.default_rng(list(client_id.encode()))
    turns = 4 if rotations else 1
    chosen = []
    for kind in rng.choice(len(images) * turns, ways, replace=False):
        of_class = images[kind // turns]
        some = of_class[rng.choice(len(of_class), per_class, replace=False)]
        chosen.append(np.rot90(some, kind % turns, axes=(1, 2)))
    x = np.stack(chosen, axis=1)
    # Ink is 1 and paper 0, so that the zeros that convolutions pad with are paper.
    x = 1 - x.reshape(-1, *x.shape[2:]).astype(np.float32) / np.float32(255)
    return x, np.tile(np.arange(ways, dtype=np.int32), per_class)


def build_cnn(ways: int, image_size: int, channels: int, seed: int) -> tf.keras.Model:
    """Builds the paper's network: four convolutions of 64 with stride 2, normalised by batch.

    The normalisation is by the images that are predicted together, in training and afterwards
    alike: it has no moving statistics, so that federated learning has none to
    aggregate. Written as Keras' `LayerNormalization` over all axes but the channels, with their
    scale and offset as a 1 x 1 convolution, it is in any Keras.

    Args:
      ways: The number of classes.
      image_size: Pixels of an image's side.
      channels: 1 or 3.
      seed: >= 0; fixes the initial weights, each layer's with a seed of its own.

    Returns:
      An uncompiled model from float32 [n, image_size, image_size, channels] to logits [n, ways].
      What it predicts for an image depends on the other n - 1.
    """
    import tensorflow as tf

    layers = tf.keras.layers
    glorots = [tf.keras.initializers.GlorotUniform(seed=s) for s in initializer_seeds(seed, 5)]
    stack = [tf.keras.Input([image_size, image_size, channels])]
    for glorot in glorots[:4]:
        stack += [
            layers.Conv2D(64, 3, 2, "same", use_bias=False, kernel_initializer=glorot),
            layers.LayerNormalization([0, 1, 2], epsilon=0.001, center=False, scale=False),
            layers.DepthwiseConv2D(1, depthwise_initializer="ones"),
            layers.ReLU(),
        ]
    return tf.keras.Sequential(
        [*stack, layers.Flatten(), layers.Dense(ways, kernel_initializer=glorots[4])]
    )


EXPLANATION = (
    "A prediction depends on the images that are predicted with it, by the normalisation. "
    "*transductive*: all query images of a client at once, as in the table above; "
    "*non-transductive*: one query image at a time, beside the client's support."
)


def measure_client(
    support: tuple[np.ndarray, np.ndarray],
    query: tuple[np.ndarray, np.ndarray],
    before: Callable[[np.ndarray], np.ndarray],
    after: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Returns a client's accuracy before and after adapting, transductive and not, in [0, 1].

    Non-transductive is as in the paper's code: every query image is predicted in a batch of its own
    with the support, and only its own prediction counts.
    """
    del seed
    (support_x, _), (x, y) = support, query

    def measure(predict: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        alone = [predict(np.concatenate([support_x, x[i : i + 1]]))[-1] for i in range(len(x))]
        return {
            "transductive": float(np.mean(np.argmax(predict(x), axis=1) == y)),
            "non-transductive": float(np.mean(np.argmax(alone, axis=1) == y)),
        }

    return {"before": measure(before), "after": measure(after)}
