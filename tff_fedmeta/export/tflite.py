"""A TensorFlow Lite file that adapts: for phones and for computers without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tff_fedmeta.export import ConversionError, adaptation
from tff_fedmeta.export.adaptable import AdaptableModel
from tff_fedmeta.export.conversion import TFLiteFile, convert, describe
from tff_fedmeta.export.losses import with_builtin_gradient


def to_tflite(
    keras_model: tf.keras.Model,
    *,
    loss: Any,
    inner_learning_rate: float | None = None,
    learned_rates: Sequence[Any] | None = None,
    trainable: str = adaptation.ALL,
    head_layers: int = 1,
    proximal_strength: float = 0.0,
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
        `keras_model.trainable_variables` (Meta-SGD, arXiv:1707.09835); or for all of them an array
        [steps, 1, ...], a rate for each step, the last one for all further steps.
      trainable: "all" moves all trainable weights, "head" those of the last layers (ANIL,
        arXiv:1909.09157).
      head_layers: How many layers, counted from the last one that has weights, are the head.
      proximal_strength: How strongly steps are held to the weights that the file is made with, >= 0
        (pFedMe, arXiv:2006.08848): the gradient is of loss + strength / 2 * ||weights - those||^2.
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
    how = adaptation.resolve(
        keras_model,
        loss,
        inner_learning_rate,
        learned_rates,
        trainable,
        head_layers,
        proximal_strength,
        input_spec,
    )
    for name, spec in (("x", how.x_spec), ("y", how.y_spec)):
        if spec.dtype == tf.string:
            raise ConversionError(
                f"TensorFlow Lite cannot train on strings, but {name} is of dtype string: encode "
                "it as numbers in front of the model."
            )
    content = None
    if select_ops is False or (select_ops is None and trainable == adaptation.HEAD):
        try:
            builtin = how._replace(loss=with_builtin_gradient(loss))
            content = convert(AdaptableModel(builtin), select_ops=False)
        except ConversionError:  # such as that of a recurrent body
            if select_ops is False:
                raise
    if content is None:
        content = convert(AdaptableModel(how), select_ops=True)
    path = Path(path)
    aside = path.with_name(path.name + ".partial")
    aside.write_bytes(content)
    os.replace(aside, path)
    return describe(content)
