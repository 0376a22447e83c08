"""Federated EMNIST: handwritten digits and letters, one client per writer (Caldas et al., 2018).

The data are TFF's, `tff.simulation.datasets.emnist`: 3,400 writers, 671,585 training examples,
62 classes in the order digits, upper case, lower case. Images are not inverted: **1.0 is paper
and 0.0 is ink**, the opposite of MNIST. A client here is a writer's TFF *training* examples; we
split between writers (training, validation, test), and each writer's examples again into
support and query later, so TFF's own test examples stay untouched.

Where the data cannot be had, `embedded` synthetic handwriting can stand in, never unsaid.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets import embedded, tff_cache
from datasets.task import DataError, Task, split_clients

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "emnist"
DATA_SOURCES = ("auto", "tff", "embedded")
URL = "https://storage.googleapis.com/tff-datasets-public/emnist_all.sqlite.lzma"
FILE_NAME = "emnist_all.sqlite"

# For the methods whose clients send gradients: MAML's best of four short trials, which the others
# share untried; see searches/emnist_hyperparameters.py. Without the warm-up this rate of Adam can
# leave them at the accuracy of guessing for good.
_META_GRADIENTS = {
    "inner_learning_rate": 0.02,
    "server_optimizer": "adam",
    "server_learning_rate": 0.003,
    "server_decay": True,
    "server_warmup": 20,
    "support_fraction": 0.2,
}

# What a run on this data set starts from, where nothing else is asked for.
DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedavg"),
    "rounds": 200,
    "clients_per_round": 10,
    "batch_size": 20,
    "inner_epochs": 1,
    "support_fraction": 0.5,
    "adaptation_steps": 10,
    "adaptation_learning_rates": (0.01, 0.02, 0.05, 0.1),
    "rounds_per_evaluation": 20,
    "rounds_per_checkpoint": 10,
    "hyperparameters": {
        # From equally many trials on validation writers: see searches/emnist_learning_rates.py
        "reptile": {"inner_learning_rate": 0.1, "server_learning_rate": 1.5},
        "fedavg": {"inner_learning_rate": 0.1, "server_learning_rate": 1.5},
        "fedprox": {"inner_learning_rate": 0.1, "server_learning_rate": 1.5},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "meta_sgd", "anil")},
        "per_fedavg": {  # untried
            "inner_learning_rate": 0.02,
            "meta_learning_rate": 0.1,
            "local_meta_steps": 10,
            "first_order": True,
            "server_learning_rate": 1.5,
            "server_decay": True,
        },
    },
}

# Who is in training, validation and test, and the embedded writers, are the same in every run, so
# that what was chosen on the validation clients of one seed never saw the test clients of another.
_DATA_SEED = 0

Clients = tuple[tuple[str, ...], Callable[[str], tuple[np.ndarray, np.ndarray]]]


def load(
    *,
    data_source: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    num_test_clients: int | None = None,
    only_digits: bool = False,
) -> Task:
    """Loads EMNIST, or on request and in need its embedded stand-in.

    Args:
      data_source: "tff": the real data, from the cache or downloaded, or an error; "embedded":
        the synthetic stand-in; "auto": the real data if they can be had, otherwise the stand-in
        with a warning on stderr. `Task.data_source` says which it became.
      cache_dir: Directory of the downloaded file; None means TFF's default, `~/.tff`.
      seed: >= 0; fixes the initial weights.
      num_test_clients: >= 1; None means 15 % of the clients.
      only_digits: 10 classes instead of 62.

    Returns:
      A `Task` whose `read_client` gives x float32 [n, 28, 28] in [0, 1] with 1.0 = paper and
      0.0 = ink, and y int32 [n].

    Raises:
      DataError: If there is no such data source, "tff" data cannot be had, or there are too few
        clients for the split.
    """
    if data_source not in DATA_SOURCES:
        raise DataError(
            f"data_source must be one of {', '.join(DATA_SOURCES)}, but is {data_source!r}."
        )
    directory = tff_cache.default_dir() if cache_dir is None else pathlib.Path(cache_dir)
    part = "digits_only" if only_digits else "all"
    splits = (f"{part}_train", f"{part}_test")  # TFF opens both
    if data_source == "auto":
        data_source = _choose_source(directory, splits)
    elif data_source == "tff":
        _require_real(directory, splits)
    if data_source == "tff":
        client_ids, read_client = _load_real(directory, only_digits)
    else:
        client_ids, read_client = embedded.load(seed=_DATA_SEED, only_digits=only_digits)
    return _build_task(data_source, client_ids, read_client, seed, num_test_clients, only_digits)


def _choose_source(directory: pathlib.Path, splits: tuple[str, ...]) -> str:
    """Returns "tff" if the real data are there or can be fetched; otherwise warns."""
    try:
        _fetch_real(directory, splits)
    except DataError as error:
        print(_banner(str(error), directory), file=sys.stderr, flush=True)
        return "embedded"
    return "tff"


def _require_real(directory: pathlib.Path, splits: tuple[str, ...]) -> None:
    """Makes sure that the real data are in the cache, or says what to do."""
    try:
        _fetch_real(directory, splits)
    except DataError as error:
        raise DataError(
            f"EMNIST is not available: {_advice(directory)}, or choose --data_source=embedded "
            f"for synthetic handwriting ({str(error).rstrip('.')})."
        ) from error


def _fetch_real(directory: pathlib.Path, splits: tuple[str, ...]) -> None:
    """Downloads the real data unless they are cached; raises DataError if they are not whole."""
    if not _is_cached(directory, splits):
        tff_cache.check_reachable(URL)
        _download(directory, splits)


def _is_cached(directory: pathlib.Path, splits: tuple[str, ...]) -> bool:
    """Whether the unpacked file is there; a `.lzma` alone is not. Raises if it is damaged."""
    path = directory / FILE_NAME
    if not os.path.lexists(path):
        return False
    tff_cache.check_database(path, splits)
    return True


def _download(directory: pathlib.Path, splits: tuple[str, ...]) -> None:
    """Fetches the file with TFF's downloader, which shows its progress."""
    import tensorflow_federated as tff

    def fetch(aside: str) -> None:
        tff.simulation.datasets.emnist.load_data(cache_dir=aside)

    tff_cache.download(directory / FILE_NAME, splits, fetch, URL)


def _advice(directory: pathlib.Path) -> str:
    """What makes the real data available, as a clause."""
    path = directory / FILE_NAME
    if os.path.lexists(path):
        return f"delete {path} so that it is downloaded again"
    return f"unpack {URL} to {path}"


def _banner(reason: str, directory: pathlib.Path) -> str:
    """Draws the warning that nobody can miss."""
    paragraphs = [
        "WARNING: THIS RUN DOES NOT USE EMNIST",
        f"Why: {reason}",
        "It uses EMBEDDED synthetic handwriting instead. Its figures are not comparable with "
        "EMNIST's.",
        f"For the real data, {_advice(directory)}, or name its directory with --cache_dir. "
        "--data_source=tff refuses to run without them; --data_source=embedded silences this.",
    ]
    width = 92
    lines = [""]
    for paragraph in paragraphs:
        # Long words stay whole: a path or an address must remain copyable.
        lines += textwrap.wrap(paragraph, width, break_long_words=False, break_on_hyphens=False)
        lines.append("")
    rim = "#" * (width + 6)
    return "\n".join(["", rim, *(f"## {line:<{width}} ##" for line in lines), rim, ""])


def _load_real(directory: pathlib.Path, only_digits: bool) -> Clients:
    """Opens the cached file through TFF; `read_client` raises KeyError for unknown ids."""
    import tensorflow as tf
    import tensorflow_federated as tff

    clients, _ = tff.simulation.datasets.emnist.load_data(
        only_digits=only_digits, cache_dir=str(directory)
    )

    known = frozenset(clients.client_ids)
    everything = np.iinfo(np.int64).max

    # Traced once for all clients: a pipeline of its own for each would pile up in memory.
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def read(client_id: tf.Tensor) -> dict[str, tf.Tensor]:
        examples = clients.serializable_dataset_fn(client_id)
        return examples.batch(everything).get_single_element()

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        if client_id not in known:
            raise KeyError(client_id)
        examples = read(tf.constant(client_id))
        return examples["pixels"].numpy(), examples["label"].numpy()

    return tuple(clients.client_ids), read_client


def _build_task(
    data_source: str,
    client_ids: tuple[str, ...],
    read_client: Callable[[str], tuple[np.ndarray, np.ndarray]],
    seed: int,
    num_test_clients: int | None,
    only_digits: bool,
) -> Task:
    """Puts clients, model, loss and metrics together."""
    import tensorflow as tf

    train, validation, test = split_clients(client_ids, _DATA_SEED, num_test_clients)
    return Task(
        name=NAME,
        data_source=data_source,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read_client,
        build_keras_model=functools.partial(build_cnn, seed, 10 if only_digits else 62),
        build_loss=functools.partial(
            tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True
        ),
        build_metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        input_spec=(
            tf.TensorSpec([None, 28, 28], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ),
    )


def build_cnn(seed: int, num_classes: int) -> tf.keras.Model:
    """Builds TFF's EMNIST baseline network without its dropout, ending in logits.

    Args:
      seed: >= 0; fixes the initial weights, each layer's with a seed of its own.
      num_classes: Number of logits.

    Returns:
      An uncompiled model from float32 [n, 28, 28] to float32 [n, num_classes].
    """
    import tensorflow as tf

    layers = tf.keras.layers
    # Operation seeds, not a global one: they hold in any graph that the model is built in.
    seeds = np.random.SeedSequence(seed).generate_state(4) // 2  # int32 for TensorFlow
    glorots = [tf.keras.initializers.GlorotUniform(seed=int(s)) for s in seeds]
    return tf.keras.Sequential(
        [
            layers.Reshape((28, 28, 1), input_shape=(28, 28)),
            layers.Conv2D(32, 3, activation="relu", kernel_initializer=glorots[0]),
            layers.Conv2D(64, 3, activation="relu", kernel_initializer=glorots[1]),
            layers.MaxPool2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu", kernel_initializer=glorots[2]),
            layers.Dense(num_classes, kernel_initializer=glorots[3]),
        ]
    )
