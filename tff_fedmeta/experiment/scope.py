"""What moves when a client adapts, and how: it belongs to what trained the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tff_fedmeta.algorithms.registry import REGISTRY
from tff_fedmeta.client import layers
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.config import ExperimentConfig


class Scope(NamedTuple):
    """What moves when a client adapts.

    Attributes:
      learned_rates: Which learnt rates the weights have behind them, to adapt by, one of
        `INNER_RATES` or True for the first; False: none.
      head_layers: How many layers with weights adapt, counted from the end; None means all.
      proximal_strength: How strongly the weights are held to the trained ones; 0: they are not.
      local_layers: Names of the layers that adapt, in the place of the last ones.
    """

    learned_rates: bool | str = False
    head_layers: int | None = None
    proximal_strength: float = 0.0
    local_layers: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether some layers stay as they were trained."""
        return self.head_layers is not None or bool(self.local_layers)

    def moving(self, model_fn: ModelFn) -> list[int] | None:
        """Returns which of a model's trainable variables move; None: all."""
        if not self.is_partial:
            return None
        return layers.moving_variables(model_fn, self.head_layers, self.local_layers)

    def as_chosen(self, chosen: Mapping[str, Any]) -> Scope:
        """Returns it with the pull that validation clients chose, if they had a choice."""
        strength = chosen.get("proximal_strength", self.proximal_strength)
        return self._replace(proximal_strength=strength)

    def in_words(self) -> str:
        """Returns what adapts, as tables say it."""
        if self.local_layers:
            plural = "s" if len(self.local_layers) > 1 else ""
            what = f"layer{plural} {', '.join(self.local_layers)}"
        elif self.head_layers is not None:
            what = f"last {self.head_layers} layers" if self.head_layers > 1 else "last layer"
        else:
            what = "all weights"
        if self.proximal_strength:
            what += f", held to the trained ones by {self.proximal_strength:g}"
        return what


def scope_of(config: ExperimentConfig, algorithm: str) -> Scope:
    """Returns what moves when a client adapts what an algorithm of a run has trained."""
    adapts = REGISTRY[algorithm].adapts
    values = config.hyperparameters[algorithm]
    if adapts == "head" and config.adaptation == "own":
        names = layers.names_of(values.get("local_layers", ""))
        return Scope(local_layers=names) if names else Scope(head_layers=values["head_layers"])
    if adapts == "proximal" and config.adaptation == "own":
        return Scope(proximal_strength=values["proximal_strength"])
    if adapts == "rates":
        return Scope(learned_rates=values.get("inner_rates", True))
    return Scope()
