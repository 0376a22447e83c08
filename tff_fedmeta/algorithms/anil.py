"""ANIL: MAML whose inner steps move the head alone.

Arguments that a builder does not describe are those of `maml.build_maml`.
"""

import functools
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
from tff_fedmeta.algorithms.maml import maml
from tff_fedmeta.client import layers
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import build_rule


@at_the_door
def build_anil(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    head_layers: int = 1,
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
    """Builds ANIL (Raghu, Raghu, Bengio and Vinyals, arXiv:1909.09157): MAML that adapts the head.

    The inner steps move the last layers alone; the gradient, second order as in MAML, is by all
    weights. With all layers in the head it *is* MAML.

    Args:
      head_layers: How many layers the head has, counted from the end among those that have weights;
        layers are told apart by the names of their variables. From 1 to all of them.

    Returns:
      As `build_maml`.

    Raises:
      ValueError: As `build_maml`, and if the model has fewer layers than `head_layers`.
      TypeError: As `build_maml`.
    """
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )
    plan = plan_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle)
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        head = layers.head_variables(model_fn(), head_layers)
    update = functools.partial(
        maml,
        plan=plan,
        rule=build_rule(inner_optimizer, inner_learning_rate, inner_clip_norm),
        first_order=first_order,
        moving=head,
    )
    return compose_split_update(
        model_fn,
        update,
        federation,
        support_fraction=support_fraction,
        split=split,
        second_order=not first_order,
    )
