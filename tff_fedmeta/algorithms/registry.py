"""The algorithms by name: one row says all that the rest of the project needs to know of one.

To add an algorithm: write its file beside this one, and its row here. Importing this needs no
TensorFlow, so that flags may be checked against it.
"""

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Union

from tff_fedmeta.config import hyperparameters
from tff_fedmeta.config.hyperparameters import (
    ANIL,
    MAML,
    FedAvg,
    FedAvgReptile,
    FedProx,
    Local,
    MetaSGD,
    PerFedAvg,
    Reptile,
)
from tff_fedmeta.config.partial_hyperparameters import IMAML, FedBABU, FedRecon, FedRep, PFedMe

ADAPTS = ("all", "head", "rates", "proximal")


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """All that the rest of the project needs to know of an algorithm.

    Attributes:
      builder: "module.function" in this package, imported on first use, or the function itself. It
        is called as `builder(model_fn, **arguments)` and returns a learning process; where nothing
        trains, as `builder(model_fn)`, and returns the weights that clients adapt.
      hyperparameters: Its dataclass, with defaults, ranges and help.
      splits: Whether clients train on support and are judged on query.
      adapts: What moves when a client adapts: "all" weights, the "head" (of its hyperparameters,
        the layers that `local_layers` names or the last `head_layers`), all weights by the "rates"
        that it learnt, or all weights by "proximal" steps, held to the trained ones by its
        `proximal_strength`.
      meta_learning: Whether it belongs to the family, or is a baseline to compare with.
      trains: Whether there are rounds of training.
      fixed: Arguments of the builder that the name stands for.
    """

    builder: Union[str, Callable[..., Any]]
    hyperparameters: type
    splits: bool = False
    adapts: str = "all"
    meta_learning: bool = True
    trains: bool = True
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.adapts not in ADAPTS:
            raise ValueError(f"adapts must be one of {', '.join(ADAPTS)}, not {self.adapts!r}.")

    @property
    def build(self) -> Callable[..., Any]:
        """The builder, with the arguments that the name stands for."""
        if isinstance(self.builder, str):
            module, _, name = self.builder.rpartition(".")
            function = getattr(importlib.import_module(f"tff_fedmeta.algorithms.{module}"), name)
        else:
            function = self.builder
        if not self.fixed:
            return function

        @functools.wraps(function)
        def build_fixed(model_fn: Any, **arguments: Any) -> Any:
            return function(model_fn, **self.fixed, **arguments)

        return build_fixed


# In the order in which users see them.
REGISTRY: dict[str, Algorithm] = {
    "reptile": Algorithm("reptile.build_reptile", Reptile),
    "fedavg_reptile": Algorithm("fedavg_reptile.build_fedavg_reptile", FedAvgReptile),
    "fomaml": Algorithm("maml.build_maml", MAML, splits=True, fixed={"first_order": True}),
    "maml": Algorithm("maml.build_maml", MAML, splits=True),
    "meta_sgd": Algorithm("meta_sgd.build_meta_sgd", MetaSGD, splits=True, adapts="rates"),
    "anil": Algorithm("anil.build_anil", ANIL, splits=True, adapts="head"),
    "per_fedavg": Algorithm("per_fedavg.build_per_fedavg", PerFedAvg, splits=True),
    "pfedme": Algorithm("pfedme.build_pfedme", PFedMe, adapts="proximal"),
    "imaml": Algorithm("imaml.build_imaml", IMAML, splits=True, adapts="proximal"),
    "fedbabu": Algorithm("fedbabu.build_fedbabu", FedBABU),
    "fedrep": Algorithm("fedrep.build_fedrep", FedRep, adapts="head"),
    "fedrecon": Algorithm("fedrecon.build_fedrecon", FedRecon, splits=True, adapts="head"),
    "fedavg": Algorithm("baselines.build_fedavg", FedAvg, meta_learning=False),
    "fedprox": Algorithm("fedprox.build_fedprox", FedProx, meta_learning=False),
    "fedsgd": Algorithm("baselines.build_fedsgd", hyperparameters.Server, meta_learning=False),
    "local": Algorithm("local.untrained_weights", Local, meta_learning=False, trains=False),
}


def trains(name: str) -> bool:
    """Returns whether an algorithm has rounds of training; one of a plugin not loaded has."""
    return name not in REGISTRY or REGISTRY[name].trains


def register_algorithm(
    name: str, hyperparameters: type, *, splits: bool = False, adapts: str = "all"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a builder of your own under a name, for `--plugin` and the library.

        @fm.register_algorithm("my_reptile", MyHyperparameters)
        def build(model_fn, *, inner_learning_rate, batch_size, inner_epochs=None, ...):
            ...  # -> tff.learning.templates.LearningProcess

    The builder is called with `model_fn` and, of what a run has, the keyword arguments that it
    takes: every field of `hyperparameters`, `batch_size`, `inner_epochs` or `inner_steps`,
    `server_optimizer`, `client_weighting`, `model_aggregator`, `metrics_aggregator` and `roles`.

    Args:
      name: Its name on the command line; letters, digits and _.
      hyperparameters: A frozen dataclass whose fields all have defaults, e.g. a subclass of
        `fm.FedAvgHyperparameters`.
      splits: Whether clients train on support and are judged on query.
      adapts: What moves when a client adapts: "all", "head", "rates" or "proximal".

    Raises:
      ValueError: If the name is taken or cannot be one, or `adapts` is something else.
      TypeError: If `hyperparameters` is not such a dataclass.
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"The name of an algorithm is made of letters, digits and _: {name!r}.")
    if name in REGISTRY:
        raise ValueError(f"An algorithm is called {name!r} already: choose another name.")
    if not (isinstance(hyperparameters, type) and dataclasses.is_dataclass(hyperparameters)):
        raise TypeError(
            f"The hyperparameters of {name} must be a dataclass, but are {hyperparameters!r}."
        )
    try:
        hyperparameters()
    except TypeError as error:
        raise TypeError(
            f"Each of the hyperparameters of {name} needs a default: {error}."
        ) from error

    def register(builder: Callable[..., Any]) -> Callable[..., Any]:
        REGISTRY[name] = Algorithm(builder, hyperparameters, splits=splits, adapts=adapts)
        return builder

    return register


class _Builders(Mapping[str, Callable[..., Any]]):
    """Name -> builder of the family's algorithms, a view of the registry."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if not REGISTRY[name].meta_learning:
            raise KeyError(name)
        return REGISTRY[name].build

    def __iter__(self) -> Iterator[str]:
        return (name for name, algorithm in REGISTRY.items() if algorithm.meta_learning)

    def __len__(self) -> int:
        return sum(1 for _ in self)


ALGORITHMS: Mapping[str, Callable[..., Any]] = _Builders()


def hyperparameter_kinds() -> dict[str, type]:
    """Returns name -> dataclass of hyperparameters of every algorithm."""
    return {name: algorithm.hyperparameters for name, algorithm in REGISTRY.items()}
