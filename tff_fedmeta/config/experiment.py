"""The configuration of an experiment: validated, written and read as JSON, identified by a hash.

Importing this needs no TensorFlow, so that wrong flags are answered at once.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Optional

from tff_fedmeta import checks
from tff_fedmeta.config import aggregator_options, hyperparameters
from tff_fedmeta.config.failures import Failures

AGGREGATORS = tuple(aggregator_options.AGGREGATORS)
RUNTIMES = ("local", "worker")


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides the result of a run; where it is written to is not part of it.

    Attributes:
      dataset: The task's name.
      data_source: "auto" as asked; "tff" or "embedded" once the data is found.
      task_options: Options of the task, such as {"only_digits": False}.
      algorithms: What is trained, in turn.
      hyperparameters: For each algorithm, its dataclass of `hyperparameters.py` as a dict.
      rounds: Rounds of training, >= 1.
      clients_per_round: Clients in a round's cohort, >= 1.
      batch_size: Examples in a local step of training, >= 1.
      inner_epochs: Local epochs of training, >= 1, or None if `inner_steps` is given.
      inner_steps: Local steps of training, >= 1, or None.
      seed: From which everything random derives, >= 0.
      support_fraction: The share of a client's examples that adaptation learns from, in (0, 1).
      adaptation_steps: The most steps of adaptation, >= 0.
      adaptation_batch_size: Examples in a step of adaptation, >= 1.
      adaptation_learning_rates: The rates of adaptation to choose from, each > 0.
      num_test_clients: How many clients are held out for the test; None is the task's share.
      rounds_per_evaluation: Rounds between evaluations on validation clients, >= 1.
      rounds_per_checkpoint: Rounds between checkpoints, >= 1.
      aggregator: How updates are combined, one of `AGGREGATORS`.
      aggregator_options: All of its options, as `aggregator_options.py` has them.
      runtime: Where TFF's computations run.
      client_dropout: This and what follows: how clients fail, as in `failures.Failures`.
      straggler_fraction: As there.
      availability: As there.
      byzantine_fraction: As there.
      attack: As there.
      attack_scale: As there.
    """

    dataset: str
    algorithms: tuple[str, ...]
    hyperparameters: Mapping[str, Mapping[str, Any]]
    rounds: int
    clients_per_round: int
    batch_size: int
    inner_epochs: Optional[int]
    inner_steps: Optional[int]
    support_fraction: float
    adaptation_steps: int
    adaptation_batch_size: int
    adaptation_learning_rates: tuple[float, ...]
    rounds_per_evaluation: int
    rounds_per_checkpoint: int
    data_source: str = "auto"
    task_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    num_test_clients: Optional[int] = None
    aggregator: str = "mean"
    aggregator_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    runtime: str = "local"
    client_dropout: float = 0.0
    straggler_fraction: float = 0.0
    availability: float = 1.0
    byzantine_fraction: float = 0.0
    attack: str = "sign_flip"
    attack_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rounds", "clients_per_round", "batch_size", "adaptation_batch_size"):
            checks.check_count(name, getattr(self, name), 1)
        for name in ("rounds_per_evaluation", "rounds_per_checkpoint"):
            checks.check_count(name, getattr(self, name), 1)
        checks.check_count("adaptation_steps", self.adaptation_steps, 0)
        checks.check_count("seed", self.seed, 0, 2**31 - 1)
        if (self.inner_epochs is None) == (self.inner_steps is None):
            raise ValueError(
                "Give one of inner_epochs and inner_steps: they are two ways to say how long "
                f"clients train; got {self.inner_epochs} and {self.inner_steps}."
            )
        for name in ("inner_epochs", "inner_steps", "num_test_clients"):
            if getattr(self, name) is not None:
                checks.check_count(name, getattr(self, name), 1)
        checks.check_split(self.support_fraction)
        rates = self.adaptation_learning_rates
        if not rates or not all(0 < rate < math.inf for rate in rates):
            raise ValueError(
                f"adaptation_learning_rates must be one or more numbers > 0, but got {list(rates)}."
            )
        if not self.algorithms or len(set(self.algorithms)) != len(self.algorithms):
            raise ValueError(
                f"algorithms must be one or more different names, but got {list(self.algorithms)}."
            )
        for name in self.algorithms:
            checks.check_choice("algorithm", name, hyperparameters.HYPERPARAMETERS)
        if set(self.hyperparameters) != set(self.algorithms):
            raise ValueError(
                f"hyperparameters are for {sorted(self.hyperparameters)}, but the algorithms are "
                f"{sorted(self.algorithms)}."
            )
        # Options left out get their defaults here, so that the hash does not depend on who does it.
        options = aggregator_options.resolve(self.aggregator, self.aggregator_options)
        object.__setattr__(self, "aggregator_options", options)
        checks.check_choice("runtime", self.runtime, RUNTIMES)
        if self.aggregator in aggregator_options.SECURE:
            most = aggregator_options.MAX_SECURE_CLIENTS
            checks.check_count("clients_per_round", self.clients_per_round, 1, most)
            if self.runtime == "worker":
                raise ValueError(
                    f"aggregator {self.aggregator} needs secure sums, which TFF's worker cannot "
                    "compute; use runtime local."
                )
        failures = self.failures  # which checks itself
        if self.aggregator in aggregator_options.PRIVATE and failures.availability < 1:
            raise ValueError(
                "availability must be 1 with the aggregator dp, whose accountant takes it that all "
                f"clients are equally likely to be in a round, but is {self.availability}."
            )

    @classmethod
    def from_defaults(
        cls,
        dataset: str,
        defaults: Mapping[str, Any],
        values: Mapping[str, Any],
        hparams: Mapping[str, Mapping[str, Any]],
    ) -> "ExperimentConfig":
        """Makes a configuration of a task's defaults and what the user said.

        Args:
          dataset: The task's name.
          defaults: The task's: a value for each field that has none here, and under
            "hyperparameters" what it prefers for each algorithm.
          values: The user's values of fields; None stands for "not said".
          hparams: algorithm -> the user's hyperparameters.

        Raises:
          ValueError: If a value is out of its range, or is for an algorithm that is not selected.
        """
        said = {name: value for name, value in values.items() if value is not None}
        merged = {**defaults, **said}
        merged.setdefault("adaptation_batch_size", merged["batch_size"])
        # One of the two ways to say how long clients train replaces the default of the other.
        for name, other in (("inner_epochs", "inner_steps"), ("inner_steps", "inner_epochs")):
            merged.setdefault(name, None)
            if name in said and other not in said:
                merged[other] = None
        preferred = merged.pop("hyperparameters")
        for name in merged["algorithms"]:
            checks.check_choice("algorithm", name, hyperparameters.HYPERPARAMETERS)
        for name in hparams:
            checks.check_choice("algorithm of a --hparam", name, merged["algorithms"])
        merged["hyperparameters"] = {
            name: dataclasses.asdict(
                hyperparameters.resolve(name, preferred.get(name, {}), hparams.get(name, {}))
            )
            for name in merged["algorithms"]
        }
        return cls(dataset=dataset, **merged)

    @property
    def local_budget(self) -> dict[str, int]:
        """`{"inner_epochs": n}` or `{"inner_steps": n}`, whichever is set."""
        both = {"inner_epochs": self.inner_epochs, "inner_steps": self.inner_steps}
        return {name: value for name, value in both.items() if value is not None}

    @property
    def failures(self) -> Failures:
        """How clients fail."""
        fields = dataclasses.fields(Failures)
        return Failures(**{field.name: getattr(self, field.name) for field in fields})

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that two configurations share only if they are the same."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """Returns the configuration, and its hash, as JSON text."""
        return json.dumps({**dataclasses.asdict(self), "config_hash": self.hash}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ExperimentConfig":
        """Reads what `to_json` wrote.

        Raises:
          ValueError: If the text is no such configuration, or not the one its hash is of.
        """
        try:
            values = json.loads(text)
            config_hash = values.pop("config_hash")
            for name in ("algorithms", "adaptation_learning_rates"):
                values[name] = tuple(values[name])
            config = cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"This is not an experiment's configuration: {error}.") from error
        if config.hash != config_hash:
            raise ValueError(
                f"The configuration's hash is {config.hash}, but the text says {config_hash}: "
                "it was changed by hand or written by another version."
            )
        return config

    def differences(self, other: "ExperimentConfig") -> str:
        """Returns which values differ, e.g. "rounds 10 here, 20 there", or "" if none does."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return "; ".join(
            f"{name} {mine[name]} here, {theirs[name]} there"
            for name in mine
            if json.dumps(mine[name], sort_keys=True) != json.dumps(theirs[name], sort_keys=True)
        )
