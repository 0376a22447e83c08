"""A SavedModel that adapts to a new user within one request: for TF Serving and other servers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tff_fedmeta import checks
from tff_fedmeta.client import minibatches
from tff_fedmeta.export import ConversionError, adaptation

PREDICT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
ADAPT = "adapt_and_predict"

_OF_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


class SavedModel(NamedTuple):
    """What a client of the server has to know.

    Attributes:
      num_bytes: The size of all files.
      signatures: Name -> {"inputs": names, "outputs": names}.
    """

    num_bytes: int
    signatures: Mapping[str, Mapping[str, Sequence[str]]]


def to_savedmodel(
    keras_model: tf.keras.Model,
    *,
    loss: Any,
    steps: int,
    batch_size: int,
    inner_learning_rate: float | None = None,
    learned_rates: Sequence[Any] | None = None,
    trainable: str = adaptation.ALL,
    head_layers: int = 1,
    proximal_strength: float = 0.0,
    path: str | os.PathLike[str],
    input_spec: tuple[tf.TensorSpec, tf.TensorSpec] | None = None,
) -> SavedModel:
    """Writes a SavedModel that answers a new user's request in one call and keeps nothing of it.

    Its signatures, in which every first dimension may be any number:

    - `serving_default(x) -> output`: what the model returns, logits in classification.
    - `adapt_and_predict(support_x, support_y, query_x) -> output`: the same for `query_x`, after
      `steps` steps of adaptation on the support. A step takes the next `batch_size` examples in the
      order in which they came; after the last ones, as few as are left, it begins again. Without
      any examples it is `serving_default`.

    Nothing is assigned to a variable: requests may be answered side by side.

    Args:
      keras_model: The trained model with one input and one output; it is not changed.
      loss: A `tf.keras.losses.Loss`, or a function of (y, output), whose mean over the batch is
        minimised.
      steps: Steps of adaptation, >= 0.
      batch_size: Examples of a step, >= 1.
      inner_learning_rate: As in `to_tflite`, like all that follow.
      learned_rates: As in `to_tflite`.
      trainable: As in `to_tflite`.
      head_layers: As in `to_tflite`.
      proximal_strength: As in `to_tflite`.
      path: The directory to write; a SavedModel that is there is replaced.
      input_spec: As in `to_tflite`; x may be strings here.

    Returns:
      What a client of the server has to know.

    Raises:
      ConversionError: If the model cannot be saved so that another process computes it.
      ValueError: If an argument is out of its range, or `path` is something else already.
    """
    path = Path(path)
    if path.exists() and not (path / "saved_model.pb").exists():
        raise ValueError(f"{path} is there and is not a SavedModel: choose another path.")
    checks.check_count("steps", steps, 0)
    checks.check_count("batch_size", batch_size, 1)
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
    module = _module(keras_model)
    signatures = {PREDICT: _predict(how), ADAPT: _adapt_and_predict(how, steps, batch_size)}
    for function in signatures.values():
        _refuse_python(function.graph)
    aside = path.with_name(path.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        tf.saved_model.save(module, str(aside), signatures)
    except (AssertionError, ValueError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise ConversionError(
            "A SavedModel cannot hold the model because of this error: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    old = path.with_name(path.name + ".replaced")  # whole, until the new one is in its place
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(aside, path)
    shutil.rmtree(old, ignore_errors=True)
    return SavedModel(
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        {
            name: {
                "inputs": [s.name for s in tf.nest.flatten(function.structured_input_signature)],
                "outputs": sorted(function.structured_outputs),
            }
            for name, function in signatures.items()
        },
    )


def _module(keras_model: tf.keras.Model) -> tf.Module:
    """Returns what holds the state of a model: its variables, and the tables of lookup layers.

    The Keras model itself would be saved with all of its layers, which takes a recurrent network
    15 seconds and is never used.
    """
    module = tf.Module(name="served")
    module.saved_variables = list(keras_model.variables)
    tables = (getattr(part, "lookup_table", None) for part in keras_model.submodules)
    module.tables = [table for table in tables if table is not None]
    return module


def _predict(how: adaptation.Adaptation) -> Any:
    @tf.function(input_signature=[adaptation.named(how.x_spec, "x")])
    def predict(x: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return {"output": how.model(x, training=False)}

    return predict.get_concrete_function()


def _adapt_and_predict(how: adaptation.Adaptation, steps: int, batch_size: int) -> Any:
    @tf.function(
        input_signature=[
            adaptation.named(how.x_spec, "support_x"),
            adaptation.named(how.y_spec, "support_y"),
            adaptation.named(how.x_spec, "query_x"),
        ]
    )
    def adapt_and_predict(
        support_x: tf.Tensor, support_y: tf.Tensor, query_x: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        plan = minibatches.plan_minibatches(
            tf.shape(support_x)[0],
            tf.zeros([2], tf.int64),
            batch_size=batch_size,
            inner_steps=steps,
            shuffle=False,
        )

        def step(number: tf.Tensor, weights: Sequence[tf.Tensor], state: Any) -> Any:
            batch = minibatches.gather_examples((support_x, support_y), plan.indices(number))
            with adaptation.reading(how.moving, weights):
                _, gradients = how.gradients(batch[0], batch[1], weights)
            state, weights = how.rule.next(state, weights, gradients)
            return number + 1, weights, state

        trained = [variable.read_value() for variable in how.moving]
        start = tf.constant(0), trained, how.rule.initialize(how.moving)
        _, weights, _ = tf.while_loop(
            lambda number, *_: number < plan.num_steps, step, start, parallel_iterations=1
        )
        with adaptation.reading(how.moving, weights):
            return {"output": how.model(query_x, training=False)}

    return adapt_and_predict.get_concrete_function()


def _refuse_python(graph: tf.Graph) -> None:
    """Raises ConversionError if a graph calls Python, which another process cannot."""
    for kind in _operations(graph):
        if kind in _OF_PYTHON:
            raise ConversionError(
                f"A SavedModel cannot hold the model because of the operation {kind}, which calls "
                "a Python function of this process."
            )


def _operations(graph: tf.Graph) -> Iterator[str]:
    definition = graph.as_graph_def()
    yield from (node.op for node in definition.node)
    for function in definition.library.function:
        yield from (node.op for node in function.node_def)
