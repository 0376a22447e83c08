"""Any local update as TFF client work."""

import collections
import functools
from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import client_data, local_updates, minibatches, model_checks

ModelFn = Callable[[], tff.learning.models.VariableModel]
# (model, examples, seed, learnt rates) -> what the client sends; see `local_updates.py`.
ComputeUpdate = Callable[[Any, Any, tf.Tensor, list[tf.Tensor]], local_updates.LocalUpdate]


class Types(NamedTuple):
    """What a model's computations take.

    Attributes:
      weights: `ModelWeights`, with as many learnt rates behind the trainable weights if there are.
      client: A sequence of one whole-client element.
    """

    weights: Any
    client: tff.SequenceType


def build_client_work(
    model_fn: ModelFn,
    compute_update: ComputeUpdate,
    *,
    learned_rates: bool = False,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    min_examples: int = 1,
) -> tff.learning.templates.ClientWorkProcess:
    """Makes TFF client work of a local update.

    A client with fewer than `min_examples` examples, and one whose data or update has a NaN or an
    infinity, contributes nothing anywhere: zero update, zero weight, no metrics. Both are counted.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      compute_update: What the client computes, on a model that holds the server's weights.
      learned_rates: Whether a learnt rate for each weight travels behind the weights (Meta-SGD).
      client_weighting: NUM_EXAMPLES weighs a client by all of its examples, UNIFORM by one.
      metrics_aggregator: As in `tff.learning.algorithms`; None is `sum_then_finalize`.
      min_examples: The fewest examples the local update can use.

    Returns:
      A client work process over one-element client datasets (`client_data.client_dataset`). Its
      measurements hold `train`, the model's metrics; `clients`, how many contributed and how many
      were left out; and `work`, the examples and gradient evaluations of those that contributed.

    Raises:
      TypeError: If `client_weighting` is no `tff.learning.ClientWeighting`.
      ValueError: If training moves statistics of the model that are not aggregated.
    """
    if not isinstance(client_weighting, tff.learning.ClientWeighting):
        raise TypeError(
            f"client_weighting must be a tff.learning.ClientWeighting, but is {client_weighting!r}."
        )
    metrics_aggregator = metrics_aggregator or tff.learning.metrics.sum_then_finalize
    types = client_types(model_fn, learned_rates)
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        aggregate_metrics = metrics_aggregator(model_fn().metric_finalizers())

    @tff.tensorflow.computation(types.weights, types.client)
    def work(weights, dataset):
        model = build_client_model(model_fn)
        return _run_client(model, compute_update, weights, dataset, client_weighting, min_examples)

    @tff.federated_computation
    def initialize():
        return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
        initialize.type_signature.result,
        tff.FederatedType(types.weights, tff.CLIENTS),
        tff.FederatedType(types.client, tff.CLIENTS),
    )
    def next_round(state, weights, clients):
        result, metrics, counts = tff.federated_map(work, (weights, clients))
        sums = tff.federated_sum(counts)
        measurements = tff.federated_zip(
            collections.OrderedDict(
                train=aggregate_metrics(metrics), clients=sums["clients"], work=sums["work"]
            )
        )
        return tff.templates.MeasuredProcessOutput(state, result, measurements)

    return tff.learning.templates.ClientWorkProcess(initialize, next_round)


def client_types(model_fn: ModelFn, learned_rates: bool = False) -> Types:
    """Returns the TFF types of a model's weights and of a client.

    Raises:
      ValueError: If training moves statistics of the model, which are not aggregated and so would
        stay as they began (batch normalisation).
    """
    model_checks.refuse_moving_statistics(model_fn)
    with tf.Graph().as_default():
        model = model_fn()
        weights = tff.learning.models.weights_type_from_model(model)
        spec = client_data.element_spec(model.input_spec)
    if learned_rates:
        weights = tff.StructWithPythonType(
            [("trainable", list(weights.trainable) * 2), ("non_trainable", weights.non_trainable)],
            tff.learning.models.ModelWeights,
        )
    return Types(weights, tff.SequenceType(tff.types.tensorflow_to_type(spec)))


def assign_weights(model: tff.learning.models.VariableModel, weights: Any) -> list[tf.Tensor]:
    """Gives the model the server's weights, and returns the learnt rates behind them, if any."""
    num_weights = len(model.trainable_variables)
    trainable = list(weights.trainable)
    values = [*trainable[:num_weights], *weights.non_trainable]
    for variable, value in zip(
        [*model.trainable_variables, *model.non_trainable_variables], values
    ):
        variable.assign(value)
    return trainable[num_weights:]


def build_client_model(
    model_fn: ModelFn,
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


def _run_client(model, compute_update, weights, dataset, client_weighting, min_examples):
    """Returns one client's `ClientResult`, unfinalized metrics and counts."""

    @tf.function
    def run(weights, client):
        rates = assign_weights(model, weights)
        examples = as_batch(model, client["x"], client["y"])
        sent = compute_update(model, examples, client["seed"], rates)

        num_examples = minibatches.count_examples(examples)
        has_data = num_examples >= min_examples
        # The data too: a NaN input can leave every weight finite (a ReLU may swallow it).
        is_finite = tf.logical_and(_all_finite(examples), _all_finite(sent.update))
        contributes = tf.logical_and(has_data, is_finite)

        def nothing():
            model.reset_metrics()
            # Not tf.where, which would go through the memory of all weights once more.
            update = [tf.zeros_like(tensor) for tensor in sent.update]
            return update, model.report_local_unfinalized_metrics()

        update, metrics = tf.cond(contributes, lambda: (sent.update, sent.metrics), nothing)
        uniform = client_weighting == tff.learning.ClientWeighting.UNIFORM
        weight = tf.constant(1.0) if uniform else tf.cast(num_examples, tf.float32)
        clients = collections.OrderedDict(
            contributing=tf.cast(contributes, tf.int32),
            too_small=tf.cast(tf.logical_not(has_data), tf.int32),
            non_finite=tf.cast(tf.logical_and(has_data, tf.logical_not(is_finite)), tf.int32),
        )
        work = collections.OrderedDict(
            examples=tf.where(contributes, sent.examples, 0),
            gradient_evaluations=tf.where(contributes, sent.gradient_evaluations, 0),
        )
        result = tff.learning.templates.ClientResult(
            update=tf.nest.pack_sequence_as(weights.trainable, update),
            update_weight=tf.where(contributes, weight, 0.0),
        )
        return result, metrics, collections.OrderedDict(clients=clients, work=work)

    return run(weights, dataset.get_single_element())


def nothing_unless_finite(examples: Any) -> Any:
    """Returns the examples [n, ...], or none of them if there is a NaN or an infinity."""
    kept = tf.where(_all_finite(examples), minibatches.count_examples(examples), 0)
    return tf.nest.map_structure(lambda tensor: tensor[:kept], examples)


def _all_finite(tensors: Any) -> tf.Tensor:
    floating = [t for t in tf.nest.flatten(tensors) if t.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(t)) for t in floating])
