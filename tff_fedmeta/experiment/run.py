"""One experiment from data to comparison: train each algorithm, adapt, report, export."""

import functools
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from tff_fedmeta import export
from tff_fedmeta.algorithms.registry import REGISTRY, trains
from tff_fedmeta.client import data as client_data
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.client.source import ClientSource
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.config.protocol import AdaptationProtocol
from tff_fedmeta.experiment import (
    adapted_client,
    day_by_day,
    divergence,
    evaluation,
    forgetting,
    model_files,
    protocols,
    report,
    results,
    run_directory,
    summary,
    support_sizes,
    task_measures,
    tracking,
    train,
)
from tff_fedmeta.experiment.requirements import BuildError
from tff_fedmeta.experiment.scope import Scope, scope_of

_LOG = logging.getLogger(__name__)


def run(
    config: ExperimentConfig,
    task: Any,
    output_dir: Path,
    data_seconds: float = 0.0,
    client_clock: Optional[Callable[[], float]] = None,
    formats: Collection[str] = (export.KERAS,),
    runtime_figures: Optional[Callable[[], Mapping[str, float]]] = None,
    open_reader: Optional[Callable[[], Any]] = None,
    log_to: Optional[str] = None,
) -> str:
    """Runs an experiment, continuing one that was interrupted, and writes all of its files.

    Call it within a runtime (`runtime.local_runtime`). `run_directory.py` lists the files.

    Args:
      config: What to run, with the data source resolved.
      task: The `datasets.Task` it runs on.
      output_dir: Where the files go; `run_directory.claim` has checked it.
      data_seconds: How long making the task took, for `timings.json`.
      client_clock: Tells the seconds spent on clients, where the runtime knows them.
      formats: What trained models are written as, of `export.FORMATS`.
      runtime_figures: Tells named figures of the last round, where the runtime knows any.
      open_reader: Returns what the task's `read_client` is, in another process; only needed where
        the runtime has other processes.
      log_to: Where rounds and results are recorded besides, of `tracking.check`.

    Returns:
      The comparison table, in Markdown.

    Raises:
      AllDivergedError: If no algorithm has a result, so that there is nothing to compare.
    """
    read: Any = client_data.cached_reader(task.read_client)
    if config.runtime != "worker":  # TFF's knows datasets alone
        read = ClientSource(open_reader or (lambda: task.read_client), read=task.read_client)
    choosing = protocols.choosing_clients(config, task)
    ways = {name: _Way.of(config, task, name) for name in config.algorithms}
    evaluators_of: dict[_Way, evaluation.Evaluators] = {}
    for name, way in ways.items():
        if way not in evaluators_of:  # one for all algorithms that adapt alike
            evaluators_of[way] = way.build_evaluators(name, task.model_fn)
    phases = ("training", "client_work", "evaluation", "export")
    timings: dict[str, Any] = {"data": data_seconds, **{phase: {} for phase in phases}}
    drawn = {}
    reasons: dict[str, str] = {}
    for algorithm, way in ways.items():
        directory = output_dir / algorithm
        evaluators = evaluators_of[way]
        tracker = tracking.open_tracker(log_to, config, algorithm)
        diverged, evaluation_seconds = None, 0.0
        if trains(algorithm):
            weights = train.train_algorithm(
                config,
                task,
                algorithm,
                read,
                evaluators,
                directory,
                client_clock,
                runtime_figures,
                tracker.log,
            )
            # From the rows, so that a continued run accounts for its first part too.
            metrics = results.read_metrics(directory)
            timings["training"][algorithm] = metrics["seconds"].sum()
            if "client_seconds" in metrics:
                timings["client_work"][algorithm] = metrics["client_seconds"].sum()
            evaluation_seconds = metrics["evaluation_seconds"].sum()
            diverged = divergence.find(metrics)
        else:
            weights = REGISTRY[algorithm].build(task.model_fn)
            directory.mkdir(parents=True, exist_ok=True)

        start = time.perf_counter()
        why = None if diverged is None else diverged.in_words(algorithm)
        if why is None:
            try:
                measured_clients = evaluation.choose_and_measure(
                    way.protocol,
                    evaluators,
                    weights,
                    read,
                    choosing,
                    task.test_clients,
                    metric=task.metric,
                    higher_is_better=task.higher_is_better,
                    title=f"{algorithm}, adapting",
                )
            except summary.NothingFiniteError as error:
                why = f"{algorithm} diverged: {error}"
        if why is not None:
            reasons[algorithm] = why
            measured_clients = evaluation.measure_nothing(
                way.protocol, evaluators, weights, read, task.test_clients, task.metric
            )
        scope = way.scope.as_chosen(measured_clients["chosen"])
        adapted = {
            "data_source": task.data_source,
            "adapts": scope.in_words(),
            "diverged": why,
            **measured_clients,
        }
        if why is None and config.support_sizes:
            adapted["support_sizes"] = support_sizes.measure(
                config.support_sizes,
                way.protocol,
                evaluators,
                weights,
                read,
                choosing,
                adapted["clients"],
                metric=task.metric,
                higher_is_better=task.higher_is_better,
                title=f"{algorithm}, adapting",
            )
        run_directory.write_json(directory / results.ADAPTED, adapted)
        tracker.finish(adapted, config.rounds)
        timings["evaluation"][algorithm] = evaluation_seconds + time.perf_counter() - start

        if why is not None:
            continue  # a diverged model is neither drawn nor exported
        build_on = functools.partial(
            adapted_client.build_adapter,
            task=task,
            weights=weights,
            chosen=adapted["chosen"],
            moving=scope.moving(task.model_fn),
            proximal_strength=scope.proximal_strength,
            learned_rates=scope.learned_rates,
        )
        build_adapter = functools.partial(build_on, protocol=way.protocol, read=read)
        ids = [client["client_id"] for client in adapted["clients"]]
        if config.forgetting_clients:
            adapted["others"] = forgetting.measure(
                task,
                ids,
                build_adapter(),
                config.forgetting_clients,
                config.seed,
                f"{algorithm}, other clients",
            )
            run_directory.write_json(directory / results.ADAPTED, adapted)
        tracker.finish(adapted, config.rounds)
        if task.measures is not None:
            measured = task_measures.measure(
                task.measures.of_client,
                ids,
                build_adapter,
                config.seed,
                f"{algorithm}, measuring",
                task.measures.confusion,
                task.meaning.classes if task.meaning else (),
            )
            run_directory.write_json(directory / task_measures.FILE, measured)
        if task.days_of is not None:
            measured = day_by_day.measure(
                task, ids, build_on, way.protocol, read, f"{algorithm}, day by day"
            )
            run_directory.write_json(directory / day_by_day.FILE, measured)
        if task.plot_client is not None:
            # The first that can be split, which is the same one for every algorithm.
            client = ids[0]
            drawn[algorithm] = build_adapter()(client)

        if not trains(algorithm):
            continue  # there is nothing learnt to export
        start = time.perf_counter()
        home = directory / "keras_model"
        model_files.export_model(
            config, task, algorithm, scope, weights, adapted["chosen"], home, formats
        )
        timings["export"][algorithm] = time.perf_counter() - start
    run_directory.write_json(output_dir / "timings.json", timings)
    if drawn:
        report.write_example(task, client, drawn, output_dir)
    if len(reasons) == len(config.algorithms):
        raise divergence.AllDivergedError(" ".join(reasons.values()))
    text = report.write_comparison(config, task, output_dir)
    for why in reasons.values():
        _LOG.warning("%s It has no figures and no exported model.", why)
    run_directory.finish(output_dir)
    return text


class _Way(NamedTuple):
    """How clients adapt what an algorithm has trained, and how that is measured."""

    protocol: AdaptationProtocol
    scope: Scope

    def build_evaluators(self, algorithm: str, model_fn: ModelFn) -> evaluation.Evaluators:
        """Builds what measures it.

        Raises:
          BuildError: If the model does not have the layers that adapt.
        """
        try:
            return evaluation.build_evaluators(self.protocol, model_fn, self.scope)
        except ValueError as error:
            raise BuildError(f"{algorithm} cannot adapt: {error}") from error

    @classmethod
    def of(cls, config: ExperimentConfig, task: Any, algorithm: str) -> "_Way":
        return cls(
            protocols.protocol_of(config, task.split, algorithm),
            scope_of(config, algorithm),
        )
