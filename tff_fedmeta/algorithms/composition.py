"""Clients' work composed with TFF's broadcast, aggregator and server optimizer.

The arguments that builders share are described once, at `reptile.build_reptile` and, for the
methods with a support and a query, at `maml.build_maml`.
"""

import functools
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.algorithms import client_work
from tff_fedmeta.client import minibatches, model_checks, support_query
from tff_fedmeta.client.learned_rates import LearnedRates
from tff_fedmeta.client.model import ModelFn

# The server's step of the methods that send gradients, where none is given: Adam's, because the
# size of a meta-gradient says little about how far to go.
_META_LEARNING_RATE = 0.001


class Federation(NamedTuple):
    """What every builder takes of the federation around the clients' work; see `build_reptile`."""

    server_optimizer: Optional[tff.learning.optimizers.Optimizer]
    client_weighting: client_work.Weighting
    model_aggregator: Optional[Any]
    metrics_aggregator: Optional[Callable[..., Any]]
    roles: bool


def plan_local_training(
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int],
    inner_steps: Optional[int],
    shuffle: bool,
) -> minibatches.PlanMinibatches:
    """Checks how clients train, and returns what plans their steps.

    Raises:
      ValueError: If a value is out of its range, or both epochs and steps are given.
    """
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    return functools.partial(
        minibatches.plan_minibatches, batch_size=batch_size, shuffle=shuffle, **budget
    )


def compose_update(
    model_fn: ModelFn,
    compute_update: client_work.ComputeUpdate,
    federation: Federation,
    default_server_optimizer: tff.learning.optimizers.Optimizer,
    *,
    min_examples: int = 1,
    learned_rates: Optional[LearnedRates] = None,
    sent: Optional[Sequence[int]] = None,
    counts_rounds: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds the learning process of an update that every client computes.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      compute_update: What a client computes.
      federation: What is around it.
      default_server_optimizer: Applies the mean update where `federation` has no optimizer.
      min_examples: The fewest examples of a client that contributes.
      learned_rates: The rates that are learnt; None: there are none.
      sent: Which of the model's trainable variables an update is of; None: all. The others stay.
      counts_rounds: Whether the update takes the keyword `round_num`, the rounds finished before.
    """
    work = client_work.build_client_work(
        model_fn,
        compute_update,
        learned_rates=learned_rates,
        client_weighting=federation.client_weighting,
        metrics_aggregator=federation.metrics_aggregator,
        min_examples=min_examples,
        roles=federation.roles,
        partial=sent is not None,
        counts_rounds=counts_rounds,
    )
    return compose(
        model_fn,
        work,
        federation.server_optimizer or default_server_optimizer,
        federation.model_aggregator,
        learned_rates,
        sent,
    )


def compose_split_update(
    model_fn: ModelFn,
    compute_update: client_work.ComputeUpdate,
    federation: Federation,
    default_server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    *,
    support_fraction: float,
    split: str,
    second_order: bool,
    learned_rates: Optional[LearnedRates] = None,
    sent: Optional[Sequence[int]] = None,
) -> tff.learning.templates.LearningProcess:
    """As `compose_update`, for an update that takes a `split` into support and query too.

    Args:
      model_fn: As in `compose_update`, and so are the arguments of the same names.
      compute_update: What a client computes; it takes the keyword `split`.
      federation: What is around it.
      default_server_optimizer: None is Adam with rate 0.001.
      support_fraction: The share of support, in (0, 1).
      split: How clients split; see `support_query.split_support_query`.
      second_order: Whether inner steps are differentiated, which a stochastic layer forbids.
      learned_rates: The rates that are learnt; None: there are none.
      sent: As in `compose_update`.
    """
    checks.check_split(support_fraction, split)
    if second_order:
        model_checks.refuse_stochastic_layers(model_fn)
    split_client = functools.partial(
        support_query.split_support_query, support_fraction=support_fraction, split=split
    )
    return compose_update(
        model_fn,
        functools.partial(compute_update, split=split_client),
        federation,
        default_server_optimizer or tff.learning.optimizers.build_adam(_META_LEARNING_RATE),
        min_examples=1 if split == "same" else 2,
        learned_rates=learned_rates,
        sent=sent,
    )


def compose(
    model_fn: ModelFn,
    work: tff.learning.templates.ClientWorkProcess,
    server_optimizer: tff.learning.optimizers.Optimizer,
    model_aggregator: Optional[Any] = None,
    learned_rates: Optional[LearnedRates] = None,
    sent: Optional[Sequence[int]] = None,
) -> tff.learning.templates.LearningProcess:
    """Composes client work with TFF's broadcast, an aggregator and a server optimizer.

    This is what makes a learning process of client work of your own.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      work: What the clients do.
      server_optimizer: Applies the mean update.
      model_aggregator: A TFF aggregation factory; None is the weighted mean.
      learned_rates: The rates that are learnt beside the weights; None: there are none.
      sent: Which of the trainable tensors the clients' updates are of; None: all. The others are
        broadcast, and stay as they are.
    """

    @tff.tensorflow.computation
    def initial_weights() -> Any:
        model = model_fn()
        weights = tff.learning.models.ModelWeights.from_model(model)
        if learned_rates is None:
            return weights
        rates = learned_rates.initial(model)
        return tff.learning.models.ModelWeights([*weights.trainable, *rates], weights.non_trainable)

    weights_type = initial_weights.type_signature.result
    aggregator = taking_weights(model_aggregator)
    if sent is None:
        sent_type = weights_type.trainable
        finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
            server_optimizer, weights_type
        )
    else:
        sent_type = tff.to_type([weights_type.trainable[index] for index in sent])
        finalizer = _partial_finalizer(server_optimizer, weights_type, sent_type, sent)
    return tff.learning.templates.compose_learning_process(
        initial_weights,
        tff.learning.templates.build_broadcast_process(weights_type),
        work,
        aggregator.create(sent_type, tff.TensorType(tf.float32.as_numpy_dtype)),
        finalizer,
    )


def _partial_finalizer(
    server_optimizer: tff.learning.optimizers.Optimizer,
    weights_type: Any,
    sent_type: Any,
    sent: Sequence[int],
) -> tff.learning.templates.FinalizerProcess:
    """Returns the server's step of some of the trainable tensors; the others stay."""
    build = tff.learning.models.ModelWeights

    @tff.tensorflow.computation(weights_type)
    def take(weights: Any) -> Any:
        return build([weights.trainable[index] for index in sent], weights.non_trainable)

    @tff.tensorflow.computation(weights_type, take.type_signature.result)
    def put(weights: Any, part: Any) -> Any:
        trainable = list(weights.trainable)
        for index, tensor in zip(sent, part.trainable):
            trainable[index] = tensor
        return build(trainable, weights.non_trainable)

    finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
        server_optimizer, take.type_signature.result
    )

    @tff.federated_computation(
        finalizer.initialize.type_signature.result,
        tff.FederatedType(weights_type, tff.SERVER),
        tff.FederatedType(sent_type, tff.SERVER),
    )
    def step(state: Any, weights: Any, update: Any) -> Any:
        output = finalizer.next(state, tff.federated_map(take, weights), update)
        moved = tff.federated_map(put, (weights, output.result))
        return tff.templates.MeasuredProcessOutput(output.state, moved, output.measurements)

    return tff.learning.templates.FinalizerProcess(finalizer.initialize, step)


def taking_weights(model_aggregator: Optional[Any]) -> Any:
    """Returns a TFF aggregation factory as one that is given the clients' weights.

    One that takes none, such as `tff.learning.dp_aggregator`, ignores them: all clients count the
    same. None is the weighted mean.
    """
    aggregator = model_aggregator or tff.aggregators.MeanFactory()
    if isinstance(aggregator, tff.aggregators.UnweightedAggregationFactory):
        return tff.aggregators.as_weighted_aggregator(aggregator)
    return aggregator
