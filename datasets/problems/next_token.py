"""What the tasks on text share: from tokens to a `Task` that predicts each next token.

An example is a sequence of `sequence_length` token ids and the same sequence one token later. Id 0
is padding, which comes last and counts neither in the loss nor in the metric; words or characters
follow from 1, then the tokens for what is unknown, for the beginning and for the end.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Callable

import numpy as np

from datasets.sources.choice import Option
from datasets.task import DataError, Task

if TYPE_CHECKING:
    import tensorflow as tf

PADDING = 0
VOCABULARY_FILE = "vocabulary.json"

# Who is in training, validation and test, and the embedded authors, are the same in every run, so
# that what was chosen on the validation clients of one seed never saw the test clients of another.
DATA_SEED = 0

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


def size_options(
    sizes: Mapping[str, int], stand_in_sizes: Mapping[str, int], **meanings: str
) -> dict[str, Option]:
    """Returns an option for each size, whose default depends on where the clients come from."""
    return {
        name: Option(
            int,
            None,
            f"{meaning}, >= 1; if not given {sizes[name]:,} with the real data and "
            f"{stand_in_sizes[name]:,} with the stand-in.",
        )
        for name, meaning in meanings.items()
    }


def resolve_sizes(given: Mapping[str, int | None], defaults: Mapping[str, int]) -> dict[str, int]:
    """Returns the sizes that hold: those given, and the defaults of those that are None.

    Raises:
      DataError: If one is less than 1.
    """
    sizes = {}
    for name, default in defaults.items():
        size = given[name]
        sizes[name] = default if size is None else size
        if sizes[name] < 1:
            raise DataError(f"{name} must be a whole number >= 1, but is {sizes[name]}.")
    return sizes


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
    )
