"""One experiment from data to comparison: train each algorithm, adapt, report, export."""

import functools
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Callable, Optional

from tff_fedmeta import export
from tff_fedmeta.client import data as client_data
from tff_fedmeta.client.source import ClientSource
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import (
    adapted_client,
    divergence,
    evaluation,
    model_files,
    report,
    results,
    run_directory,
    summary,
    task_measures,
    train,
)
from tff_fedmeta.experiment.scope import scope_of

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

    Returns:
      The comparison table, in Markdown.

    Raises:
      AllDivergedError: If no algorithm has a result, so that there is nothing to compare.
    """
    read: Any = client_data.cached_reader(task.read_client)
    if config.runtime != "worker":  # TFF's knows datasets alone
        read = ClientSource(open_reader or (lambda: task.read_client), read=task.read_client)
    protocol = config.protocol(task.split)
    scopes = {name: scope_of(config, name) for name in config.algorithms}
    evaluators_of = {  # one for all algorithms that adapt alike
        scope: evaluation.build_evaluators(protocol, task.model_fn, scope)
        for scope in dict.fromkeys(scopes.values())
    }
    phases = ("training", "client_work", "evaluation", "export")
    timings: dict[str, Any] = {"data": data_seconds, **{phase: {} for phase in phases}}
    drawn = {}
    reasons: dict[str, str] = {}
    for algorithm in config.algorithms:
        directory = output_dir / algorithm
        scope = scopes[algorithm]
        evaluators = evaluators_of[scope]
        weights = train.train_algorithm(
            config, task, algorithm, read, evaluators, directory, client_clock, runtime_figures
        )
        # From the rows, so that a continued run accounts for its first part too.
        metrics = results.read_metrics(directory)
        timings["training"][algorithm] = metrics["seconds"].sum()
        if "client_seconds" in metrics:
            timings["client_work"][algorithm] = metrics["client_seconds"].sum()

        start = time.perf_counter()
        diverged = divergence.find(metrics)
        why = None if diverged is None else diverged.in_words(algorithm)
        if why is None:
            try:
                measured_clients = evaluation.choose_and_measure(
                    protocol,
                    evaluators,
                    weights,
                    read,
                    task.validation_clients,
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
                protocol, evaluators, weights, read, task.test_clients, task.metric
            )
        adapted = {
            "data_source": task.data_source,
            "adapts": scope.in_words(),
            "diverged": why,
            **measured_clients,
        }
        run_directory.write_json(directory / "adaptation_test.json", adapted)
        timings["evaluation"][algorithm] = (
            metrics["evaluation_seconds"].sum() + time.perf_counter() - start
        )

        if why is not None:
            continue  # a diverged model is neither drawn nor exported
        build_adapter = functools.partial(
            adapted_client.build_adapter,
            protocol,
            task,
            weights,
            read,
            adapted["chosen"],
            scope.moving(task.model_fn),
            scope.proximal_strength,
            scope.learned_rates,
        )
        ids = [client["client_id"] for client in adapted["clients"]]
        if task.measures is not None:
            measured = task_measures.measure(
                task.measures.of_client, ids, build_adapter, config.seed, f"{algorithm}, measuring"
            )
            run_directory.write_json(directory / task_measures.FILE, measured)
        if task.plot_client is not None:
            # The first that can be split, which is the same one for every algorithm.
            client = ids[0]
            drawn[algorithm] = build_adapter()(client)

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
