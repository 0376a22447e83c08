"""FedRecon: clients rebuild a local part on support and train the shared part on query.

Arguments that a builder does not describe are those of `maml.build_maml`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.algorithms.client_work import Weighting
from tff_fedmeta.algorithms.composition import (
    Federation,
    compose_split_update,
    plan_local_training,
)
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client import inner_loop, layers, minibatches, support_query
from tff_fedmeta.client.meta_gradient import (
    LocalUpdate,
    difference,
    read_values,
    split_and_plan,
)
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import Rule, build_rule


def fedrecon(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    shared_rule: Rule,
    split: support_query.Split,
    plan: minibatches.PlanMinibatches,
    shared: Sequence[int],
    work_share: tf.Tensor | None = None,
) -> LocalUpdate:
    """Federated reconstruction's update: how far the shared part moves on query.

    Singhal, Sidahmed, Garrett, Wu, Rush and Prakash, "Federated Reconstruction: Partially Local
    Federated Learning", arXiv:2102.03448, Algorithm 1. The local part starts from its initial
    values and takes steps on support while the shared part is frozen; then the shared part takes
    steps on query while the local part is frozen. The local part is thrown away.

    Args:
      model: A `tff.learning.models.VariableModel` that holds the server's shared part, and the
        initial values of the local one.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the split and the order of the examples.
      rule: The rule of the steps of reconstruction.
      shared_rule: The rule of the shared part's steps.
      split: (examples, seed) -> support and query.
      plan: (number of examples, seed) -> the steps and the examples of each; on support, and once
        more on query.
      shared: Which of the model's trainable variables are shared; the others are local.
      work_share: The share of the steps that are taken, float32 in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`, with a tensor for each of `shared` and the metrics of the steps on query.
      For a client too small to split it is meaningless, and `client_work` discards it.
    """
    variables = model.trainable_variables
    moving = [variables[index] for index in shared]
    local = [v for index, v in enumerate(variables) if index not in set(shared)]
    start = read_values(moving)
    sides, on_support = split_and_plan(examples, seed, split, plan)
    on_query = plan(sides.num_query, seed)
    first = tf.constant(0)
    steps = [minibatches.scale_steps(p.num_steps, work_share) for p in (on_support, on_query)]
    state = rule.initialize(local)
    inner_loop.train(model, sides.support, on_support, rule, state, first, steps[0], moving=local)
    model.reset_metrics()
    state = shared_rule.initialize(moving)
    inner_loop.train(
        model, sides.query, on_query, shared_rule, state, first, steps[1], moving=moving
    )
    return LocalUpdate(
        update=difference(start, moving),
        metrics=model.report_local_unfinalized_metrics(),
        examples=on_support.count_examples(0, steps[0]) + on_query.count_examples(0, steps[1]),
        gradient_evaluations=steps[0] + steps[1],
    )


@at_the_door
def build_fedrecon(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    shared_learning_rate: float,
    head_layers: int = 1,
    local_layers: str | Sequence[str] = (),
    inner_epochs: int | None = None,
    inner_steps: int | None = None,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_optimizer: tff.learning.optimizers.Optimizer | None = None,
    inner_clip_norm: float = 0.0,
    server_optimizer: tff.learning.optimizers.Optimizer | None = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Any | None = None,
    metrics_aggregator: Callable[..., Any] | None = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds federated reconstruction (Singhal et al., arXiv:2102.03448).

    Only the shared part is sent. Evaluate with `build_adaptation_eval` and the same `head_layers`
    or `local_layers`: a client's model is the shared part with a local part rebuilt on support.

    Args:
      inner_learning_rate: The rate of the steps that rebuild the local part, >= 0.
      batch_size: Examples in a step, >= 1.
      shared_learning_rate: The rate of the shared part's steps, >= 0.
      head_layers: How many layers with weights, counted from the end, are local; >= 1 and fewer
        than there are. It counts only without `local_layers`.
      local_layers: Names of the layers that are local, in a list or separated by commas.
      inner_epochs: Epochs over support, and then over query, >= 1 (1 if neither this nor
        `inner_steps` is given), or
      inner_steps: K >= 1 steps on support, and then on query.
      inner_optimizer: The rule of the steps of reconstruction; None is SGD. The shared part's rule
        is SGD.
      inner_clip_norm: The longest gradient of a step, by what it moves; 0 clips nothing.
      server_optimizer: Applies the mean update of the shared part; None is SGD with rate 1.

    Returns:
      As `build_maml`.

    Raises:
      ValueError: If a value is out of its range, `local_layers` names a layer that the model does
        not have, the local part is the whole model, both epochs and steps are given, or the model
        has moving statistics.
      TypeError: As `build_maml`.
    """
    plan = plan_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle)
    checks.check_some_training(inner_epochs, inner_steps)
    checks.check_number("shared_learning_rate", shared_learning_rate, 0)
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        shared = layers.shared_variables(model_fn(), head_layers, layers.names_of(local_layers))
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        fedrecon,
        plan=plan,
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
        shared_rule=build_rule(None, shared_learning_rate, inner_clip_norm),
        shared=shared,
    )
    return compose_split_update(
        model_fn,
        update,
        federation,
        tff.learning.optimizers.build_sgdm(1.0),
        support_fraction=support_fraction,
        split=split,
        second_order=False,
        sent=shared,
    )
