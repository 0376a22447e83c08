"""FedRep: clients fit a head of their own, then train the body for it and send the body alone."""

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
    compose_update,
    plan_local_training,
)
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client import inner_loop, layers, minibatches
from tff_fedmeta.client.meta_gradient import LocalUpdate, difference, read_values
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import Rule, build_rule


def fedrep(
    model: Any,
    examples: Any,
    seed: tf.Tensor,
    *,
    rule: Rule,
    plan: minibatches.PlanMinibatches,
    body: Sequence[int],
    head_share: float,
    work_share: tf.Tensor | None = None,
) -> LocalUpdate:
    """FedRep's update: how far the body moves once a head has been fitted to it.

    Collins, Hassani, Mokhtari and Shakkottai, "Exploiting Shared Representations for Personalized
    Federated Learning", arXiv:2102.07078, Algorithm 1: the first local steps move the head alone,
    the others the body alone. The paper's clients keep their heads from round to round; here a
    client begins with the server's, as one that takes part once must.

    Args:
      model: A `tff.learning.models.VariableModel` that holds the server's weights.
      examples: The client's examples, a structure of [n, ...] tensors the model takes as a batch.
      seed: int64 [2], decides the order of the examples.
      rule: The rule of the local steps; its state starts anew with the body's.
      plan: (number of examples, seed) -> the steps and the examples of each.
      body: Which of the model's trainable variables are sent; the others are the head. Without a
        body all steps move the head.
      head_share: The share of the steps that move the head, in (0, 1), rounded; at least one step
        moves the body.
      work_share: The share of the steps that are taken, float32 scalar in (0, 1]; None: all.

    Returns:
      The `LocalUpdate`, with a tensor for each of `body`; zeros without examples.
    """
    steps = plan(minibatches.count_examples(examples), seed)
    num_steps = minibatches.scale_steps(steps.num_steps, work_share)
    variables = model.trainable_variables
    moving_body = [variables[index] for index in body]
    moving_head = [v for index, v in enumerate(variables) if index not in set(body)]
    num_head = num_steps
    if body:
        rounded = tf.floor(head_share * tf.cast(num_steps, tf.float64) + 0.5)
        num_head = tf.minimum(tf.cast(rounded, tf.int32), tf.maximum(num_steps - 1, 0))

    start = read_values(moving_body)
    for moving, first, last in (
        (moving_head, tf.constant(0), num_head),
        (moving_body, num_head, num_steps),
    ):
        state = rule.initialize(moving)
        inner_loop.train(model, examples, steps, rule, state, first, last, moving=moving)
    return LocalUpdate(
        update=difference(start, moving_body),
        metrics=model.report_local_unfinalized_metrics(),
        examples=steps.count_examples(0, num_steps),
        gradient_evaluations=num_steps,
    )


@at_the_door
def build_fedrep(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    head_layers: int = 1,
    head_share: float = 0.5,
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
    """Builds FedRep (Collins, Hassani, Mokhtari and Shakkottai, arXiv:2102.07078), stateless.

    The head stays at the server as it was initialised, and clients do not send theirs. Evaluate
    with `build_adaptation_eval(head_layers=...)`: a client's model is the body with a head that is
    fitted to its support.

    Args:
      model_fn: As in `build_reptile`, and so are all arguments that are not described here.
      inner_learning_rate: The rate of the local steps, >= 0, of head and body.
      batch_size: Examples in a local step, >= 1.
      head_layers: How many layers with weights, counted from the end, are the head; >= 1 and fewer
        than there are.
      head_share: The share of the local steps that move the head, in (0, 1).
      inner_epochs: Epochs over the examples, head and body together (1 if neither this nor
        `inner_steps` is given), or
      inner_steps: local steps, head and body together, >= 1.
      shuffle: Whether examples are shuffled.
      inner_optimizer: The rule of the steps, fresh for the head and for the body; None is SGD.
      inner_clip_norm: The longest gradient of a step, by what it moves; 0 clips nothing.
      server_optimizer: Applies the mean update of the body; None is SGD with rate 1.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates of the body.
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
    checks.check_some_training(inner_epochs, inner_steps)
    checks.check_limits("head_share", head_share, above=0, below=1)
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        body = layers.shared_variables(model_fn(), head_layers)
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    update = functools.partial(
        fedrep,
        plan=plan,
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
        body=body,
        head_share=float(head_share),
    )
    return compose_update(
        model_fn, update, federation, tff.learning.optimizers.build_sgdm(1.0), sent=body
    )
