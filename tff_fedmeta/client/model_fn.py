"""Keras models as TFF's, with the weights that they start from."""

from __future__ import annotations

import collections
import functools
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import keras_files
from tff_fedmeta.client.model import ModelFn

BuildKerasModel = Callable[[], tf.keras.Model]


def model_fn(
    build_keras_model: BuildKerasModel,
    loss: Any,
    metrics: Any,
    input_spec: Any,
    initial_weights: str | os.PathLike[str] | Sequence[np.ndarray] | None = None,
) -> ModelFn:
    """Returns a TFF `model_fn` of a Keras model, which starts from weights that are known.

    In stock TFF, weights that are loaded or set inside a `model_fn` are lost: TFF reads initial
    values from the graph that it traces. Here the model is built once outside of any graph, and the
    weights it then has, or those given, are the initial values of every later build.

    Args:
      build_keras_model: Builds the same uncompiled Keras model at every call. It may load weights.
      loss: A Keras loss, the mean over a batch, or a function without arguments that makes one.
      metrics: A function without arguments that returns new Keras metrics, or a list of metrics, of
        which every model gets copies.
      input_spec: The batched `(x, y)` or `{"x": x, "y": y}` as `tf.TensorSpec`s whose first
        dimension is None.
      initial_weights: A `.keras` file, or arrays as `model.get_weights()` gives them; None means
        the weights that `build_keras_model` gives its model.

    Returns:
      A function without arguments that returns a fresh `tff.learning.models.VariableModel`.

    Raises:
      ValueError: If the file or the arrays are not weights of this model; the layer is named.
    """
    build = with_initial_weights(build_keras_model, initial_weights)
    if isinstance(input_spec, Mapping):
        spec = collections.OrderedDict(input_spec)
    else:
        x, y = input_spec
        spec = collections.OrderedDict(x=x, y=y)

    def make() -> tff.learning.models.VariableModel:
        keras_model = build()
        made = tff.learning.models.from_keras_model(
            keras_model=keras_model,
            loss=loss if isinstance(loss, tf.keras.losses.Loss) else loss(),
            metrics=_constructors(metrics, spec, keras_model),
            input_spec=spec,
        )
        # Without TFF's function around the call, in which losses that layers add would stay.
        made.predict_on_batch = functools.partial(_call, keras_model)
        return made

    return make


def with_initial_weights(
    build_keras_model: BuildKerasModel,
    initial_weights: str | os.PathLike[str] | Sequence[np.ndarray] | None = None,
) -> BuildKerasModel:
    """Returns a function that builds the same model, in any graph, with these initial weights.

    Args:
      build_keras_model: Builds the model, the same layers in the same order at every call.
      initial_weights: As in `model_fn`.

    Raises:
      ValueError: If the file or the arrays are not weights of this model.
    """
    created: list[tf.Variable] = []

    # Only weights state a shape; Keras' random generators, which come and go, do not.
    def record(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        variable = next_creator(**options)
        if options.get("shape") is not None:
            created.append(variable)
        return variable

    with tf.init_scope(), tf.variable_creator_scope(record):
        model = build_keras_model()
    if not model.built:
        raise ValueError(
            f"The Keras model {model.name} has no weights yet: begin it with tf.keras.Input, or "
            "call model.build(input_shape) in build_keras_model."
        )
    if initial_weights is None:
        weights = model.get_weights()
    elif isinstance(initial_weights, (str, os.PathLike)):
        weights = weights_of_file(model, initial_weights)
    else:
        weights = _checked(model, [np.asarray(w) for w in initial_weights])
    value_of = {id(variable): value for variable, value in zip(model.weights, weights)}
    values = [value_of.get(id(variable)) for variable in created]

    def build() -> tf.keras.Model:
        remaining: Iterator[Any] = iter(values)

        # As initial values, because TFF reads them from the graph, where nothing can be assigned.
        def create(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
            value = next(remaining, None) if options.get("shape") is not None else None
            if value is not None:
                options["initial_value"] = functools.partial(tf.constant, value)
            return next_creator(**options)

        with tf.variable_creator_scope(create):
            return build_keras_model()

    return build


def weights_of_file(model: tf.keras.Model, path: str | os.PathLike[str]) -> list[np.ndarray]:
    """Returns the weights of a `.keras` file, layer by layer as a model needs them.

    Args:
      model: The model that is to start from them.
      path: The file.

    Raises:
      ValueError: If the file does not open, or has other layers; those that differ are named.
    """
    saved = keras_files.open_model(path)
    ours = [layer for layer in flat_layers(model) if layer.weights]
    theirs = [layer for layer in flat_layers(saved) if layer.weights]
    differing = [
        f"{mine.name} {_shapes(mine)} against {other.name} {_shapes(other)}"
        for mine, other in zip(ours, theirs)
        if _shapes(mine) != _shapes(other)
    ]
    longer = ours if len(ours) > len(theirs) else theirs
    more = [f"{layer.name} {_shapes(layer)}" for layer in longer[min(len(ours), len(theirs)) :]]
    if more:
        where = "the file" if longer is ours else "the model"
        differing.append(f"{', '.join(more)} missing in {where}")
    if differing:
        raise ValueError(
            f"{path} has other layers than the model that is to start from it: "
            f"{'; '.join(differing)}. Give a file saved from the same network."
        )
    return saved.get_weights()


def flat_layers(model: tf.keras.Model) -> Iterator[tf.keras.layers.Layer]:
    """Yields the layers of a model, with a nested model's layers in its place."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from flat_layers(layer)
        else:
            yield layer


def _checked(model: tf.keras.Model, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the arrays; raises ValueError unless they are weights of the model."""
    variables = model.weights
    if len(weights) != len(variables):
        raise ValueError(
            f"initial_weights must be {len(variables)} arrays, as model.get_weights() gives them, "
            f"but are {len(weights)}."
        )
    for variable, weight in zip(variables, weights):
        if tuple(variable.shape) != weight.shape:
            raise ValueError(
                f"initial_weights for {variable.name} must have shape {tuple(variable.shape)}, but "
                f"have {weight.shape}."
            )
    return [
        weight.astype(variable.dtype.as_numpy_dtype) for variable, weight in zip(variables, weights)
    ]


def _shapes(layer: tf.keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _call(keras_model: tf.keras.Model, x: Any, training: bool = True) -> Any:
    """Calls a model whose layers add losses to those of this call alone.

    In a graph, Keras keeps losses of all calls.
    """
    for layer in keras_model._flatten_layers():
        del layer._losses[:]
    return keras_model(x, training=training)


def _constructors(
    metrics: Any, spec: Mapping[str, Any], keras_model: tf.keras.Model
) -> list[Callable[[], tf.keras.metrics.Metric]]:
    """Returns functions that make the metrics with all of their variables.

    Some, such as F1Score, make theirs when they first see labels and predictions, of which they
    need the shapes alone. TFF counts variables before.
    """
    given = metrics() if callable(metrics) else metrics

    def make(metric: tf.keras.metrics.Metric) -> tf.keras.metrics.Metric:
        made = _copy(metric)
        if "y_pred_shape" in inspect.signature(made.build).parameters and not made.built:
            made.build(tf.nest.flatten(spec["y"])[0].shape, keras_model.outputs[0].shape)
        elif not getattr(made, "_built", True):  # AUC's
            made._build(keras_model.outputs[0].shape)
        return made

    return [functools.partial(make, metric) for metric in given]


def _copy(metric: tf.keras.metrics.Metric) -> tf.keras.metrics.Metric:
    return type(metric).from_config(metric.get_config())
