"""A network or initial weights of the user's own in the place of a task's."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tff_fedmeta.client import model_fn


def replace_network(task: Any, model: tf.keras.Model) -> Any:
    """Returns a task with another network, which starts from that network's weights.

    Layers that a task has in front of its network, such as the normalisation of a table, stay.

    Args:
      task: The `datasets.Task`.
      model: A Keras model, compiled or not.

    Raises:
      ValueError: If the model does not take what the task's own network takes, or gives another
        output.
    """
    own = task.build_keras_model()
    inputs = own.inputs if task.build_front is None else _outputs_of(task.build_front())
    _check_fit("takes", "inputs", model.inputs, inputs)
    _check_fit("gives", "outputs", model.outputs, own.outputs)
    _refuse_probabilities(model)
    body = model_fn.with_initial_weights(
        lambda: tf.keras.models.clone_model(model), model.get_weights()
    )

    def build() -> tf.keras.Model:
        if task.build_front is None:
            return body()
        return tf.keras.Sequential([*task.build_front(), body()])

    return dataclasses.replace(task, build_keras_model=build)


def _outputs_of(layers: list[Any]) -> Any:
    return tf.keras.Sequential(layers).outputs


def _refuse_probabilities(model: tf.keras.Model) -> None:
    """Raises ValueError if a classifier ends in probabilities: the tasks' losses take logits."""
    if model.outputs[0].shape[-1] in (None, 1):
        return
    random = np.random.default_rng(0)

    def make(tensor: Any) -> np.ndarray:
        values = random.uniform(0, 2, [8, *(size or 8 for size in tensor.shape[1:])])
        return values.astype(tensor.dtype.as_numpy_dtype)

    probed = np.asarray(model(tf.nest.map_structure(make, model.inputs)))
    if (probed >= 0).all() and np.allclose(probed.sum(axis=-1), 1, atol=1e-3):
        raise ValueError(
            "--model gives probabilities, but logits are needed: take the softmax off its end."
        )


def replace_initial_weights(task: Any, path: str) -> Any:
    """Returns a task whose network starts from the weights of a `.keras` file.

    Raises:
      ValueError: If the file does not open or has other layers, which are named.
    """
    build = model_fn.with_initial_weights(task.build_keras_model, path)
    return dataclasses.replace(task, build_keras_model=build)


def _check_fit(verb: str, what: str, given: Any, wanted: Any) -> None:
    given, wanted = tf.nest.flatten(given), tf.nest.flatten(wanted)
    fits = len(given) == len(wanted) and all(
        mine.shape.is_compatible_with(theirs.shape) and mine.dtype == theirs.dtype
        for mine, theirs in zip(given, wanted)
    )
    if not fits:
        raise ValueError(
            f"--model {verb} {_in_words(given)}, but the task needs {_in_words(wanted)}: change "
            f"the model's {what}."
        )


def _in_words(tensors: Any) -> str:
    def shape(tensor: Any) -> str:
        sizes = ", ".join("n" if size is None else str(size) for size in tensor.shape)
        return f"[{sizes}] {tensor.dtype.name}"

    return " and ".join(shape(tensor) for tensor in tensors) or "nothing"
