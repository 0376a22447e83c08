"""Federated meta-learning on TensorFlow Federated: the public names, loaded on first use.

import tff_fedmeta as fm
process = fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=20)
"""

import importlib
import os
from typing import Any

# Gives `local_runtime()` threads of its own: one for each client, so that no result depends on how
# many there are, without a change to other TensorFlow code in the process.
os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")

# name -> module, and the name there if it is another one. TensorFlow takes seconds to import;
# `--help` and flag errors must not wait for it.
_PUBLIC = {
    "ALGORITHMS": "algorithms.registry",
    "AdaptationProtocol": "config.protocol",
    "ClientSource": "client.source",
    "FedAvgHyperparameters": "config.hyperparameters:FedAvg",
    "LocalUpdate": "client.meta_gradient",
    "RepeatableDropout": "client.dropout",
    "Rule": "client.rules",
    "SGD": "client.rules",
    "ServerHyperparameters": "config.hyperparameters:Server",
    "build_adaptation_eval": "algorithms.adaptation",
    "model_fn": "client.model_fn",
    "build_aggregator": "aggregation.aggregators",
    "build_anil": "algorithms.anil",
    "build_client_work": "algorithms.client_work",
    "build_fedavg": "algorithms.baselines",
    "build_fedavg_reptile": "algorithms.fedavg_reptile",
    "build_fedbabu": "algorithms.fedbabu",
    "build_fedprox": "algorithms.fedprox",
    "build_fedrecon": "algorithms.fedrecon",
    "build_fedrep": "algorithms.fedrep",
    "build_fedsgd": "algorithms.baselines",
    "build_imaml": "algorithms.imaml",
    "build_maml": "algorithms.maml",
    "build_meta_sgd": "algorithms.meta_sgd",
    "build_metrics_aggregator": "aggregation.aggregators",
    "build_per_fedavg": "algorithms.per_fedavg",
    "build_pfedme": "algorithms.pfedme",
    "build_reptile": "algorithms.reptile",
    "client_dataset": "client.data",
    "client_dataset_from": "client.data",
    "compose": "algorithms.composition",
    "differentiate_local_steps": "client.inner_loop:differentiate",
    "evaluate_adaptation": "experiment.own_clients",
    "load_run": "experiment.saved_run",
    "local_runtime": "runtime.local",
    "open_model": "keras_files",
    "plan_minibatches": "client.minibatches",
    "ray_runtime": "runtime.ray.context",
    "register_algorithm": "algorithms.registry",
    "setting": "config.schema",
    "split_support_query": "client.support_query",
    "stream_seed": "seeds",
    "to_keras": "export.keras",
    "to_savedmodel": "export.savedmodel",
    "to_tflite": "export.tflite",
    "train_locally": "client.inner_loop:train",
    "use_local_runtime": "runtime.default_context",
    "worker_runtime": "runtime.worker",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), there or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
