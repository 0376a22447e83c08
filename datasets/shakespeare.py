"""Federated Shakespeare: the next character of what a role says, one client per role of a play.

The data are TFF's, `tff.simulation.datasets.shakespeare`, and so are the preparation of speeches
and the network of its character prediction baseline (`tff.simulation.baselines.shakespeare`, after
McMahan et al., 2017): 86 characters, 80 of them in a sequence, embedding 8, two LSTMs of 256. The
accuracy leaves out padding alone.

A client here is a role's TFF *training* speeches in the order of the play; we split between roles
(training, validation, test), and each role's sequences again into earlier support and later query,
so TFF's own test speeches stay untouched.

If Shakespeare is unavailable, `stand_ins.text` replaces it, always with a warning.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets import memory
from datasets import options as schema
from datasets.data_set import About, DataSet, Request
from datasets.problems import next_token
from datasets.sources import choice, tff_files
from datasets.sources.contents import Contents
from datasets.stand_ins import text as embedded_text
from datasets.task import DATA_SEED, Task, initializer_seeds, split_clients

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "shakespeare"
URL = "https://storage.googleapis.com/tff-datasets-public/shakespeare.sqlite.lzma"
FILE_NAME = "shakespeare.sqlite"
_NUM_TOKENS = 90  # TFF's characters and the special ones
SPLITS = ("train", "test")  # TFF opens both

DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedavg"),
    "rounds": 80,
    "clients_per_round": 10,
    "batch_size": 4,
    "inner_epochs": 1,
    "support_fraction": 0.5,
    "adaptation_steps": 5,
    "adaptation_learning_rates": (0.1, 0.3),
    "rounds_per_evaluation": 20,
    "rounds_per_checkpoint": 10,
    "split": "ordered",
    "hyperparameters": {
        "reptile": {"inner_learning_rate": 1.0, "server_learning_rate": 1.5},
        "fedavg": {"inner_learning_rate": 1.0},
        "fedprox": {"inner_learning_rate": 1.0},
    },
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of Shakespeare; their `size` says what each means."""

    sequence_length: int | None = next_token.size(80, 40, "Characters in a sequence", 10_000)
    embedding_size: int | None = next_token.size(
        8, 8, "Numbers that stand for a character in the network", 10_000
    )
    lstm_size: int | None = next_token.size(256, 48, "Units of each of the two LSTMs", 10_000)
    max_examples: int | None = next_token.size(
        128, 24, "A role's first sequences that are used", 1_000_000
    )


ABOUT = About(
    source="tff",
    clients="715 roles, on average 22 speeches each",
    model="two LSTMs, 0.8 million weights",
    metric="accuracy of the next character",
    download="a few MB",
    licence="the plays: public domain; cut into roles by LEAF (BSD-2-Clause)",
    splits_clients=True,
)


def load(request: Request) -> Task:
    """Loads Shakespeare, or its synthetic stand-in if requested or if Shakespeare is unavailable.

    Returns:
      A `Task` whose `read_client` gives x and y int64 [n, sequence_length] in the order of the
      play, y one character after x. A speech is cut into as many sequences as it needs, the last
      one padded: padding is 0, TFF's 86 characters are 1 and up, then unknown, begin and end. The
      list of the names of all ids is in `Task.assets`.

    Raises:
      DataError: If "tff" data cannot be had, or there are too few clients.
    """
    file = tff_files.TffFile(
        URL, tff_files.directory(request.cache_dir) / FILE_NAME, SPLITS, _download
    )
    real = choice.RealData(ABOUT, "Shakespeare", "synthetic text", file.fetch, file.advice)
    data_source = choice.resolve_source(request.data_source, real)
    sizes = next_token.resolve_sizes(request.options, data_source)
    _check_memory(sizes["embedding_size"], sizes["lstm_size"])
    embedded = data_source == choice.EMBEDDED
    client_ids = (
        embedded_text.client_ids() if embedded else tff_files.client_ids(file.path, SPLITS[0])
    )
    groups = split_clients(client_ids, request.split_seed, request.num_test_clients)
    request.announce(groups[0], np.int64)
    read_speeches = _speak if embedded else _open(file.path.parent)
    tokens = next_token.token_names(_characters())
    encode = _build_encoder(sizes["sequence_length"])
    return next_token.build_task(
        name=NAME,
        data_source=data_source,
        groups=groups,
        read_client=lambda client_id: encode(read_speeches(client_id)),
        build_keras_model=functools.partial(
            build_lstm,
            request.seed,
            len(tokens),
            sizes["sequence_length"],
            sizes["embedding_size"],
            sizes["lstm_size"],
        ),
        sequence_length=sizes["sequence_length"],
        max_examples=sizes["max_examples"],
        tokens=tokens,
    )


def _check_memory(embedding_size: int, lstm_size: int) -> None:
    first, second = (4 * lstm_size * (n + lstm_size + 1) for n in (embedding_size, lstm_size))
    rest = _NUM_TOKENS * (embedding_size + lstm_size + 1)
    options = f"--embedding_size={embedding_size}, --lstm_size={lstm_size}"
    memory.check_weights(first + second + rest, options)


def _download(directory: str) -> None:
    """Fetches the file with TFF's downloader, which shows its progress."""
    import tensorflow_federated as tff

    tff.simulation.datasets.shakespeare.load_data(cache_dir=directory)


def _speak(client_id: str) -> np.ndarray:
    """Returns an embedded author's speeches: bytes [n]."""
    return next_token.as_bytes(embedded_text.speak(DATA_SEED, client_id))


def _open(directory: pathlib.Path) -> Callable[[str], np.ndarray]:
    """Opens the cached file through TFF; what it returns reads a role's speeches, bytes [n]."""
    import tensorflow_federated as tff

    clients, _ = tff.simulation.datasets.shakespeare.load_data(cache_dir=str(directory))
    contents = Contents(directory / FILE_NAME, "train", {"snippets": ("bytes", 1)})
    read = tff_files.build_reader(clients, ("snippets",), contents)
    read(clients.client_ids[0])  # what is wrong with all clients is said before any training
    return lambda client_id: read(client_id)["snippets"]


def _preprocessing() -> Any:
    """Returns TFF's module of the preparation of speeches."""
    import tensorflow_federated as tff

    return tff.simulation.baselines.shakespeare.char_prediction_preprocessing


def _characters() -> list[str]:
    return _preprocessing().CHAR_VOCAB


def _build_encoder(sequence_length: int) -> Callable[[np.ndarray], next_token.Examples]:
    """Returns TFF's preparation of speeches, bytes [n]: x and y int64 [m, sequence_length]."""
    import tensorflow as tf
    import tensorflow_federated as tff

    preprocess = _preprocessing().create_preprocess_fn(
        tff.simulation.baselines.ClientSpec(
            num_epochs=1, batch_size=next_token.EVERYTHING, shuffle_buffer_size=1
        ),
        sequence_length,
    )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(speeches: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dataset = tf.data.Dataset.from_tensor_slices({"snippets": speeches})
        return preprocess(dataset).get_single_element()

    return next_token.on_arrays(encode)


def build_lstm(
    seed: int, num_tokens: int, sequence_length: int, embedding_size: int, lstm_size: int
) -> tf.keras.Model:
    """Builds TFF's character prediction baseline network, ending in logits.

    Without its mask: padding comes last, so that the mask keeps nothing from what counts.

    Args:
      seed: >= 0; fixes the initial weights, each layer's with a seed of its own.
      num_tokens: Number of token ids, and of logits.
      sequence_length: Tokens in an example.
      embedding_size: Size of the embedding.
      lstm_size: Units of each of the two LSTMs.

    Returns:
      An uncompiled model from int64 [n, sequence_length] to float32 [n, sequence_length,
      num_tokens].
    """
    import tensorflow as tf

    layers, initializers = tf.keras.layers, tf.keras.initializers
    seeds = initializer_seeds(seed, 6)

    def lstm(kernel_seed: int, recurrent_seed: int) -> tf.keras.layers.Layer:
        return layers.LSTM(
            lstm_size,
            return_sequences=True,
            kernel_initializer=initializers.HeNormal(kernel_seed),
            recurrent_initializer=initializers.Orthogonal(seed=recurrent_seed),
        )

    return tf.keras.Sequential(
        [
            tf.keras.Input([sequence_length], dtype=tf.int64),
            layers.Embedding(num_tokens, embedding_size, initializers.RandomUniform(seed=seeds[0])),
            lstm(seeds[1], seeds[2]),
            lstm(seeds[3], seeds[4]),
            layers.Dense(num_tokens, kernel_initializer=initializers.GlorotUniform(seeds[5])),
        ]
    )


DATASET = DataSet(NAME, ABOUT, Options, DEFAULTS, load)
