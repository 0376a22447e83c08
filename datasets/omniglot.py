"""Few-shot classification: every client is a task of its own, as in Omniglot's benchmark.

A client has to tell N classes apart (`ways`) that it has K images of each (`shots`). Which classes
they are, and which of them is called 0, is drawn from the client's id, so that no single model can
know; what can be learnt is to tell new classes apart from a few images. Classes of training,
validation and test clients are disjoint.

The images are Omniglot's (Lake, Salakhutdinov and Tenenbaum, Science 350, 2015) from TensorFlow
Datasets, or those of any other image set there. Network and settings are those of the Reptile paper
(Nichol, Achiam and Schulman, arXiv:1803.02999, section 6 and appendix A), but for the inner
optimizer: theirs keeps Adam's state from task to task, which no federation can.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets import embedded_characters, sources, tfds_files
from datasets.task import DataError, Measures, Task, initializer_seeds, splitting

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "omniglot"
NUM_CLIENTS = {"train": 100_000, "validation": 50, "test": 200}
QUERY_SHOTS = 1  # images of a class that a client is judged on

# What the paper sets by the number of ways: up to the first number, or above it.
_MANY_WAYS = 10
_FEW = {"batch_size": 10, "inner_steps": 5, "adaptation_batch_size": 5}
_MANY = {"batch_size": 20, "inner_steps": 10, "adaptation_batch_size": 10}
_META_GRADIENTS = {
    "inner_learning_rate": 0.1,
    "server_learning_rate": 0.003,
    "server_decay": True,
}

# What a run on this data set starts from, where nothing else is asked for; see `configure`.
DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedsgd"),
    "rounds": 400,
    "clients_per_round": 5,
    **_FEW,
    "adaptation_steps": 50,
    "adaptation_learning_rates": (0.02, 0.05, 0.1),
    "rounds_per_evaluation": 200,
    "rounds_per_checkpoint": 200,
    "hyperparameters": {
        "reptile": {"inner_learning_rate": 0.1},
        "fedavg": {"inner_learning_rate": 0.1},
        "fedprox": {"inner_learning_rate": 0.1},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "meta_sgd", "anil")},
        "per_fedavg": {
            "inner_learning_rate": 0.1,
            "meta_learning_rate": 0.1,
            "server_decay": True,
        },
    },
}

OPTIONS = {
    "ways": sources.Option(int, 5, "Classes of a client, >= 2."),
    "shots": sources.Option(int, 5, "Images of a class that adaptation learns from, >= 1."),
    "train_shots": sources.Option(
        int, 10, "Images of a class that a training client has, > shots."
    ),
    "rotations": sources.Option(
        bool, True, "Whether characters turned by 90, 180 and 270 degrees are training classes too."
    ),
    "tfds_name": sources.Option(
        str, "omniglot", "An image set of TensorFlow Datasets with features image and label."
    ),
    "image_size": sources.Option(int, 28, "Pixels of an image's side, >= 16."),
    "color": sources.Option(bool, False, "Whether images keep three channels, or are made grey."),
}
ABOUT = sources.About(
    source="tfds",
    clients="tasks of 5 characters drawn from 1,623 of 50 alphabets, 20 images each",
    model="convolutional network, 4 layers of 64, 112,965 weights",
    metric="accuracy, transductive and not",
    download="18 MB",
    licence="MIT",
)


def configure(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns options and DEFAULTS of a run: the paper's settings for so many ways and shots.

    Raises:
      DataError: If a number is out of its range.
    """
    ranges = {"ways": 2, "shots": 1, "train_shots": options["shots"] + 1, "image_size": 16}
    for name, least in ranges.items():
        if options[name] < least:
            raise DataError(f"--{name} must be >= {least}, but is {options[name]}.")
    hyperparameters = splitting(
        DEFAULTS["hyperparameters"],
        split="ordered",
        support_fraction=options["shots"] / options["train_shots"],
    )
    return dict(options), {
        **DEFAULTS,
        **(_FEW if options["ways"] <= _MANY_WAYS else _MANY),
        "support_fraction": options["shots"] / (options["shots"] + QUERY_SHOTS),
        "hyperparameters": hyperparameters,
    }


def load(
    *,
    data_source: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    num_test_clients: int | None = None,
    ways: int = 5,
    shots: int = 5,
    train_shots: int = 10,
    rotations: bool = True,
    tfds_name: str = "omniglot",
    image_size: int = 28,
    color: bool = False,
) -> Task:
    """Loads the images and makes the task.

    Args:
      data_source: "auto", "tfds" or "embedded", see `sources.choose`.
      cache_dir: TFDS's `data_dir`; None means its own, `~/tensorflow_datasets`.
      seed: >= 0; fixes the initial weights. Clients are the same for every seed.
      num_test_clients: >= 1; None means 200.
      ways: N, the classes of a client, >= 2.
      shots: K, the images of a class that adaptation learns from, >= 1. Validation and test clients
        have one more of each class, to be judged on.
      train_shots: The images of a class that a training client has, > `shots`.
      rotations: Whether quarter turns of a class are further training classes.
      tfds_name: The image set's name in TFDS. Its features are `image` and `label`. If its split
        `test` has classes that `train` has not, those are the test classes; otherwise a fifth of
        all classes is.
      image_size: Pixels of the side that images are shrunk or enlarged to, >= 16.
      color: Whether images have three channels, or one.

    Returns:
      A `Task` whose `read_client` gives x float32 [n, image_size, image_size, channels], 0 = white
      and 1 = black, and y int32 [n] in [0, ways), one image of each class after the other.

    Raises:
      DataError: If the images cannot be had, or there are too few of them for such tasks.
    """
    options = dict(ways=ways, shots=shots, train_shots=train_shots, image_size=image_size)
    configure(options)
    if num_test_clients is not None and num_test_clients < 1:
        raise DataError(f"num_test_clients must be >= 1, but is {num_test_clients}.")
    files = tfds_files.Files(tfds_name, ("train",), ("image", "label"), cache_dir)
    if data_source != sources.EMBEDDED:
        files.find()  # a wrong name must not end in the stand-in
    real = sources.RealData(
        about=ABOUT,
        title="Omniglot" if tfds_name == "omniglot" else tfds_name,
        stand_in="synthetic characters",
        fetch=files.fetch,
        advice=files.advice,
    )
    import tensorflow as tf

    source = sources.choose(data_source, real)
    if source == sources.EMBEDDED:
        classes = embedded_characters.draw(image_size, 3 if color else 1)
    else:
        classes = read_classes(files, image_size, color)
    per_class = {"train": train_shots, "validation": shots + QUERY_SHOTS}
    per_class["test"] = per_class["validation"]
    for group, images in classes.items():
        _check_enough(group, images, ways, per_class[group])

    sizes = {**NUM_CLIENTS, "test": num_test_clients or NUM_CLIENTS["test"]}
    ids = {group: tuple(f"{group}_{i:06d}" for i in range(n)) for group, n in sizes.items()}
    known = frozenset(client_id for group in ids.values() for client_id in group)

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        if client_id not in known:
            raise KeyError(client_id)
        group = client_id.split("_")[0]
        turns = rotations and group == "train"
        return draw_client(client_id, classes[group], ways, per_class[group], turns)

    channels = 3 if color else 1
    return Task(
        name=NAME,
        data_source=source,
        train_clients=ids["train"],
        validation_clients=ids["validation"],
        test_clients=ids["test"],
        read_client=read_client,
        build_keras_model=functools.partial(build_cnn, ways, image_size, channels, seed),
        build_loss=functools.partial(
            tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True
        ),
        build_metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
        input_spec=(
            tf.TensorSpec([None, image_size, image_size, channels], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ),
        split="ordered",
        measures=Measures(measure_client, _EXPLANATION),
    )


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


def read_classes(
    files: tfds_files.Files, image_size: int, color: bool
) -> dict[str, list[np.ndarray]]:
    """Reads all images and divides their classes.

    Args:
      files: The image set, fetched.
      image_size: Pixels of the side that images are brought to.
      color: Whether they have three channels or one.

    Returns:
      For "train", "validation" and "test" a list of classes, each uint8 [n, size, size, channels].

    Raises:
      DataError: If the files are damaged, or no image or label is what it should be.
    """
    by_split = {
        split: _read_split(files, split, image_size, color)
        for split in ("train", "test")
        if split in files.find().info.splits
    }
    train, test = by_split["train"], by_split.get("test", {})
    rng = np.random.default_rng(0)
    unseen = sorted(set(test) - set(train))
    if not unseen:  # the splits divide examples, not classes
        pooled = {
            label: np.concatenate([split[label] for split in (train, test) if label in split])
            for label in sorted(train)
        }
        order = rng.permutation(sorted(pooled)).tolist()
        unseen, seen = order[: -(-len(order) // 5)], order[-(-len(order) // 5) :]
        train, test = {label: pooled[label] for label in seen}, pooled
    order = rng.permutation(sorted(train)).tolist()
    # A twentieth, of Omniglot 48; of small sets more, as clients have to differ.
    num_validation = min(max(20, len(order) // 20), -(-len(order) // 5))
    return {
        "train": [train[label] for label in order[num_validation:]],
        "validation": [train[label] for label in order[:num_validation]],
        "test": [test[label] for label in unseen],
    }


def _read_split(
    files: tfds_files.Files, split: str, image_size: int, color: bool
) -> dict[int, np.ndarray]:
    """Reads one split: label -> uint8 [n, size, size, channels], in the order of the files."""
    import tensorflow as tf

    def prepare(example: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.cast(example["image"], tf.float32)
        if color and image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        elif not color and image.shape[-1] == 3:
            image = tf.image.rgb_to_grayscale(image)
        # Averages over the pixels that fall into one, so that thin strokes stay.
        image = tf.image.resize(image, [image_size, image_size], method="area")
        return tf.cast(tf.round(image), tf.uint8), example["label"]

    dataset = files.examples(split)
    spec = dataset.element_spec
    if spec["image"].shape.rank != 3 or spec["label"].shape.rank != 0:
        raise DataError(
            f"{files.name} must have one image and one class label an example, but has "
            f"image {spec['image'].shape} and label {spec['label'].shape}."
        )
    batches = dataset.map(prepare, tf.data.AUTOTUNE).batch(1024)
    with files.reading():
        pairs = list(batches.as_numpy_iterator())
    images = np.concatenate([image for image, _ in pairs])
    labels = np.concatenate([label for _, label in pairs])
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    return dict(zip(names.tolist(), np.split(images[order], starts[1:])))


def _check_enough(group: str, images: Sequence[np.ndarray], ways: int, per_class: int) -> None:
    """Raises DataError unless a client of the group can be drawn."""
    fewest = min((len(of_class) for of_class in images), default=0)
    if len(images) < ways or fewest < per_class:
        raise DataError(
            f"A {group} client takes {per_class} images of each of {ways} classes, but there are "
            f"{len(images)} {group} classes, the smallest with {fewest} images: use smaller "
            "--ways, --shots or --train_shots, or another --tfds_name."
        )


def build_cnn(ways: int, image_size: int, channels: int, seed: int) -> tf.keras.Model:
    """Builds the paper's network: four convolutions of 64 with stride 2, normalised by batch.

    The normalisation is by the images that are predicted together, in training and afterwards
    alike: it has no moving statistics, so that there is nothing that federated learning would not
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


_EXPLANATION = (
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
