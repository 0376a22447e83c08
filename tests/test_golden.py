"""Weights of every algorithm after three rounds, bit for bit as they were computed once.

Clients are added up in the order of `runtime/tree_sum.py`.

`PYTHONPATH=. python tests/test_golden.py` renews the file: only where a change of the arithmetic is
intended, and with a line in CHANGELOG.
"""

import collections
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import make_client, model_fn

import tff_fedmeta as fm

FILE = pathlib.Path(__file__).with_name("golden_weights.npz")

LOCAL = dict(inner_learning_rate=0.1, inner_steps=3, batch_size=4)
ALGORITHMS = collections.OrderedDict(
    reptile=(fm.build_reptile, LOCAL),
    fomaml=(fm.build_maml, dict(LOCAL, first_order=True)),
    maml=(fm.build_maml, LOCAL),
    meta_sgd=(fm.build_meta_sgd, LOCAL),
    anil=(fm.build_anil, LOCAL),
    per_fedavg=(fm.build_per_fedavg, dict(LOCAL, meta_learning_rate=0.1, local_meta_steps=2)),
    fedavg=(fm.build_fedavg, LOCAL),
    fedprox=(fm.build_fedprox, dict(LOCAL, proximal_strength=0.1)),
    fedsgd=(
        fm.build_fedsgd,
        dict(batch_size=4, server_optimizer=tff.learning.optimizers.build_adam(0.01)),
    ),
)


def trained(name):
    """The algorithm's trainable tensors after three rounds of four unequal clients."""
    build, arguments = ALGORITHMS[name]
    process = build(model_fn, **arguments)
    state = process.initialize()
    for round_num in range(3):
        clients = [
            fm.client_dataset(*make_client(n, n), seed=(round_num, n)) for n in (5, 9, 14, 30)
        ]
        state = process.next(state, clients).state
    return [np.asarray(w) for w in process.get_model_weights(state).trainable]


def arithmetic():
    """Bits that depend on the processor's instructions as those of training do."""
    x = np.random.default_rng(0).normal(size=[31, 17]).astype(np.float32)
    product = tf.linalg.matmul(x, x, transpose_a=True)
    return np.concatenate([np.ravel(t) for t in (product, tf.tanh(x), tf.nn.softmax(x))])


@pytest.mark.usefixtures("tff_runtime")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_weights_after_three_rounds_are_those_of_the_golden_file(name):
    with np.load(FILE) as golden:
        same_arithmetic = np.array_equal(arithmetic(), golden["arithmetic"])
        weights = trained(name)
        assert len(weights) == sum(key.startswith(f"{name}/") for key in golden.files)
        for index, weight in enumerate(weights):
            expected = golden[f"{name}/{index}"]
            if same_arithmetic:
                np.testing.assert_array_equal(weight, expected)
            else:  # another processor rounds elsewhere
                np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    with fm.local_runtime(num_threads=1):
        arrays = {
            f"{name}/{index}": weight
            for name in ALGORITHMS
            for index, weight in enumerate(trained(name))
        }
    np.savez_compressed(FILE, arithmetic=arithmetic(), **arrays)
    sys.exit()
