"""A Keras model of the user's for tables: does it fit, and copies of it for every graph."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets.task import DataError

if TYPE_CHECKING:
    import tensorflow as tf


def layers_of(
    saved: tf.keras.Model, input_shape: Sequence[int], num_outputs: int
) -> Callable[[], list[tf.keras.layers.Layer]]:
    """Returns a function that builds copies of a model, weights included, in any graph.

    Args:
      saved: The model.
      input_shape: Of one example.
      num_outputs: Logits, or 1 for a quantity.

    Raises:
      DataError: If the model does not map such examples to such outputs.
    """
    import tensorflow as tf

    _check_fit(saved, input_shape, num_outputs)

    def clone(creator: Callable[..., tf.Variable]) -> tf.keras.Model:
        with tf.variable_creator_scope(creator):
            return tf.keras.models.clone_model(saved)

    created: list[tf.Variable] = []

    # Only weights state a shape; Keras' random generators, which come and go, do not.
    def record(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        variable = next_creator(**options)
        if options.get("shape") is not None:
            created.append(variable)
        return variable

    value_of = dict(zip(map(id, clone(record).weights), saved.get_weights()))
    values = [value_of[id(variable)] for variable in created]

    def build() -> list[tf.keras.layers.Layer]:
        # As initial values, because TFF reads them from the graph, where nothing can be assigned.
        remaining = iter(values)

        def create(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
            if options.get("shape") is not None:
                options["initial_value"] = functools.partial(tf.constant, next(remaining))
            return next_creator(**options)

        return [clone(create)]

    return build


def _check_fit(model: tf.keras.Model, input_shape: Sequence[int], num_outputs: int) -> None:
    """Raises DataError unless the model maps examples to logits, or to a quantity."""
    import tensorflow as tf

    if not model.built or not isinstance(model, tf.keras.Model) or len(model.inputs or []) != 1:
        raise DataError("--model must be a Keras model with one input of a known shape.")
    wanted = (None, *input_shape)
    (entry,) = model.inputs
    if not entry.shape.is_compatible_with(wanted) or not entry.dtype.is_floating:
        raise DataError(
            f"--model takes {_shape(entry.shape)} {entry.dtype.name}, but the examples are "
            f"{_shape(wanted)} float32: change the model's input, the features or --window."
        )
    outputs = model.outputs
    fits = [(None, num_outputs)] + [(None,)] * (num_outputs == 1)
    if len(outputs) != 1 or tuple(outputs[0].shape) not in fits:
        given = ", ".join(_shape(output.shape) for output in outputs)
        raise DataError(
            f"--model gives {given}, but {_shape(fits[0])} is needed: a logit for each class, or "
            "one number in regression."
        )
    if num_outputs > 1:
        shape = [8, *(size or 8 for size in entry.shape[1:])]
        probed = model(np.random.default_rng(0).normal(size=shape).astype(np.float32)).numpy()
        if (probed >= 0).all() and np.allclose(probed.sum(axis=-1), 1, atol=1e-3):
            raise DataError(
                "--model gives probabilities, but logits are needed: take the softmax off its end."
            )


def _shape(shape: Any) -> str:
    return f"[{', '.join('n' if size is None else str(size) for size in shape)}]"
