"""The server's rate over the rounds of a run, against sequences written by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedmeta.experiment import process

ROUNDS = 10


def rates(schedule, warmup=0):
    """The rate of each round: how far a gradient of 1 moves a weight."""
    optimizer = process._server_optimizer("sgd", 0.5, warmup, schedule, ROUNDS)
    state = optimizer.initialize(tf.TensorSpec([], tf.float32))
    weight, places = tf.constant(0.0), [0.0]
    for _ in range(ROUNDS):
        state, weight = optimizer.next(state, weight, tf.constant(1.0))
        places.append(float(weight))
    return -np.diff(places)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1] * 10),
        ("linear", [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("cooldown", [1, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3]),
    ],
)
def test_rate_of_each_round(schedule, shares):
    np.testing.assert_allclose(rates(schedule), 0.5 * np.array(shares), rtol=1e-5)


def test_warm_up_comes_on_top():
    expected = 0.5 * np.array([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 2 / 3, 1 / 3])
    np.testing.assert_allclose(rates("cooldown", warmup=4), expected, rtol=1e-5)
