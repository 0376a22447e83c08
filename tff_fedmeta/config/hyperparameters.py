"""What may be set for each algorithm, and in which range. Importing this needs no TensorFlow."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from tff_fedmeta import checks
from tff_fedmeta.config import schema
from tff_fedmeta.config.schema import rate, setting

SERVER_OPTIMIZERS = ("sgd", "adam", "yogi")
CLIENT_WEIGHTINGS = ("examples", "uniform")
PER_WEIGHT, PER_LAYER, PER_STEP_AND_LAYER = "per_weight", "per_layer", "per_step_and_layer"
INNER_RATES = (PER_WEIGHT, PER_LAYER, PER_STEP_AND_LAYER)
SERVER_SCHEDULES = ("constant", "linear", "cooldown")

_SCHEDULE = (
    "The server's rate over the rounds of the run: constant; linear falls to 0 from the first "
    "round on; cooldown is constant, then falls linearly to 0 over the last 30 %."
)


def optimizer(default: str, tune: Optional[Sequence[str]] = None) -> Any:
    """Declares the server's optimizer; `tune` is what a search tries."""
    text = "Optimizer that applies the mean update."
    return setting(default, text, choices=SERVER_OPTIMIZERS, tune=tune)


def layers_from_the_end(what: str) -> Any:
    """Declares how many layers are the head; `what` says what becomes of them."""
    text = f"Layers with weights, counted from the end, {what}."
    return setting(1, text, at_least=1, at_most=1000)


def _weighting(default: str) -> Any:
    """Declares how much a client counts."""
    return setting(
        default,
        "examples weighs clients by size, uniform counts each as one task.",
        choices=CLIENT_WEIGHTINGS,
        tune=CLIENT_WEIGHTINGS,
    )


def _schedule(default: str) -> Any:
    return setting(default, _SCHEDULE, choices=SERVER_SCHEDULES, tune=SERVER_SCHEDULES)


@dataclasses.dataclass(frozen=True)
class Server:
    """The server's hyperparameters, shared by all algorithms; FedSGD has no others.

    A subclass adds fields by `schema.setting`; their ranges are checked when it is made.
    """

    server_optimizer: str = optimizer("sgd")
    server_learning_rate: float = rate(0.1, "The server's learning rate.")
    server_schedule: str = _schedule("constant")
    server_warmup: int = setting(
        0,
        "Rounds over which the server's rate rises linearly from 0 first.",
        at_least=0,
        at_most=10_000_000,
    )

    def __post_init__(self) -> None:
        schema.check(self)


@dataclasses.dataclass(frozen=True)
class Local:
    """Hyperparameters of a client that learns alone."""

    adaptation_steps: int = setting(
        200, "The most steps of a client alone.", at_least=1, at_most=10_000
    )
    inner_learning_rate: float = setting(
        0.1, "A rate to choose from beside those of adaptation.", above=0, at_most=schema.MOST_RATE
    )

    def __post_init__(self) -> None:
        schema.check(self)


@dataclasses.dataclass(frozen=True)
class FedAvg(Server):
    """Hyperparameters of federated averaging, and of every algorithm with local steps."""

    server_learning_rate: float = rate(1.0, "The server's learning rate.", tune=(0.3, 3.0))
    inner_learning_rate: float = rate(0.1, "Learning rate of the local steps.")
    inner_clip_norm: float = setting(
        0.0,
        "Longest gradient of a local step; longer ones are scaled to it, 0: none is.",
        at_least=0,
        at_most=1e30,
    )
    client_weighting: str = _weighting("examples")


@dataclasses.dataclass(frozen=True)
class FedProx(FedAvg):
    """Hyperparameters of FedProx."""

    proximal_strength: float = setting(
        0.01,
        "How strongly clients are held to the server's weights.",
        at_least=0,
        at_most=1e6,
        tune=(0.001, 1.0),
    )


@dataclasses.dataclass(frozen=True)
class Reptile(FedAvg):
    """Hyperparameters of Reptile.

    Epsilon, the server's rate, falls over the run and clients count equally, as in the experiments
    of the Reptile paper (arXiv:1803.02999, section 6).
    """

    server_schedule: str = _schedule("linear")
    client_weighting: str = _weighting("uniform")


@dataclasses.dataclass(frozen=True)
class FedAvgReptile(FedAvg):
    """Hyperparameters of FedAvg that goes on as Reptile."""

    switch_round: int = setting(
        0,
        "Rounds of FedAvg before those of Reptile; 0: half of the run's.",
        at_least=0,
        at_most=10_000_000,
    )
    reptile_steps: int = setting(
        10, "Local steps in a round of Reptile.", at_least=1, at_most=100_000
    )
    reptile_server_learning_rate: float = rate(
        0.001, "Rate of Adam, the server's optimizer in Reptile's rounds."
    )


@dataclasses.dataclass(frozen=True)
class MAML(FedAvg):
    """Hyperparameters of MAML and FOMAML, and of every algorithm whose clients split."""

    server_optimizer: str = optimizer("adam", tune=("adam", "yogi"))
    server_learning_rate: float = rate(0.001, "The server's learning rate.")
    inner_learning_rate: float = rate(0.01, "Learning rate of the inner steps.")
    support_fraction: float = setting(
        0.5,
        "Share of a training client's examples that is support; evaluation has its own.",
        above=0,
        below=1,
        tune=(0.2, 0.8),
    )
    split: str = setting(
        "random",
        "random draws support, ordered takes the first examples, same puts all on both sides.",
        choices=checks.SPLITS,
    )

    def __post_init__(self) -> None:
        checks.check_split(self.support_fraction, self.split)
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class MetaSGD(MAML):
    """Hyperparameters of Meta-SGD."""

    inner_learning_rate: float = rate(0.01, "Where the learnt rates start.")
    inner_rates: str = setting(
        PER_WEIGHT,
        "What has a learnt rate of its own; per_step_and_layer needs --inner_steps.",
        choices=INNER_RATES,
    )
    head_warmup: int = setting(
        0,
        "First inner steps in which all layers but the last start from the rate 0; needs "
        "per_step_and_layer.",
        at_least=0,
        at_most=100_000,
    )


@dataclasses.dataclass(frozen=True)
class ANIL(MAML):
    """Hyperparameters of ANIL."""

    head_layers: int = layers_from_the_end("that adapt")
    first_order: bool = setting(False, "Whether the derivative of the inner steps is left out.")


@dataclasses.dataclass(frozen=True)
class PerFedAvg(MAML):
    """Hyperparameters of Per-FedAvg."""

    server_optimizer: str = optimizer("sgd")
    server_learning_rate: float = rate(1.0, "The server's learning rate.", tune=(0.3, 3.0))
    meta_learning_rate: float = rate(0.1, "Rate of the local meta-steps.")
    local_meta_steps: int = setting(
        5,
        "Local meta-steps; a client with too few batches of support or examples in query takes "
        "fewer where training is measured in epochs.",
        at_least=1,
        at_most=10_000,
    )
    first_order: bool = setting(False, "Whether the Hessian is left out.")


def resolve(
    algorithm: str, kind: type, defaults: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Any:
    """Returns an algorithm's hyperparameters: `overrides` over a task's `defaults` over its own.

    Args:
      algorithm: Its name.
      kind: Its dataclass of hyperparameters.
      defaults: What the task prefers.
      overrides: What the user said; values may be strings, as from a command line.

    Raises:
      ValueError: If the algorithm has no such hyperparameter, or a value is out of its range.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = dict(defaults)
    for name, value in overrides.items():
        checks.check_choice(f"hyperparameter of {algorithm}", name, fields)
        values[name] = schema.parse(f"{algorithm}.{name}", value, schema.kind_of(fields[name]))
    return kind(**values)
