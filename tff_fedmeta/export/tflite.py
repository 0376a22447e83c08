"""A TensorFlow Lite file that adapts: for phones and for computers without TensorFlow."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from tff_fedmeta import checks
from tff_fedmeta.client import layers
from tff_fedmeta.export.adaptable import AdaptableModel
from tff_fedmeta.export.losses import Loss, with_builtin_gradient

ALL, HEAD = "all", "head"

_SELECT_PREFIX = "Flex"  # of the names that select operators have in a file
# How the converter's messages name what it cannot convert; the first that is found is told.
_OPERATIONS = (
    re.compile(r"^(?:Custom|TF Select) ops: (.+)$", re.M),
    re.compile(r"'?tf\.(\w+)'? op"),
    re.compile(r"Op type not registered '(\w+)'"),
)


class ConversionError(ValueError):
    """TensorFlow Lite cannot express the model; the message names the operation."""


class TFLiteFile(NamedTuple):
    """What an application has to know of a file.

    Attributes:
      num_bytes: The size of the file.
      select_ops: The operators that are not built into TensorFlow Lite and need its "Select
        TensorFlow operators" library; empty if the file needs built-in operators alone.
      checkpoints: "file": `save` and `restore` take the path of a file. "arrays": `save` returns
        the weights that adaptation moves and `restore` takes them, because TensorFlow Lite has no
        built-in operator that writes or reads a file.
      signatures: Name -> {"inputs": names, "outputs": names}.
    """

    num_bytes: int
    select_ops: Sequence[str]
    checkpoints: str
    signatures: Mapping[str, Mapping[str, Sequence[str]]]


def to_tflite(
    keras_model: tf.keras.Model,
    *,
    loss: Any,
    inner_learning_rate: float | None = None,
    learned_rates: Sequence[Any] | None = None,
    trainable: str = ALL,
    head_layers: int = 1,
    path: str | os.PathLike[str],
    input_spec: tuple[tf.TensorSpec, tf.TensorSpec] | None = None,
    select_ops: bool | None = None,
) -> TFLiteFile:
    """Writes a TensorFlow Lite file that adapts on the device and predicts.

    It has the signatures of TensorFlow's guide to training on devices; a batch may have any
    number n >= 1 of examples:

    - `train(x, y) -> loss`: one step of adaptation, weight <- weight - rate * gradient, on the
      batch; returns the loss of (y, logits) before the step, a float32 scalar.
    - `infer(x) -> output`: what the model returns, logits in classification.
    - `save(checkpoint_path)`, `restore(checkpoint_path)`: write and read the weights that
      adaptation moves; see `TFLiteFile.checkpoints` for files of built-in operators alone.
    - `reset()`: brings back the weights that the file was made with.

    Args:
      keras_model: The trained model with one input and one output; it is not changed.
      loss: A `tf.keras.losses.Loss`, or a function of (y, output), whose mean over the batch is
        minimised.
      inner_learning_rate: The rate of adaptation, >= 0. Unused with `learned_rates`.
      learned_rates: One rate, or an array of rates of the weight's shape, for each of
        `keras_model.trainable_variables` (Meta-SGD, arXiv:1707.09835).
      trainable: "all" moves all trainable weights, "head" those of the last layers (ANIL,
        arXiv:1909.09157).
      head_layers: How many layers, counted from the last one that has weights, are the head.
      path: The file to write.
      input_spec: The batched (x, y) as `tf.TensorSpec`s, [n, ...]. By default x is the model's
        input, and y is int32 of the output's shape without its last dimension if the loss is a
        sparse one, otherwise float32 of the output's shape.
      select_ops: Whether TensorFlow operators may be used that are not built into TensorFlow Lite.
        None: only where the model needs them. A head behind dense and convolutional layers with a
        loss of `losses.with_builtin_gradient` does not.

    Returns:
      What an application has to know of the file.

    Raises:
      ConversionError: If TensorFlow Lite cannot express the model.
      ValueError: If an argument is out of its range.
    """
    checks.check_choice("trainable", trainable, (ALL, HEAD))
    x_spec, y_spec = input_spec or _default_spec(keras_model, loss)
    _refuse_strings(x=x_spec, y=y_spec)
    moving = _moving(keras_model, trainable, head_layers)
    rates = _rates(keras_model, inner_learning_rate, learned_rates)
    moving_rates = [rates[index] for index in moving]

    def convert_with(loss: Loss, select_ops: bool) -> bytes:
        module = AdaptableModel(keras_model, loss, moving, moving_rates, x_spec, y_spec)
        return convert(module, select_ops)

    content = None
    if select_ops is False or (select_ops is None and trainable == HEAD):
        try:
            content = convert_with(with_builtin_gradient(loss), select_ops=False)
        except ConversionError:  # such as that of a recurrent body
            if select_ops is False:
                raise
    if content is None:
        content = convert_with(loss, select_ops=True)
    path = Path(path)
    aside = path.with_name(path.name + ".partial")
    aside.write_bytes(content)
    os.replace(aside, path)
    return describe(content)


def convert(module: AdaptableModel, select_ops: bool) -> bytes:
    """Converts a module to the content of a TensorFlow Lite file.

    Args:
      module: The module.
      select_ops: Whether operators that are not built into TensorFlow Lite may be used. Without
        them `save` and `restore` pass weights instead of writing files.

    Raises:
      ConversionError: If there is an operation that cannot be converted.
    """
    operators = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if select_ops:
        operators.append(tf.lite.OpsSet.SELECT_TF_OPS)
    with tempfile.TemporaryDirectory() as directory:
        try:
            signatures = module.signatures(checkpoints_in_files=select_ops)
            tf.saved_model.save(module, directory, signatures)
            converter = tf.lite.TFLiteConverter.from_saved_model(directory)
            converter.target_spec.supported_ops = operators
            converter.experimental_enable_resource_variables = True
            with _without_native_messages():
                return converter.convert()
        except Exception as error:  # the converter raises whatever its passes do
            raise ConversionError(
                f"TensorFlow Lite cannot convert the model because of {_operation(error)}."
            ) from error


def describe(content: bytes) -> TFLiteFile:
    """Reads from a file's content what an application has to know."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    custom = [(code.customCode or b"").decode() for code in model.operatorCodes]
    select = {name[len(_SELECT_PREFIX) :] for name in custom if name.startswith(_SELECT_PREFIX)}
    signatures = {
        signature.signatureKey.decode(): {
            "inputs": [tensor.name.decode() for tensor in signature.inputs or ()],
            "outputs": [tensor.name.decode() for tensor in signature.outputs or ()],
        }
        for signature in model.signatureDefs
    }
    by_path = signatures["save"]["inputs"]
    return TFLiteFile(len(content), sorted(select), "file" if by_path else "arrays", signatures)


def _default_spec(keras_model: tf.keras.Model, loss: Any) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    inputs, outputs = (
        tf.nest.flatten(getattr(keras_model, name, None) or []) for name in ("inputs", "outputs")
    )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConversionError(
            "TensorFlow Lite export takes a model of one input and one output, but this one has "
            f"{len(inputs)} and {len(outputs)}; give input_spec if it has not been built."
        )
    shape = [None, *outputs[0].shape[1:]]
    name = str(getattr(loss, "name", None) or getattr(loss, "__name__", loss))
    if "sparse" in name:
        return inputs[0].type_spec, tf.TensorSpec(shape[:-1], tf.int32)
    return inputs[0].type_spec, tf.TensorSpec(shape, tf.float32)


def _refuse_strings(**specs: Any) -> None:
    for name, spec in specs.items():
        if not isinstance(spec, tf.TypeSpec) or not hasattr(spec, "dtype"):
            raise ConversionError(
                f"TensorFlow Lite export takes one tensor as {name}, but it is {spec}."
            )
        if spec.dtype == tf.string:
            raise ConversionError(
                f"TensorFlow Lite cannot train on strings, but {name} is of dtype string: encode "
                "it as numbers in front of the model."
            )


def _moving(keras_model: tf.keras.Model, trainable: str, head_layers: int) -> list[int]:
    if trainable == HEAD:
        return layers.head_variables(keras_model, head_layers)
    return list(range(len(keras_model.trainable_variables)))


def _rates(
    keras_model: tf.keras.Model, rate: float | None, learned: Sequence[Any] | None
) -> list[Any]:
    weights = keras_model.trainable_variables
    if learned is None:
        checks.check_number("inner_learning_rate", rate, 0)
        return [rate] * len(weights)
    rates = [np.asarray(rate) for rate in learned]
    shapes = collections.Counter(
        rate.shape in ((), tuple(weight.shape)) for rate, weight in zip(rates, weights)
    )
    if len(rates) != len(weights) or shapes[False]:
        raise ValueError(
            "learned_rates must have a number or an array of the weight's shape for each of the "
            f"{len(weights)} trainable weights, {[tuple(w.shape) for w in weights]}, but has "
            f"{[rate.shape for rate in rates]}."
        )
    return rates


@contextlib.contextmanager
def _without_native_messages() -> Iterator[None]:
    """Drops what native code writes to stderr: the converter's notes and repeated error texts.

    The exception that it raises holds what matters of them.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _operation(error: Exception) -> str:
    """Names what could not be converted, from an error of TensorFlow or its converter."""
    if "'untracked' resource" in str(error):
        return "a resource that is not a variable, such as a table of a lookup layer"
    for pattern in _OPERATIONS:
        found = pattern.search(str(error))
        if found:
            return f"the operation {found.group(1).strip()}"
    return f"this error: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}"
