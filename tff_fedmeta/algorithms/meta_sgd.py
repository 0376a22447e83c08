"""Meta-SGD: MAML that learns its inner rates.

Arguments that a builder does not describe are those of `maml.build_maml`.
"""

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
from tff_fedmeta.algorithms.maml import maml
from tff_fedmeta.client.learned_rates import LearnedRates
from tff_fedmeta.client.meta_gradient import LocalUpdate
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.rules import clipping
from tff_fedmeta.config.hyperparameters import PER_STEP_AND_LAYER, PER_WEIGHT


@at_the_door
def build_meta_sgd(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_rates: str = PER_WEIGHT,
    head_warmup: int = 0,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    inner_clip_norm: float = 0.0,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: Weighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds Meta-SGD (Li, Zhou, Chen and Li, arXiv:1707.09835): MAML that learns its inner rates.

    The rates are sent, adapted with, differentiated by and aggregated as the weights are. With
    "per_weight" every weight has a rate of its own. With "per_step_and_layer" there is one for each
    layer in each inner step, as in MAML++ (Antoniou, Edwards and Storkey, arXiv:1810.09502, section
    3), so few that they can be learnt from few clients. `get_model_weights(state).trainable` holds
    the n weights and behind them n tensors of rates, or one table [steps, layers];
    `build_adaptation_eval(learned_rates=inner_rates)` and `to_keras(learned_rates=inner_rates)`
    take both.

    Args:
      inner_learning_rate: Where every rate starts, >= 0. Rates may become negative.
      inner_rates: "per_weight", "per_layer" or "per_step_and_layer"; the last needs `inner_steps`,
        so that every client takes the same steps.
      head_warmup: In so many first inner steps, from 0 to `inner_steps`, all layers but the last
        start from the rate 0: the head moves first. Needs "per_step_and_layer".
      inner_optimizer: Must be None: the steps are plain SGD with the learnt rates.
      server_optimizer: Applies the mean gradient, to weights and rates alike.

    Returns:
      As `build_maml`.

    Raises:
      ValueError: As `build_maml`, and if there is an `inner_optimizer`, or `inner_rates` or
        `head_warmup` cannot be.
      TypeError: As `build_maml`.
    """
    if inner_optimizer is not None:
        raise ValueError("build_meta_sgd steps by the rates it learns; give no inner_optimizer.")
    plan = plan_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps, shuffle)
    per_step = inner_rates == PER_STEP_AND_LAYER
    if per_step and not inner_steps:
        raise ValueError(
            f"inner_rates={PER_STEP_AND_LAYER} needs inner_steps >= 1 in the place of epochs, so "
            "that every client takes the same steps."
        )
    learned = LearnedRates(
        inner_rates, float(inner_learning_rate), inner_steps if per_step else None, head_warmup
    )
    federation = Federation(
        server_optimizer, client_weighting, model_aggregator, metrics_aggregator, roles
    )

    def meta_sgd(
        model: Any, examples: Any, seed: tf.Tensor, *, rates: Sequence[tf.Tensor], **settings: Any
    ) -> LocalUpdate:
        rule = clipping(learned.rule(model, rates), inner_clip_norm)
        return maml(model, examples, seed, rule=rule, plan=plan, **settings)

    return compose_split_update(
        model_fn,
        meta_sgd,
        federation,
        support_fraction=support_fraction,
        split=split,
        second_order=True,
        learned_rates=learned,
    )
