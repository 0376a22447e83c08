"""Federated Stack Overflow: the next word of a user's questions and answers, one client per user.

The data are TFF's, `tff.simulation.datasets.stackoverflow`, and so are the preparation of sentences
and the network of its word prediction baseline (`tff.simulation.baselines.stackoverflow`): a
vocabulary of 10,000 words, 20 words of a sentence, one id for all unknown words, embedding 96, LSTM
670, dense 96. The accuracy, as usual for these data, leaves out unknown words and the end of a
sentence.

Users of TFF's split `train` train, of `heldout` validate, of `test` test. Most users of `test` are
in `train` too, with what they wrote earlier: they are left out, and where the others are too few,
users of `heldout` who do not validate stand in. There are hundreds of thousands: ids are listed
once, and validation and test are a sample. A client is a user's first `max_examples` sentences by
date.

If the data are unavailable, `stand_ins.text` replaces them, always with a warning.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets import memory
from datasets import options as schema
from datasets.data_set import About, DataSet, Request
from datasets.problems import next_token
from datasets.sources import choice, stackoverflow_parts, tff_files
from datasets.sources.contents import Contents
from datasets.stand_ins import text as embedded_text
from datasets.task import DATA_SEED, Task, initializer_seeds, split_clients

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "stackoverflow"
URL = "https://storage.googleapis.com/tff-datasets-public/stackoverflow.sqlite.lzma"
FILE_NAME = "stackoverflow.sqlite"
SPLITS = ("train", "heldout", "test")

# An estimate: 169 million sentences at the 366 bytes that one takes in a smaller file.
_FREE_BYTES = 60 * 2**30

DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedavg"),
    "rounds": 100,
    "clients_per_round": 10,
    "batch_size": 16,
    "inner_epochs": 1,
    "support_fraction": 0.5,
    "adaptation_steps": 5,
    "adaptation_learning_rates": (0.1, 0.3),
    "rounds_per_evaluation": 20,
    "rounds_per_checkpoint": 10,
    "split": "ordered",
    "hyperparameters": {
        "reptile": {"inner_learning_rate": 1.0},
        "fedavg": {"inner_learning_rate": 1.0},
        "fedprox": {"inner_learning_rate": 1.0},
    },
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of Stack Overflow; their `size` says what each means.

    Published runs use from 160 to 1,000 sentences of a user; 128 keep a round short.
    """

    vocabulary_size: int | None = next_token.size(
        10_000, 200, "Words that have an id of their own", 1_000_000
    )
    sequence_length: int | None = next_token.size(
        20, 12, "Words of a sentence that are read", 10_000
    )
    embedding_size: int | None = next_token.size(
        96, 24, "Numbers that stand for a word in the network", 10_000
    )
    lstm_size: int | None = next_token.size(670, 48, "Units of the LSTM", 10_000)
    max_examples: int | None = next_token.size(
        128, 128, "A user's first sentences that are used", 1_000_000
    )


ABOUT = About(
    source="tff",
    clients="342,477 users to train on, on average 397 sentences each; a sample of unseen ones",
    model="LSTM, 4.1 million weights",
    metric="accuracy of the next word, without unknown words and ends of sentences",
    download="unpacked an estimated 60 GB",
    licence="Stack Overflow's contributors: CC BY-SA 3.0",
)


def load(request: Request) -> Task:
    """Loads Stack Overflow, or its synthetic stand-in if requested or if it is unavailable.

    By default there are 100 test clients, or as many unseen users as there are; 15 % of the
    stand-in's.

    Returns:
      A `Task` whose `read_client` gives x and y int64 [n, sequence_length] in the order of time,
      y one word after x: padding is 0, words 1 and up, then unknown, begin and end. The
      vocabulary, a list of the names of all ids, is in `Task.assets`.

    Raises:
      DataError: If "tff" data cannot be had, or there are too few clients.
    """
    file = tff_files.TffFile(
        URL, tff_files.directory(request.cache_dir) / FILE_NAME, SPLITS, _download, _FREE_BYTES
    )
    real = choice.RealData(ABOUT, "Stack Overflow", "synthetic text", file.fetch, file.advice)
    data_source = choice.resolve_source(request.data_source, real)
    sizes = next_token.resolve_sizes(request.options, data_source)
    _check_memory(sizes["vocabulary_size"], sizes["embedding_size"], sizes["lstm_size"])
    embedded = data_source == choice.EMBEDDED
    if embedded:
        groups = split_clients(embedded_text.client_ids(), DATA_SEED, request.num_test_clients)
    else:
        train, heldout, test = (tff_files.client_ids(file.path, split) for split in SPLITS)
        groups = stackoverflow_parts.choose_clients(train, heldout, test, request.num_test_clients)
    request.announce(groups[0], np.int64)
    if embedded:
        read_sentences: Callable[[str], np.ndarray] = _write
        words = None
    else:
        read_sentences = _open(file.path.parent, groups[0][0])
        words = stackoverflow_parts.published_words(file.path.parent, sizes["vocabulary_size"])
    if words is None:
        words = stackoverflow_parts.count_words(groups[0], read_sentences, sizes["vocabulary_size"])
    tokens = next_token.token_names(words)
    encode = _build_encoder(words, sizes["sequence_length"])
    limit = sizes["max_examples"]
    return next_token.build_task(
        name=NAME,
        data_source=data_source,
        groups=groups,
        read_client=lambda client_id: encode(read_sentences(client_id)[:limit]),
        build_keras_model=functools.partial(
            build_lstm,
            request.seed,
            len(tokens),
            sizes["sequence_length"],
            sizes["embedding_size"],
            sizes["lstm_size"],
        ),
        sequence_length=sizes["sequence_length"],
        max_examples=limit,
        tokens=tokens,
        uncounted=("<oov>", "<eos>"),
    )


def _check_memory(vocabulary_size: int, embedding_size: int, lstm_size: int) -> None:
    recurrent = 4 * lstm_size * (embedding_size + lstm_size + 1)
    rest = embedding_size * (lstm_size + 1) + vocabulary_size * (2 * embedding_size + 1)
    options = (
        f"--vocabulary_size={vocabulary_size}, --embedding_size={embedding_size}, "
        f"--lstm_size={lstm_size}"
    )
    memory.check_weights(recurrent + rest, options)


def _download(directory: str) -> None:
    """Fetches the file with TFF's downloader, which shows its progress."""
    import tensorflow_federated as tff

    tff.simulation.datasets.stackoverflow.load_data(cache_dir=directory)


def _write(client_id: str) -> np.ndarray:
    """Returns an embedded author's sentences: bytes [n]."""
    return next_token.as_bytes(embedded_text.write(DATA_SEED, client_id))


def _open(directory: pathlib.Path, someone: str) -> Callable[[str], np.ndarray]:
    """Opens the cached file through TFF; the reader gives a user's sentences by date, bytes [n].

    Args:
      directory: Where the file is.
      someone: Who trains: what is wrong with all clients is said before any training.
    """
    import tensorflow_federated as tff

    parts = tff.simulation.datasets.stackoverflow.load_data(cache_dir=str(directory))
    kinds = {name: ("bytes", 1) for name in ("creation_date", "tags", "title", "tokens", "type")}
    kinds["score"] = ("int64", 1)
    readers = [
        tff_files.build_reader(
            part, ("creation_date", "tokens"), Contents(directory / FILE_NAME, split, kinds)
        )
        for part, split in zip(parts, SPLITS)
    ]
    readers[0](someone)

    def read_sentences(client_id: str) -> np.ndarray:
        for read in readers:  # training clients come first, and only they are in `train`
            try:
                examples = read(client_id)
            except KeyError:
                continue
            # Dates as text, from the year to fractions of a second, sort as the times they are.
            return examples["tokens"][np.argsort(examples["creation_date"], kind="stable")]
        raise KeyError(client_id)

    return read_sentences


def _build_encoder(
    words: Sequence[str], sequence_length: int
) -> Callable[[np.ndarray], next_token.Examples]:
    """Returns TFF's preparation of sentences, bytes [n]: x and y int64 [n, sequence_length]."""
    import tensorflow as tf
    import tensorflow_federated as tff

    preprocessing = tff.simulation.baselines.stackoverflow.word_prediction_preprocessing
    to_ids = preprocessing.build_to_ids_fn(list(words), sequence_length)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(sentences: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids = tf.data.Dataset.from_tensor_slices({"tokens": sentences}).map(to_ids)
        # One batch of exactly their number, for which padded batches reserve memory.
        count = tf.size(sentences, tf.int64)
        return preprocessing.batch_and_split(ids, sequence_length, count).get_single_element()

    return next_token.on_arrays(encode)


def build_lstm(
    seed: int, num_tokens: int, sequence_length: int, embedding_size: int, lstm_size: int
) -> tf.keras.Model:
    """Builds TFF's word prediction baseline network, ending in logits.

    Without its mask: padding comes last, so that the mask keeps nothing from what counts.

    Args:
      seed: >= 0; fixes the initial weights, each layer's with a seed of its own.
      num_tokens: Number of token ids, and of logits.
      sequence_length: Tokens in an example.
      embedding_size: Size of the embedding and of the dense layer.
      lstm_size: Units of the LSTM.

    Returns:
      An uncompiled model from int64 [n, sequence_length] to float32 [n, sequence_length,
      num_tokens].
    """
    import tensorflow as tf

    layers, initializers = tf.keras.layers, tf.keras.initializers
    seeds = initializer_seeds(seed, 5)
    return tf.keras.Sequential(
        [
            tf.keras.Input([sequence_length], dtype=tf.int64),
            layers.Embedding(num_tokens, embedding_size, initializers.RandomUniform(seed=seeds[0])),
            layers.LSTM(
                lstm_size,
                return_sequences=True,
                kernel_initializer=initializers.GlorotUniform(seeds[1]),
                recurrent_initializer=initializers.Orthogonal(seed=seeds[2]),
            ),
            layers.Dense(embedding_size, kernel_initializer=initializers.GlorotUniform(seeds[3])),
            layers.Dense(num_tokens, kernel_initializer=initializers.GlorotUniform(seeds[4])),
        ]
    )


DATASET = DataSet(NAME, ABOUT, Options, DEFAULTS, load)
