"""Finished runs made of known figures, without training."""

import types

import numpy as np
import pandas as pd

import datasets
from tff_fedmeta.algorithms.registry import hyperparameter_kinds
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import report, run_directory, summary

TASK = types.SimpleNamespace(
    metric="accuracy",
    higher_is_better=True,
    data_source="embedded",
    has_real_data=True,
    measures=None,
    train_clients=tuple("abc"),
    validation_clients=("d",),
    test_clients=("e", "f"),
)
CURVES = {  # of the clients e and f, before adapting and after each of two steps
    "reptile": ((0.5, 0.6, 0.7), (0.7, 0.7, 0.9)),
    "fedavg": ((0.5, 0.6, 0.4), (0.7, 0.7, 0.8)),
}


def make_config(hparams=None, **values):
    said = {"rounds": 2, "algorithms": ("reptile", "fedavg"), "data_source": "embedded", **values}
    defaults = datasets.DATASETS["emnist"].defaults
    return ExperimentConfig.from_defaults(
        "emnist", defaults, said, hparams or {}, hyperparameter_kinds()
    )


def metrics(last_accuracy):
    """The rows of two rounds, and of the one before them."""
    return pd.DataFrame(
        {
            "data_source": "embedded",
            "train/num_examples": [np.nan, 100, 120],
            "train/num_batches": [np.nan, 5, 6],
            "train/loss": [np.nan, 2.0, 1.0],
            "seconds": [np.nan, 1.5, 2.5],
            "bytes/down_per_client": [np.nan, 4_800_000, 4_800_000],
            "bytes/up_per_client": [np.nan, 1_200_000, 1_200_000],
            "validation/accuracy_before": [0.1, np.nan, last_accuracy],
            "validation/accuracy_after": [0.2, np.nan, last_accuracy + 0.1],
        },
        index=pd.Index([0, 1, 2], name="round"),
    )


def adapted(curves, ids="ef"):
    clients = [
        {"client_id": name, "num_support": 3, "num_query": 4, "accuracy": list(curve)}
        for name, curve in zip(ids, curves)
    ]
    return {
        "metric": "accuracy",
        "data_source": "embedded",
        "adapts": "all weights",
        "steps": [0, 1, 2],
        "chosen": {"inner_learning_rate": 0.02, "steps": 2},
        "clients": clients,
        "summary": summary.summarize(clients, "accuracy", 2),
    }


def write_algorithms(directory, config, curves=CURVES, ids="ef"):
    """Writes what training and evaluation leave, without checkpoints and models."""
    run_directory.write_text(directory / "config.json", config.to_json())
    for name in config.algorithms:
        home = directory / name
        (home / "checkpoints" / f"round_{config.rounds}").mkdir(parents=True, exist_ok=True)
        (home / "keras_model").mkdir(exist_ok=True)
        rows = metrics(0.6 if name == "reptile" else 0.5)
        run_directory.write_text(home / "metrics.csv", rows.to_csv())
        run_directory.write_json(home / "adaptation_test.json", adapted(curves[name], ids))
        how = {"inner_learning_rate": 0.02, "steps": 2, "batch_size": 20, "adapts": "all weights"}
        run_directory.write_json(home / "keras_model" / "metadata.json", {"adaptation": how})


def write_run(directory, config=None, **how):
    """Writes a finished run, and returns its directory."""
    config = config or make_config()
    directory.mkdir(parents=True, exist_ok=True)
    if config.repetitions > 1:
        parts = [directory / f"seed_{config.seed + i}" for i in range(config.repetitions)]
        for number, part in enumerate(parts):
            write_run(part, config.repetition(number), **how)
        run_directory.write_text(directory / "config.json", config.to_json())
    else:
        parts = [directory]
        write_algorithms(directory, config, **how)
    report.write_comparison(config, TASK, directory, parts)
    run_directory.finish(directory)
    return directory
