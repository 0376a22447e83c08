"""LEAF's data as tasks: what stands in x and y, the network, loss and metric.

Each function takes user -> examples as LEAF has them, the users that train, validate and test, and
the request, for its seed and options.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets import emnist
from datasets.data_set import FILE, Request
from datasets.problems import leaf_examples
from datasets.task import Meaning, Sides, Task, initializer_seeds

if TYPE_CHECKING:
    import tensorflow as tf

VOCABULARY_FILE = "vocabulary.json"


def femnist(examples: Mapping[str, Any], sides: Sides, request: Request) -> Task:
    """Returns FEMNIST: 62 characters, TFF's CNN for EMNIST."""

    def read_client(user: str) -> leaf_examples.Arrays:
        return leaf_examples.images(user, examples[user], len(emnist.CHARACTERS))

    read_client(sides[0][0])  # what is wrong with all users is said before any training
    return _task(
        sides,
        read_client,
        functools.partial(emnist.build_cnn, request.seed, len(emnist.CHARACTERS)),
        Meaning(
            inputs="a grey image of 28 x 28, 1.0 = paper and 0.0 = ink",
            target="the character's place in the list of classes, from 0",
            output="a logit for each class",
            classes=list(emnist.CHARACTERS),
        ),
    )


def shakespeare(examples: Mapping[str, Any], sides: Sides, request: Request) -> Task:
    """Returns Shakespeare: the character that follows 80 others, by two LSTMs."""
    names = leaf_examples.characters(examples[user] for user in sides[0])
    place_of = {name: place for place, name in enumerate(names, 1)}
    length = max(len(text) for user in sides[0] for text in examples[user]["x"])

    def build_model() -> tf.keras.Model:
        import tensorflow as tf

        layers = tf.keras.layers
        units, seeds = request.options.leaf_units, initializer_seeds(request.seed, 6)
        glorot = tf.keras.initializers.GlorotUniform
        orthogonal = tf.keras.initializers.Orthogonal
        uniform = tf.keras.initializers.RandomUniform(-0.05, 0.05, seed=seeds[0])

        def lstm(first: int, **how: Any) -> tf.keras.layers.Layer:
            return layers.LSTM(
                units,
                kernel_initializer=glorot(seed=seeds[first]),
                recurrent_initializer=orthogonal(seed=seeds[first + 1]),
                **how,
            )

        return tf.keras.Sequential(
            [
                layers.Embedding(
                    len(names) + 1, 8, embeddings_initializer=uniform, input_length=length
                ),
                lstm(1, return_sequences=True),
                lstm(3),
                layers.Dense(len(names) + 1, kernel_initializer=glorot(seed=seeds[5])),
            ]
        )

    return _task(
        sides,
        lambda user: leaf_examples.sequences(examples[user], place_of, length),
        build_model,
        Meaning(
            inputs=f"{length} characters, each its place in {VOCABULARY_FILE}; 0: none, first",
            target=f"the place of the character that follows, in {VOCABULARY_FILE}",
            output="a logit for each character that may follow",
            ids_file=VOCABULARY_FILE,
            classes_file=VOCABULARY_FILE,
        ),
        vocabulary=["<unknown>", *names],
        split="ordered",
    )


def sent140(examples: Mapping[str, Any], sides: Sides, request: Request) -> Task:
    """Returns Sent140: whether a tweet's feeling is good, by an MLP."""
    options = request.options
    names = leaf_examples.frequent_words(
        (examples[user] for user in sides[0]), options.leaf_vocabulary
    )
    place_of = {name: place for place, name in enumerate(names, 1)}
    bag = options.leaf_words == "bag"

    def build_model() -> tf.keras.Model:
        import tensorflow as tf

        layers = tf.keras.layers
        first, second, last = (
            tf.keras.initializers.GlorotUniform(seed=s) for s in initializer_seeds(request.seed, 3)
        )
        front = (
            [tf.keras.Input([len(names) + 1])]
            if bag
            else [
                tf.keras.Input([leaf_examples.WORDS_OF_TWEET], dtype=tf.int64),
                layers.Embedding(len(names) + 1, 32, embeddings_initializer=first),
                layers.GlobalAveragePooling1D(),
            ]
        )
        return tf.keras.Sequential(
            [
                *front,
                layers.Dense(64, activation="relu", kernel_initializer=second),
                layers.Dense(2, kernel_initializer=last),
            ]
        )

    inputs = "how often each word occurs" if bag else "the first 25 words, each its place"
    return _task(
        sides,
        lambda user: leaf_examples.tweets(examples[user], place_of, bag),
        build_model,
        Meaning(
            inputs=f"{inputs}, by their places in {VOCABULARY_FILE}",
            target="0: a bad feeling, 1: a good one",
            output="a logit for each",
            ids_file=VOCABULARY_FILE,
            classes=["bad", "good"],
        ),
        vocabulary=["<unknown>", *names],
    )


def _task(
    sides: Sides,
    read_client: Callable[[str], leaf_examples.Arrays],
    build_model: Callable[[], tf.keras.Model],
    meaning: Meaning,
    vocabulary: list[str] | None = None,
    split: str = "random",
) -> Task:
    """Puts clients, model, loss, metric and measures together."""
    import tensorflow as tf

    from datasets.tables import judging

    train, validation, test = sides
    x, y = read_client(train[0])
    measures = None
    if meaning.classes:
        labels = np.concatenate([read_client(client)[1] for client in train])
        majority = int(np.bincount(labels).argmax())
        measures = judging.of_classes(majority, len(meaning.classes))
    return Task(
        name="leaf",
        data_source=FILE,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read_client,
        build_keras_model=build_model,
        build_loss=functools.partial(
            tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True
        ),
        build_metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        input_spec=(
            tf.TensorSpec([None, *x.shape[1:]], x.dtype),
            tf.TensorSpec([None], y.dtype),
        ),
        split=split,
        measures=measures,
        assets={} if vocabulary is None else {VOCABULARY_FILE: vocabulary},
        meaning=meaning,
    )
