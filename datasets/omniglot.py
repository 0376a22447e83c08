"""Few-shot classification: every client is a task of its own, as in Omniglot's benchmark.

A client has to tell N classes apart (`ways`) that it has K images of each (`shots`). Which classes
they are, and which of them is called 0, is drawn from the client's id, so that no single model can
know; what can be learnt is to tell new classes apart from a few images. Classes of training,
validation and test clients are disjoint.

The images are Omniglot's (Lake, Salakhutdinov and Tenenbaum, Science 350, 2015) from TensorFlow
Datasets, or classes of any other image set there. Network and settings come from the Reptile paper
(Nichol, Achiam and Schulman, arXiv:1803.02999, section 6 and appendix A), but for the inner
optimizer: theirs keeps Adam's state from task to task, which no federation can.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from datasets import memory
from datasets import options as schema
from datasets.data_set import About, DataSet, Request
from datasets.problems import few_shot, image_classes
from datasets.sources import choice, tfds_files
from datasets.stand_ins import characters
from datasets.task import DataError, Meaning, Measures, Task, number_clients

NAME = "omniglot"
NUM_CLIENTS = {"train": 100_000, "validation": 50, "test": 150}
QUERY_SHOTS = 1  # images of a class that a client is judged on

# What the paper sets by the number of ways: up to the first number, or above it.
_MANY_WAYS = 10
_FEW = {"batch_size": 10, "inner_steps": 5, "adaptation_batch_size": 5}
_MANY = {"batch_size": 20, "inner_steps": 10, "adaptation_batch_size": 10}
_META_GRADIENTS = {
    "inner_learning_rate": 0.1,
    "server_learning_rate": 0.003,
    "server_schedule": "linear",
}

# What a run on this data set starts from, where nothing else is asked for; see `adjust`.
DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedsgd"),
    "rounds": 200,
    "clients_per_round": 5,
    **_FEW,
    "adaptation_steps": 50,
    "adaptation_learning_rates": (0.05, 0.1),
    "rounds_per_evaluation": 100,
    "rounds_per_checkpoint": 100,
    "split": "ordered",
    "hyperparameters": {
        "reptile": {"inner_learning_rate": 0.1},
        "fedavg": {"inner_learning_rate": 0.1},
        "fedprox": {"inner_learning_rate": 0.1},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "meta_sgd", "anil")},
        "per_fedavg": {
            "inner_learning_rate": 0.1,
            "meta_learning_rate": 0.1,
            "server_schedule": "linear",
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of few-shot tasks; their `option` says what each means.

    Raises:
      DataError: If a value is out of its range.
    """

    ways: int = schema.option(5, "Classes of a client.", at_least=2, at_most=10_000)
    shots: int = schema.option(
        5, "Images of a class that adaptation learns from.", at_least=1, at_most=10_000
    )
    train_shots: int = schema.option(
        10,
        "Images of a class that a training client has, more than shots.",
        at_least=2,
        at_most=10_000,
    )
    rotations: bool = schema.option(
        True, "Whether characters turned by 90, 180 and 270 degrees are training classes too."
    )
    tfds_name: str = schema.option(
        "omniglot", "An image set of TensorFlow Datasets with features image and label."
    )
    image_size: int = schema.option(28, "Pixels of an image's side.", at_least=16, at_most=1024)
    color: bool = schema.option(False, "Whether images keep three channels, or are made grey.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_shots <= self.shots:
            raise DataError(
                f"train_shots must be a whole number >= {self.shots + 1}, more than shots, but is "
                f"{self.train_shots}."
            )


ABOUT = About(
    source="tfds",
    clients="tasks of 5 characters drawn from 1,623 of 50 alphabets, 20 images each",
    model="convolutional network, 4 layers of 64, 112,965 weights",
    metric="accuracy, transductive and not",
    download="18 MB",
    licence="MIT",
)


def adjust(options: Options) -> dict[str, Any]:
    """Returns what of DEFAULTS depends on the options: the paper's settings for ways and shots."""
    return {
        **(_FEW if options.ways <= _MANY_WAYS else _MANY),
        "support_fraction": options.shots / (options.shots + QUERY_SHOTS),
        "training_support_fraction": options.shots / options.train_shots,
    }


def load(request: Request) -> Task:
    """Loads few-shot tasks, of synthetic characters if requested or if the images are unavailable.

    Clients are drawn from their ids: `num_test_clients` is 150 by default.

    Returns:
      A `Task` whose `read_client` gives x float32 [n, image_size, image_size, channels], 0 = white
      and 1 = black, and y int32 [n] in [0, ways), one image of each class after the other.

    Raises:
      DataError: If the images cannot be had, or there are too few of them for such tasks.
    """
    options: Options = request.options
    ways, image_size = options.ways, options.image_size
    ids = number_clients(NUM_CLIENTS, request.num_test_clients, digits=6)
    request.announce(ids["train"], np.int32)
    files = tfds_files.TfdsDataset(
        options.tfds_name, ("train",), ("image", "label"), request.cache_dir
    )
    real = choice.RealData(
        about=ABOUT,
        title="Omniglot" if options.tfds_name == "omniglot" else options.tfds_name,
        stand_in="synthetic characters",
        fetch=files.fetch,
        advice=files.advice,
        check=files.find,
    )
    channels = 3 if options.color else 1
    source = choice.resolve_source(request.data_source, real)
    per_class = {"train": options.train_shots, "validation": options.shots + QUERY_SHOTS}
    per_class["test"] = per_class["validation"]
    if source == choice.EMBEDDED:
        for group, number in characters.NUM_CLASSES.items():
            _check_enough(group, [characters.IMAGES_PER_CLASS] * number, ways, per_class[group])
        number = characters.IMAGES_PER_CLASS * sum(characters.NUM_CLASSES.values())
        _check_memory(number, image_size, channels)
        classes = characters.draw(image_size, channels)
    else:
        if ways > (most := files.num_classes("label")):
            raise DataError(f"--ways must be at most {most}, the classes of {files.name}: {ways}.")
        _check_memory(files.num_examples(), image_size, channels)
        classes = image_classes.read(
            files, image_size, options.color, options.tfds_name == "omniglot"
        )
        for group, images in classes.items():
            _check_enough(group, list(map(len, images)), ways, per_class[group])
    import tensorflow as tf

    known = frozenset(client_id for group in ids.values() for client_id in group)

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        if client_id not in known:
            raise KeyError(client_id)
        group = client_id.split("_")[0]
        turns = options.rotations and group == "train"
        return few_shot.draw_client(client_id, classes[group], ways, per_class[group], turns)

    return Task(
        name=NAME,
        data_source=source,
        train_clients=ids["train"],
        validation_clients=ids["validation"],
        test_clients=ids["test"],
        read_client=read_client,
        build_keras_model=functools.partial(
            few_shot.build_cnn, ways, image_size, channels, request.seed
        ),
        build_loss=functools.partial(
            tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True
        ),
        build_metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
        input_spec=(
            tf.TensorSpec([None, image_size, image_size, channels], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ),
        split="ordered",
        measures=Measures(few_shot.measure_client, few_shot.EXPLANATION),
        meaning=Meaning(
            inputs=f"an image of {image_size} x {image_size} x {channels}, 0 = white and 1 = black",
            target=f"which of the client's own {ways} classes it is, from 0",
            output="a logit for each of the client's own classes",
        ),
    )


def _check_memory(number: int, image_size: int, channels: int) -> None:
    memory.check(
        number * image_size**2 * channels,
        f"Keeping {number:,} images with --image_size={image_size}",
    )


def _check_enough(group: str, images: Sequence[int], ways: int, per_class: int) -> None:
    """Raises DataError unless a client of the group can be drawn from so many images a class."""
    fewest = min(images, default=0)
    if len(images) < ways or fewest < per_class:
        raise DataError(
            f"A {group} client takes {per_class} images of each of {ways} classes, but there are "
            f"{len(images)} {group} classes, the smallest with {fewest} images: use smaller "
            "--ways, --shots or --train_shots, or another --tfds_name."
        )


DATASET = DataSet(NAME, ABOUT, Options, DEFAULTS, load, adjust=adjust)
