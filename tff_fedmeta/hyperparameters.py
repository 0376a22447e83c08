"""What may be set for each algorithm, and in which range. Importing this needs no TensorFlow."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class FedAvg:
    """Hyperparameters of TFF's federated averaging.

    Attributes:
      inner_learning_rate: The rate of the clients' SGD steps, >= 0.
      server_learning_rate: The server's step along the mean update, >= 0; 1 is plain averaging.
    """

    inner_learning_rate: float = 0.1
    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        _check_rates(self)


@dataclasses.dataclass(frozen=True)
class Reptile:
    """Hyperparameters of Reptile.

    Attributes:
      inner_learning_rate: The rate of the clients' steps, >= 0.
      server_learning_rate: Epsilon, the server's step in the first round, >= 0.
      server_decay: Whether epsilon falls linearly to 0 over the rounds of the run, as in the
        experiments of the Reptile paper (arXiv:1803.02999, section 6), or stays as it is.
      client_weighting: "examples" weighs clients by size, as FedAvg; "uniform" counts each as one
        task, as the paper does.
    """

    inner_learning_rate: float = 0.1
    server_learning_rate: float = 1.0
    server_decay: bool = True
    client_weighting: str = "uniform"

    def __post_init__(self) -> None:
        _check_rates(self)
        check_choice("client_weighting", self.client_weighting, ("examples", "uniform"))


# name -> its hyperparameters, in the order in which algorithms are listed to users.
HYPERPARAMETERS: dict[str, Any] = {"reptile": Reptile, "fedavg": FedAvg}


def resolve(
    algorithm: str, defaults: Mapping[str, Any], overrides: Mapping[str, Any]
) -> "FedAvg | Reptile":
    """Returns an algorithm's hyperparameters: `overrides` over a task's `defaults` over its own.

    Args:
      algorithm: A name in `HYPERPARAMETERS`.
      defaults: What the task prefers.
      overrides: What the user said; values may be strings, as from a command line.

    Raises:
      ValueError: If the algorithm has no such hyperparameter, or a value is out of its range.
    """
    kind = HYPERPARAMETERS[algorithm]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = dict(defaults)
    for name, value in overrides.items():
        check_choice(f"hyperparameter of {algorithm}", name, fields)
        values[name] = _parse(f"{algorithm}.{name}", value, type(fields[name].default))
    return kind(**values)


def check_choice(what: str, value: Any, choices: Iterable[str]) -> None:
    """Raises ValueError, listing the right ones, unless `value` is one of `choices`."""
    choices = list(choices)
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{what} must be one of: {', '.join(choices)}; got {value!r}.{hint}")


def check_count(what: str, value: Any, low: int, high: float = math.inf) -> None:
    """Raises ValueError, stating the range, unless `value` is an int in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} must be a whole number, but is {value!r}.")
    check_number(what, value, low, high)


def check_number(what: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raises ValueError, stating the range, unless `value` is a finite number in [low, high]."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and low <= value <= high):
        limits = f">= {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{what} must be {limits}, but is {value}.")


def _check_rates(hyperparameters: Any) -> None:
    for name in ("inner_learning_rate", "server_learning_rate"):
        check_number(name, getattr(hyperparameters, name), 0)


def _parse(name: str, value: Any, kind: type) -> Any:
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, but is {value!r}.")
        return str(value).lower() == "true"
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, but is {value!r}.") from None
