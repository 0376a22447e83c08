"""Federated EMNIST: handwritten digits and letters, one client per writer (Caldas et al., 2018).

The data are TFF's, `tff.simulation.datasets.emnist`: 3,400 writers, 671,585 training examples,
62 classes in the order digits, upper case, lower case. Images are not inverted: **1.0 is paper
and 0.0 is ink**, the opposite of MNIST. A client here is a writer's TFF *training* examples; we
split between writers (training, validation, test), and each writer's examples again into
support and query later, so TFF's own test examples stay untouched.

If EMNIST is unavailable, synthetic handwriting replaces it, always with a warning.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets import options as schema
from datasets.data_set import About, DataSet, Request
from datasets.sources import choice, tff_files
from datasets.sources.contents import Contents, check_range
from datasets.stand_ins import handwriting
from datasets.task import DATA_SEED, Meaning, Task, initializer_seeds, split_clients

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "emnist"
URL = "https://storage.googleapis.com/tff-datasets-public/emnist_all.sqlite.lzma"
FILE_NAME = "emnist_all.sqlite"
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase

# For the methods whose clients send gradients. All that is set here and below is the best of a
# recorded search: see searches/emnist_hyperparameters.py and searches/emnist_learning_rates.py.
_META_GRADIENTS = {
    "inner_learning_rate": 0.02,
    "server_optimizer": "yogi",
    "server_learning_rate": 0.03,
    "server_schedule": "linear",
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
        # A rate that falls to 0 over 200 rounds stops before it has arrived.
        "reptile": {
            "inner_learning_rate": 0.1,
            "server_learning_rate": 1.5,
            "server_schedule": "constant",
        },
        "fedavg": {"inner_learning_rate": 0.1, "server_learning_rate": 1.5},
        "fedprox": {"inner_learning_rate": 0.1, "server_learning_rate": 1.5},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "anil")},
        # That step is too long for rates. Without the warm-up Adam's can leave the accuracy at that
        # of guessing for good.
        "meta_sgd": {
            **_META_GRADIENTS,
            "server_optimizer": "adam",
            "server_learning_rate": 0.003,
            "server_warmup": 20,
        },
        "per_fedavg": {
            "inner_learning_rate": 0.02,
            "meta_learning_rate": 0.2,
            "first_order": True,
            "server_learning_rate": 1.5,
            "server_schedule": "linear",
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of EMNIST; their `option` says what each means."""

    only_digits: bool = schema.option(False, "Ten classes instead of 62.")


ABOUT = About(
    source="tff",
    clients="3,400 writers, on average 198 characters each",
    model="CNN, 1.2 million weights",
    metric="accuracy",
    download="171 MB, unpacked some gigabytes",
    licence="NIST Special Database 19: public domain",
    splits_clients=True,
)

ReadClient = Callable[[str], tuple[np.ndarray, np.ndarray]]


def load(request: Request) -> Task:
    """Loads federated EMNIST, or its synthetic stand-in if requested or if EMNIST is unavailable.

    Returns:
      A `Task` whose `read_client` gives x float32 [n, 28, 28] in [0, 1] with 1.0 = paper and
      0.0 = ink, and y int32 [n].

    Raises:
      DataError: If "tff" data cannot be had, or there are too few clients for the split.
    """
    only_digits = request.options.only_digits
    part = "digits_only" if only_digits else "all"
    file = tff_files.TffFile(
        URL,
        tff_files.directory(request.cache_dir) / FILE_NAME,
        (f"{part}_train", f"{part}_test"),  # TFF opens both
        _download,
    )
    real = choice.RealData(ABOUT, "EMNIST", "synthetic handwriting", file.fetch, file.advice)
    data_source = choice.resolve_source(request.data_source, real)
    embedded = data_source == choice.EMBEDDED
    if embedded:
        client_ids, read_client = handwriting.load(seed=DATA_SEED, only_digits=only_digits)
    else:
        client_ids = tff_files.client_ids(file.path, f"{part}_train")
    groups = split_clients(client_ids, request.split_seed, request.num_test_clients)
    request.announce(groups[0], np.int32)
    if not embedded:
        read_client = _open(file.path.parent, only_digits)
    return _build_task(request, data_source, groups, read_client)


def _download(directory: str) -> None:
    """Fetches the file with TFF's downloader, which shows its progress."""
    import tensorflow_federated as tff

    tff.simulation.datasets.emnist.load_data(cache_dir=directory)


def _open(directory: pathlib.Path, only_digits: bool) -> ReadClient:
    """Opens the cached file through TFF; what it returns raises KeyError for unknown ids."""
    import tensorflow_federated as tff

    clients, _ = tff.simulation.datasets.emnist.load_data(
        only_digits=only_digits, cache_dir=str(directory)
    )
    part = "digits_only" if only_digits else "all"
    contents = Contents(
        directory / FILE_NAME,
        f"{part}_train",
        {"pixels": ("float", 28 * 28), "label": ("int64", 1)},
        functools.partial(_check_examples, 10 if only_digits else 62),
    )
    read = tff_files.build_reader(clients, ("pixels", "label"), contents)
    read(clients.client_ids[0])  # what is wrong with all clients is said before any training

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        examples = read(client_id)
        return examples["pixels"], examples["label"]

    return read_client


def _check_examples(num_classes: int, examples: Mapping[str, np.ndarray]) -> str | None:
    """Returns what is wrong with pixels or labels of a client."""
    pixels = check_range("pixels", examples["pixels"], 0, 1)
    if pixels is not None and examples["pixels"].max() > 1:
        pixels += " (values up to 255 are to be divided by 255; 1 is paper, 0 is ink)"
    return pixels or check_range("label", examples["label"], 0, num_classes - 1)


def _build_task(
    request: Request,
    data_source: str,
    groups: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
    read_client: ReadClient,
) -> Task:
    """Puts clients, model, loss and metrics together."""
    import tensorflow as tf

    train, validation, test = groups
    return Task(
        name=NAME,
        data_source=data_source,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=read_client,
        build_keras_model=functools.partial(
            build_cnn, request.seed, 10 if request.options.only_digits else 62
        ),
        build_loss=functools.partial(
            tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True
        ),
        build_metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        input_spec=(
            tf.TensorSpec([None, 28, 28], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ),
        meaning=Meaning(
            inputs="a grey image of 28 x 28, 1.0 = paper and 0.0 = ink",
            target="the character's place in the list of classes, from 0",
            output="a logit for each class",
            classes=list(CHARACTERS[:10] if request.options.only_digits else CHARACTERS),
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
    glorots = [tf.keras.initializers.GlorotUniform(seed=s) for s in initializer_seeds(seed, 4)]
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


DATASET = DataSet(NAME, ABOUT, Options, DEFAULTS, load)
