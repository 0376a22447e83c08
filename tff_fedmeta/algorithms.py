"""The algorithms as TFF learning processes: each is a local update composed with TFF's blocks."""

import functools
import math
from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import client_work, local_updates

ModelFn = Callable[[], tff.learning.models.VariableModel]


def build_reptile(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
) -> tff.learning.templates.LearningProcess:
    """Builds Reptile (Nichol, Achiam and Schulman, arXiv:1803.02999, Algorithm 1).

    Each round every client trains on its own data, and the server moves by epsilon, its learning
    rate, towards the weighted mean of where they ended. With epsilon 1, equal epochs and weights by
    size this *is* federated averaging.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      inner_learning_rate: The rate of the clients' steps, >= 0.
      batch_size: Examples in a local step, >= 1.
      inner_epochs: Local epochs, >= 0 (1 if neither this nor `inner_steps` is given), or
      inner_steps: local steps, >= 0, that walk the batches and reshuffle when they run out.
      shuffle: Whether examples are shuffled, by each client's own seed; False keeps their order.
      inner_optimizer: The rule of the clients' steps, fresh at every client; None is plain SGD.
        Its learning rate is `inner_learning_rate`.
      server_optimizer: Applies the mean update; None is SGD with epsilon = 1.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates; None is the weighted mean. One that
        takes no weights averages clients that were left out in as zeros.
      metrics_aggregator: As in `tff.learning.algorithms`; None is `sum_then_finalize`.

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`).

    Raises:
      ValueError: If a value is out of its range or both epochs and steps are given.
      TypeError: If `client_weighting` is no `tff.learning.ClientWeighting`.
    """
    budget = check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    local_update = functools.partial(
        local_updates.reptile,
        optimizer=inner_optimizer or local_updates.SGD(float(inner_learning_rate)),
        learning_rate=inner_learning_rate,
        batch_size=batch_size,
        shuffle=shuffle,
        **budget,
    )
    work = client_work.build_client_work(
        model_fn,
        local_update,
        client_weighting=client_weighting,
        metrics_aggregator=metrics_aggregator,
    )
    return compose(
        model_fn,
        work,
        server_optimizer or tff.learning.optimizers.build_sgdm(1.0),
        model_aggregator,
    )


# name -> builder; every builder takes (model_fn, **hyperparameters).
ALGORITHMS: dict[str, Callable[..., tff.learning.templates.LearningProcess]] = {
    "reptile": build_reptile,
}


def compose(
    model_fn: ModelFn,
    work: tff.learning.templates.ClientWorkProcess,
    server_optimizer: tff.learning.optimizers.Optimizer,
    model_aggregator: Optional[Any] = None,
) -> tff.learning.templates.LearningProcess:
    """Composes client work with TFF's broadcast, an aggregator and a server optimizer."""

    @tff.tensorflow.computation
    def initial_weights():
        return tff.learning.models.ModelWeights.from_model(model_fn())

    weights_type = initial_weights.type_signature.result
    aggregator = model_aggregator or tff.aggregators.MeanFactory()
    if isinstance(aggregator, tff.aggregators.UnweightedAggregationFactory):
        aggregator = tff.aggregators.as_weighted_aggregator(aggregator)
    return tff.learning.templates.compose_learning_process(
        initial_weights,
        tff.learning.templates.build_broadcast_process(weights_type),
        work,
        aggregator.create(weights_type.trainable, tff.TensorType(tf.float32.as_numpy_dtype)),
        tff.learning.templates.build_apply_optimizer_finalizer(server_optimizer, weights_type),
    )


def check_local_training(
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int],
    inner_steps: Optional[int],
) -> dict[str, int]:
    """Returns the one of `inner_epochs` and `inner_steps` that holds, 1 epoch if neither is given.

    Raises:
      ValueError: If a value is out of its range or both are given.
    """
    if not (math.isfinite(inner_learning_rate) and inner_learning_rate >= 0):
        raise ValueError(f"inner_learning_rate must be >= 0, but is {inner_learning_rate}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, but is {batch_size}.")
    if inner_epochs is not None and inner_steps is not None:
        raise ValueError(
            "inner_epochs and inner_steps exclude each other, but both are given: "
            f"{inner_epochs} and {inner_steps}."
        )
    if inner_steps is not None:
        if inner_steps < 0:
            raise ValueError(f"inner_steps must be >= 0, but is {inner_steps}.")
        return {"inner_steps": inner_steps}
    epochs = 1 if inner_epochs is None else inner_epochs
    if epochs < 0:
        raise ValueError(f"inner_epochs must be >= 0, but is {epochs}.")
    return {"inner_epochs": epochs}
