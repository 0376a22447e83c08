"""Per-FedAvg: every client takes local steps of MAML, and the server averages where they end.

`maml.build_maml` describes the arguments that a builder does not.
"""

import functools
from typing import Any, Callable, Optional

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
from tff_fedmeta.client import minibatches, support_query
from tff_fedmeta.client.meta_gradient import (
    LocalUpdate,
    difference,
    meta_gradient,
    read_values,
    split_and_plan,
)
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import Rule, build_rule, clip


def per_fedavg(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    split: support_query.Split,
    plan: minibatches.PlanMinibatches,
    meta_learning_rate: float,
    local_meta_steps: int,
    whole_query: bool,
    first_order: bool = False,
    clip_norm: float = 0.0,
    work_share: Optional[tf.Tensor] = None,
) -> LocalUpdate:
    """Per-FedAvg's update: how far tau local meta-steps move, theta_0 - theta_tau.

    Fallah, Mokhtari and Ozdaglar, "Personalized Federated Learning with Theoretical Guarantees",
    arXiv:2002.07948, Algorithm 1: theta <- theta - beta grad F_i(theta), tau times on the client,
    F_i being the loss after adaptation, whose gradient `maml` computes; first_order is their
    Per-FedAvg (FO). The Hessian is multiplied exactly, where their Per-FedAvg (HF) takes a
    difference of gradients. Support and query come from one split of the client, and the Hessian is
    that of the support batches, not of a third batch, which makes tau = 1 MAML.

    The meta-steps divide the planned inner steps. Where they divide one pass over query too, a
    client walks as many examples as in the other algorithms; one with fewer than tau batches of
    support, or examples in query, takes as many meta-steps as it has of them.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the split and the order of the examples.
      rule: The rule of the inner steps.
      split: (examples, seed) -> support and query.
      plan: (number of support examples, seed) -> the inner steps of all meta-steps together.
      meta_learning_rate: Beta, the rate of the local meta-steps, >= 0.
      local_meta_steps: Tau, >= 1.
      whole_query: Whether every meta-step sees all of the query; otherwise they divide it.
      first_order: Whether the Hessian is left out.
      clip_norm: The longest meta-gradient of a local meta-step; 0 clips nothing.
      work_share: The share of the meta-steps that are taken, float32 in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`, with the metrics of the last meta-step. For a client too small to split it
      is meaningless, and `client_work` discards it.
    """
    sides, steps = split_and_plan(examples, seed, split, plan)
    tau = tf.where(sides.num_support > 0, local_meta_steps, 0)
    if not whole_query:
        most = tf.minimum(tf.maximum(steps.num_steps, 1), sides.num_query)
        tau = tf.minimum(tau, most)
    last = minibatches.scale_steps(tau, work_share)

    known = steps.known_steps // local_meta_steps if steps.known_steps is not None else None

    def part(whole: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return step * whole // tau, (step + 1) * whole // tau

    def meta_step(step: tf.Tensor, so_far: LocalUpdate) -> tuple[tf.Tensor, LocalUpdate]:
        query = sides.query
        if not whole_query:
            query = minibatches.gather_examples(query, tf.range(*part(sides.num_query, step)))
        before = read_values(model.trainable_variables)
        gradient = meta_gradient(
            model,
            sides.support,
            steps,
            *part(steps.num_steps, step),
            query,
            rule=rule,
            first_order=first_order,
            num_steps=known,
        )
        direction = clip(gradient.update, clip_norm) if clip_norm else gradient.update
        for variable, value, g in zip(model.trainable_variables, before, direction):
            variable.assign(value - meta_learning_rate * g)
        return step + 1, LocalUpdate(
            so_far.update,
            gradient.metrics,
            so_far.examples + gradient.examples,
            so_far.gradient_evaluations + gradient.gradient_evaluations,
        )

    model.reset_metrics()
    nothing = LocalUpdate([], model.report_local_unfinalized_metrics(), 0, 0)
    start = read_values(model.trainable_variables)
    _, done = tf.while_loop(
        lambda step, _: step < last, meta_step, (tf.constant(0), nothing), parallel_iterations=1
    )
    return done._replace(update=difference(start, model.trainable_variables))


@at_the_door
def build_per_fedavg(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    meta_learning_rate: float,
    local_meta_steps: int,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    first_order: bool = False,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    inner_clip_norm: float = 0.0,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds Per-FedAvg (Fallah, Mokhtari and Ozdaglar, arXiv:2002.07948): local steps of MAML.

    Each round every client takes tau steps of its own along its meta-gradient, and the server
    averages where they end. With tau = 1 this *is* MAML at a server step of `meta_learning_rate`.

    Args:
      inner_learning_rate: Alpha, the rate of the inner steps, >= 0.
      meta_learning_rate: Beta, the rate of the local meta-steps, >= 0.
      local_meta_steps: Tau, the local meta-steps, >= 1.
      inner_epochs: Epochs over support, which the meta-steps divide among them, as they do one
        pass over query (1 if neither this nor `inner_steps` is given); or
      inner_steps: inner steps in every meta-step, each of which sees all of the query.
      first_order: Whether the Hessian is left out, the paper's variant FO; otherwise it is
        multiplied exactly, where the paper's HF takes a difference of gradients.
      inner_clip_norm: The longest gradient of an inner step and of a meta-step; 0 clips nothing.
      server_optimizer: Applies the mean update; None is SGD with rate 1, the mean itself.

    Returns:
      As `build_maml`.

    Raises:
      ValueError: As `build_maml`.
      TypeError: As `build_maml`.
    """
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    checks.check_number("meta_learning_rate", meta_learning_rate, 0)
    checks.check_count("local_meta_steps", local_meta_steps, 1)
    checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    if inner_steps is not None:
        inner_steps = inner_steps * local_meta_steps
    update = functools.partial(
        per_fedavg,
        plan=plan_local_training(
            inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle
        ),
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
        meta_learning_rate=meta_learning_rate,
        local_meta_steps=local_meta_steps,
        whole_query=inner_steps is not None,
        first_order=first_order,
        clip_norm=inner_clip_norm,
    )
    return compose_split_update(
        model_fn,
        update,
        federation,
        tff.learning.optimizers.build_sgdm(1.0),
        support_fraction=support_fraction,
        split=split,
        second_order=not first_order,
    )
