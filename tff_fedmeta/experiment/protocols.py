"""How each algorithm of a run is judged: the run's protocol, and that of who learns alone.

Importing this needs no TensorFlow.
"""

import dataclasses
from typing import Any

import numpy as np

from tff_fedmeta import seeds
from tff_fedmeta.algorithms.registry import trains
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.config.protocol import AdaptationProtocol

# Who learns alone takes many steps, of which only so many are measured, to choose from.
_POINTS = 20


def protocol_of(config: ExperimentConfig, split: str, algorithm: str) -> AdaptationProtocol:
    """Returns how an algorithm of a run is judged, on a task whose clients split so."""
    protocol = config.protocol(split)
    if trains(algorithm):
        return protocol
    own = config.hyperparameters[algorithm]
    rates = {*protocol.learning_rates, own["inner_learning_rate"]}
    return dataclasses.replace(
        protocol,
        steps=own["adaptation_steps"],
        learning_rates=tuple(sorted(rates)),
        measured_every=max(1, own["adaptation_steps"] // _POINTS),
    )


def choosing_clients(config: ExperimentConfig, task: Any) -> tuple[str, ...]:
    """Returns the validation clients that choose rate and steps: all, or some drawn once for all.

    Each adapts once at every rate, which takes longer than training where there are many.
    """
    clients, most = task.validation_clients, config.num_validation_clients
    if not most or len(clients) <= most:
        return clients
    rng = np.random.default_rng(seeds.stream_seed_int(0, "validation clients"))
    kept = rng.choice(len(clients), most, replace=False)
    return tuple(clients[index] for index in sorted(kept))
