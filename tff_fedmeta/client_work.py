"""Any local update as TFF client work."""

import collections
import functools
from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import client_data, minibatches

# (model, examples, seed) -> one update tensor for each trainable weight; see `local_updates.py`.
LocalUpdate = Callable[[Any, Any, tf.Tensor], list[tf.Tensor]]


def build_client_work(
    model_fn: Callable[[], tff.learning.models.VariableModel],
    local_update: LocalUpdate,
    *,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    min_examples: int = 1,
) -> tff.learning.templates.ClientWorkProcess:
    """Makes TFF client work of a local update.

    A client with fewer than `min_examples` examples, and one whose data or update has a NaN or an
    infinity, contributes nothing anywhere: zero update, zero weight, no metrics. Both are counted.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      local_update: What the client computes.
      client_weighting: NUM_EXAMPLES weighs a client by all of its examples, UNIFORM by one.
      metrics_aggregator: As in `tff.learning.algorithms`; None is `sum_then_finalize`.
      min_examples: The fewest examples the local update can use.

    Returns:
      A client work process over one-element client datasets (`client_data.client_dataset`). Its
      measurements hold `train`, the model's metrics, and `clients`, how many contributed and how
      many were left out.

    Raises:
      TypeError: If `client_weighting` is no `tff.learning.ClientWeighting`.
    """
    if not isinstance(client_weighting, tff.learning.ClientWeighting):
        raise TypeError(
            f"client_weighting must be a tff.learning.ClientWeighting, but is {client_weighting!r}."
        )
    metrics_aggregator = metrics_aggregator or tff.learning.metrics.sum_then_finalize
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        model = model_fn()
        weights_type = tff.learning.models.weights_type_from_model(model)
        aggregate_metrics = metrics_aggregator(model.metric_finalizers())
        data_type = client_type(model)

    @tff.tensorflow.computation(weights_type, data_type)
    def work(weights, dataset):
        model = build_client_model(model_fn)
        return _run_client(model, local_update, weights, dataset, client_weighting, min_examples)

    @tff.federated_computation
    def initialize():
        return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
        initialize.type_signature.result,
        tff.FederatedType(weights_type, tff.CLIENTS),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def next_round(state, weights, clients):
        result, metrics, counts = tff.federated_map(work, (weights, clients))
        measurements = tff.federated_zip(
            collections.OrderedDict(
                train=aggregate_metrics(metrics), clients=tff.federated_sum(counts)
            )
        )
        return tff.templates.MeasuredProcessOutput(state, result, measurements)

    return tff.learning.templates.ClientWorkProcess(initialize, next_round)


def client_type(model: tff.learning.models.VariableModel) -> tff.SequenceType:
    """Returns the TFF type of a client of this model: a sequence of one whole-client element."""
    spec = client_data.element_spec(model.input_spec)
    return tff.SequenceType(tff.types.tensorflow_to_type(spec))


def build_client_model(
    model_fn: Callable[[], tff.learning.models.VariableModel],
) -> tff.learning.models.VariableModel:
    """Returns a fresh model whose trainable weights begin with zeros.

    The server's weights replace them at once: drawing random ones for every client would be waste.
    Variables that are no weights, such as those of another model in a loss, begin as they do.
    """
    created: list[tf.Variable] = []

    def record(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        created.append(next_creator(**options))
        return created[-1]

    with tf.Graph().as_default(), tf.variable_creator_scope(record):
        model = model_fn()
        weights = {id(v) for v in tff.learning.models.ModelWeights.from_model(model).trainable}
        are_weights = [(id(v) in weights, v.shape, v.dtype) for v in created]
    remaining = iter(are_weights)

    def create(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        is_weight, shape, dtype = next(remaining, (False, None, None))
        if is_weight and (options.get("shape"), options.get("dtype")) == (shape, dtype):
            options["initial_value"] = functools.partial(tf.zeros, shape, dtype)
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        return model_fn()


def as_batch(model: tff.learning.models.VariableModel, x: Any, y: Any) -> Any:
    """Returns (x, y) in the form the model's `forward_pass` takes."""
    if isinstance(model.input_spec, collections.abc.Mapping):
        parts = {"x": x, "y": y}
        return collections.OrderedDict((name, parts[name]) for name in model.input_spec)
    return (x, y)


def _run_client(model, local_update, weights, dataset, client_weighting, min_examples):
    """Returns one client's `ClientResult`, unfinalized metrics and counts."""
    model_weights = tff.learning.models.ModelWeights.from_model(model)

    @tf.function
    def run(weights, client):
        tf.nest.map_structure(lambda v, w: v.assign(w), model_weights, weights)
        examples = as_batch(model, client["x"], client["y"])
        update = local_update(model, examples, client["seed"])

        num_examples = minibatches.count_examples(examples)
        has_data = num_examples >= min_examples
        # The data too: a NaN input can leave every weight finite (a ReLU may swallow it).
        is_finite = tf.logical_and(_all_finite(examples), _all_finite(update))
        contributes = tf.logical_and(has_data, is_finite)
        if not contributes:
            model.reset_metrics()
        # Not tf.where, which would go through the memory of all weights once more.
        update = tf.cond(contributes, lambda: update, lambda: [tf.zeros_like(u) for u in update])
        uniform = client_weighting == tff.learning.ClientWeighting.UNIFORM
        weight = tf.constant(1.0) if uniform else tf.cast(num_examples, tf.float32)
        counts = collections.OrderedDict(
            contributing=tf.cast(contributes, tf.int32),
            too_small=tf.cast(tf.logical_not(has_data), tf.int32),
            non_finite=tf.cast(tf.logical_and(has_data, tf.logical_not(is_finite)), tf.int32),
        )
        result = tff.learning.templates.ClientResult(
            update=tf.nest.pack_sequence_as(model_weights.trainable, update),
            update_weight=tf.where(contributes, weight, 0.0),
        )
        return result, model.report_local_unfinalized_metrics(), counts

    return run(weights, dataset.get_single_element())


def nothing_unless_finite(examples: Any) -> Any:
    """Returns the examples [n, ...], or none of them if there is a NaN or an infinity."""
    kept = tf.where(_all_finite(examples), minibatches.count_examples(examples), 0)
    return tf.nest.map_structure(lambda tensor: tensor[:kept], examples)


def _all_finite(tensors: Any) -> tf.Tensor:
    floating = [t for t in tf.nest.flatten(tensors) if t.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(t)) for t in floating])
