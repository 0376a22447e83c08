"""TFF's own algorithms over the same one-element clients, to compare with."""

from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

# TFF has no public name for the clients' part of FedSGD, without which no client can attack it.
from tff_fedmeta import checks
from tff_fedmeta.algorithms import client_roles, composition
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client import minibatches, model_checks, rules
from tff_fedmeta.client import model as client_model
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.runtime import tff_private

# How TFF's clients walk their batches: the same steps as with its default, which prepares the graph
# of a step anew for every client, a second for an LSTM.
_LOOP = tff.learning.LoopImplementation.DATASET_ITERATOR


@at_the_door
def build_fedavg(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    inner_clip_norm: float = 0.0,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds `tff.learning.algorithms.build_weighted_fed_avg`, untouched, for one-element clients.

    Only the data is adapted: each client cuts its one element into the batches that
    `algorithms.build_reptile` would train on with the same arguments, in the same order.

    Args:
      model_fn: As in `algorithms.build_reptile`, and so are the other arguments.
      inner_learning_rate: The rate of the clients' SGD steps, >= 0.
      batch_size: Examples in a local step, >= 1.
      inner_epochs: Local epochs (1 if neither this nor `inner_steps` is given), or
      inner_steps: local steps.
      shuffle: Whether examples are shuffled, by each client's own seed.
      inner_clip_norm: The longest gradient of a client's step, >= 0; 0 clips nothing.
      server_optimizer: Applies the mean update; None is SGD with rate 1.
      client_weighting: How much a client counts in the mean. TFF's NUM_EXAMPLES counts what a
        client trained on: with `inner_steps` that is not its size, as it is in Reptile. Its
        UNIFORM counts a client without examples too, as one that stayed where it was.
      model_aggregator: A TFF aggregation factory for updates; None is the weighted mean. One that
        takes no weights counts all clients the same, those without examples too.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess`.

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, or the model has
        moving statistics (batch normalisation that is not frozen).
    """
    return build_tff_fedavg(
        model_fn,
        tff.learning.optimizers.build_sgdm,
        inner_learning_rate=inner_learning_rate,
        batch_size=batch_size,
        inner_epochs=inner_epochs,
        inner_steps=inner_steps,
        shuffle=shuffle,
        inner_clip_norm=inner_clip_norm,
        server_optimizer=server_optimizer,
        client_weighting=client_weighting,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        roles=roles,
    )


@at_the_door
def build_fedsgd(
    model_fn: ModelFn,
    *,
    batch_size: int,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds `tff.learning.algorithms.build_fed_sgd`, untouched, as in `build_fedavg`.

    FedSGD (McMahan et al., arXiv:1602.05629) trains at the server alone: each round it makes one
    step along the gradient, at its own weights, on all examples of all clients.

    Args:
      model_fn: As in `build_fedavg`.
      batch_size: Examples a client takes the gradient of at a time, >= 1. It bounds memory; the
        gradients are averaged by examples.
      server_optimizer: Applies the mean gradient; None is TFF's default, SGD with rate 0.1.
      model_aggregator: As in `build_fedavg`, for gradients. Clients count by their examples.
      metrics_aggregator: As in `build_fedavg`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess`.

    Raises:
      ValueError: If `batch_size` is out of its range, or the model has moving statistics or weights
        that are not float32.
    """
    budget = checks.check_local_training(0.0, batch_size, inner_epochs=1, inner_steps=None)
    _refuse_other_floats(model_fn)
    server_optimizer = server_optimizer or tff.learning.optimizers.build_sgdm(0.1)
    cut_into_batches = _cutter(model_fn, batch_size, False, budget, roles)
    if roles:
        metrics_aggregator = metrics_aggregator or tff.learning.metrics.sum_then_finalize
        work = tff_private.fed_sgd_client_work(model_fn, metrics_aggregator, _LOOP)
        work = client_roles.corrupting(work, cut_into_batches)
        return composition.compose(model_fn, work, server_optimizer, model_aggregator)
    process = tff.learning.algorithms.build_fed_sgd(
        model_fn,
        server_optimizer_fn=server_optimizer,
        model_aggregator=composition.taking_weights(model_aggregator),
        metrics_aggregator=metrics_aggregator,
        loop_implementation=_LOOP,
    )
    return tff.simulation.compose_dataset_computation_with_learning_process(
        cut_into_batches, process
    )


def _refuse_other_floats(model_fn: ModelFn) -> None:
    with tf.Graph().as_default():
        dtypes = {variable.dtype for variable in model_fn().trainable_variables}
    others = sorted(dtype.name for dtype in dtypes if dtype.base_dtype != tf.float32)
    if others:
        raise model_checks.ModelError(
            f"TFF's federated SGD computes in float32, but the model has weights of {others[0]}: "
            "use build_fedavg with inner_steps=1, whose step is the same."
        )


def build_tff_fedavg(
    model_fn: ModelFn,
    build_client_optimizer: Callable[[float], tff.learning.optimizers.Optimizer],
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int],
    inner_steps: Optional[int],
    shuffle: bool,
    inner_clip_norm: float,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer],
    client_weighting: tff.learning.ClientWeighting,
    model_aggregator: Optional[Any],
    metrics_aggregator: Optional[Callable[..., Any]],
    roles: bool,
) -> tff.learning.templates.LearningProcess:
    """Builds TFF's FedAvg on one-element clients, whose steps are those of any optimizer.

    Args:
      model_fn: As in `build_fedavg`, and so are all arguments that are not described here.
      build_client_optimizer: Makes the clients' optimizer of its learning rate.
    """
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    checks.check_number("inner_clip_norm", inner_clip_norm, 0)
    if not isinstance(client_weighting, tff.learning.ClientWeighting):
        raise TypeError(
            "TFF's FedAvg weighs clients by a tff.learning.ClientWeighting alone: for weights of "
            "your own use build_reptile, which with its server rate of 1 is the same method."
        )
    client_optimizer = build_client_optimizer(inner_learning_rate)
    if inner_clip_norm:
        client_optimizer = _Clipping(client_optimizer, inner_clip_norm)
    cut_into_batches = _cutter(model_fn, batch_size, shuffle, budget, roles)
    if roles:
        work = tff.learning.templates.build_model_delta_client_work(
            model_fn,
            client_optimizer,
            client_weighting,
            metrics_aggregator=metrics_aggregator or tff.learning.metrics.sum_then_finalize,
            loop_implementation=_LOOP,
        )
        work = client_roles.corrupting(work, cut_into_batches)
        server_optimizer = server_optimizer or tff.learning.optimizers.build_sgdm(1.0)
        return composition.compose(model_fn, work, server_optimizer, model_aggregator)
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=client_optimizer,
        server_optimizer_fn=server_optimizer,
        client_weighting=client_weighting,
        model_aggregator=composition.taking_weights(model_aggregator),
        metrics_aggregator=metrics_aggregator,
        loop_implementation=_LOOP,
    )
    return tff.simulation.compose_dataset_computation_with_learning_process(
        cut_into_batches, process
    )


class _Clipping(tff.learning.optimizers.Optimizer):
    """An optimizer that is given gradients whose common norm is at most `norm`."""

    def __init__(self, optimizer: tff.learning.optimizers.Optimizer, norm: float):
        self._optimizer = optimizer
        self._norm = norm

    def initialize(self, specs: Any) -> Any:
        return self._optimizer.initialize(specs)

    def next(self, state: Any, weights: Any, gradients: Any) -> Any:
        clipped = rules.clip(tf.nest.flatten(gradients), self._norm)
        return self._optimizer.next(state, weights, tf.nest.pack_sequence_as(weights, clipped))


def _as_written() -> tf.data.Options:
    """Returns options that keep tf.data from rewriting the pipeline anew for every client."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _cutter(
    model_fn: ModelFn, batch_size: int, shuffle: bool, budget: dict[str, int], roles: bool
) -> tff.Computation:
    """Returns the computation with which a client cuts its one element into TFF's batches."""
    with tf.Graph().as_default():
        model = model_fn()

    @tff.tensorflow.computation(client_model.client_types(model_fn, roles=roles).client)
    def cut_into_batches(dataset: Any) -> Any:
        client = dataset.get_single_element()
        examples = client_model.as_batch(model, client["x"], client["y"])
        plan = minibatches.plan_minibatches(
            minibatches.count_examples(examples),
            client["seed"],
            batch_size=batch_size,
            shuffle=shuffle,
            **budget,
        )
        work_share = client_roles.role_of(client).work_share if roles else None
        num_steps = minibatches.scale_steps(plan.num_steps, work_share)
        steps = tf.data.Dataset.range(tf.cast(num_steps, tf.int64))
        batches = steps.map(lambda step: minibatches.gather_examples(examples, plan.indices(step)))
        return batches.with_options(_as_written())

    return cut_into_batches
