"""iMAML: the gradient through the solution of a proximal problem, whatever steps solved it.

`maml.build_maml` describes the arguments that a builder does not.
"""

from __future__ import annotations

import functools
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
from tff_fedmeta.client import inner_loop, linear_solver, minibatches, support_query
from tff_fedmeta.client.meta_gradient import (
    HESSIAN_PRODUCT,
    LocalUpdate,
    hessian,
    mean_gradient,
    split_and_plan,
)
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.proximal import ProximalSGD
from tff_fedmeta.client.rules import Rule, clipping


def imaml(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    split: support_query.Split,
    plan: minibatches.PlanMinibatches,
    proximal_strength: float,
    cg_steps: int,
    work_share: tf.Tensor | None = None,
) -> LocalUpdate:
    """The gradient of the query loss at the solution of a proximal problem on support.

    Rajeswaran, Finn, Kakade and Levine, "Meta-Learning with Implicit Gradients", arXiv:1909.04630,
    Algorithms 1 and 2. With phi = argmin L_s(phi) + lambda / 2 * ||phi - theta||^2, approximated by
    proximal steps, L_s and L_q the mean losses on support and query, and H the Hessian of L_s:

        update = (I + H(phi) / lambda)^-1 grad L_q(phi)

    by conjugate gradient with exact Hessian-vector products. The steps are not differentiated, so
    none is kept in memory. They walk mini-batches of support, while H is taken on all of support.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the split and the order of the examples.
      rule: The rule of the proximal steps.
      split: (examples, seed) -> support and query.
      plan: (number of support examples, seed) -> the proximal steps and the examples of each.
      proximal_strength: Lambda > 0.
      cg_steps: The most steps of conjugate gradient, >= 1.
      work_share: The share of the proximal steps that are taken, float32 in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`. For a client too small to split it is meaningless, and `client_work`
      discards it.
    """
    sides, steps = split_and_plan(examples, seed, split, plan)
    num_steps = minibatches.scale_steps(steps.num_steps, work_share)
    variables = model.trainable_variables
    inner_loop.train(
        model, sides.support, steps, rule, rule.initialize(variables), tf.constant(0), num_steps
    )
    model.reset_metrics()  # every forward pass adds to them, also those that only differentiate
    gradient = mean_gradient(model, sides.query)
    metrics = model.report_local_unfinalized_metrics()

    solution, products = linear_solver.conjugate_gradient(
        hessian(model, sides.support), 1 / proximal_strength, gradient, cg_steps
    )
    num_support = minibatches.count_examples(sides.support)
    batches = [
        minibatches.batches_per_epoch(n, steps.batch_size) for n in (num_support, sides.num_query)
    ]
    return LocalUpdate(
        solution,
        metrics,
        steps.count_examples(tf.constant(0), num_steps) + sides.num_query,
        num_steps + batches[1] + HESSIAN_PRODUCT * products * batches[0],
    )


@at_the_door
def build_imaml(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    proximal_strength: float,
    cg_steps: int = 5,
    inner_epochs: int | None = None,
    inner_steps: int | None = None,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_clip_norm: float = 0.0,
    server_optimizer: tff.learning.optimizers.Optimizer | None = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Any | None = None,
    metrics_aggregator: Callable[..., Any] | None = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds iMAML (Rajeswaran, Finn, Kakade and Levine, arXiv:1909.04630).

    It is the gradient at the problem's solution: take enough inner steps to come near it, which
    costs no memory. Evaluate with `build_adaptation_eval(proximal_strength=...)`.

    Args:
      model_fn: As in `build_maml`, and so are all arguments that are not described here.
      inner_learning_rate: The rate of the proximal steps, >= 0. They are stable only where
        rate * (proximal_strength + curvature of the loss) < 2.
      batch_size: Support examples in a proximal step, >= 1.
      proximal_strength: Lambda > 0. The solution is one where it is greater than the most negative
        curvature of the support loss.
      cg_steps: The most steps of conjugate gradient, >= 1, a Hessian-vector product each.
      inner_epochs: Epochs >= 1 over support (1 if neither this nor `inner_steps` is given), or
      inner_steps: K >= 1 proximal steps.
      support_fraction: The share of a client's examples that is support.
      split: "random", "ordered" or "same".
      shuffle: Whether the order of support is shuffled in every epoch.
      inner_clip_norm: The longest gradient of the loss in a step, before the term is added.
      server_optimizer: Applies the mean gradient; None is Adam with rate 0.001.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`).

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, or the model has
        moving statistics or draws random numbers in training (dropout).
      TypeError: If `client_weighting` is not a `client_work.Weighting`.
    """
    plan = plan_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle)
    checks.check_proximal_training(proximal_strength, inner_epochs, inner_steps)
    checks.check_count("cg_steps", cg_steps, 1)
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        imaml,
        plan=plan,
        rule=clipping(ProximalSGD(inner_learning_rate, proximal_strength), inner_clip_norm),
        proximal_strength=float(proximal_strength),
        cg_steps=cg_steps,
    )
    return compose_split_update(
        model_fn,
        update,
        federation,
        support_fraction=support_fraction,
        split=split,
        second_order=True,
    )
