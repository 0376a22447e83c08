"""Training one algorithm of an experiment: its learning process, its cohorts, its columns."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import tensorflow_federated as tff

from tff_fedmeta import seeds
from tff_fedmeta.aggregation import privacy
from tff_fedmeta.client import data as client_data
from tff_fedmeta.client import source as client_source
from tff_fedmeta.config import ExperimentConfig, failures
from tff_fedmeta.experiment import board, cohorts, evaluation, round_loop, summary
from tff_fedmeta.experiment.early_stopping import Patience
from tff_fedmeta.experiment.process import build_process
from tff_fedmeta.experiment.requirements import guarantee_of
from tff_fedmeta.runtime import bytes_sent, tff_values

_LOG = logging.getLogger(__name__)

# On how many validation clients progress is measured during training.
MONITORED_CLIENTS = 20


def train_algorithm(
    config: ExperimentConfig,
    task: Any,
    algorithm: str,
    read: Callable[[str], client_data.Arrays],
    evaluators: evaluation.Evaluators,
    directory: Optional[Path] = None,
    client_clock: Optional[Callable[[], float]] = None,
    runtime_figures: Optional[Callable[[], Mapping[str, float]]] = None,
    on_row: Optional[Callable[[Mapping[str, Any], int], None]] = None,
) -> Any:
    """Trains one algorithm, recording into `directory` if given, and returns its weights.

    `on_row` is called with each row and its round, and may end the training by an exception.
    """
    guarantee = guarantee_of(config, len(task.train_clients))
    process = build_process(config, algorithm, task.model_fn, guarantee)
    if guarantee is not None:
        _warn_of_noise(algorithm, guarantee, process)
    sent = bytes_sent.bytes_per_client(process, config.clients_per_round)._asdict()
    poisson = guarantee is not None and guarantee.sampling == "poisson"
    sampler_of = functools.partial(
        cohorts.poisson_sampler if poisson else cohorts.cohort_sampler,
        clients_per_round=config.clients_per_round,
        seed=config.seed,
    )
    cohort = cohorts.cohorts(config.failures, task.train_clients, sampler_of, config.seed)
    num_classes = _num_classes(task) if config.failures.flip_labels else 0
    protocol = config.protocol(task.split)
    monitor = list(evaluators.values())[len(evaluators) // 2]
    monitored = task.validation_clients[:MONITORED_CLIENTS]

    def clients_of_round(round_num: int) -> list[Any]:
        return [make_client(round_num, client) for client in cohort(round_num).answering]

    def make_client(round_num: int, client: str) -> Any:
        seed = seeds.stream_seed(config.seed, "training", round_num, client)
        now, role, relabel = cohort(round_num), None, None
        if config.failures.flip_labels and client in now.byzantine:
            relabel = functools.partial(failures.flip_labels, num_classes=num_classes)
        if config.failures.need_roles:
            role = now.role(client, config.failures)
        return client_source.client_of(read, client, seed, role, relabel)

    def figures_of_round(round_num: int) -> dict[str, float]:
        figures: dict[str, float] = {f"bytes/{way}_per_client": n for way, n in sent.items()}
        if config.failures.any or poisson:
            figures.update(cohort(round_num).counts)
        if guarantee is not None:
            figures["privacy/epsilon"] = guarantee.epsilon(round_num)
        return figures

    def evaluate(weights: Any) -> dict[str, float]:
        clients = evaluation.adaptation_curves(protocol, monitor, weights, monitored, read)
        rows = summary.measurable(clients)
        figures: dict[str, float] = {}
        for metric in dict.fromkeys(["loss", task.metric]):
            curves = np.array([row[metric] for row in rows])
            figures[f"validation/{metric}_before"] = float(np.mean(curves[:, 0]))
            figures[f"validation/{metric}_after"] = float(np.mean(curves[:, -1]))
        return figures

    if directory is not None:
        board.write_hyperparameters(config, algorithm, directory / "tensorboard")
    state = round_loop.train(
        process,
        clients_of_round,
        config.rounds,
        directory=directory,
        title=algorithm,
        labels={"data_source": task.data_source},
        evaluate=evaluate if directory is not None or on_row is not None else None,
        rounds_per_evaluation=config.rounds_per_evaluation,
        rounds_per_checkpoint=config.rounds_per_checkpoint,
        client_clock=client_clock,
        runtime_figures=runtime_figures,
        runs_empty=guarantee is not None,
        figures_of_round=figures_of_round,
        on_row=on_row,
        patience=_patience(config, task) if directory is not None else None,
    )
    return process.get_model_weights(state)


def _patience(config: ExperimentConfig, task: Any) -> Optional[Patience]:
    """Returns when the run's trainings stop early; None: they do not."""
    if not config.patience:
        return None
    return Patience(config.patience, f"validation/{task.metric}_after", bool(task.higher_is_better))


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
