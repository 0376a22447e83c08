"""Reptile: train on a client, and move towards where training ended."""

import functools
from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.algorithms.client_work import Weighting
from tff_fedmeta.algorithms.composition import (
    Federation,
    compose_update,
    plan_local_training,
)
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client import inner_loop, minibatches
from tff_fedmeta.client.meta_gradient import (
    LocalUpdate,
    difference,
    read_values,
)
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import Rule, build_rule


def reptile(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    plan: minibatches.PlanMinibatches,
    work_share: Optional[tf.Tensor] = None,
) -> LocalUpdate:
    """Reptile's update: how far local training moves, theta_0 - theta_K.

    Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", arXiv:1803.02999,
    Algorithm 1: theta <- theta + epsilon * (theta_K - theta), with theta_K after K steps of
    ordinary training on the client. The server's optimizer applies epsilon. All of the client's
    examples are trained on; there is no support/query split. Unlike the authors' code, the inner
    optimizer's state starts fresh at every client, because clients of a federation share none.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the order of the examples.
      rule: The rule of the inner steps.
      plan: (number of examples, seed) -> the steps and the examples of each.
      work_share: The share of the steps that are taken, float32 scalar in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`; zeros without examples.
    """
    steps = plan(minibatches.count_examples(examples), seed)
    num_steps = minibatches.scale_steps(steps.num_steps, work_share)
    start = read_values(model.trainable_variables)
    state = rule.initialize(model.trainable_variables)
    inner_loop.train(model, examples, steps, rule, state, tf.constant(0), num_steps)
    return LocalUpdate(
        update=difference(start, model.trainable_variables),
        metrics=model.report_local_unfinalized_metrics(),
        examples=steps.count_examples(0, num_steps),
        gradient_evaluations=num_steps,
    )


@at_the_door
def build_reptile(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    inner_clip_norm: float = 0.0,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
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
      inner_clip_norm: The longest gradient of a client's step, >= 0: longer ones are scaled to
        it; 0 clips nothing.
      server_optimizer: Applies the mean update; None is SGD with epsilon = 1.
      client_weighting: How much a client counts in the mean: by its examples, UNIFORM, "given" in
        its element, or a function of its x and y; see `client_work.build_client_work`.
      model_aggregator: A TFF aggregation factory for updates; None is the weighted mean. An
        unweighted factory still counts excluded clients, as zero updates.
      metrics_aggregator: As in `tff.learning.algorithms`; None is `sum_then_finalize`.
      roles: Whether clients have a role, which says how they fail (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`).

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, or the model has
        moving statistics, which are not aggregated (batch normalisation that is not frozen).
      TypeError: If `client_weighting` is not a `client_work.Weighting`.
    """
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        reptile,
        plan=plan_local_training(
            inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle
        ),
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
    )
    return compose_update(model_fn, update, federation, tff.learning.optimizers.build_sgdm(1.0))
