"""The configuration of an experiment: validated, written and read as JSON, identified by a hash.

Importing this needs no TensorFlow, so that wrong flags are answered at once.
"""

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Mapping
from typing import Any, Optional

from tff_fedmeta import checks
from tff_fedmeta.config import aggregator_options, hyperparameters, schema
from tff_fedmeta.config.failures import Failures
from tff_fedmeta.config.protocol import MOST_STRENGTH, AdaptationProtocol, check_strengths
from tff_fedmeta.config.schema import MOST_RATE, REQUIRED, setting

AGGREGATORS = tuple(aggregator_options.AGGREGATORS)
RUNTIMES = ("local", "worker", "ray")
ADAPTATIONS = ("own", "all")
_LISTS = (
    "algorithms",
    "adaptation_learning_rates",
    "adaptation_proximal_strengths",
    "support_sizes",
)

MOST_EXAMPLES = 1_000_000_000  # of a client, which counts them in int32


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides the result of a run; where it is written to is not part of it.

    Fields without a default have the data set's. Flags of the same names derive from them, apart
    from those that say `flag=False`.
    """

    dataset: str = setting(REQUIRED, "The task's name.", flag=False)
    algorithms: tuple[str, ...] = setting(REQUIRED, "What is trained, in turn.")
    hyperparameters: Mapping[str, Mapping[str, Any]] = setting(
        REQUIRED, "For each algorithm, its dataclass of hyperparameters as a dict.", flag=False
    )
    rounds: int = setting(REQUIRED, "Training rounds.", at_least=1, at_most=10_000_000)
    clients_per_round: int = setting(
        REQUIRED, "Clients in a round's cohort.", at_least=1, at_most=1_000_000
    )
    batch_size: int = setting(REQUIRED, "Examples in a local step.", at_least=1, at_most=1_000_000)
    inner_epochs: Optional[int] = setting(
        REQUIRED, "Local epochs in a round; or", at_least=1, at_most=10_000
    )
    inner_steps: Optional[int] = setting(
        REQUIRED, "local steps in a round.", at_least=1, at_most=100_000
    )
    support_fraction: float = setting(
        REQUIRED,
        "Share of a client's examples that adaptation learns from.",
        above=0,
        below=1,
    )
    adaptation_steps: int = setting(
        REQUIRED, "The most steps of adaptation.", at_least=0, at_most=100_000
    )
    adaptation_batch_size: int = setting(
        REQUIRED, "Examples in a step of adaptation [batch_size].", at_least=1, at_most=1_000_000
    )
    adaptation_learning_rates: tuple[float, ...] = setting(
        REQUIRED,
        "Different rates of adaptation that validation clients choose from.",
        above=0,
        at_most=MOST_RATE,
    )
    rounds_per_evaluation: int = setting(
        REQUIRED,
        "Rounds between evaluations on validation clients.",
        at_least=1,
        at_most=10_000_000,
    )
    rounds_per_checkpoint: int = setting(
        REQUIRED, "Rounds between checkpoints.", at_least=1, at_most=10_000_000
    )
    adaptation_proximal_strengths: tuple[float, ...] = setting(
        (0.0,),
        "Pulls to the trained weights (Ditto) that validation clients choose from.",
        at_least=0,
        at_most=MOST_STRENGTH,
    )
    adaptation: str = setting(
        "own",
        "own: what an algorithm adapts, the head of ANIL for one; all: all weights, in every row.",
        choices=ADAPTATIONS,
    )
    support_sizes: tuple[int, ...] = setting(
        (),
        "Test clients adapt on their first 5, 10, ... support examples too, to the same query.",
        at_least=1,
        at_most=MOST_EXAMPLES,
    )
    forgetting_clients: int = setting(
        0,
        "Other test clients on whose query each adapted model is measured too; 0: none.",
        at_least=0,
        at_most=10_000_000,
    )
    num_validation_clients: int = setting(
        100,
        "The most validation clients that choose rate and steps of adaptation, drawn by a fixed "
        "seed; 0: all.",
        at_least=0,
        at_most=10_000_000,
    )
    data_source: str = setting("auto", "Where the clients come from.", flag=False)
    task_options: Mapping[str, Any] = setting({}, "Options of the data set.", flag=False)
    seed: int = setting(0, "Seed of all randomness.", at_least=0, at_most=2**31 - 1)
    num_test_clients: Optional[int] = setting(
        None, "Clients held out for the test [the data set's share].", at_least=1, at_most=1_000_000
    )
    aggregator: str = setting("mean", "How updates are combined.", choices=AGGREGATORS)
    aggregator_options: Mapping[str, Any] = setting({}, "Options of the aggregator.", flag=False)
    runtime: str = setting(
        "local",
        "local: in this process; ray: in the processes of a Ray cluster; worker: in TFF's own "
        "worker, which is slower and needs memory for every client of a round.",
        choices=RUNTIMES,
    )
    baseline: Optional[str] = setting(
        None, "The algorithm that the others are compared with [fedavg, where it runs]."
    )
    patience: int = setting(
        0,
        "Evaluations without a better validation metric after which training stops; the weights of "
        "the best round are kept. 0: all rounds are trained.",
        at_least=0,
        at_most=1_000_000,
    )
    repetitions: int = setting(
        1, "Runs with the seeds seed, seed + 1, ..., compared over all.", at_least=1, at_most=100
    )
    folds: int = setting(
        1, "Parts of the clients, each of which is tested once, in a run of its own.", at_least=1
    )
    fold: Optional[int] = setting(None, "The part tested here, from 0.", at_least=0, flag=False)
    resplit: bool = setting(
        False,
        "Whether each seed draws anew who trains and who tests; otherwise all have the same.",
    )
    plugins: Mapping[str, str] = setting({}, "File name -> hash of each plug-in.", flag=False)
    model: Optional[str] = setting(None, "Hash of the user's own network.", flag=False)
    initial_model: Optional[str] = setting(
        None, "Hash of the model whose weights training starts from.", flag=False
    )
    client_dropout: float = schema.same_as(Failures, "client_dropout")
    straggler_fraction: float = schema.same_as(Failures, "straggler_fraction")
    availability: float = schema.same_as(Failures, "availability")
    byzantine_fraction: float = schema.same_as(Failures, "byzantine_fraction")
    attack: str = schema.same_as(Failures, "attack")
    attack_scale: float = schema.same_as(Failures, "attack_scale")

    def __post_init__(self) -> None:
        # Options left out get their defaults here, so that the hash does not depend on who does it.
        options = aggregator_options.resolve(self.aggregator, self.aggregator_options)
        object.__setattr__(self, "aggregator_options", options)
        schema.check(self)
        checks.check_split(self.support_fraction)
        if (self.inner_epochs is None) == (self.inner_steps is None):
            raise ValueError(
                "Give one of inner_epochs and inner_steps: they are two ways to say how long "
                f"clients train; got {self.inner_epochs} and {self.inner_steps}."
            )
        rates = self.adaptation_learning_rates
        if not rates or len(set(rates)) != len(rates):
            raise ValueError(
                "adaptation_learning_rates must be one or more different numbers, but got "
                f"{list(rates)}."
            )
        for rate in rates:
            checks.check_limits("adaptation_learning_rates", rate, above=0, at_most=MOST_RATE)
        if len(set(self.support_sizes)) != len(self.support_sizes):
            raise ValueError(
                f"support_sizes must be different numbers, but got {list(self.support_sizes)}."
            )
        for size in self.support_sizes:
            checks.check_count("support_sizes", size, 1, MOST_EXAMPLES)
        check_strengths("adaptation_proximal_strengths", self.adaptation_proximal_strengths)
        if not self.algorithms or len(set(self.algorithms)) != len(self.algorithms):
            raise ValueError(
                f"algorithms must be one or more different names, but got {list(self.algorithms)}."
            )
        if self.baseline is not None:
            checks.check_choice("baseline", self.baseline, self.algorithms)
        if set(self.hyperparameters) != set(self.algorithms):
            raise ValueError(
                f"hyperparameters are for {sorted(self.hyperparameters)}, but the algorithms are "
                f"{sorted(self.algorithms)}."
            )
        if self.aggregator in aggregator_options.SECURE:
            most = aggregator_options.MAX_SECURE_CLIENTS
            checks.check_count("clients_per_round", self.clients_per_round, 1, most)
            if self.runtime == "worker":
                raise ValueError(
                    f"aggregator {self.aggregator} needs secure sums, which TFF's worker cannot "
                    "compute; use runtime local or ray."
                )
        if self.folds > 1 and self.num_test_clients is not None:
            raise ValueError("folds decide how many clients are tested: drop num_test_clients.")
        failures = self.failures  # which checks itself
        if self.aggregator in aggregator_options.PRIVATE and failures.availability < 1:
            raise ValueError(
                "availability must be 1 with the aggregator dp, whose accountant assumes that all "
                f"clients are equally likely to take part, but is {self.availability}."
            )

    @classmethod
    def from_defaults(
        cls,
        dataset: str,
        defaults: Mapping[str, Any],
        values: Mapping[str, Any],
        hparams: Mapping[str, Mapping[str, Any]],
        kinds: Mapping[str, type],
    ) -> "ExperimentConfig":
        """Makes a configuration of a task's defaults and what the user said.

        Args:
          dataset: The task's name.
          defaults: The task's: a value for each field that has none here, and under
            "hyperparameters" what it prefers for each algorithm. "split" and
            "training_support_fraction", how training clients split, go to the algorithms that have
            a `split` and a `support_fraction`, where "hyperparameters" has no other value.
          values: The user's values of fields; None stands for "not said".
          hparams: algorithm -> the user's hyperparameters.
          kinds: For every algorithm there is, its dataclass of hyperparameters.

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
        how = {
            "split": merged.pop("split", None),
            "support_fraction": merged.pop("training_support_fraction", None),
        }
        for name in merged["algorithms"]:
            checks.check_choice("algorithm", name, kinds)
        for name in hparams:
            checks.check_choice("algorithm of a --hparam", name, merged["algorithms"])
        merged["hyperparameters"] = {
            name: dataclasses.asdict(
                hyperparameters.resolve(
                    name,
                    kinds[name],
                    {**_those_it_has(kinds[name], how), **preferred.get(name, {})},
                    hparams.get(name, {}),
                )
            )
            for name in merged["algorithms"]
        }
        return cls(dataset=dataset, **merged)

    @property
    def local_budget(self) -> dict[str, int]:
        """`{"inner_epochs": n}` or `{"inner_steps": n}`, whichever is set."""
        both = {"inner_epochs": self.inner_epochs, "inner_steps": self.inner_steps}
        return {name: value for name, value in both.items() if value is not None}

    def repetition(self, number: int) -> "ExperimentConfig":
        """Returns the configuration of one of the repetitions, counted from 0."""
        return dataclasses.replace(self, seed=self.seed + number, repetitions=1)

    def parts(self) -> dict[str, "ExperimentConfig"]:
        """Returns the runs that this one consists of, by directory; none: it is a run itself."""
        folds = [None] if self.folds == 1 or self.fold is not None else range(self.folds)
        found = {}
        for fold in folds:
            for seed in range(self.seed, self.seed + self.repetitions):
                names = [] if fold is None else [f"fold_{fold}"]
                names += [f"seed_{seed}"] if self.repetitions > 1 else []
                number = self.fold if fold is None else fold
                part = dataclasses.replace(self, seed=seed, repetitions=1, fold=number)
                if names:
                    found["_".join(names)] = part
        return found

    def protocol(self, split: str) -> AdaptationProtocol:
        """Returns how initialisations are judged, on a task whose clients split so."""
        return AdaptationProtocol(
            support_fraction=self.support_fraction,
            split=split,
            batch_size=self.adaptation_batch_size,
            steps=self.adaptation_steps,
            learning_rates=tuple(self.adaptation_learning_rates),
            proximal_strengths=tuple(self.adaptation_proximal_strengths),
            seed=self.seed,
        )

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
          ValueError: If the text is not a configuration, or its hash does not fit it.
        """
        try:
            values = json.loads(text)
            config_hash = values.pop("config_hash")
            for name in _LISTS:
                values[name] = tuple(values[name])
            config = cls(**values)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"This is not an experiment's configuration: {error}.") from error
        if config.hash != config_hash:
            raise ValueError(
                f"The configuration's hash is {config.hash}, but the text says {config_hash}: "
                "it was changed by hand or written by another version."
            )
        return config

    def in_words(self) -> str:
        """Returns what matters most, in a few lines of at most 80 columns; the rest is in JSON."""
        epochs = self.inner_steps is None
        budget = f"{self.inner_epochs if epochs else self.inner_steps} local "
        budget += "epochs" if epochs else "steps"
        rates = ", ".join(f"{rate:g}" for rate in self.adaptation_learning_rates)
        pulls = ""
        if self.adaptation_proximal_strengths != (0.0,):
            strengths = ", ".join(f"{pull:g}" for pull in self.adaptation_proximal_strengths)
            pulls = f", held to the trained weights by one of {strengths}"
        parts = {
            "algorithms": ", ".join(self.algorithms),
            "training": f"{self.rounds} rounds of {self.clients_per_round} clients, batches of "
            f"{self.batch_size}, {budget}",
            "adaptation": f"{self.support_fraction:.0%} of a client's examples are support; up to "
            f"{self.adaptation_steps} steps at one of the rates {rates}{pulls}",
            "aggregator": self.aggregator,
            "seed": f"{self.seed}; configuration {self.hash}",
        }
        if self.failures.any:
            failing = (f"{name} {value}" for name, value in vars(self.failures).items())
            parts["clients that fail"] = ", ".join(failing)
        lines = [
            textwrap.fill(text, 80, initial_indent=f"{name}: ", subsequent_indent="  ")
            for name, text in parts.items()
        ]
        return "\n".join(lines)

    def differences(self, other: "ExperimentConfig") -> str:
        """Returns which values differ, e.g. "rounds 10 here, 20 there", or "" if none does."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return "; ".join(
            f"{name} {mine[name]} here, {theirs[name]} there"
            for name in mine
            if json.dumps(mine[name], sort_keys=True) != json.dumps(theirs[name], sort_keys=True)
        )


def _those_it_has(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values, other than None, that are hyperparameters of this kind."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {key: value for key, value in values.items() if key in names and value is not None}
