"""One experiment from data to comparison: train each algorithm, adapt, report, export."""

import functools
import time
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from tff_fedmeta import export
from tff_fedmeta.algorithms import builders
from tff_fedmeta.client import data as client_data
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import (
    adapted_client,
    evaluation,
    report,
    run_directory,
    task_measures,
    train,
)


def run(
    config: ExperimentConfig,
    task: Any,
    output_dir: Path,
    data_seconds: float = 0.0,
    client_clock: Optional[Callable[[], float]] = None,
) -> str:
    """Runs an experiment, continuing one that was interrupted, and writes all of its files.

    Call it within a runtime (`runtime.local_runtime`). The files are those of `run_directory.py`.

    Args:
      config: What to run, with the data source resolved.
      task: The `datasets.Task` it runs on.
      output_dir: Where the files go; `run_directory.claim` has checked it.
      data_seconds: How long making the task took, for `timings.json`.
      client_clock: Tells the seconds spent on clients, where the runtime knows them.

    Returns:
      The comparison table, in Markdown.
    """
    read = client_data.cached_reader(task.read_client)
    evaluators_of = {
        learns_rates: evaluation.build_evaluators(config, task, learns_rates)
        for learns_rates in {name in builders.LEARN_RATES for name in config.algorithms}
    }
    phases = ("training", "client_work", "evaluation", "export")
    timings: dict[str, Any] = {"data": data_seconds, **{phase: {} for phase in phases}}
    predictions, drawn = {}, {}
    x = _probe_inputs(task.input_spec[0])
    for algorithm in config.algorithms:
        directory = output_dir / algorithm
        evaluators = evaluators_of[algorithm in builders.LEARN_RATES]
        weights = train.train_algorithm(
            config, task, algorithm, read, evaluators, directory, client_clock
        )
        # From the rows, so that a continued run accounts for its first part too.
        metrics = report.read_metrics(directory)
        timings["training"][algorithm] = metrics["seconds"].sum()
        if "client_seconds" in metrics:
            timings["client_work"][algorithm] = metrics["client_seconds"].sum()

        start = time.perf_counter()
        adapted = evaluation.adapt(config, task, algorithm, weights, read, evaluators)
        run_directory.write_json(directory / "adaptation_test.json", adapted)
        timings["evaluation"][algorithm] = (
            metrics["evaluation_seconds"].sum() + time.perf_counter() - start
        )

        build_adapter = functools.partial(
            adapted_client.build_adapter, config, task, weights, read, adapted["chosen"]
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
        model = _export(config, task, algorithm, weights, adapted["chosen"], home)
        predictions[home] = model.predict(x, verbose=0)
        timings["export"][algorithm] = time.perf_counter() - start
    start = time.perf_counter()
    export.verify(predictions, x)
    timings["export"]["verification"] = time.perf_counter() - start
    run_directory.write_json(output_dir / "timings.json", timings)
    if drawn:
        report.write_example(task, client, drawn, output_dir)
    text = report.write_comparison(config, task, output_dir)
    run_directory.finish(output_dir)
    return text


def _probe_inputs(spec: tf.TensorSpec) -> np.ndarray:
    """Returns eight inputs of a model, made up, to compare its predictions on."""
    shape = [8, *(size or 8 for size in spec.shape[1:])]
    highest = 2 if spec.dtype.is_integer else 1  # ids 0 and 1, which any vocabulary has
    return np.random.default_rng(0).uniform(0, highest, shape).astype(spec.dtype.as_numpy_dtype)


def _export(config, task, algorithm, weights, chosen, directory) -> tf.keras.Model:
    """Writes the trained Keras model with what is needed to adapt it, and returns it."""
    model, rates = task.build_keras_model(), None
    how: dict[str, Any] = {**chosen, "batch_size": config.adaptation_batch_size}
    learns_rates = algorithm in builders.LEARN_RATES
    export.to_keras(model, weights, learned_rates=learns_rates)
    if learns_rates:
        # Left uncompiled: no Keras optimizer has a rate for each weight, and another would adapt,
        # but not as it was measured.
        rates = list(weights.trainable)[len(model.trainable_variables) :]
        how["learned_rates"] = export.RATES
    else:
        # Compiled so that `model.fit` on a client's examples is the adaptation that was measured.
        model.compile(
            optimizer=tf.keras.optimizers.SGD(chosen["inner_learning_rate"]),
            loss=task.build_loss(),
            # Whoever takes the model home has only Keras.
            metrics=[m for m in task.build_metrics() if type(m).__module__.startswith("keras.")],
        )
        model.optimizer.build(model.trainable_variables)  # or loading warns of missing variables
    metadata = {
        "algorithm": algorithm,
        "dataset": task.name,
        "data_source": task.data_source,
        "adaptation": how,
        "config_hash": config.hash,
    }
    export.save(model, directory, metadata, rates)
    for name, content in task.assets.items():
        run_directory.write_json(directory / name, content)
    return model
