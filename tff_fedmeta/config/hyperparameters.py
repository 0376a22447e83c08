"""What may be set for each algorithm, and in which range. Importing this needs no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tff_fedmeta import checks

SERVER_OPTIMIZERS = ("sgd", "adam", "yogi")


@dataclasses.dataclass(frozen=True)
class FedSGD:
    """Hyperparameters of TFF's federated SGD, and those of the server that all algorithms have.

    Attributes:
      server_optimizer: "sgd", "adam" or "yogi".
      server_learning_rate: The server's rate, >= 0.
      server_decay: Whether that rate falls linearly to 0 over the rounds of the run, or stays.
      server_warmup: Over how many rounds that rate rises linearly from 0 first, >= 0. Adaptive
        optimizers take their largest steps when they know least.
    """

    server_optimizer: str = "sgd"
    server_learning_rate: float = 0.1
    server_decay: bool = False
    server_warmup: int = 0

    def __post_init__(self) -> None:
        checks.check_choice("server_optimizer", self.server_optimizer, SERVER_OPTIMIZERS)
        checks.check_count("server_warmup", self.server_warmup, 0)
        for field in dataclasses.fields(self):
            if field.name.endswith(("_rate", "_strength")):
                checks.check_number(field.name, getattr(self, field.name), 0)


@dataclasses.dataclass(frozen=True)
class FedAvg(FedSGD):
    """Hyperparameters of TFF's federated averaging; those of the server as `FedSGD`'s.

    Attributes:
      inner_learning_rate: The rate of the clients' steps, >= 0.
      client_weighting: "examples" weighs clients by size; "uniform" counts each as one task.
    """

    server_learning_rate: float = 1.0
    inner_learning_rate: float = 0.1
    client_weighting: str = "examples"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_choice("client_weighting", self.client_weighting, ("examples", "uniform"))


@dataclasses.dataclass(frozen=True)
class FedProx(FedAvg):
    """Hyperparameters of FedProx: `FedAvg`'s and one more.

    Attributes:
      proximal_strength: How strongly clients are held to the server's weights, >= 0.
    """

    proximal_strength: float = 0.01


@dataclasses.dataclass(frozen=True)
class Reptile(FedAvg):
    """Hyperparameters of Reptile: `FedAvg`'s, with other defaults.

    Epsilon, the server's rate, falls over the run and clients count equally, as in the experiments
    of the Reptile paper (arXiv:1803.02999, section 6).
    """

    server_decay: bool = True
    client_weighting: str = "uniform"


@dataclasses.dataclass(frozen=True)
class MAML(FedAvg):
    """Hyperparameters of MAML, FOMAML and Meta-SGD: `FedAvg`'s, and how clients split in training.

    Attributes:
      support_fraction: The share of a training client's examples that is support, in (0, 1).
        Evaluation has its own.
      split: "random", "ordered" or "same"; see `support_query.split_support_query`.
    """

    server_optimizer: str = "adam"
    server_learning_rate: float = 0.001
    inner_learning_rate: float = 0.01
    support_fraction: float = 0.5
    split: str = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_split(self.support_fraction, self.split)


@dataclasses.dataclass(frozen=True)
class ANIL(MAML):
    """Hyperparameters of ANIL: `MAML`'s, and what the inner steps move.

    Attributes:
      head_layers: How many layers that have weights, counted from the end, >= 1.
      first_order: Whether the derivative of the inner steps is left out.
    """

    head_layers: int = 1
    first_order: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_count("head_layers", self.head_layers, 1)


@dataclasses.dataclass(frozen=True)
class PerFedAvg(MAML):
    """Hyperparameters of Per-FedAvg: `MAML`'s, and its local meta-steps.

    Attributes:
      meta_learning_rate: Beta, the rate of the local meta-steps, >= 0.
      local_meta_steps: Tau, the local meta-steps, >= 1. If local training is measured in epochs, a
        client with fewer batches of support, or examples in query, takes fewer.
      first_order: Whether the Hessian is left out.
    """

    server_optimizer: str = "sgd"
    server_learning_rate: float = 1.0
    meta_learning_rate: float = 0.1
    local_meta_steps: int = 5
    first_order: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_count("local_meta_steps", self.local_meta_steps, 1)


# name -> its hyperparameters, in the order in which algorithms are listed to users.
HYPERPARAMETERS: dict[str, type[FedSGD]] = {
    "reptile": Reptile,
    "fomaml": MAML,
    "maml": MAML,
    "meta_sgd": MAML,
    "anil": ANIL,
    "per_fedavg": PerFedAvg,
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedsgd": FedSGD,
}


def resolve(algorithm: str, defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> FedSGD:
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
        checks.check_choice(f"hyperparameter of {algorithm}", name, fields)
        values[name] = _parse(f"{algorithm}.{name}", value, type(fields[name].default))
    return kind(**values)


def _parse(name: str, value: Any, kind: type) -> Any:
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, but is {value!r}.")
        return str(value).lower() == "true"
    try:
        return kind(value)
    except (TypeError, ValueError):
        number = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {number}, but is {value!r}.") from None
