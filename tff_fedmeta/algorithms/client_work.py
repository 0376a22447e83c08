"""Any local update as TFF client work."""

import collections
import functools
from typing import Any, Callable, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.algorithms import client_roles
from tff_fedmeta.client import minibatches
from tff_fedmeta.client import model as client_model
from tff_fedmeta.client.learned_rates import LearnedRates, learned_rates_of
from tff_fedmeta.client.meta_gradient import LocalUpdate

# What one client computes: (model, examples, seed, **more) -> `LocalUpdate`, with
#   model: a `tff.learning.models.VariableModel` that holds the server's weights;
#   examples: the client's examples, a structure of [n, ...] tensors, in the form of a batch;
#   seed: int64 [2], the client's seed of this round;
#   work_share: where clients have roles, the share of the steps to take, float32 in (0, 1];
#   rates: where rates are learnt, their tensors (`learned_rates.py`).
ComputeUpdate = Callable[..., LocalUpdate]

# How much a client counts in the mean; see `build_client_work`.
Weighting = Union[tff.learning.ClientWeighting, str, Callable[[Any, Any], Any]]
GIVEN = "given"

# The name of the counts among the metrics, which no metric of a model has.
_COUNTS = "client_work.counts"


def build_client_work(
    model_fn: client_model.ModelFn,
    compute_update: ComputeUpdate,
    *,
    learned_rates: Union[bool, LearnedRates, None] = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    min_examples: int = 1,
    roles: bool = False,
    partial: bool = False,
    counts_rounds: bool = False,
) -> tff.learning.templates.ClientWorkProcess:
    """Makes TFF client work of a local update.

    A client with fewer than `min_examples` examples, and one whose data, update or metrics have a
    NaN or an infinity, contributes nothing anywhere: zero update, zero weight, no metrics. Both are
    counted.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      compute_update: What the client computes, on a model that holds the server's weights.
      learned_rates: The learnt rates that travel behind the weights (Meta-SGD); True: one for
        each weight; None: there are none.
      client_weighting: NUM_EXAMPLES weighs a client by all of its examples, UNIFORM by one; "given"
        by the weight in its element (`client_dataset(weight=)`); a function of its x and y, each
        [n, ...], by the number >= 0 that it returns, a scalar tensor. A client whose weight is
        negative or not finite is excluded.
      metrics_aggregator: As in `tff.learning.algorithms`; None is `sum_then_finalize`. It adds up
        the counts of `clients` and `work` too, so that with secure sums nothing is in the clear.
      min_examples: The fewest examples the local update can use.
      roles: Whether clients have a role and do as it says (`failures.Role`).
      partial: Whether the update is of some of the trainable weights alone, which are then sent.
      counts_rounds: Whether the update is told `round_num`, how many rounds were finished before:
        int32 scalar, the state of the process.

    Returns:
      A client work process over one-element client datasets (`client_data.client_dataset`). Its
      measurements hold `train`, the model's metrics; `clients`, how many contributed and how many
      were left out; and `work`, the examples and gradient evaluations of those that contributed.
      Where none did, `train` is NaN.

    Raises:
      TypeError: If `client_weighting` is something else.
      ValueError: If training moves statistics of the model that are not aggregated.
    """
    check_weighting(client_weighting)
    metrics_aggregator = metrics_aggregator or tff.learning.metrics.sum_then_finalize
    types = client_model.client_types(
        model_fn,
        learned_rates_of(learned_rates),
        roles,
        given_weights=client_weighting == GIVEN,
    )
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        finalizers = collections.OrderedDict(model_fn().metric_finalizers())
    finalizers[_COUNTS] = lambda counts: counts
    aggregate_metrics = metrics_aggregator(finalizers)

    def run_client(weights: Any, dataset: Any, **more: Any) -> Any:
        model = client_model.build_client_model(model_fn)
        update = functools.partial(compute_update, **more)
        return _run_client(model, update, weights, dataset, client_weighting, min_examples, partial)

    if counts_rounds:

        @tff.tensorflow.computation(types.weights, types.client, np.int32)
        def work(weights: Any, dataset: Any, round_num: Any) -> Any:
            return run_client(weights, dataset, round_num=round_num)

    else:

        @tff.tensorflow.computation(types.weights, types.client)
        def work(weights: Any, dataset: Any) -> Any:
            return run_client(weights, dataset)

    @tff.tensorflow.computation(np.int32)
    def add_one(round_num: Any) -> Any:
        return round_num + 1

    @tff.federated_computation
    def initialize() -> Any:
        return tff.federated_value(0 if counts_rounds else (), tff.SERVER)

    @tff.federated_computation(
        initialize.type_signature.result,
        tff.FederatedType(types.weights, tff.CLIENTS),
        tff.FederatedType(types.client, tff.CLIENTS),
    )
    def next_round(state: Any, weights: Any, clients: Any) -> Any:
        sees: tuple[Any, ...] = (weights, clients)
        if counts_rounds:
            sees = (*sees, tff.federated_broadcast(state))
            state = tff.federated_map(add_one, state)
        result, metrics = tff.federated_map(work, sees)
        train = aggregate_metrics(metrics)
        counts = train[_COUNTS]
        told = _nan_of_nobody(_without_counts(train), counts["clients"]["contributing"])
        measurements = tff.federated_zip(
            collections.OrderedDict(train=told, clients=counts["clients"], work=counts["work"])
        )
        return tff.templates.MeasuredProcessOutput(state, result, measurements)

    process = tff.learning.templates.ClientWorkProcess(initialize, next_round)
    return client_roles.corrupting(process) if roles else process


def _without_counts(aggregated: Any) -> Any:
    """Returns the metrics of the model, of a server's value of metrics and counts."""
    names = [name for name, _ in tff.structure.iter_elements(aggregated.type_signature.member)]
    return tff.federated_zip(
        collections.OrderedDict((name, aggregated[name]) for name in names if name != _COUNTS)
    )


def _nan_of_nobody(metrics: Any, contributing: Any) -> Any:
    """Returns the model's metrics, NaN where no client contributed: Keras' mean of nothing is 0."""

    @tff.tensorflow.computation(metrics.type_signature.member, contributing.type_signature.member)
    def choose(metrics: Any, contributing: Any) -> Any:
        def value(metric: tf.Tensor) -> tf.Tensor:
            nan = tf.constant(float("nan"), metric.dtype)
            return tf.where(contributing > 0, metric, nan)

        return tf.nest.map_structure(lambda m: value(m) if m.dtype.is_floating else m, metrics)

    return tff.federated_map(choose, tff.federated_zip((metrics, contributing)))


def check_weighting(client_weighting: Any) -> None:
    """Raises TypeError unless it is a `Weighting`."""
    is_enum = isinstance(client_weighting, tff.learning.ClientWeighting)
    if not (is_enum or client_weighting == GIVEN or callable(client_weighting)):
        raise TypeError(
            'client_weighting must be a tff.learning.ClientWeighting, "given" or a function of x '
            f"and y, but is {client_weighting!r}."
        )


def _weigh(client_weighting: Weighting, client: Any, num_examples: tf.Tensor) -> tf.Tensor:
    """Returns how much a client counts, float32 scalar."""
    if client_weighting == tff.learning.ClientWeighting.UNIFORM:
        return tf.constant(1.0)
    if client_weighting == tff.learning.ClientWeighting.NUM_EXAMPLES:
        return tf.cast(num_examples, tf.float32)
    if not callable(client_weighting):  # GIVEN
        return client["weight"]
    return tf.reshape(tf.cast(client_weighting(client["x"], client["y"]), tf.float32), [])


def _run_client(
    model: Any,
    compute_update: Any,
    weights: Any,
    dataset: Any,
    client_weighting: Any,
    min_examples: Any,
    partial: bool,
) -> Any:
    """Returns one client's `ClientResult`, and unfinalized metrics with the counts among them."""

    @tf.function
    def run(weights: Any, client: Any) -> Any:
        rates = client_model.assign_weights(model, weights)
        examples = client_model.as_batch(model, client["x"], client["y"])
        more: dict[str, Any] = {"rates": rates} if rates else {}
        if "role" in client:
            more["work_share"] = client_roles.role_of(client).work_share
        sent = compute_update(model, examples, client["seed"], **more)

        num_examples = minibatches.count_examples(examples)
        has_data = num_examples >= min_examples
        # The data too: a NaN input can leave every weight finite (a ReLU may swallow it). And the
        # metrics: one infinite loss would make the round's loss infinite.
        weight = _weigh(client_weighting, client, num_examples)
        is_finite = client_model.all_finite((examples, sent.update, sent.metrics, weight))
        is_finite = tf.logical_and(is_finite, weight >= 0)
        contributes = tf.logical_and(has_data, is_finite)

        def nothing() -> Any:
            model.reset_metrics()
            # Not tf.where, which would go through the memory of all weights once more.
            update = [tf.zeros_like(tensor) for tensor in sent.update]
            return update, model.report_local_unfinalized_metrics()

        update, metrics = tf.cond(contributes, lambda: (sent.update, sent.metrics), nothing)
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
            update=update if partial else tf.nest.pack_sequence_as(weights.trainable, update),
            update_weight=tf.where(contributes, weight, 0.0),
        )
        counts = collections.OrderedDict(clients=clients, work=work)
        return result, collections.OrderedDict(metrics, **{_COUNTS: counts})

    return run(weights, dataset.get_single_element())
