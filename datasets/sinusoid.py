"""Sinusoids: the regression task of the MAML and Reptile papers, one client per sine wave.

A client is `y = amplitude * sin(x + phase)` with an amplitude from [0.1, 5] and a phase from
[0, pi], seen at points x from [-5, 5], all drawn uniformly (Finn, Abbeel and Levine,
arXiv:1703.03400, section 5.1). With `max_phase` 2 pi it is the task of Nichol, Achiam and Schulman,
arXiv:1803.02999, section 4. The waves disagree about every x, so that no single model fits them;
what can be learnt is to find a client's own wave from ten of its points in a few steps.

The data are made on the spot, as in the papers; no file exists. A client is a pure
function of its id. Unlike in the papers, where every visit draws new points, a client has 20 that
stay. Split in halves they are the papers' ten points to adapt on, and ten to be measured on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets import options as schema
from datasets.data_set import EMBEDDED, About, DataSet, Request
from datasets.task import Meaning, Task, initializer_seeds, number_clients

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "sinusoid"
NUM_CLIENTS = {"train": 10_000, "validation": 200, "test": 500}
EXAMPLES_PER_CLIENT = 20
AMPLITUDES = (0.1, 5.0)
INPUTS = (-5.0, 5.0)

_META_GRADIENTS = {
    "inner_learning_rate": 0.01,
    "server_optimizer": "adam",
    "server_learning_rate": 0.01,
    "server_schedule": "linear",
    "server_warmup": 20,
}

# What a run on this data set starts from, where nothing else is asked for.
DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedsgd"),
    "rounds": 800,
    "clients_per_round": 10,
    "batch_size": 10,
    "inner_steps": 20,
    "support_fraction": 0.5,
    "adaptation_steps": 5,
    "adaptation_learning_rates": (0.005, 0.01, 0.02),
    "rounds_per_evaluation": 100,
    "rounds_per_checkpoint": 100,
    "hyperparameters": {
        "reptile": {"inner_learning_rate": 0.02},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "meta_sgd", "anil")},
        "per_fedavg": {
            "inner_learning_rate": 0.01,
            "meta_learning_rate": 0.01,
            "local_meta_steps": 10,
            "first_order": True,
            "server_schedule": "linear",
        },
        "fedavg": {"inner_learning_rate": 0.02},
        "fedprox": {"inner_learning_rate": 0.02},
        "fedsgd": {
            "server_optimizer": "adam",
            "server_learning_rate": 0.005,
            "server_schedule": "linear",
            "server_warmup": 20,
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of the sinusoids; their `option` says what each means."""

    max_phase: float = schema.option(
        math.pi,
        "The largest phase of a wave; 6.2832 in the Reptile paper.",
        more_than=0,
        at_most=1000,
    )


ABOUT = About(
    source=EMBEDDED,
    clients="10,700 sine waves, 20 points each",
    model="two hidden layers of 40, 1,761 weights",
    metric="mean squared error",
    download="none, made on the spot",
    licence="none needed",
)


def load(request: Request) -> Task:
    """Makes the task: the data are synthetic, and by default there are 500 test clients.

    Returns:
      A `Task` whose `read_client` gives x float32 [20, 1] in [-5, 5] and y float32 [20, 1].

    Raises:
      DataError: If `num_test_clients` is less than 1.
    """
    max_phase = request.options.max_phase
    ids = number_clients(NUM_CLIENTS, request.num_test_clients, digits=5)
    request.announce(ids["train"], np.float32)
    import tensorflow as tf

    known = frozenset(client_id for group in ids.values() for client_id in group)

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        if client_id not in known:
            raise KeyError(client_id)
        x, wave = draw_client(client_id, max_phase)
        return x, wave(x)

    spec = tf.TensorSpec([None, 1], tf.float32)
    return Task(
        name=NAME,
        data_source=EMBEDDED,
        train_clients=ids["train"],
        validation_clients=ids["validation"],
        test_clients=ids["test"],
        read_client=read_client,
        build_keras_model=functools.partial(build_mlp, request.seed),
        build_loss=tf.keras.losses.MeanSquaredError,
        build_metrics=lambda: [tf.keras.metrics.MeanSquaredError(name="mse")],
        input_spec=(spec, spec),
        metric="mse",
        higher_is_better=False,
        plot_client=functools.partial(plot_client, max_phase),
        meaning=Meaning("x, from -5 to 5", "the wave's value at x", "the wave's value at x"),
        has_real_data=False,
    )


def draw_client(
    client_id: str, max_phase: float
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Draws a client from its id: its x, float32 [20, 1], and its wave, a function of x."""
    rng = np.random.default_rng(list(client_id.encode()))
    amplitude, phase = rng.uniform(*AMPLITUDES), rng.uniform(0.0, max_phase)
    x = rng.uniform(*INPUTS, size=[EXAMPLES_PER_CLIENT, 1]).astype(np.float32)
    return x, lambda x: amplitude * np.sin(x + phase)


def build_mlp(seed: int) -> tf.keras.Model:
    """Builds the network of the MAML paper: two hidden layers of 40 rectified linear units.

    Args:
      seed: >= 0; fixes the initial weights, each layer's with a seed of its own.

    Returns:
      An uncompiled model from float32 [n, 1] to float32 [n, 1].
    """
    import tensorflow as tf

    layers = tf.keras.layers
    glorots = [tf.keras.initializers.GlorotUniform(seed=s) for s in initializer_seeds(seed, 3)]
    return tf.keras.Sequential(
        [
            layers.Dense(40, "relu", kernel_initializer=glorots[0], input_shape=(1,)),
            layers.Dense(40, "relu", kernel_initializer=glorots[1]),
            layers.Dense(1, kernel_initializer=glorots[2]),
        ]
    )


def plot_client(
    max_phase: float,
    axes: Any,
    client_id: str,
    support: tuple[np.ndarray, np.ndarray],
    before: Callable[[np.ndarray], np.ndarray],
    after: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Draws a client's wave, the points adapted on, and the model's curve before and after."""
    x = np.linspace(*INPUTS, 201, dtype=np.float32)[:, np.newaxis]
    _, wave = draw_client(client_id, max_phase)
    axes.plot(x, wave(x), color="black", label="the client's wave")
    axes.plot(x, before(x), "--", color="C0", label="before adapting")
    axes.plot(x, after(x), color="C1", label="after adapting")
    axes.plot(*support, "o", color="black", label="adapted on")
    axes.set(xlabel="x", ylabel="y")
    axes.grid(alpha=0.3)
    axes.legend()


DATASET = DataSet(NAME, ABOUT, Options, DEFAULTS, load)
