"""A trial of `searches.tune`: train, adapt to validation clients, give up where it lags behind."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import optuna

from searches import space
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import evaluation, protocols, summary, train
from tff_fedmeta.experiment.scope import scope_of


class Objective:
    """What Optuna maximizes or minimizes: a trial -> its metric on validation clients.

    Args:
      config: What to run; each trial changes hyperparameters of one algorithm.
      task: The `datasets.Task`, without test clients.
      read: Its reader of clients.
      algorithm: What is trained.
      searched: What is tried for each hyperparameter.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        task: Any,
        read: Any,
        algorithm: str,
        searched: space.Space,
    ):
        self._config, self._task, self._read = config, task, read
        self._algorithm, self._searched = algorithm, searched

    def __call__(self, trial: optuna.Trial) -> float:
        """Returns a trial's metric, or raises `optuna.TrialPruned`."""
        config, task, algorithm = self._config, self._task, self._algorithm
        start = time.monotonic()
        settings = {
            **config.hyperparameters[algorithm],
            **space.suggest(trial, self._searched),
        }
        config = dataclasses.replace(
            config, algorithms=(algorithm,), hyperparameters={algorithm: settings}, baseline=None
        )

        def watch(row: Mapping[str, Any], round_num: int) -> None:
            value = row.get(f"validation/{task.metric}_after")
            # The last is judged by all validation clients; the first trial is what a run would
            # have, to compare with.
            if value is None or round_num in (0, config.rounds) or trial.number == 0:
                return
            if not math.isfinite(value):
                raise optuna.TrialPruned
            trial.report(value, round_num)
            if trial.should_prune():
                raise optuna.TrialPruned

        protocol = protocols.protocol_of(config, task.split, algorithm)
        scope = scope_of(config, algorithm)
        evaluators = evaluation.build_evaluators(protocol, task.model_fn, scope)
        try:
            weights = train.train_algorithm(
                config, task, algorithm, self._read, evaluators, on_row=watch
            )
            way, steps, chosen = evaluation.choose(
                protocol,
                evaluators,
                weights,
                self._read,
                protocols.choosing_clients(config, task),
                metric=task.metric,
                higher_is_better=task.higher_is_better,
            )
        except summary.NothingFiniteError as error:  # it diverged
            raise optuna.TrialPruned from error
        finally:
            trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
        trial.set_user_attr("adaptation", way.with_steps(steps))
        return chosen["mean"]
