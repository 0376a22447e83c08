import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.client import rules

build = tff.learning.optimizers
OPTIMIZERS = {
    "sgd": build.build_sgdm,
    "momentum": lambda rate: build.build_sgdm(rate, momentum=0.9),
    "adagrad": build.build_adagrad,
    "rmsprop": build.build_rmsprop,
    "adam": build.build_adam,
    "yogi": build.build_yogi,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tff_optimizers_step_at_the_rate_given(name):
    """The rate that the optimizer was built with has no part in it."""
    rule = rules.build_rule(OPTIMIZERS[name](123.0), 0.01)
    variable = tf.Variable([1.0, -2.0])
    gradient = tf.constant([0.5, 4.0])

    @tf.function
    def train():
        state = rule.initialize([variable])
        for _ in tf.range(3):
            state = rule.step(state, [variable], [gradient])

    train()
    optimizer = OPTIMIZERS[name](0.01)
    weights = (tf.constant([1.0, -2.0]),)
    state = optimizer.initialize((tf.TensorSpec([2], tf.float32),))
    for _ in range(3):
        state, weights = optimizer.next(state, weights, (gradient,))
    np.testing.assert_allclose(variable.numpy(), weights[0].numpy(), rtol=1e-5)
