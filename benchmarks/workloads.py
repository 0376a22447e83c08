"""What is trained in the benchmarks: models and clients, a pure function of name and sizes."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import numpy as np

BATCH_SIZE = 20

Client = tuple[np.ndarray, np.ndarray]  # x [n, ...] and y [n, ...]


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model, its data and how it is trained: one epoch of plain SGD in batches, in order.

    Attributes:
      build_keras_model: Returns an uncompiled model that ends in logits. All initial weights are
        seeded, so that every process starts from the same ones.
      make_client: Makes a client's arrays from a random generator and a number of examples.
      num_clients: Clients in a round.
      num_examples: The fewest and the most examples of a client.
      learning_rate: Of the clients' steps.
    """

    build_keras_model: Callable[[], Any]
    make_client: Callable[[np.random.Generator, int], Client]
    num_clients: int
    num_examples: tuple[int, int]
    learning_rate: float

    def resized(self, num_clients: int | None, num_examples: int | None) -> Workload:
        """Returns this workload with other sizes; None keeps the present size."""
        return dataclasses.replace(
            self,
            num_clients=num_clients or self.num_clients,
            num_examples=(num_examples, num_examples) if num_examples else self.num_examples,
        )

    def sizes(self) -> list[int]:
        """Returns how many examples each client has."""
        low, high = self.num_examples
        return np.random.default_rng(0).integers(low, high + 1, self.num_clients).tolist()

    def clients(self) -> list[Client]:
        """Makes the clients; each from a stream of its own, so that any two cohorts share them."""
        return [
            self.make_client(np.random.default_rng([1, index]), size)
            for index, size in enumerate(self.sizes())
        ]

    def input_spec(self) -> Any:
        """Returns the `tf.TensorSpec` of a batch (x, y) of any size."""
        import tensorflow as tf

        arrays = self.make_client(np.random.default_rng(0), 1)
        return tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays)


def build_loss() -> Any:
    """Returns the Keras loss of every workload."""
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _images(shape: tuple[int, ...], num_classes: int) -> Callable[..., Client]:
    def make_client(random: np.random.Generator, size: int) -> Client:
        x = 0.5 * random.standard_normal((size, *shape), np.float32)
        return x, random.integers(num_classes, size=size, dtype=np.int32)

    return make_client


_VOCABULARY = 10_000 + 4  # padding, beginning and end of a sentence, out of vocabulary
_SENTENCE = 20


def _sentences(random: np.random.Generator, size: int) -> Client:
    """Random tokens, none of them padding; the target is the next token."""
    tokens = random.integers(1, _VOCABULARY, [size, _SENTENCE + 1])
    return tokens[:, :-1], tokens[:, 1:]


def _glorot(seed: int) -> Any:
    import tensorflow as tf

    return tf.keras.initializers.GlorotUniform(seed=seed)


def _build_cnn() -> Any:
    from datasets import emnist

    return emnist.build_cnn(0, 62)


def _build_dense(*units: int) -> Any:
    import tensorflow as tf

    activations = ["relu"] * (len(units) - 1) + [None]
    return tf.keras.Sequential(
        [
            tf.keras.Input([784]),
            *(
                tf.keras.layers.Dense(n, activation, kernel_initializer=_glorot(seed))
                for seed, (n, activation) in enumerate(zip(units, activations))
            ),
        ]
    )


def _build_lstm() -> Any:
    """The shape of TFF's Stack Overflow next-word model."""
    import tensorflow as tf

    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            layers.Embedding(
                _VOCABULARY,
                96,
                mask_zero=True,
                embeddings_initializer=_glorot(0),
                input_shape=(None,),
            ),
            layers.LSTM(
                670,
                return_sequences=True,
                kernel_initializer=_glorot(1),
                recurrent_initializer=_glorot(2),
            ),
            layers.Dense(96, kernel_initializer=_glorot(3)),
            layers.Dense(_VOCABULARY, kernel_initializer=_glorot(4)),
        ]
    )


# Small rates where there are ReLUs: rounding turns one over now and then, and from there on weights
# drift apart, the faster the larger the steps.
WORKLOADS = {
    "cnn": Workload(_build_cnn, _images((28, 28), 62), 10, (60, 140), 0.002),
    "linear": Workload(lambda: _build_dense(10), _images((784,), 10), 100, (100, 100), 0.01),
    "lstm": Workload(_build_lstm, _sentences, 10, (30, 50), 1.0),
    "dense": Workload(
        lambda: _build_dense(2000, 1600, 62), _images((784,), 62), 10, (100, 100), 0.005
    ),
}
