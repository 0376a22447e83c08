"""Hyperparameters of the methods whose clients keep a part, or a model, of their own.

Importing this needs no TensorFlow.
"""

import dataclasses

from tff_fedmeta.config.hyperparameters import MAML, FedAvg, layers_from_the_end, optimizer
from tff_fedmeta.config.schema import rate, setting


@dataclasses.dataclass(frozen=True)
class FedBABU(FedAvg):
    """Hyperparameters of FedBABU."""

    head_layers: int = layers_from_the_end("that are not trained")


@dataclasses.dataclass(frozen=True)
class FedRep(FedAvg):
    """Hyperparameters of FedRep."""

    head_layers: int = layers_from_the_end("that are not sent and adapt")
    head_share: float = setting(
        0.5,
        "Share of the local steps that move the head, before the body's.",
        above=0,
        below=1,
        tune=(0.2, 0.8),
    )


@dataclasses.dataclass(frozen=True)
class FedRecon(MAML):
    """Hyperparameters of federated reconstruction."""

    server_optimizer: str = optimizer("sgd")
    server_learning_rate: float = rate(1.0, "The server's learning rate.", tune=(0.3, 3.0))
    inner_learning_rate: float = rate(
        0.1, "Learning rate of the steps that rebuild the local part."
    )
    shared_learning_rate: float = rate(0.1, "Learning rate of the steps of the shared part.")
    head_layers: int = layers_from_the_end("that are local and adapt")
    local_layers: str = setting(
        "", "Names of the layers that are local instead, separated by commas."
    )


@dataclasses.dataclass(frozen=True)
class IMAML(MAML):
    """Hyperparameters of iMAML."""

    proximal_strength: float = setting(
        2.0,
        "Lambda: how strongly adaptation is held to the trained weights.",
        above=0,
        at_most=1e6,
        tune=(0.1, 10.0),
    )
    cg_steps: int = setting(
        5,
        "The most steps of conjugate gradient, a Hessian-vector product each.",
        at_least=1,
        at_most=1000,
    )


@dataclasses.dataclass(frozen=True)
class PFedMe(FedAvg):
    """Hyperparameters of pFedMe."""

    inner_learning_rate: float = rate(0.05, "Learning rate of the proximal steps.")
    proximal_strength: float = setting(
        15.0,
        "Lambda: how strongly a client's model is held to the shared weights.",
        above=0,
        at_most=1e6,
        tune=(1.0, 50.0),
    )
    local_rounds: int = setting(
        5,
        "Times that a client moves the shared weights towards its model.",
        at_least=1,
        at_most=10_000,
    )
    local_learning_rate: float = rate(0.05, "Eta: each time they move by eta * lambda of the way.")
