"""What is wrong with a model before anything is built of it, each fault in one sentence."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.client.model_checks import ModelError

_WRAP = "wrap it as fm.model_fn(build_keras_model, loss, metrics, input_spec)"
_LATE = (
    "A metric or a layer makes its variables at its first call, after TFF has counted them "
    "(F1Score, R2Score and AUC(multi_label=True) do): make the model by fm.model_fn, which builds "
    "metrics early, and call the layer on an example in build_keras_model."
)
_RANDOM = re.compile(r"Random|Normal|Uniform|Rng")


@functools.lru_cache(maxsize=4)  # an experiment builds several processes of one model
def examine(model_fn: Any) -> None:
    """Raises an error that names what is wrong with `model_fn`, or with the model it makes.

    The model is made once, in a graph of its own, and given a few invented examples.

    Args:
      model_fn: What should be a function without arguments that returns a fresh
        `tff.learning.models.VariableModel`.

    Raises:
      TypeError: If it is something else.
      ModelError: If the model cannot learn, loses weights that are set while it is made, or has a
        loss that is not the mean over a batch.
    """
    _check_kind(model_fn)
    with tf.Graph().as_default() as graph:
        try:
            model = model_fn()
        except RuntimeError as error:
            if "adapt" in str(error):
                raise ModelError(
                    "A preprocessing layer is adapted inside model_fn, which TensorFlow cannot do "
                    "in the graph that it traces: adapt it before, and give it the numbers, e.g. "
                    "tf.keras.layers.Normalization(mean=..., variance=...)."
                ) from error
            _refuse_captured(error)
            raise
        if isinstance(model, tf.keras.Model):
            raise TypeError(f"model_fn must return a TFF model, but returns a Keras one: {_WRAP}.")
        if not isinstance(model, tff.learning.models.VariableModel):
            raise TypeError(
                "model_fn must return a tff.learning.models.VariableModel, but returns "
                f"{type(model).__name__}: {_WRAP}."
            )
        _refuse_lost_weights(model, graph)
        _refuse_nothing_to_learn(model)
        _check_loss(model, graph)


def _check_kind(model_fn: Any) -> None:
    if isinstance(model_fn, (tf.keras.Model, tff.learning.models.VariableModel)):
        raise TypeError(
            "model_fn must be a function that makes a new model at every call, but is a model: "
            f"put the lines that make it into a function, and {_WRAP}."
        )
    if isinstance(model_fn, tff.learning.models.FunctionalModel):
        raise TypeError(
            "model_fn is a tff.learning.models.FunctionalModel, whose weights no local step can "
            f"move in place: give the function that builds the Keras model, and {_WRAP}."
        )
    if not callable(model_fn):
        raise TypeError(
            f"model_fn must be a function without arguments, but is {type(model_fn).__name__}."
        )


def _refuse_captured(error: Exception) -> None:
    if "EagerTensor" in str(error) or "invalid state" in str(error):
        raise ModelError(
            "Everything in a model must be made inside model_fn, anew at every call, but a model, "
            "a metric or a tensor was made outside: move the lines that make it into model_fn."
        ) from error


def _refuse_lost_weights(model: tff.learning.models.VariableModel, graph: tf.Graph) -> None:
    weights = [*model.trainable_variables, *model.non_trainable_variables]
    initializers = {w.initializer.name: w for w in weights if w.initializer is not None}
    set_handles = {
        op.inputs[0].op.name
        for op in graph.get_operations()
        if op.type == "AssignVariableOp" and op.name not in initializers
    }
    lost = [
        w.name
        for w in initializers.values()
        if w.handle.op.name in set_handles and _draws(w.initializer)
    ]
    if lost:
        raise ModelError(
            f"model_fn sets weights ({', '.join(lost)}) that TensorFlow loses when it traces "
            "model_fn, so that training would start from random ones: make it by fm.model_fn("
            "build_keras_model, ...), which keeps what build_keras_model loads, or give "
            "fm.model_fn(..., initial_weights=model.get_weights())."
        )


def _draws(operation: tf.Operation) -> bool:
    """Whether an operation depends on random numbers."""
    found, todo = set(), [operation]
    while todo:
        op = todo.pop()
        if op.name not in found:
            found.add(op.name)
            if _RANDOM.search(op.type):
                return True
            todo += [tensor.op for tensor in op.inputs]
    return False


def _refuse_nothing_to_learn(model: tff.learning.models.VariableModel) -> None:
    if model.trainable_variables:
        return
    frozen = len(model.non_trainable_variables)
    if frozen:
        raise ModelError(
            f"The model has nothing to learn: all of its {frozen} weights are frozen. Set "
            "trainable = True on the layers that should learn."
        )
    raise ModelError(
        "The model has no weights to learn: if it is built at its first call, call it on an "
        "example in model_fn before TFF takes it, e.g. model(tf.zeros([1, 4])), or begin it with "
        "tf.keras.Input."
    )


def _check_loss(model: tff.learning.models.VariableModel, graph: tf.Graph) -> None:
    """Refuses a loss that is not the mean over a batch, by invented examples."""
    variables = _count_variables(model)
    # Given twice and not as two halves, whose predictions differ where a layer normalises by the
    # batch: the mean of anything is the same over the same examples twice, a sum is not.
    one = _invent(model.input_spec)
    if one is None:
        return
    batches = [one, tf.nest.map_structure(lambda a: np.concatenate([a, a]), one)]
    try:
        passes = [model.forward_pass(_tensors(batch), training=False) for batch in batches]
        losses = [done.loss for done in passes]
    except Exception as error:  # Keras and TensorFlow have many
        _refuse_captured(error)
        if "tf.function only supports singleton tf.Variables" in str(error):
            raise ModelError(_LATE) from error
        if "out of scope" in str(error) or "different graph" in str(error):
            raise ModelError(
                "Losses that layers add (add_loss, activity regularizers) are lost in TFF's own "
                f"Keras models: {_WRAP}, which keeps them."
            ) from error
        return  # invented examples do not suit every model; real ones will tell
    if _count_variables(model) != variables:
        raise ModelError(_LATE)
    if any(loss.shape.rank not in (0, None) for loss in losses):
        raise ModelError(
            f"The loss must be one number, the mean over a batch, but has shape {losses[0].shape}: "
            "use the reduction SUM_OVER_BATCH_SIZE, Keras' default, or tf.reduce_mean."
        )
    try:
        with tf.compat.v1.Session(graph=graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            made = [*model.trainable_variables, *model.non_trainable_variables]
            session.run([v.initializer for v in [*made, *model.local_variables]])
            session.run(tf.compat.v1.tables_initializer())
            found = session.run([*losses, passes[0].predictions])
            first, twice = (float(value) for value in found[:2])
    except (tf.errors.OpError, TypeError, ValueError):
        return
    if not np.isfinite([first, twice]).all():
        return
    if np.isclose(first, twice, rtol=2e-3, atol=1e-5):
        _warn_of_probabilities(found[2], one, first)
        return
    raise ModelError(
        "The loss must be the mean over a batch's examples, but on invented examples it is "
        f"{first:.4g}, on the same ones twice {twice:.4g} (a sum?): use the reduction "
        "SUM_OVER_BATCH_SIZE, Keras' default, or tf.reduce_mean in a loss of your own."
    )


def _warn_of_probabilities(predictions: Any, batch: Any, loss: float) -> None:
    """Warns if a classifier ends in probabilities, and its loss takes them for logits."""
    labels = np.asarray(batch["y"] if isinstance(batch, Mapping) else batch[1], object)
    if not (isinstance(predictions, np.ndarray) and predictions.ndim == labels.ndim + 1):
        return
    sums = predictions.sum(axis=-1, keepdims=True)
    if predictions.shape[-1] < 2 or (predictions < 0).any() or not np.allclose(sums, 1, atol=1e-3):
        return
    log_softmax = predictions - np.log(np.exp(predictions).sum(axis=-1, keepdims=True))
    taken = np.take_along_axis(log_softmax, labels.astype(int)[..., np.newaxis], axis=-1)
    if np.isclose(loss, -taken.mean(), rtol=1e-3):
        warnings.warn(
            "The model gives probabilities, but its loss takes them for logits (from_logits=True), "
            "so that it hardly learns: take the softmax off the model's end, or the loss with "
            "from_logits=False.",
            stacklevel=2,
        )


def _count_variables(model: tff.learning.models.VariableModel) -> int:
    kinds = (model.trainable_variables, model.non_trainable_variables, model.local_variables)
    return sum(len(list(kind)) for kind in kinds)


def _invent(input_spec: Any) -> Any:
    """Returns two examples: numbers from 0 to 1, and ones where they must be whole.

    None if the model takes something else, such as texts.
    """
    random = np.random.default_rng(0)
    made = []
    for spec in tf.nest.flatten(input_spec):
        if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None:
            return None
        shape = [2, *(size or 4 for size in spec.shape[1:])]
        if spec.dtype.is_floating:
            made.append(random.uniform(0.1, 0.9, shape).astype(spec.dtype.as_numpy_dtype))
        elif spec.dtype.is_integer or spec.dtype.is_bool:
            made.append(np.ones(shape, spec.dtype.as_numpy_dtype))
        else:
            return None
    return tf.nest.pack_sequence_as(input_spec, made)


def _tensors(batch: Any) -> Any:
    return tf.nest.map_structure(tf.constant, batch)
