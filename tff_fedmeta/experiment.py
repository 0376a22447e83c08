"""One experiment from data to comparison: train each algorithm, adapt, report, export."""

import functools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import tqdm

from tff_fedmeta import (
    adaptation,
    aggregator_options,
    aggregators,
    algorithms,
    artifacts,
    baselines,
    client_data,
    example_client,
    export,
    failures,
    measures,
    privacy,
    reporting,
    tff_values,
    traffic,
    training,
)
from tff_fedmeta.config import ExperimentConfig

_LOG = logging.getLogger(__name__)

# On how many validation clients progress is measured during training.
_MONITORED_CLIENTS = 20
# Clients evaluated in one call of TFF, whose memory grows with their number.
_CLIENTS_PER_CALL = 50

_BUILDERS = {**algorithms.ALGORITHMS, **baselines.BASELINES}
_SERVER_OPTIMIZERS = {
    "sgd": tff.learning.optimizers.build_sgdm,
    "adam": tff.learning.optimizers.build_adam,
    "yogi": tff.learning.optimizers.build_yogi,
}
_WEIGHTINGS = {
    "examples": tff.learning.ClientWeighting.NUM_EXAMPLES,
    "uniform": tff.learning.ClientWeighting.UNIFORM,
}


def run(
    config: ExperimentConfig,
    task: Any,
    output_dir: Path,
    data_seconds: float = 0.0,
    client_clock: Optional[Callable[[], float]] = None,
) -> str:
    """Runs an experiment, continuing one that was interrupted, and writes all of its files.

    Call it within a runtime (`runtime.local_runtime`). The files are those of `artifacts.py`.

    Args:
      config: What to run, with the data source resolved.
      task: The `datasets.Task` it runs on.
      output_dir: Where the files go; `artifacts.claim` has checked it.
      data_seconds: How long making the task took, for `timings.json`.
      client_clock: Tells the seconds spent on clients, where the runtime knows them.

    Returns:
      The comparison table, in Markdown.
    """
    read = client_data.cached_reader(task.read_client)
    evaluators_of = {
        learns_rates: build_evaluators(config, task, learns_rates)
        for learns_rates in {name in algorithms.LEARN_RATES for name in config.algorithms}
    }
    phases = ("training", "client_work", "evaluation", "export")
    timings: dict[str, Any] = {"data": data_seconds, **{phase: {} for phase in phases}}
    predictions, drawn = {}, {}
    x = _probe_inputs(task.input_spec[0])
    for algorithm in config.algorithms:
        directory = output_dir / algorithm
        evaluators = evaluators_of[algorithm in algorithms.LEARN_RATES]
        weights = train_algorithm(
            config, task, algorithm, read, evaluators, directory, client_clock
        )
        # From the rows, so that a continued run accounts for its first part too.
        metrics = reporting.read_metrics(directory)
        timings["training"][algorithm] = metrics["seconds"].sum()
        if "client_seconds" in metrics:
            timings["client_work"][algorithm] = metrics["client_seconds"].sum()

        start = time.perf_counter()
        adapted = _adapt(config, task, algorithm, weights, read, evaluators)
        artifacts.write_json(directory / "adaptation_test.json", adapted)
        timings["evaluation"][algorithm] = (
            metrics["evaluation_seconds"].sum() + time.perf_counter() - start
        )

        build_adapter = functools.partial(
            example_client.build_adapter, config, task, weights, read, adapted["chosen"]
        )
        ids = [client["client_id"] for client in adapted["clients"]]
        if task.measures is not None:
            measured = measures.measure(
                task.measures.of_client, ids, build_adapter, config.seed, f"{algorithm}, measuring"
            )
            artifacts.write_json(directory / measures.FILE, measured)
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
    artifacts.write_json(output_dir / "timings.json", timings)
    if drawn:
        reporting.write_example(task, client, drawn, output_dir)
    return reporting.write_comparison(config, task, output_dir)


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
    values = dict(config.hyperparameters[algorithm])
    server_optimizer = _server_optimizer(
        values.pop("server_optimizer"),
        values.pop("server_learning_rate"),
        warmup=values.pop("server_warmup"),
        decay=config.rounds if values.pop("server_decay") else None,
    )
    if "client_weighting" in values:
        values["client_weighting"] = _WEIGHTINGS[values["client_weighting"]]
    if "inner_learning_rate" in values:  # without local steps their number has no meaning
        values.update(config.local_budget)
    return _BUILDERS[algorithm](
        model_fn,
        batch_size=config.batch_size,
        server_optimizer=server_optimizer,
        model_aggregator=aggregators.build_aggregator(
            config.aggregator, clients_per_round=config.clients_per_round, **options
        ),
        metrics_aggregator=aggregators.build_metrics_aggregator(config.aggregator),
        roles=config.failures.need_roles,
        **values,
    )


def _server_optimizer(
    name: str, rate: float, warmup: int, decay: Optional[int]
) -> tff.learning.optimizers.Optimizer:
    """Builds a server optimizer.

    Args:
      name: Which one.
      rate: Its learning rate.
      warmup: Over how many rounds the rate rises linearly at first.
      decay: Over how many rounds, from the first, it falls linearly to 0; None: it does not.
    """
    optimizer = _SERVER_OPTIMIZERS[name](rate)
    if not warmup and decay is None:
        return optimizer

    def rate_of_round(done):  # TFF counts rounds from 0, and each moves a little
        done = tf.cast(done, tf.float32)
        risen = tf.minimum((done + 1) / warmup, 1.0) if warmup else 1.0
        left = tf.maximum(1.0 - done / decay, 0.0) if decay else 1.0
        return rate * risen * left

    return tff.learning.optimizers.schedule_learning_rate(optimizer, rate_of_round)


def adaptation_curves(
    config: ExperimentConfig,
    evaluator: tff.Computation,
    weights: Any,
    client_ids: Sequence[str],
    read: Callable[[str], client_data.Arrays],
    bar: Optional[tqdm.tqdm] = None,
) -> list[Mapping[str, Any]]:
    """Returns each client's result of `adaptation.build_adaptation_eval`, in their order.

    The split into support and query of a client depends on the seed and its id alone, so that all
    algorithms, rates and rounds are measured on the same examples.
    """
    results: list[Mapping[str, Any]] = []
    for start in range(0, len(client_ids), _CLIENTS_PER_CALL):
        chunk = client_ids[start : start + _CLIENTS_PER_CALL]
        clients = [
            client_data.client_dataset(
                *read(client), seed=client_data.stream_seed(config.seed, "adaptation", client)
            )
            for client in chunk
        ]
        results += evaluator(weights, clients)
        if bar is not None:
            bar.update(len(chunk))
    return results


Evaluators = Mapping[Optional[float], tff.Computation]


def build_evaluators(
    config: ExperimentConfig, task: Any, learned_rates: bool = False
) -> Evaluators:
    """Returns one evaluation for each learning rate of adaptation to choose from.

    An algorithm that learnt its rates has those alone: there is one evaluation, under None.
    """
    rates = (None,) if learned_rates else config.adaptation_learning_rates
    return {
        rate: adaptation.build_adaptation_eval(
            task.model_fn,
            inner_learning_rate=rate or 0.0,
            inner_steps=config.adaptation_steps,
            batch_size=config.adaptation_batch_size,
            support_fraction=config.support_fraction,
            split=task.split,
            learned_rates=learned_rates,
        )
        for rate in rates
    }


def train_algorithm(
    config: ExperimentConfig,
    task: Any,
    algorithm: str,
    read: Callable[[str], client_data.Arrays],
    evaluators: Evaluators,
    directory: Optional[Path] = None,
    client_clock: Optional[Callable[[], float]] = None,
) -> Any:
    """Trains one algorithm, recording into `directory` if given, and returns its weights."""
    guarantee = guarantee_of(config, task)
    process = build_process(config, algorithm, task.model_fn, guarantee)
    if guarantee is not None:
        _warn_of_noise(algorithm, guarantee, process)
    sent = traffic.bytes_per_client(process, config.clients_per_round)
    poisson = guarantee is not None and guarantee.sampling == "poisson"
    sampler_of = functools.partial(
        training.poisson_sampler if poisson else training.cohort_sampler,
        clients_per_round=config.clients_per_round,
        seed=config.seed,
    )
    cohort = failures.cohorts(config.failures, task.train_clients, sampler_of, config.seed)
    num_classes = _num_classes(task) if config.failures.flip_labels else 0
    monitor = list(evaluators.values())[len(evaluators) // 2]
    monitored = task.validation_clients[:_MONITORED_CLIENTS]

    def clients_of_round(round_num: int) -> list[tf.data.Dataset]:
        return [make_client(round_num, client) for client in cohort(round_num).answering]

    def make_client(round_num: int, client: str) -> tf.data.Dataset:
        x, y = read(client)
        seed = client_data.stream_seed(config.seed, "training", round_num, client)
        now, role = cohort(round_num), None
        if config.failures.flip_labels and client in now.byzantine:
            y = failures.flip_labels(y, num_classes)
        if config.failures.need_roles:
            role = now.role(client, config.failures)
        return client_data.client_dataset(x, y, seed, role)

    def figures_of_round(round_num: int) -> dict[str, float]:
        figures: dict[str, float] = {}
        if config.failures.any or poisson:
            figures.update(cohort(round_num).counts)
        if guarantee is not None:
            figures["privacy/epsilon"] = guarantee.epsilon(round_num)
        return figures

    def evaluate(weights: Any) -> dict[str, float]:
        clients = adaptation_curves(config, monitor, weights, monitored, read)
        rows = adaptation.measurable(clients)
        figures = {}
        for metric in dict.fromkeys(["loss", task.metric]):
            summary = adaptation.summarize(rows, metric, config.adaptation_steps)
            for when in ("before", "after"):
                figures[f"validation/{metric}_{when}"] = summary[when]["mean"]
        return figures

    state = training.train(
        process,
        clients_of_round,
        config.rounds,
        directory=directory,
        title=algorithm,
        labels={"data_source": task.data_source},
        per_round={f"bytes/{way}_per_client": count for way, count in sent._asdict().items()},
        evaluate=evaluate if directory is not None else None,
        rounds_per_evaluation=config.rounds_per_evaluation,
        rounds_per_checkpoint=config.rounds_per_checkpoint,
        client_clock=client_clock,
        runs_empty=guarantee is not None,
        figures_of_round=figures_of_round,
    )
    return process.get_model_weights(state)


def guarantee_of(config: ExperimentConfig, task: Any) -> Optional[privacy.Guarantee]:
    """Returns what the run of a private aggregator guarantees; None: it is no private one."""
    if config.aggregator not in aggregator_options.PRIVATE:
        return None
    return privacy.guarantee(
        config.aggregator_options, config.clients_per_round, len(task.train_clients), config.rounds
    )


def _warn_of_noise(algorithm: str, guarantee: privacy.Guarantee, process: Any) -> None:
    """Says so if the noise drowns what is learned."""
    sent = process.get_model_weights.type_signature.result.trainable
    num_weights = sum(
        tff.types.num_elements_in_shape(leaf.shape) for leaf in tff_values.leaf_types(sent)
    )
    warning = privacy.noise_in_words(
        guarantee.noise_multiplier, guarantee.clients_per_round, num_weights
    )
    if warning is not None:
        _LOG.warning("%s: %s", algorithm, warning)


def _num_classes(task: Any) -> int:
    """Returns how many classes the model of a classification tells apart."""
    outputs = task.build_keras_model().output_shape[-1]
    return 2 if outputs == 1 else outputs


def validation_curves(
    config: ExperimentConfig,
    task: Any,
    weights: Any,
    read: Callable[[str], client_data.Arrays],
    evaluators: Evaluators,
    bar: Optional[tqdm.tqdm] = None,
) -> dict[Optional[float], list[Mapping[str, Any]]]:
    """Returns the validation clients' results for each learning rate of adaptation."""
    return {
        rate: adaptation_curves(config, evaluator, weights, task.validation_clients, read, bar)
        for rate, evaluator in evaluators.items()
    }


def _adapt(config, task, algorithm, weights, read, evaluators) -> dict[str, Any]:
    """Chooses rate and steps of adaptation on validation clients, then reads the test clients."""
    total = len(evaluators) * len(task.validation_clients) + len(task.test_clients)
    with tqdm.tqdm(total=total, desc=f"{algorithm}, adapting", unit="client") as bar:
        validation = validation_curves(config, task, weights, read, evaluators, bar)
        rate, steps = adaptation.choose_adaptation(validation, task.metric, task.higher_is_better)
        curves = adaptation_curves(config, evaluators[rate], weights, task.test_clients, read, bar)
    clients = [
        {"client_id": client, **{name: _plain(value) for name, value in result.items()}}
        for client, result in zip(task.test_clients, curves)
    ]
    rows = adaptation.measurable(clients)
    skipped = [client["client_id"] for client in clients if client["num_query"] == 0]
    if skipped:
        _LOG.warning("Test clients too small to split, or not finite: %s", ", ".join(skipped))
    return {
        "data_source": task.data_source,
        "metric": task.metric,
        "steps": list(range(config.adaptation_steps + 1)),
        "chosen": {"inner_learning_rate": rate, "steps": steps},
        "clients": rows,
        "skipped_clients": skipped,
        "summary": adaptation.summarize(rows, task.metric, steps, task.higher_is_better),
    }


def _probe_inputs(spec: tf.TensorSpec) -> np.ndarray:
    """Returns eight inputs of a model, made up, to compare its predictions on."""
    shape = [8, *(size or 8 for size in spec.shape[1:])]
    highest = 2 if spec.dtype.is_integer else 1  # ids 0 and 1, which any vocabulary has
    return np.random.default_rng(0).uniform(0, highest, shape).astype(spec.dtype.as_numpy_dtype)


def _export(config, task, algorithm, weights, chosen, directory) -> tf.keras.Model:
    """Writes the trained Keras model with what is needed to adapt it, and returns it."""
    model, rates = task.build_keras_model(), None
    how: dict[str, Any] = {**chosen, "batch_size": config.adaptation_batch_size}
    learns_rates = algorithm in algorithms.LEARN_RATES
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
        artifacts.write_json(directory / name, content)
    return model


def _plain(value: Any) -> Any:
    """Returns a NumPy value for JSON, which has no NaN or infinity: they become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if math.isfinite(value) else None
