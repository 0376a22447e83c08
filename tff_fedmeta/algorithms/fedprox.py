"""FedProx: FedAvg whose clients are held near the server's weights."""

import collections
import functools
from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.algorithms.baselines import build_tff_fedavg
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client.model import ModelFn


@at_the_door
def build_fedprox(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    proximal_strength: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    inner_clip_norm: float = 0.0,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds FedProx as TFF's FedAvg, untouched, whose clients take proximal SGD steps.

    FedProx (Li et al., arXiv:1812.06127) is FedAvg with a term in every client's loss that keeps it
    near the server's weights w0: proximal_strength / 2 * ||w - w0||^2. This is not
    TFF 0.87's `build_weighted_fed_prox`, which gets the sign of the term wrong: to the gradient it
    adds proximal_strength * (w0 - w), which drives clients away.

    Args:
      model_fn: As in `build_fedavg`, and so are all arguments but `proximal_strength`.
      inner_learning_rate: The rate of the clients' SGD steps.
      proximal_strength: The paper's mu, >= 0; 0 is FedAvg.
      batch_size: Examples in a local step.
      inner_epochs: Local epochs, or
      inner_steps: local steps.
      shuffle: Whether examples are shuffled.
      inner_clip_norm: The longest gradient of the loss, before the term is added.
      server_optimizer: Applies the mean update.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess`.

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, or the model has
        moving statistics (batch normalisation that is not frozen).
    """
    checks.check_number("proximal_strength", proximal_strength, 0)
    return build_tff_fedavg(
        model_fn,
        functools.partial(_ProximalSGD, strength=proximal_strength),
        inner_learning_rate=inner_learning_rate,
        batch_size=batch_size,
        inner_epochs=inner_epochs,
        inner_steps=inner_steps,
        shuffle=shuffle,
        inner_clip_norm=inner_clip_norm,
        server_optimizer=server_optimizer,
        client_weighting=client_weighting,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        roles=roles,
    )


class _ProximalSGD(tff.learning.optimizers.Optimizer):
    """SGD on the loss and strength / 2 * ||w - w0||^2, w0 being the weights of the first step."""

    def __init__(self, learning_rate: float, strength: float):
        self._learning_rate = learning_rate
        self._strength = strength

    def initialize(self, specs: Any) -> Any:
        start = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs)
        return collections.OrderedDict(has_start=tf.constant(False), start=start)

    def next(self, state: Any, weights: Any, gradients: Any) -> Any:
        has_start = state["has_start"]
        start = tf.nest.map_structure(
            lambda w0, w: tf.where(has_start, w0, w), state["start"], weights
        )
        new_weights = tf.nest.map_structure(
            lambda w, w0, g: w - self._learning_rate * (g + self._strength * (w - w0)),
            weights,
            start,
            # A weight that the loss does not use has no gradient.
            tuple(tf.zeros_like(w) if g is None else g for w, g in zip(weights, gradients)),
        )
        return collections.OrderedDict(has_start=tf.constant(True), start=start), new_weights
