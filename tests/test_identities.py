"""What algorithms have in common, where theory says that they coincide."""

import functools

import numpy as np
import pytest
import reference_jax as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import INPUT_SPEC, assert_close, dense, initial_weights, make_client, model_fn

import tff_fedmeta as fm

pytestmark = pytest.mark.usefixtures("tff_runtime")

SIZES = (5, 14)
SGD = functools.lru_cache(None)(tff.learning.optimizers.build_sgdm)
# Batches smaller than the supports, which are of 3 and 7 random examples.
KWARGS = dict(inner_learning_rate=0.2, inner_steps=3, batch_size=2)
IN_ORDER = dict(shuffle=False, split="ordered")


@functools.lru_cache(None)
def trained(builder, model_fn=model_fn, make_examples=None, rounds=2, **kwargs):
    """The trainable weights after training; they are not those of the start."""
    process = builder(model_fn, **kwargs)
    examples = make_examples() if make_examples else [make_client(n, n) for n in SIZES]
    cohort = [fm.client_dataset(*each, seed=(1, i)) for i, each in enumerate(examples)]
    start = state = process.initialize()
    for _ in range(rounds):
        state, _ = process.next(state, cohort)
    before, after = (process.get_model_weights(s).trainable for s in (start, state))
    assert max(np.max(np.abs(b - a)) for b, a in zip(before, after)) > 0.01
    return after


def equally_large():
    return [make_client(9, seed) for seed in (1, 2)]


def their_queries():
    return [(x[5:], y[5:]) for x, y in equally_large()]


@pytest.mark.parametrize("nothing", [dict(inner_learning_rate=0.0), dict(inner_steps=0)])
def test_maml_that_does_not_adapt_is_fedsgd_on_the_query(nothing):
    options = dict(batch_size=2, server_optimizer=SGD(0.3))
    fedsgd = trained(fm.build_fedsgd, make_examples=their_queries, **options)
    kwargs = {**KWARGS, **IN_ORDER, **options, **nothing}
    assert_close(trained(fm.build_maml, make_examples=equally_large, **kwargs), fedsgd, 1e-6)


def test_fomaml_is_maml_where_the_hessian_vanishes():
    class MeanOutput(tf.keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_mean(y_pred, axis=-1)

    def linear_model_fn():
        model = tf.keras.Sequential([tf.keras.Input([6]), dense(3)])
        return tff.learning.models.from_keras_model(model, loss=MeanOutput(), input_spec=INPUT_SPEC)

    kwargs = dict(KWARGS, rounds=1, server_optimizer=SGD(1.0), split="ordered")
    maml = trained(fm.build_maml, linear_model_fn, **kwargs)
    assert_close(trained(fm.ALGORITHMS["fomaml"], linear_model_fn, **kwargs), maml, 1e-6)
    slope = sum(n * make_client(n, n)[0][(n + 1) // 2 :].mean(axis=0) for n in SIZES) / sum(SIZES)
    kernel, bias = tf.keras.Sequential([tf.keras.Input([6]), dense(3)]).get_weights()
    assert_close(maml, [kernel - slope[:, None] / 3, bias - 1 / 3], 1e-6)


def test_meta_sgd_begins_as_maml():
    kwargs = dict(KWARGS, rounds=1, server_optimizer=SGD(0.3))
    assert_close(trained(fm.build_meta_sgd, **kwargs)[:4], trained(fm.build_maml, **kwargs), 1e-6)


@pytest.mark.parametrize("first_order", [False, True])
def test_anil_whose_head_is_the_network_is_maml(first_order):
    kwargs = dict(KWARGS, first_order=first_order, server_optimizer=SGD(0.3))
    anil = trained(fm.build_anil, head_layers=2, **kwargs)
    assert_close(anil, trained(fm.build_maml, **kwargs), 1e-6)


@pytest.mark.parametrize("first_order", [False, True])
def test_per_fedavg_with_one_local_step_is_maml(first_order):
    kwargs = dict(KWARGS, first_order=first_order)
    local = dict(meta_learning_rate=0.3, local_meta_steps=1)
    per_fedavg = trained(fm.build_per_fedavg, **local, **kwargs)
    assert_close(per_fedavg, trained(fm.build_maml, **kwargs, server_optimizer=SGD(0.3)), 1e-6)


@functools.lru_cache(None)
def reference_client(n):
    """A client of up to 9 inner steps, and its meta-gradient as a function of (weights, steps)."""
    client = reference.client(*make_client(n, n), batch_size=2, inner_steps=9, support_fraction=0.5)

    def gradient(weights, steps):
        def query_loss(weights):
            planned = client._replace(steps=steps)
            return reference.meta_loss(reference.dense, weights, [0.2] * 4, planned)

        return reference.finite_differences(query_loss, weights)

    return client, reference.in_float64(gradient)


def against(weights, rate, gradients):
    return [w - rate * g for w, g in zip(weights, gradients)]


@pytest.mark.parametrize(
    "client_weighting, shares",
    [
        (tff.learning.ClientWeighting.NUM_EXAMPLES, [5 / 19, 14 / 19]),
        (tff.learning.ClientWeighting.UNIFORM, [0.5, 0.5]),
    ],
)
def test_clients_weigh_by_all_of_their_examples_or_the_same(client_weighting, shares):
    weighed = {"client_weighting": client_weighting, "server_optimizer": SGD(0.5)}
    actual = trained(fm.build_maml, rounds=1, **KWARGS, **IN_ORDER, **weighed)
    expected = initial_weights()
    for n, share in zip(SIZES, shares):
        client, gradient = reference_client(n)
        gradients = gradient(initial_weights(), client.steps[:3])
        expected = against(expected, 0.5 * share, gradients)
    assert_close(actual, expected)


def test_per_fedavg_takes_local_steps_of_maml():
    expected = np.zeros(4)
    for n in SIZES:
        client, gradient = reference_client(n)
        weights = initial_weights()
        for steps in np.split(client.steps, 3):  # fresh batches, as far as they go
            weights = against(weights, 0.3, gradient(weights, steps))
        expected = [e + n / sum(SIZES) * w for e, w in zip(expected, weights)]
    local = dict(meta_learning_rate=0.3, local_meta_steps=3)
    actual = trained(fm.build_per_fedavg, rounds=1, **local, **KWARGS, **IN_ORDER)
    assert_close(actual, expected)
