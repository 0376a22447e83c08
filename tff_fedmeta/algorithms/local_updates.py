"""What one client computes: pure TensorFlow on one client's tensors, no federation in it.

Every function here takes a model whose variables hold the weights sent by the server, and works on
those variables through `assign`, so any Keras model will do. An update is always a *descent
direction*, which the server subtracts: start minus end for methods that train, a gradient for
methods that differentiate.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from tff_fedmeta.client import inner_loop, minibatches, support_query

# What one Hessian-vector product counts for in gradient evaluations: the gradient of the step once
# more, and the derivative of it.
_HESSIAN_PRODUCT = 2


class LocalUpdate(NamedTuple):
    """What a client sends, and what it took.

    Attributes:
      update: The descent direction: a tensor for each trainable weight, then one for each learnt
        rate if the algorithm has them.
      metrics: The model's unfinalized metrics: of all local steps for methods that train, on the
        query at the adapted weights for methods that differentiate.
      examples: int32 scalar, the examples walked: those of the inner steps and of the query.
      gradient_evaluations: int32 scalar, the batches that gradients were taken of; a query counts
        as the batches it is worth, a Hessian-vector product as two.
    """

    update: list[tf.Tensor]
    metrics: Any
    examples: tf.Tensor
    gradient_evaluations: tf.Tensor


def reptile(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: inner_loop.Rule,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
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
      batch_size: >= 1.
      inner_epochs: Local epochs, or
      inner_steps: local steps, exactly one of them.
      shuffle: Whether every epoch has its own random order.
      work_share: The share of the steps that are taken, float32 scalar in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`; zeros without examples.
    """
    plan = minibatches.plan_minibatches(
        minibatches.count_examples(examples),
        seed,
        batch_size=batch_size,
        inner_epochs=inner_epochs,
        inner_steps=inner_steps,
        shuffle=shuffle,
    )
    num_steps = minibatches.part_of(plan.num_steps, work_share)
    start = _values(model.trainable_variables)
    state = rule.initialize(model.trainable_variables)
    inner_loop.train(model, examples, plan, rule, state, tf.constant(0), num_steps)
    return LocalUpdate(
        update=_difference(start, model.trainable_variables),
        metrics=model.report_local_unfinalized_metrics(),
        examples=plan.count_examples(0, num_steps),
        gradient_evaluations=num_steps,
    )


def maml(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: inner_loop.Rule,
    batch_size: int,
    support_fraction: float = 0.5,
    split: str = "random",
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    first_order: bool = False,
    moving: Optional[Sequence[int]] = None,
    work_share: Optional[tf.Tensor] = None,
) -> LocalUpdate:
    """The gradient of the query loss after adapting to support, by the weights before it.

    Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning", arXiv:1703.03400, Algorithm 1; on
    federated clients Chen et al., arXiv:1802.07876. With theta_{k+1} = theta_k - alpha grad
    L_k(theta_k) on batch k of support and L_q the mean loss on query:

        g_K = grad L_q(theta_K),    g_k = g_{k+1} - alpha H_k g_{k+1},    update = g_0

    H_k being the Hessian of L_k at theta_k. FOMAML stops at g_K. ANIL (Raghu et al.,
    arXiv:1909.09157) moves only the head in the inner steps; g_0 is for all weights. Meta-SGD (Li
    et al., arXiv:1707.09835) has a rate for each weight and sends the gradient by them as well,
    d alpha = - sum_k grad L_k(theta_k) * g_{k+1}. Unlike the papers', a client's data are one task
    of any size, the query is all of the rest, and there may be several inner steps on mini-batches.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the split and the order of the examples.
      rule: The rule of the inner steps; one with learnable rates makes it Meta-SGD.
      batch_size: Support examples in an inner step, >= 1.
      support_fraction: The share of support, in (0, 1).
      split: As in `support_query.split_support_query`.
      inner_epochs: Epochs over support, or
      inner_steps: inner steps, exactly one of them.
      shuffle: Whether every epoch over support has its own random order.
      first_order: Whether to stop at g_K.
      moving: Which of the model's trainable variables the inner steps move; None is all.
      work_share: The share of the inner steps that are taken, float32 in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`; that of a client that is too small to split means nothing.
    """
    sides, plan = _split_and_plan(
        examples,
        seed,
        support_fraction,
        split,
        batch_size=batch_size,
        inner_epochs=inner_epochs,
        inner_steps=inner_steps,
        shuffle=shuffle,
    )
    return _meta_gradient(
        model,
        sides.support,
        plan,
        tf.constant(0),
        minibatches.part_of(plan.num_steps, work_share),
        sides.query,
        rule=rule,
        first_order=first_order,
        moving=moving,
        num_steps=inner_steps if work_share is None else None,
    )


def per_fedavg(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: inner_loop.Rule,
    meta_learning_rate: float,
    local_meta_steps: int,
    batch_size: int,
    support_fraction: float = 0.5,
    split: str = "random",
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    first_order: bool = False,
    work_share: Optional[tf.Tensor] = None,
) -> LocalUpdate:
    """Per-FedAvg's update: how far tau local meta-steps move, theta_0 - theta_tau.

    Fallah, Mokhtari and Ozdaglar, "Personalized Federated Learning with Theoretical Guarantees",
    arXiv:2002.07948, Algorithm 1: theta <- theta - beta grad F_i(theta), tau times on the client,
    F_i being the loss after adaptation, whose gradient is that of `maml`; first_order is their
    Per-FedAvg (FO). The Hessian is multiplied exactly, where their Per-FedAvg (HF) takes a
    difference of gradients. Support and query come from one split of the client, and the Hessian is
    that of the support batches, not of a third batch, which makes tau = 1 MAML.

    With `inner_steps` every meta-step takes that many fresh batches of support and all of the
    query. With `inner_epochs` the passes over support and the one over query are divided among the
    meta-steps, so that a client walks as many examples as in the other algorithms; one with fewer
    than tau batches of support, or examples in query, takes as many meta-steps as it has of them.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the split and the order of the examples.
      rule: The rule of the inner steps.
      meta_learning_rate: Beta, the rate of the local meta-steps, >= 0.
      local_meta_steps: Tau, >= 1.
      batch_size: Support examples in an inner step, >= 1.
      support_fraction: The share of support, in (0, 1).
      split: As in `support_query.split_support_query`.
      inner_epochs: Epochs over support in all, or
      inner_steps: inner steps in every meta-step, exactly one of them.
      shuffle: Whether every epoch over support has its own random order.
      first_order: Whether the Hessian is left out.
      work_share: The share of the meta-steps that are taken, float32 in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`, its metrics those of the last meta-step; that of a client that is too small
      to split means nothing.
    """
    sides, plan = _split_and_plan(
        examples,
        seed,
        support_fraction,
        split,
        batch_size=batch_size,
        inner_epochs=inner_epochs,
        inner_steps=None if inner_steps is None else inner_steps * local_meta_steps,
        shuffle=shuffle,
    )
    tau = tf.where(sides.num_support > 0, local_meta_steps, 0)
    if inner_steps is None:
        most = tf.minimum(tf.maximum(plan.num_steps, 1), sides.num_query)
        tau = tf.minimum(tau, most)
    last = minibatches.part_of(tau, work_share)

    def part(whole: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return step * whole // tau, (step + 1) * whole // tau

    def meta_step(step: tf.Tensor, so_far: LocalUpdate) -> tuple[tf.Tensor, LocalUpdate]:
        query = sides.query
        if inner_steps is None:
            query = minibatches.gather_examples(query, tf.range(*part(sides.num_query, step)))
        before = _values(model.trainable_variables)
        gradient = _meta_gradient(
            model,
            sides.support,
            plan,
            *part(plan.num_steps, step),
            query,
            rule=rule,
            first_order=first_order,
            num_steps=inner_steps,
        )
        for variable, value, g in zip(model.trainable_variables, before, gradient.update):
            variable.assign(value - meta_learning_rate * g)
        return step + 1, LocalUpdate(
            so_far.update,
            gradient.metrics,
            so_far.examples + gradient.examples,
            so_far.gradient_evaluations + gradient.gradient_evaluations,
        )

    model.reset_metrics()
    nothing = LocalUpdate([], model.report_local_unfinalized_metrics(), 0, 0)
    start = _values(model.trainable_variables)
    _, done = tf.while_loop(
        lambda step, _: step < last, meta_step, (tf.constant(0), nothing), parallel_iterations=1
    )
    return done._replace(update=_difference(start, model.trainable_variables))


def _split_and_plan(
    examples: Any, seed: tf.Tensor, support_fraction: float, split: str, **plan: Any
) -> tuple[support_query.SupportQuery, minibatches.MinibatchPlan]:
    """Returns support and query, and the `plan` of the inner steps on support.

    Support is never empty but has a blank example where the client cannot be split: it computes all
    the same and its update is thrown away (`client_work`), and a batch without examples is more
    than some layers can take.
    """
    sides = support_query.split_support_query(
        examples, seed, support_fraction=support_fraction, split=split
    )
    missing = tf.maximum(1 - sides.num_support, 0)
    support = tf.nest.map_structure(
        lambda tensor: tf.pad(tensor, [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1)),
        sides.support,
    )
    count = minibatches.count_examples(support)
    return sides._replace(support=support), minibatches.plan_minibatches(count, seed, **plan)


def _meta_gradient(
    model: Any,
    support: Any,
    plan: minibatches.MinibatchPlan,
    first: tf.Tensor,
    last: tf.Tensor,
    query: Any,
    *,
    rule: inner_loop.Rule,
    first_order: bool,
    moving: Optional[Sequence[int]] = None,
    num_steps: Optional[int] = None,
) -> LocalUpdate:
    """The gradient of the query loss after steps `first` to `last` - 1 on support; see `maml`."""
    variables = model.trainable_variables
    moves = variables if moving is None else [variables[index] for index in moving]

    _, steps = inner_loop.train(
        model,
        support,
        plan,
        rule,
        rule.initialize(moves),
        first,
        last,
        moving=moves,
        keep=not first_order,
        num_steps=num_steps,
    )
    model.reset_metrics()  # every forward pass adds to them, also those that only differentiate
    gradient = _mean_gradient(model, query)
    metrics = model.report_local_unfinalized_metrics()
    num_query = minibatches.count_examples(query)
    evaluations = last - first + minibatches.batches_per_epoch(num_query, plan.batch_size)
    if not first_order:
        gradient, of_rates = inner_loop.differentiate(
            model, support, plan, rule, steps, gradient, moving=moves
        )
        gradient += of_rates
        evaluations += _HESSIAN_PRODUCT * (last - first)
    return LocalUpdate(gradient, metrics, plan.count_examples(first, last) + num_query, evaluations)


def _mean_gradient(model: Any, examples: Any) -> list[tf.Tensor]:
    """Returns the gradient of the mean loss on all examples; zeros if there are none."""
    variables = model.trainable_variables
    num_examples = minibatches.count_examples(examples)

    def add_pass(start: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        stop = tf.minimum(start + minibatches.PASS, num_examples)
        batch = minibatches.gather_examples(examples, tf.range(start, stop))
        with tf.GradientTape() as tape:
            loss = model.forward_pass(batch, training=True).loss
        gradients = tape.gradient(
            loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        share = (stop - start) / num_examples
        return stop, [
            s + tf.cast(share, s.dtype) * tf.ensure_shape(tf.convert_to_tensor(g), s.shape)
            for s, g in zip(sums, gradients)
        ]

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    _, mean = tf.while_loop(
        lambda start, _: start < num_examples,
        add_pass,
        (tf.constant(0), zeros),
        parallel_iterations=1,
    )
    return mean


def _values(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Returns copies of what the variables hold now."""
    return [tf.identity(variable) for variable in variables]


def _difference(start: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    return [before - after for before, after in zip(start, variables)]
