"""FedBABU: clients train the body of the network and send it alone; the head stays as it began."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.algorithms.client_work import Weighting
from tff_fedmeta.algorithms.composition import (
    Federation,
    compose_update,
    plan_local_training,
)
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client import inner_loop, layers, minibatches
from tff_fedmeta.client.meta_gradient import LocalUpdate, difference, read_values
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import Rule, build_rule


def fedbabu(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    plan: minibatches.PlanMinibatches,
    body: Sequence[int],
    work_share: tf.Tensor | None = None,
) -> LocalUpdate:
    """FedBABU's update: how far local training moves the body.

    Oh, Kim and Yun, "FedBABU: Toward Enhanced Representation for Federated Image Classification",
    arXiv:2106.06042, Algorithm 1: local steps as in federated averaging, in which the head has the
    rate 0. The head is neither sent nor averaged. A client adapts all weights afterwards.

    Args:
      model: A `tff.learning.models.VariableModel` that holds the server's weights.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the order of the examples.
      rule: The rule of the local steps.
      plan: (number of examples, seed) -> the steps and the examples of each.
      body: Which of the model's trainable variables are trained.
      work_share: The share of the steps that are taken, float32 scalar in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`, with a tensor for each of `body`; zeros without examples.
    """
    steps = plan(minibatches.count_examples(examples), seed)
    num_steps = minibatches.scale_steps(steps.num_steps, work_share)
    moving = [model.trainable_variables[index] for index in body]
    start = read_values(moving)
    state = rule.initialize(moving)
    inner_loop.train(model, examples, steps, rule, state, tf.constant(0), num_steps, moving=moving)
    return LocalUpdate(
        update=difference(start, moving),
        metrics=model.report_local_unfinalized_metrics(),
        examples=steps.count_examples(0, num_steps),
        gradient_evaluations=num_steps,
    )


@at_the_door
def build_fedbabu(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    head_layers: int = 1,
    inner_epochs: int | None = None,
    inner_steps: int | None = None,
    shuffle: bool = True,
    inner_optimizer: tff.learning.optimizers.Optimizer | None = None,
    inner_clip_norm: float = 0.0,
    server_optimizer: tff.learning.optimizers.Optimizer | None = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Any | None = None,
    metrics_aggregator: Callable[..., Any] | None = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds FedBABU (Oh, Kim and Yun, arXiv:2106.06042).

    Only the body is sent, so that only the body is clipped, noised and counted by an aggregator.

    Args:
      model_fn: As in `build_reptile`, and so are all arguments that are not described here.
      inner_learning_rate: The rate of the local steps, >= 0.
      batch_size: Examples in a local step, >= 1.
      head_layers: How many layers with weights, counted from the end, stay as they are; >= 1 and
        fewer than there are.
      inner_epochs: Local epochs, or
      inner_steps: local steps.
      shuffle: Whether examples are shuffled.
      inner_optimizer: The rule of the local steps; None is plain SGD.
      inner_clip_norm: The longest gradient of the body in a local step.
      server_optimizer: Applies the mean update to the body; None is SGD with rate 1.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`).

    Raises:
      ValueError: If a value is out of its range, the head is the whole model, both epochs and steps
        are given, or the model has moving statistics (batch normalisation that is not frozen).
      TypeError: If `client_weighting` is not a `client_work.Weighting`.
    """
    plan = plan_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle)
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        body = layers.shared_variables(model_fn(), head_layers)
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        fedbabu,
        plan=plan,
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
        body=body,
    )
    return compose_update(
        model_fn, update, federation, tff.learning.optimizers.build_sgdm(1.0), sent=body
    )
