"""The classes of an image set of TensorFlow Datasets, for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from datasets.sources import tfds_files
from datasets.task import DataError

if TYPE_CHECKING:
    import tensorflow as tf


def read(
    files: tfds_files.TfdsDataset, image_size: int, color: bool, splits_are_of_classes: bool
) -> dict[str, list[np.ndarray]]:
    """Reads all images and divides their classes.

    Args:
      files: The image set, fetched.
      image_size: Pixels of the side that images are brought to.
      color: Whether they have three channels or one.
      splits_are_of_classes: Whether the classes of the test split differ from the classes of the
        training split even if labels are the same. Otherwise that is so if no label is in both; if
        any is, the splits divide examples, and a fifth of all classes becomes the test's.

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
    unseen = sorted(test)
    if not test or (set(test) & set(train) and not splits_are_of_classes):
        pooled = {
            label: np.concatenate([split[label] for split in (train, test) if label in split])
            for label in sorted({*train, *test})
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
    files: tfds_files.TfdsDataset, split: str, image_size: int, color: bool
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
    image, label = spec["image"], spec["label"]
    is_image = image.shape.rank == 3 and image.shape[-1] in (1, 3) and image.dtype == tf.uint8
    if not is_image or label.shape.rank != 0:
        raise DataError(
            f"An example of {files.name} must have an image of uint8 [height, width, 1 or 3] and a "
            f"single label, but has {image.dtype.name} {image.shape} and {label.shape}."
        )
    batches = dataset.map(prepare, tf.data.AUTOTUNE).batch(1024)
    with files.reading():
        pairs = list(batches.as_numpy_iterator())
    images = np.concatenate([image for image, _ in pairs])
    labels = np.concatenate([label for _, label in pairs])
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    return dict(zip(names.tolist(), np.split(images[order], starts[1:])))
