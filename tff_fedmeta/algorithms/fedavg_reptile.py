"""FedAvg that goes on as Reptile: first what all clients share, then what adapts."""

from __future__ import annotations

import functools
from typing import Any, Callable

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.algorithms.composition import (
    Federation,
    compose_update,
    plan_local_training,
)
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.algorithms.reptile import reptile
from tff_fedmeta.client import minibatches
from tff_fedmeta.client.meta_gradient import LocalUpdate
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import Rule, build_rule


def fedavg_reptile(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    round_num: tf.Tensor,
    switch_round: int,
    rule: Rule,
    plan: minibatches.PlanMinibatches,
    reptile_plan: minibatches.PlanMinibatches,
    work_share: tf.Tensor | None = None,
) -> LocalUpdate:
    """Reptile's update, after steps that `plan` plans before the switch and `reptile_plan` after.

    Jiang, Konečný, Rush and Kannan, "Improving Federated Learning Personalization via Model
    Agnostic Meta Learning", arXiv:1909.12488, Algorithm 3. Both stages send how far local training
    moved; they differ in how long clients train, and in the server's step.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the order of the examples.
      round_num: int32 scalar, the rounds that were finished before this one.
      switch_round: How many rounds the first stage has.
      rule: The rule of the local steps.
      plan: (number of examples, seed) -> the steps of the first stage.
      reptile_plan: The same of the second.
      work_share: The share of the steps that are taken, float32 scalar in (0, 1]; None: all.
    """
    before = round_num < switch_round

    def plan_of_stage(num_examples: tf.Tensor, seed: tf.Tensor) -> minibatches.MinibatchPlan:
        one, other = plan(num_examples, seed), reptile_plan(num_examples, seed)
        return minibatches.MinibatchPlan(
            tf.where(before, one.num_steps, other.num_steps),
            tf.cond(before, lambda: one.orders, lambda: other.orders),
            one.batch_size,
        )

    return reptile(model, examples, seed, rule=rule, plan=plan_of_stage, work_share=work_share)


class SwitchingOptimizer(tff.learning.optimizers.Optimizer):
    """One optimizer for some rounds, and another, with a state of its own, for all further ones.

    Args:
      first: The optimizer of the first rounds.
      second: That of the others.
      switch_round: How many rounds the first has, >= 0.
    """

    def __init__(
        self,
        first: tff.learning.optimizers.Optimizer,
        second: tff.learning.optimizers.Optimizer,
        switch_round: int,
    ):
        self._first = first
        self._second = second
        self._switch_round = switch_round

    def initialize(self, specs: Any) -> Any:
        """Returns the number of rounds, none, and the initial states of both."""
        return tf.constant(0), self._first.initialize(specs), self._second.initialize(specs)

    def next(self, state: Any, weights: Any, gradients: Any) -> Any:
        """Makes a step of the optimizer whose round it is; the other one's state stays."""
        done, first, second = state

        def by_first() -> Any:
            new, moved = self._first.next(first, weights, gradients)
            return new, second, moved

        def by_second() -> Any:
            new, moved = self._second.next(second, weights, gradients)
            return first, new, moved

        first, second, moved = tf.cond(done < self._switch_round, by_first, by_second)
        return (done + 1, first, second), moved


@at_the_door
def build_fedavg_reptile(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    switch_round: int,
    reptile_steps: int,
    reptile_server_learning_rate: float = 0.001,
    inner_epochs: int | None = None,
    inner_steps: int | None = None,
    shuffle: bool = True,
    inner_optimizer: tff.learning.optimizers.Optimizer | None = None,
    inner_clip_norm: float = 0.0,
    server_optimizer: tff.learning.optimizers.Optimizer | None = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Any | None = None,
    metrics_aggregator: Callable[..., Any] | None = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds personalised FedAvg (Jiang, Konečný, Rush and Kannan, arXiv:1909.12488, Algorithm 3).

    For `switch_round` rounds this is Reptile with `server_optimizer`, which with its default is
    FedAvg; then it is Reptile of `reptile_steps` local steps, and the server's optimizer is Adam.

    Args:
      model_fn: As in `build_reptile`, and so are all arguments that are not described here.
      inner_learning_rate: The rate of the clients' steps in both stages, >= 0.
      batch_size: Examples in a local step, >= 1.
      switch_round: Rounds of the first stage, >= 0.
      reptile_steps: K >= 1 local steps in a round of the second stage.
      reptile_server_learning_rate: Adam's rate at the server in the second stage, >= 0.
      inner_epochs: Local epochs of the first stage (1 if neither this nor `inner_steps` is given),
        or
      inner_steps: its local steps.
      shuffle: Whether examples are shuffled.
      inner_optimizer: The rule of the clients' steps; None is plain SGD.
      inner_clip_norm: The longest gradient of a client's step; 0 clips nothing.
      server_optimizer: Applies the mean update in the first stage; None is SGD with rate 1.
      client_weighting: How much a client counts in the mean, in both stages.
      model_aggregator: A TFF aggregation factory for updates.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`).

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, or the model has
        moving statistics (batch normalisation that is not frozen).
      TypeError: If `client_weighting` is not a `tff.learning.ClientWeighting`.
    """
    plan = plan_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle)
    checks.check_count("switch_round", switch_round, 0)
    checks.check_count("reptile_steps", reptile_steps, 1)
    checks.check_number("reptile_server_learning_rate", reptile_server_learning_rate, 0)
    optimizers = tff.learning.optimizers
    switching = SwitchingOptimizer(
        server_optimizer or optimizers.build_sgdm(1.0),
        optimizers.build_adam(reptile_server_learning_rate),
        switch_round,
    )
    federation = Federation(
        switching, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        fedavg_reptile,
        switch_round=switch_round,
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
        plan=plan,
        reptile_plan=plan_local_training(
            inner_learning_rate, batch_size, None, reptile_steps, shuffle
        ),
    )
    return compose_update(model_fn, update, federation, switching, counts_rounds=True)
