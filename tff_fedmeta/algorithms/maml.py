"""MAML, and its variants FOMAML, Meta-SGD and ANIL: differentiate through adaptation.

`build_maml` describes the arguments that a builder does not.
"""

import functools
from collections.abc import Sequence
from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

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
    meta_gradient,
    split_and_plan,
)
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import Rule, build_rule


def maml(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    split: support_query.Split,
    plan: minibatches.PlanMinibatches,
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
    et al., arXiv:1707.09835) learns its rates and sends the gradient by them as well, for a rate of
    each weight d alpha = - sum_k grad L_k(theta_k) * g_{k+1}. Unlike the papers', a client's data
    are one task of any size, the query is all of the rest, and there may be several inner steps on
    mini-batches.

    Args:
      model: A `tff.learning.models.VariableModel` that holds theta_0.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the split and the order of the examples.
      rule: The rule of the inner steps; one with learnable rates makes it Meta-SGD.
      split: (examples, seed) -> support and query.
      plan: (number of support examples, seed) -> the inner steps and the examples of each.
      first_order: Whether to stop at g_K.
      moving: Which of the model's trainable variables the inner steps move; None is all.
      work_share: The share of the inner steps that are taken, float32 in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`. For a client too small to split it is meaningless, and `client_work`
      discards it.
    """
    sides, steps = split_and_plan(examples, seed, split, plan)
    return meta_gradient(
        model,
        sides.support,
        steps,
        tf.constant(0),
        minibatches.scale_steps(steps.num_steps, work_share),
        sides.query,
        rule=rule,
        first_order=first_order,
        moving=moving,
        num_steps=steps.known_steps if work_share is None else None,
    )


@at_the_door
def build_maml(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
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
    """Builds MAML (Finn, Abbeel and Levine, arXiv:1703.03400), second order, or FOMAML.

    Each round every client adapts to its support and sends the exact gradient of its query loss by
    the weights it started from; the server descends along the weighted mean. With one inner step
    on all of the support, `split="same"` and SGD at the server that is, to the letter, gradient
    descent on sum_i w_i L_i(theta - alpha grad L_i(theta)), w_i the clients' shares of examples.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      inner_learning_rate: Alpha, the rate of the inner steps, >= 0.
      batch_size: Support examples in an inner step, >= 1.
      inner_epochs: Epochs over support, >= 0 (1 if neither this nor `inner_steps` is given), or
      inner_steps: inner steps, >= 0, that walk the batches and reshuffle when they run out.
      first_order: Whether the gradient at the adapted weights is sent as it is (FOMAML), without
        the derivative of the inner steps.
      support_fraction: The share of a client's examples that is support, in (0, 1).
      split: "random", "ordered" or "same"; see `support_query.split_support_query`.
      shuffle: Whether the order of support is shuffled in every epoch, by each client's own seed.
      inner_optimizer: The rule of the inner steps, fresh at every client; None is plain SGD. Its
        learning rate is `inner_learning_rate`. Its steps are differentiated too.
      inner_clip_norm: The longest gradient of an inner step, >= 0: longer ones are scaled to it,
        and the scaling is differentiated too; 0 clips nothing.
      server_optimizer: Applies the mean gradient; None is Adam with rate 0.001.
      client_weighting: How much a client counts in the mean: by all of its examples, support and
        query, or all the same.
      model_aggregator: As in `build_reptile`.
      metrics_aggregator: As in `build_reptile`. The metrics are of query, at the adapted weights.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`). A
      client with a single example cannot be split and contributes nothing.

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, the model has
        moving statistics, or it draws random numbers in training (dropout) and the order is second:
        the derivative would not belong to the step taken.
      TypeError: If `client_weighting` is not a `client_work.Weighting`.
    """
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        maml,
        plan=plan_local_training(
            inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle
        ),
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
        first_order=first_order,
    )
    return compose_split_update(
        model_fn,
        update,
        federation,
        support_fraction=support_fraction,
        split=split,
        second_order=not first_order,
    )
