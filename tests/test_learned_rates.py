"""Learnt inner rates of layers and steps, against finite differences and those of weights."""

import functools

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_close, initial_weights, make_client, make_keras_model, model_fn

import tff_fedmeta as fm
from tff_fedmeta.algorithms.maml import maml
from tff_fedmeta.client import minibatches, support_query
from tff_fedmeta.client import model as client_model
from tff_fedmeta.client.learned_rates import LearnedRates

KWARGS = dict(inner_learning_rate=0.2, batch_size=3, split="ordered", shuffle=False)


def update(learned, rates, num_steps, client):
    """MAML's gradient by the weights, and by the rates, computed without TFF."""
    model = model_fn()
    for variable, value in zip(model.trainable_variables, initial_weights()):
        variable.assign(value)

    @tf.function
    def compute():
        return maml(
            model,
            client_model.as_batch(model, *map(tf.constant, client)),
            tf.constant([0, 0], tf.int64),
            rule=learned.rule(model, [tf.constant(rate, tf.float32) for rate in rates]),
            split=functools.partial(support_query.split_support_query, split="ordered"),
            plan=functools.partial(
                minibatches.plan_minibatches, batch_size=3, inner_steps=num_steps, shuffle=False
            ),
        ).update

    return [tensor.numpy() for tensor in compute()]


def query_loss(weights, table, num_steps, client):
    """The loss on query after the steps, in float64; further steps take the last row."""
    x, y = client
    for number, batch in enumerate(reference.batches(x[:7], y[:7], 3, steps=num_steps)):
        row = np.asarray(table)[min(number, len(table) - 1)]
        rates = [row[0], row[0], row[1], row[1]]
        gradients = reference.gradient(weights, *batch)
        weights = [w - r * g for w, r, g in zip(weights, rates, gradients)]
    return reference.loss(weights, x[7:], y[7:])


@pytest.mark.parametrize("num_steps, rows", [(3, 3), (3, 1), (7, 3)])  # kept whole, or replayed
def test_rates_of_layers_and_steps_have_exact_derivatives(num_steps, rows):
    client, random = make_client(14, 14), np.random.default_rng(0)
    table = random.uniform(-0.1, 0.4, [rows, 2])
    kind = "per_layer" if rows == 1 else "per_step_and_layer"
    found = update(LearnedRates(kind, num_steps=rows), [table], num_steps, client)
    start = [w.astype(np.float64) for w in initial_weights()]
    for index in np.ndindex(table.shape):
        offset = np.zeros_like(table)
        offset[index] = 1e-5
        ends = [query_loss(start, table + sign * offset, num_steps, client) for sign in (1, -1)]
        assert found[4][index] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-5)
    assert np.abs(found[4]).min() > 1e-4
    for _ in range(3):
        direction = [random.normal(size=w.shape) for w in start]
        ends = [
            query_loss([w + e * d for w, d in zip(start, direction)], table, num_steps, client)
            for e in (1e-5, -1e-5)
        ]
        slope = sum(np.sum(g * d) for g, d in zip(found, direction))
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-5)


def test_the_derivative_of_a_layers_rate_is_the_sum_of_its_weights():
    client, model = make_client(14, 14), model_fn()
    each = LearnedRates("per_weight", 0.2)
    by_weight = update(each, each.initial(model), 3, client)
    layers = LearnedRates("per_layer", 0.2)
    by_layer = update(layers, layers.initial(model), 3, client)
    assert_close(by_layer[:4], by_weight[:4])
    sums = [np.sum(rates) for rates in by_weight[4:]]
    assert_close(by_layer[4][0], [sums[0] + sums[1], sums[2] + sums[3]])


@pytest.mark.usefixtures("tff_runtime")
def test_a_round_learns_rates_and_evaluation_adapts_by_them():
    process = fm.build_meta_sgd(
        model_fn,
        **KWARGS,
        inner_steps=3,
        inner_rates="per_step_and_layer",
        head_warmup=2,
        server_optimizer=tff.learning.optimizers.build_sgdm(0.5),
    )
    state = process.initialize()
    start = process.get_model_weights(state).trainable
    table = np.array([[0, 0.2], [0, 0.2], [0.2, 0.2]], np.float32)  # the head moves first
    assert_close(start, [*initial_weights(), table], 1e-7)
    x, y = make_client(14, 14)
    state = process.next(state, [fm.client_dataset(x, y)]).state
    found = process.get_model_weights(state).trainable
    learned = LearnedRates("per_step_and_layer", num_steps=3)
    gradients = update(learned, [table], 3, (x, y))
    assert_close(found, [w - 0.5 * g for w, g in zip(start, gradients)])

    evaluate = fm.build_adaptation_eval(
        model_fn, **KWARGS, inner_steps=5, learned_rates="per_step_and_layer"
    )
    weights = process.get_model_weights(state)
    (measured,) = evaluate(weights, [fm.client_dataset(x, y)])
    weights, table = found[:4], found[4]
    expected = [query_loss(weights, table, steps, (x, y)) for steps in range(6)]
    np.testing.assert_allclose(measured["loss"], expected, rtol=1e-5)
    keras_model = fm.to_keras(
        make_keras_model(), process.get_model_weights(state), "per_step_and_layer"
    )
    assert_close(keras_model.get_weights(), weights, 0)


def test_what_is_taken_home_multiplies_gradients():
    table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    model = make_keras_model()
    steps = LearnedRates("per_step_and_layer").by_variable(model, [table])
    assert [rates.shape for rates in steps] == [(3, 1, 1), (3, 1), (3, 1, 1), (3, 1)]
    assert [float(rates[1].squeeze()) for rates in steps] == [3, 3, 4, 4]
    assert LearnedRates("per_layer").by_variable(model, [table[:1]]) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(inner_rates="per_lair"), "inner_rates must be one of: per_weight, .*per_layer'"),
        (dict(inner_rates="per_step_and_layer", inner_epochs=1), "needs inner_steps >= 1 in the"),
        (dict(inner_steps=2, head_warmup=1), "head_warmup needs inner_rates=per_step_and_layer"),
        (
            dict(inner_rates="per_step_and_layer", inner_steps=2, head_warmup=3),
            "head_warmup must be from 0 to 2, but is 3",
        ),
    ],
)
def test_rates_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fm.build_meta_sgd(model_fn, **{**KWARGS, **change})
