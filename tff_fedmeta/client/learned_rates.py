"""Inner rates that are learnt: how many there are, where they begin, and the steps by them.

They travel behind the model's trainable weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tff_fedmeta import checks
from tff_fedmeta.client import layers
from tff_fedmeta.client.rules import SGD, Rule
from tff_fedmeta.config.hyperparameters import INNER_RATES, PER_STEP_AND_LAYER, PER_WEIGHT


@dataclasses.dataclass(frozen=True)
class LearnedRates:
    """Which rates are learnt.

    Attributes:
      kind: "per_weight" is a tensor of rates for each weight, of its shape (Meta-SGD, Li et al.,
        arXiv:1707.09835). The others are one table [steps, layers], in the order of
        `layers.layers_of`: "per_layer" has one row for all steps, "per_step_and_layer" one for each
        (Antoniou, Edwards and Storkey, arXiv:1810.09502, section 3); its last row is for all
        further steps too.
      start: The rate that they start from.
      num_steps: Rows of "per_step_and_layer"; None: any number.
      head_warmup: In so many of its first rows all layers but the last start from the rate 0.

    Raises:
      ValueError: If `kind` is something else, or `head_warmup` has no such rows.
    """

    kind: str = PER_WEIGHT
    start: float = 0.0
    num_steps: int | None = None
    head_warmup: int = 0

    def __post_init__(self) -> None:
        checks.check_choice("inner_rates", self.kind, INNER_RATES)
        if self.head_warmup and self.kind != PER_STEP_AND_LAYER:
            raise ValueError(
                f"head_warmup needs inner_rates={PER_STEP_AND_LAYER}, because the other rates are "
                f"the same in all steps; but they are {self.kind}."
            )
        checks.check_count("head_warmup", self.head_warmup, 0, self.num_steps or 0)

    def specs(self, model: Any) -> list[tf.TensorSpec]:
        """Returns shape and dtype of each tensor of rates for a model."""
        variables = model.trainable_variables
        if self.kind == PER_WEIGHT:
            return [tf.TensorSpec(v.shape, v.dtype) for v in variables]
        rows = self.num_steps if self.kind == PER_STEP_AND_LAYER else 1
        return [tf.TensorSpec([rows, len(layers.layers_of(model))], tf.float32)]

    def initial(self, model: Any) -> list[tf.Tensor]:
        """Returns the rates that a model starts with."""
        rates = [tf.fill(s.shape, tf.cast(self.start, s.dtype)) for s in self.specs(model)]
        if self.head_warmup:
            (table,) = rates
            is_body = tf.range(table.shape[1]) < table.shape[1] - 1
            is_early = tf.range(table.shape[0]) < self.head_warmup
            rates = [tf.where(is_early[:, tf.newaxis] & is_body, 0.0, table)]
        return rates

    def rule(self, model: Any, rates: Sequence[tf.Tensor]) -> Rule:
        """Returns the rule of the steps of all trainable variables of a model by such rates."""
        if self.kind == PER_WEIGHT:
            return SGD(rates)
        (table,) = rates
        return LayerSGD(table, _layer_of(model))

    def by_variable(self, model: Any, rates: Sequence[Any]) -> list[np.ndarray]:
        """Returns the rates of each trainable variable, in a form that multiplies its gradient.

        Args:
          model: The model.
          rates: The learnt rates.

        Returns:
          For each variable an array of its shape ("per_weight"), a number ("per_layer"), or one for
          each step, [steps, 1, ...] ("per_step_and_layer").
        """
        if self.kind == PER_WEIGHT:
            return [np.asarray(rate) for rate in rates]
        (table,) = (np.asarray(rate) for rate in rates)
        columns = [table[:, layer] for layer in _layer_of(model)]
        if self.kind != PER_STEP_AND_LAYER:
            return [column[0] for column in columns]
        return [
            column.reshape([-1] + [1] * len(variable.shape))
            for column, variable in zip(columns, model.trainable_variables)
        ]


def learned_rates_of(value: bool | str | LearnedRates | None) -> LearnedRates | None:
    """Returns which rates are meant: True stands for "per_weight", False and None for none."""
    if value is None or isinstance(value, LearnedRates):
        return value
    if value is False:
        return None
    return LearnedRates(PER_WEIGHT if value is True else value)


class LayerSGD(Rule):
    """Gradient descent with a rate for each layer, which may differ from step to step.

    theta_l <- theta_l - rate[k, l] * gradient, in step k (Antoniou, Edwards and Storkey,
    arXiv:1810.09502, section 3). The state counts the steps.

    Args:
      table: The rates, [steps, layers]; the last row is for all further steps too.
      layer_of: The layer of each variable that the steps move.
    """

    def __init__(self, table: tf.Tensor, layer_of: Sequence[int]):
        self._table = tf.convert_to_tensor(table)
        self._layer_of = layer_of
        self.learnable = [self._table]

    def initialize(self, variables: Sequence[tf.Variable]) -> Any:
        """Returns the number of the first step."""
        del variables
        return [tf.constant(0)]

    def next(
        self, state: Any, weights: Sequence[tf.Tensor], gradients: Sequence[Any]
    ) -> tuple[Any, list[tf.Tensor]]:
        """Returns the number of the next step, and the weights after this one."""
        (step,) = state
        row = self._table[tf.minimum(step, tf.shape(self._table)[0] - 1)]
        return [step + 1], [
            weight
            if gradient is None
            else weight - tf.cast(row[layer], weight.dtype) * tf.convert_to_tensor(gradient)
            for weight, layer, gradient in zip(weights, self._layer_of, gradients)
        ]


def _layer_of(model: Any) -> list[int]:
    """Returns the number of the layer of each trainable variable."""
    place = {
        index: layer
        for layer, indices in enumerate(layers.layers_of(model).values())
        for index in indices
    }
    return [place[index] for index in range(len(place))]
