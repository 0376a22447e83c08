"""Federated meta-learning on TensorFlow Federated: the public names, loaded on first use.

import tff_fedmeta as fm
process = fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=20)
"""

import importlib
import os
from typing import Any

# Gives `local_runtime()` threads of its own: one for each client, so that no result depends on how
# many there are, without a change to those of other TensorFlow code in the process.
os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")

# name -> module. TensorFlow takes seconds to import; `--help` and flag errors must not wait for it.
_PUBLIC = {
    "ALGORITHMS": "algorithms.builders",
    "build_adaptation_eval": "algorithms.adaptation",
    "build_aggregator": "aggregation.aggregators",
    "build_anil": "algorithms.builders",
    "build_fedavg": "algorithms.baselines",
    "build_fedprox": "algorithms.baselines",
    "build_fedsgd": "algorithms.baselines",
    "build_maml": "algorithms.builders",
    "build_meta_sgd": "algorithms.builders",
    "build_metrics_aggregator": "aggregation.aggregators",
    "build_per_fedavg": "algorithms.builders",
    "build_reptile": "algorithms.builders",
    "client_dataset": "client.data",
    "local_runtime": "runtime.local",
    "open_model": "keras_files",
    "to_keras": "export",
    "worker_runtime": "runtime.worker",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
