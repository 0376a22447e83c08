"""What a run needs of algorithms' builders and of clients, checked before TensorFlow comes."""

import dataclasses
import inspect
from typing import Any, Callable, Optional

from tff_fedmeta.aggregation import privacy
from tff_fedmeta.algorithms.registry import REGISTRY
from tff_fedmeta.config import ExperimentConfig, aggregator_options, failures
from tff_fedmeta.config.hyperparameters import PER_STEP_AND_LAYER, Server


class BuildError(ValueError):
    """An algorithm cannot be built as it is asked for; the message says why."""


def check_builders(config: ExperimentConfig) -> None:
    """Raises BuildError if the builder of an algorithm does not take what a run has to give it.

    Args:
      config: The run's configuration.
    """
    for algorithm in config.algorithms:
        _check_length(config, algorithm)
        builder = REGISTRY[algorithm].builder
        taken = None if isinstance(builder, str) else arguments_of(builder)
        if taken is None:
            continue
        kind = REGISTRY[algorithm].hyperparameters
        needed = {field.name for field in dataclasses.fields(kind)} | {"batch_size"}
        if issubclass(kind, Server):
            needed -= {"server_learning_rate", "server_schedule", "server_warmup"}
        if not config.hyperparameters[algorithm].get("inner_clip_norm"):
            needed.discard("inner_clip_norm")
        if "inner_learning_rate" in needed:
            needed |= set(config.local_budget)
        if config.aggregator != "mean":
            needed.add("model_aggregator")
        if config.failures.need_roles:
            needed.add("roles")
        if needed - taken:
            raise BuildError(
                f"This run needs the builder of {algorithm} to take "
                f"{', '.join(sorted(needed - taken))}, but it takes {', '.join(sorted(taken))}: "
                "add the arguments, or leave out the settings that need them."
            )


def _check_length(config: ExperimentConfig, algorithm: str) -> None:
    """Raises BuildError if the run, or its local training, is too short or of the wrong kind."""
    values = config.hyperparameters[algorithm]
    if values.get("switch_round", 0) >= config.rounds:
        raise BuildError(
            f"{algorithm}.switch_round is {values['switch_round']}, but the run has "
            f"{config.rounds} rounds, so that it would never switch: give fewer, or take fedavg."
        )
    if values.get("inner_rates") == PER_STEP_AND_LAYER and config.inner_steps is None:
        raise BuildError(
            f"{algorithm}.inner_rates={PER_STEP_AND_LAYER} needs local steps instead of epochs, so "
            "that every client takes the same number: give --inner_steps."
        )


def arguments_of(builder: Callable[..., Any]) -> Optional[set[str]]:
    """Returns the keyword arguments that a builder takes; None: any."""
    parameters = inspect.signature(builder).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}


def check_clients(
    config: ExperimentConfig, left_open: bool, num_train_clients: int, labels: Any
) -> None:
    """Raises ValueError unless a run can be on clients of this kind.

    Args:
      config: The run's configuration.
      left_open: Whether the user did not say how many clients a round has.
      num_train_clients: How many clients train.
      labels: The NumPy dtype of their labels; None if these are several arrays.
    """
    cohort = cohort_size(config, num_train_clients, left_open)
    if config.failures.flip_labels:
        failures.check_labels(labels)
    try:
        promise = guarantee_of(
            dataclasses.replace(config, clients_per_round=cohort), num_train_clients
        )
        if promise is not None:
            promise.epsilon(config.rounds)
    except ValueError as error:
        raise ValueError(f"The privacy asked for cannot be accounted for: {error}") from error


def cohort_size(config: ExperimentConfig, num_train_clients: int, left_open: bool) -> int:
    """Returns the clients of a round: as configured, or all if there are no more and it was open.

    Raises:
      ValueError: If the user asked for more clients than there are.
    """
    if config.clients_per_round <= num_train_clients:
        return config.clients_per_round
    if not left_open:
        raise ValueError(
            f"--clients_per_round must be at most the number of training clients, "
            f"{num_train_clients}, but is {config.clients_per_round}."
        )
    return num_train_clients


def guarantee_of(config: ExperimentConfig, num_train_clients: int) -> Optional[privacy.Guarantee]:
    """Returns what the run of a private aggregator guarantees; None: it is not a private one."""
    if config.aggregator not in aggregator_options.PRIVATE:
        return None
    return privacy.guarantee(
        config.aggregator_options, config.clients_per_round, num_train_clients, config.rounds
    )
