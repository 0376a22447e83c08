"""What a search tries for each hyperparameter, from what its declaration says (`tune`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from typing import Any, Union

from tff_fedmeta.config import schema

# Flags that set a hyperparameter of all algorithms.
OF_ALL = ("inner_learning_rate", "inner_clip_norm", "server_learning_rate")

# (low, high), on a logarithmic scale, or the texts to choose from
Choice = tuple[str, ...]
Range = tuple[float, float]
Space = Mapping[str, Union[Choice, Range]]


def of(kind: type, settings: Mapping[str, Any], fixed: Set[str] = frozenset()) -> dict[str, Any]:
    """Returns what is tried for each hyperparameter that its declaration has a `tune` for.

    Args:
      kind: The dataclass of hyperparameters.
      settings: The settings that a run would have; ranges and choices are widened to hold them.
      fixed: Names that are not searched.
    """
    space: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        tune, value = field.metadata.get("tune"), settings[field.name]
        if tune is None or field.name in fixed:
            continue
        if schema.kind_of(field) is str:
            space[field.name] = tuple(dict.fromkeys((*tune, value)))
        elif value > 0 and tune[0] > 0:  # of 0 there is no logarithm: it was switched off
            space[field.name] = (min(tune[0], value), max(tune[1], value))
    return space


def said(values: Mapping[str, Any], algorithm: str) -> set[str]:
    """Returns the hyperparameters of an algorithm that flags set."""
    names = {name for name in OF_ALL if values[name] is not None}
    for text in values["hparam"]:
        target, _, name = text.partition("=")[0].partition(".")
        if target == algorithm:
            names.add(name)
    return names


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """Returns Optuna's suggestion for each hyperparameter."""
    suggested = {}
    for name, tried in space.items():
        if isinstance(tried[0], str):
            suggested[name] = trial.suggest_categorical(name, tried)
        else:
            suggested[name] = trial.suggest_float(name, *tried, log=True)
    return suggested
