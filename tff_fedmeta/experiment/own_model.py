"""A network or initial weights of the user's own in the place of a task's."""

import dataclasses
from typing import Any

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
    front = task.build_front() if task.build_front is not None else None
    own = task.build_keras_model()
    _check_fit("takes", "inputs", model.inputs, own.inputs if front is None else front.outputs)
    _check_fit("gives", "outputs", model.outputs, own.outputs)
    body = model_fn.with_initial_weights(
        lambda: tf.keras.models.clone_model(model), model.get_weights()
    )

    def build() -> tf.keras.Model:
        if task.build_front is None:
            return body()
        front = task.build_front()
        return tf.keras.Sequential([*front.layers, body()])

    return dataclasses.replace(task, build_keras_model=build)


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
