"""Opens Keras files that come from elsewhere: the one place where this package does.

A `.keras` file is a zip archive of a configuration and weights. Keras' own safe mode refuses Python
lambdas, but runs TensorFlow operations that the configuration names, imports the modules that it
names and unpacks assets. Here the file is read first, without TensorFlow: three members of bounded
size, a configuration of allowed objects (`allowed`), weights that are plain numbers (`hdf5`). Keras
then gets a copy of exactly what was read, and may create only as many weights as the file holds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

from tff_fedmeta.keras_files import archive, hdf5
from tff_fedmeta.keras_files import config as configuration
from tff_fedmeta.keras_files.archive import Archive, check_archive
from tff_fedmeta.keras_files.errors import KerasFileError, Refusal, first_line

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Archive", "KerasFileError", "check_archive", "load_weights", "open_model"]

_MAX_NORMALISED = 2**24  # numbers of one example


def open_model(path: str | os.PathLike[str]) -> tf.keras.Model:
    """Opens a `.keras` file from elsewhere: a Sequential or functional model of Keras' own layers.

    Args:
      path: The file.

    Returns:
      The built model with its weights, uncompiled: optimizer, losses and metrics are not read.

    Raises:
      KerasFileError: If it is not there, damaged, refused, or Keras cannot build it.
    """
    path = os.path.expanduser(path)
    checked = check_archive(path)
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="keras-file-") as directory:
        # What was checked, not what may have taken its place by now.
        copy = os.path.join(directory, "model.keras")
        with zipfile.ZipFile(copy, "w") as members:
            members.writestr(archive.METADATA, "{}")
            members.writestr(archive.CONFIG, json.dumps(checked.config))
            members.writestr(archive.WEIGHTS, checked.weights)
        try:
            creator = _bounded(checked.num_weights)
            with tf.variable_creator_scope(creator), _bounded_normalization():
                model = tf.keras.models.load_model(copy, compile=False, safe_mode=True)
        except Refusal as error:
            raise KerasFileError(f"{path} is not opened: {error}.") from error
        except Exception as error:  # whatever an unfit file makes Keras raise
            raise KerasFileError(
                f"{path} cannot be opened by Keras of TensorFlow {tf.__version__}: "
                f"{first_line(error)}."
            ) from error
    _check_outputs(path, model)
    return model


def load_weights(model: tf.keras.Model, path: str | os.PathLike[str]) -> tf.keras.Model:
    """Sets a model's weights from a `.weights.h5` file from elsewhere.

    Args:
      model: A built model.
      path: What `model.save_weights` wrote for the same architecture.

    Returns:
      `model`.

    Raises:
      KerasFileError: If the file is not there, damaged or refused, or has other weights.
    """
    path = pathlib.Path(path)
    archive.check_regular(path, ".weights.h5")
    try:
        if path.stat().st_size > archive.MAX_BYTES[archive.WEIGHTS]:
            raise Refusal(f"it has more than {archive.MAX_BYTES[archive.WEIGHTS]:,} bytes")
        content = path.read_bytes()
        hdf5.check(content)
    except Refusal as error:
        raise KerasFileError(f"{path} is not opened: {error}.") from error
    except OSError as error:
        raise KerasFileError(f"{path} cannot be read ({error}).") from error
    with tempfile.TemporaryDirectory(prefix="keras-file-") as directory:
        copy = pathlib.Path(directory, "model.weights.h5")
        copy.write_bytes(content)
        try:
            model.load_weights(copy)
        except Exception as error:  # whatever other weights make Keras raise
            raise KerasFileError(f"{path} does not fit the model: {first_line(error)}.") from error
    return model


def _bounded(num_weights: int) -> Callable[..., Any]:
    """Returns a variable creator that refuses more numbers than the file has weights for.

    Twice as many and a million, because a stateful layer has variables that are not saved.
    """
    import tensorflow as tf

    remaining = [2 * num_weights + 10**6]

    def create(next_creator: Callable[..., Any], **options: Any) -> Any:
        shape = options.get("shape")
        if shape is not None and None not in tuple(shape):
            remaining[0] -= math.prod(tuple(shape))
            if remaining[0] < 0:
                scope = tf.get_current_name_scope() or str(options.get("name"))
                raise Refusal(
                    f"its layer {scope.rstrip('/')!r} has weights of shape {list(shape)}, but the "
                    f"file holds {num_weights:,} numbers"
                )
        return next_creator(**options)

    return create


@contextlib.contextmanager
def _bounded_normalization() -> Iterator[None]:
    """Keeps `Normalization` from spreading a mean over an axis that no memory holds.

    It is the one layer that makes an array of its input's shape while it is built. Which shape that
    is follows from all layers before it, so it is known no earlier.
    """
    import tensorflow as tf

    kind = tf.keras.layers.Normalization
    build = kind.build

    def checked(self: tf.keras.layers.Layer, input_shape: Any) -> None:
        numbers = math.prod(size for size in tf.TensorShape(input_shape).as_list() if size)
        if numbers > _MAX_NORMALISED:
            raise Refusal(f"its layer {self.name!r} takes tensors of {numbers:,} numbers")
        build(self, input_shape)

    kind.build = checked
    try:
        yield
    finally:
        kind.build = build


def _check_outputs(path: str | os.PathLike[str], model: tf.keras.Model) -> None:
    """Raises KerasFileError if a layer makes a tensor of one example that is out of all measure."""
    import tensorflow as tf

    for layer in model.submodules:
        if not isinstance(layer, tf.keras.layers.Layer):
            continue
        for shape in _output_shapes(layer):
            numbers = math.prod(size for size in shape if size)
            if numbers > configuration.MAX_NUMBERS:
                raise KerasFileError(
                    f"{path} is not opened: its layer {layer.name!r} makes {numbers:,} numbers of "
                    "one example."
                )


def _output_shapes(layer: tf.keras.layers.Layer) -> Iterator[tuple[int | None, ...]]:
    """Yields the shapes of what a layer gives, for each of its calls that Keras remembers."""
    for call in itertools.count():
        try:
            shapes = [layer.get_output_shape_at(call)]
        except (AttributeError, RuntimeError, ValueError):
            return  # there were no more
        while shapes:
            shape = shapes.pop()
            if isinstance(shape, dict):
                shapes += shape.values()
            elif isinstance(shape, list) or (shape and isinstance(shape[0], tuple)):
                shapes += shape
            else:
                yield tuple(shape)
