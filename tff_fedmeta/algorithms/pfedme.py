"""pFedMe: the shared weights move towards models that are held to them."""

from __future__ import annotations

import functools
from typing import Any, Callable

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.algorithms.client_work import Weighting
from tff_fedmeta.algorithms.composition import (
    Federation,
    compose_update,
    plan_local_training,
)
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client import inner_loop, minibatches
from tff_fedmeta.client.meta_gradient import LocalUpdate, difference, read_values
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.proximal import ProximalSGD
from tff_fedmeta.client.rules import Rule, clipping


def pfedme(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    plan: minibatches.PlanMinibatches,
    local_rounds: int,
    moved_share: float,
    work_share: tf.Tensor | None = None,
) -> LocalUpdate:
    """PFedMe's update: how far R local rounds move the shared weights, w_0 - w_R.

    Dinh, Tran and Nguyen, "Personalized Federated Learning with Moreau Envelopes",
    arXiv:2006.08848, Algorithm 1. In local round r a client approximates

        theta_r = argmin_theta  L(theta) + lambda / 2 * ||theta - w_r||^2

    by K steps of gradient descent from w_r, and w_{r+1} = w_r - eta * lambda * (w_r - theta_r). The
    K steps walk K mini-batches; the paper takes all of them on one. Nothing is kept of theta.

    Args:
      model: A `tff.learning.models.VariableModel` that holds w_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the order of the examples.
      rule: The rule of the proximal steps; its state starts at w_r.
      plan: (number of examples, seed) -> the steps of all local rounds together, which divide them.
        A client with fewer steps than local rounds takes one round a step.
      local_rounds: R, >= 1.
      moved_share: eta * lambda, >= 0.
      work_share: The share of the local rounds that are taken, float32 in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`, with the metrics of all proximal steps; zeros without examples.
    """
    steps = plan(minibatches.count_examples(examples), seed)
    variables = model.trainable_variables
    planned = tf.minimum(local_rounds, steps.num_steps)
    rounds = minibatches.scale_steps(planned, work_share)
    start = read_values(variables)

    def first_step(number: tf.Tensor) -> tf.Tensor:
        return number * steps.num_steps // tf.maximum(planned, 1)

    def local_round(number: tf.Tensor) -> tuple[tf.Tensor]:
        shared = read_values(variables)
        first, last = first_step(number), first_step(number + 1)
        inner_loop.train(model, examples, steps, rule, rule.initialize(variables), first, last)
        for variable, before in zip(variables, shared):
            share = tf.cast(moved_share, before.dtype)
            variable.assign(before - share * (before - variable))
        return (number + 1,)

    tf.while_loop(
        lambda number: number < rounds, local_round, (tf.constant(0),), parallel_iterations=1
    )
    num_steps = first_step(rounds)
    return LocalUpdate(
        update=difference(start, variables),
        metrics=model.report_local_unfinalized_metrics(),
        examples=steps.count_examples(tf.constant(0), num_steps),
        gradient_evaluations=num_steps,
    )


@at_the_door
def build_pfedme(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    proximal_strength: float,
    local_rounds: int,
    local_learning_rate: float,
    inner_epochs: int | None = None,
    inner_steps: int | None = None,
    shuffle: bool = True,
    inner_clip_norm: float = 0.0,
    server_optimizer: tff.learning.optimizers.Optimizer | None = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Any | None = None,
    metrics_aggregator: Callable[..., Any] | None = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds pFedMe (Dinh, Tran and Nguyen, arXiv:2006.08848, Algorithm 1).

    The server's learning rate is the paper's beta. Evaluate the weights with
    `build_adaptation_eval(proximal_strength=...)`: a client's model is the proximal problem's
    solution on its support.

    Args:
      model_fn: As in `build_reptile`, and so are all arguments that are not described here.
      inner_learning_rate: The rate of the proximal steps, >= 0. They are stable only where
        rate * (proximal_strength + curvature of the loss) < 2.
      batch_size: Examples in a proximal step, >= 1.
      proximal_strength: Lambda > 0.
      local_rounds: R >= 1.
      local_learning_rate: Eta >= 0; a local round moves eta * lambda of the way to theta.
      inner_epochs: Epochs >= 1 over the examples, which all local rounds divide (1 if neither this
        nor `inner_steps` is given), or
      inner_steps: K >= 1 proximal steps in each local round.
      shuffle: Whether examples are shuffled.
      inner_clip_norm: The longest gradient of the loss in a step, before the term is added.
      server_optimizer: Applies the mean update; None is SGD with rate 1.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`).

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, or the model has
        moving statistics (batch normalisation that is not frozen).
      TypeError: If `client_weighting` is not a `client_work.Weighting`.
    """
    checks.check_count("local_rounds", local_rounds, 1)
    checks.check_number("local_learning_rate", local_learning_rate, 0)
    checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    checks.check_proximal_training(proximal_strength, inner_epochs, inner_steps)
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        pfedme,
        plan=plan_local_training(
            inner_learning_rate,
            batch_size,
            inner_epochs,
            None if inner_steps is None else inner_steps * local_rounds,
            shuffle,
        ),
        rule=clipping(ProximalSGD(inner_learning_rate, proximal_strength), inner_clip_norm),
        local_rounds=local_rounds,
        moved_share=local_learning_rate * proximal_strength,
    )
    return compose_update(model_fn, update, federation, tff.learning.optimizers.build_sgdm(1.0))
