"""The learning process of one algorithm as a configuration has it."""

from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.aggregation import aggregators, privacy
from tff_fedmeta.algorithms.registry import REGISTRY
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.config.hyperparameters import Server
from tff_fedmeta.experiment.requirements import BuildError, arguments_of

_SERVER_OPTIMIZERS = {
    "sgd": tff.learning.optimizers.build_sgdm,
    "adam": tff.learning.optimizers.build_adam,
    "yogi": tff.learning.optimizers.build_yogi,
}
_WEIGHTINGS = {
    "examples": tff.learning.ClientWeighting.NUM_EXAMPLES,
    "uniform": tff.learning.ClientWeighting.UNIFORM,
}

# The share of a run's rounds, its last, over which the schedule "cooldown" lets the rate fall.
_COOLDOWN = 0.3


def build_process(
    config: ExperimentConfig,
    algorithm: str,
    model_fn: Callable[[], tff.learning.models.VariableModel],
    guarantee: Optional[privacy.Guarantee] = None,
) -> tff.learning.templates.LearningProcess:
    """Builds the learning process of one algorithm as the configuration has it.

    Args:
      config: The configuration.
      algorithm: Which algorithm.
      model_fn: As in every `build_*`.
      guarantee: That of a private run, which tells the noise.
    """
    options = dict(config.aggregator_options)
    if guarantee is not None:
        options.update(noise_multiplier=guarantee.noise_multiplier, dp_epsilon=None)
    row = REGISTRY[algorithm]
    values = dict(config.hyperparameters[algorithm])
    if issubclass(row.hyperparameters, Server):
        values["server_optimizer"] = _server_optimizer(
            values.pop("server_optimizer"),
            values.pop("server_learning_rate"),
            warmup=values.pop("server_warmup"),
            schedule=values.pop("server_schedule"),
            rounds=config.rounds,
        )
    if "client_weighting" in values:
        values["client_weighting"] = _WEIGHTINGS[values["client_weighting"]]
    if values.get("switch_round") == 0:
        values["switch_round"] = config.rounds // 2
    if not values.get("inner_clip_norm"):  # a builder of a user's own need not know it
        values.pop("inner_clip_norm", None)
    if "inner_learning_rate" in values:  # without local steps their number has no meaning
        values.update(config.local_budget)
    offered = {
        "batch_size": config.batch_size,
        "model_aggregator": aggregators.build_aggregator(
            config.aggregator, clients_per_round=config.clients_per_round, **options
        ),
        "metrics_aggregator": aggregators.build_metrics_aggregator(config.aggregator),
        "roles": config.failures.need_roles,
    }
    taken = arguments_of(row.build)
    arguments = {**offered, **values}
    try:
        process = row.build(
            model_fn,
            **{name: value for name, value in arguments.items() if taken is None or name in taken},
        )
    except (ValueError, TypeError) as error:
        raise BuildError(f"{algorithm} cannot be built: {error}") from error
    if not isinstance(process, tff.learning.templates.LearningProcess):
        raise BuildError(
            f"The builder of {algorithm} must return a tff.learning.templates.LearningProcess, but "
            f"returned {type(process).__name__}."
        )
    return process


def _server_optimizer(
    name: str, rate: float, warmup: int, schedule: str, rounds: int
) -> tff.learning.optimizers.Optimizer:
    """Builds a server optimizer.

    Args:
      name: Which one.
      rate: Its learning rate.
      warmup: Over how many rounds the rate rises linearly at first.
      schedule: How it changes over the run, of `hyperparameters.SERVER_SCHEDULES`.
      rounds: How many rounds the run has, >= 1.
    """
    optimizer = _SERVER_OPTIMIZERS[name](rate)
    if not warmup and schedule == "constant":
        return optimizer

    def rate_of_round(done: Any) -> Any:  # TFF counts rounds from 0, and each moves a little
        done = tf.cast(done, tf.float32)
        risen = tf.minimum((done + 1) / warmup, 1.0) if warmup else 1.0
        return rate * risen * _rate_left(done, schedule, rounds)

    return tff.learning.optimizers.schedule_learning_rate(optimizer, rate_of_round)


def _rate_left(done: Any, schedule: str, rounds: int) -> Any:
    """Returns the share of the server's rate that a schedule leaves after `done` of the rounds."""
    if schedule == "constant":
        return 1.0
    left = tf.maximum(1.0 - done / rounds, 0.0)
    return left if schedule == "linear" else tf.minimum(left / _COOLDOWN, 1.0)
