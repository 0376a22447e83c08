"""What the tasks on text share: from tokens to a `Task` that predicts each next token.

An example is a sequence of `sequence_length` token ids and the same sequence one token later. Id 0
is padding, which comes last and counts neither in the loss nor in the metric; words or characters
follow from 1, then the tokens for what is unknown, for the beginning and for the end.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets.data_set import EMBEDDED
from datasets.options import Options, option
from datasets.task import Meaning, Task

if TYPE_CHECKING:
    import tensorflow as tf

PADDING = 0
VOCABULARY_FILE = "vocabulary.json"

# As many examples as any client can have, for a batch that takes them all.
EVERYTHING = int(np.iinfo(np.int64).max)

Examples = tuple[np.ndarray, np.ndarray]
Groups = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def token_names(words: Sequence[str]) -> list[str]:
    """Returns the name of every token id, as TFF numbers them: padding, words, then the special."""
    return ["<pad>", *words, "<oov>", "<bos>", "<eos>"]


def as_bytes(lines: Sequence[str]) -> np.ndarray:
    """Returns lines of text as TFF's files have them: bytes objects [n]."""
    return np.array([line.encode() for line in lines], object)


def on_arrays(
    encode: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
) -> Callable[[np.ndarray], Examples]:
    """Returns `encode`, from strings [n] to a pair of tensors, for NumPy's arrays."""
    import tensorflow as tf

    def encode_arrays(lines: np.ndarray) -> Examples:
        x, y = encode(tf.constant(lines, tf.string))
        return x.numpy(), y.numpy()

    return encode_arrays


def size(real: int, stand_in: int, meaning: str, at_most: int) -> Any:
    """Declares an option that is a size; its default depends on where the clients come from.

    Args:
      real: The default with the real data.
      stand_in: The default with the stand-in.
      meaning: What the size is of, as a clause.
      at_most: The largest one.
    """
    text = f"{meaning}; by default {real:,} with the real data and {stand_in:,} with the stand-in."
    declared = option(None, text, at_least=1, at_most=at_most)
    declared.metadata = MappingProxyType({**declared.metadata, "sizes": (real, stand_in)})
    return declared


def resolve_sizes(options: Options, data_source: str) -> dict[str, int]:
    """Returns the value of each `size`: the one given, or the default for the source."""
    declared = [field for field in dataclasses.fields(options) if "sizes" in field.metadata]
    given = {field.name: getattr(options, field.name) for field in declared}
    return {
        field.name: field.metadata["sizes"][data_source == EMBEDDED]
        if given[field.name] is None
        else given[field.name]
        for field in declared
    }


def build_task(
    *,
    name: str,
    data_source: str,
    groups: Groups,
    read_client: Callable[[str], Examples],
    build_keras_model: Callable[[], tf.keras.Model],
    sequence_length: int,
    max_examples: int,
    tokens: Sequence[str],
    uncounted: Sequence[str] = (),
) -> Task:
    """Puts clients, model, loss and metric of a task on text together.

    Args:
      name: As in `Task`.
      data_source: As in `Task`.
      groups: Ids of the training, validation and test clients.
      read_client: As in `Task`, x and y int64 [n, sequence_length], in the order of time. Examples
        that have nothing to predict are left out here: their loss would be 0 / 0.
      build_keras_model: As in `Task`.
      sequence_length: Tokens in an example.
      max_examples: How many examples of a client are used, the first ones.
      tokens: Name of every token id.
      uncounted: Tokens that the accuracy leaves out, besides padding.
    """
    import tensorflow as tf
    import tensorflow_federated as tff

    train, validation, test = groups
    masked = [PADDING, *(tokens.index(token) for token in uncounted)]
    spec = tf.TensorSpec([None, sequence_length], tf.int64)

    def read(client_id: str) -> Examples:
        x, y = read_client(client_id)
        some = np.flatnonzero((y != PADDING).any(axis=1))[:max_examples]
        return x[some], y[some]

    return Task(
        name=name,
        data_source=data_source,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read,
        build_keras_model=build_keras_model,
        build_loss=functools.partial(
            tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True, ignore_class=PADDING
        ),
        build_metrics=lambda: [
            tff.simulation.baselines.keras_metrics.MaskedCategoricalAccuracy(
                name="accuracy", masked_tokens=masked
            )
        ],
        input_spec=(spec, spec),
        split="ordered",
        assets={VOCABULARY_FILE: list(tokens)},
        meaning=Meaning(
            inputs=f"{sequence_length} tokens, each its place in {VOCABULARY_FILE}; 0 pads, last",
            target="the same tokens one place later: for each the token that follows",
            output="for each token a logit for each one that may follow",
            ids_file=VOCABULARY_FILE,
            classes_file=VOCABULARY_FILE,
        ),
    )
