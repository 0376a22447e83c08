"""The gradients that clients send, against finite differences of the objectives in float64."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_jax as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import INPUT_SPEC, as_model_fn, dense, make_client, make_keras_model

import tff_fedmeta as fm
from tff_fedmeta.algorithms import baselines
from tff_fedmeta.client import inner_loop

pytestmark = pytest.mark.usefixtures("tff_runtime")

# Inner steps -> the sizes of clients whose supports have as many batches of 2; the last may have 1.
COHORTS = {1: (3, 4), 3: (10, 12), 5: (18, 20)}
SIZES = COHORTS[3]
SGD = tff.learning.optimizers.build_sgdm


def normal(seed):
    return tf.keras.initializers.RandomNormal(stddev=0.5, seed=seed)


def make_conv():
    return tf.keras.Sequential(
        [
            tf.keras.Input([6, 6, 1]),
            tf.keras.layers.Conv2D(2, 3, activation="tanh", kernel_initializer=normal(1)),
            tf.keras.layers.Conv2D(2, 3, activation="softplus", kernel_initializer=normal(2)),
            tf.keras.layers.Flatten(),
            dense(3, seed=3),
        ]
    )


def make_conv_pool():
    return tf.keras.Sequential(
        [
            tf.keras.Input([6, 6, 1]),
            tf.keras.layers.Conv2D(3, 3, activation="relu", kernel_initializer=normal(1)),
            tf.keras.layers.MaxPool2D(2),
            tf.keras.layers.Flatten(),
            dense(3, seed=3),
        ]
    )


def make_recurrent(mask_zero=False):
    return tf.keras.Sequential(
        [
            tf.keras.Input([4], dtype=tf.int32),
            tf.keras.layers.Embedding(5, 3, normal(1), mask_zero=mask_zero),
            tf.keras.layers.LSTM(
                3,
                kernel_initializer=normal(2),
                recurrent_initializer=normal(3),
                bias_initializer=normal(4),
                unit_forget_bias=False,
            ),
            dense(3, seed=5),
        ]
    )


def images(n):
    random = np.random.default_rng(n)
    return random.normal(size=[n, 6, 6, 1]).astype(np.float32), random.integers(
        3, size=n, dtype="i"
    )


def sentences(n):
    random = np.random.default_rng(n)
    return random.integers(5, size=[n, 4], dtype="i"), random.integers(3, size=n, dtype="i")


# The rates are large enough for the terms of second order to weigh, see `assert_second_order`.
Network = collections.namedtuple("Network", "make_keras network examples rate")
NETWORKS = {
    "dense": Network(make_keras_model, reference.dense, lambda n: make_client(n, n), 0.2),
    "conv": Network(make_conv, reference.conv, images, 0.1),
    "recurrent": Network(make_recurrent, reference.recurrent, sentences, 0.5),
    "conv_pool": Network(make_conv_pool, reference.conv_pool, images, 0.1),
    "masked": Network(
        functools.partial(make_recurrent, mask_zero=True),
        reference.masked_recurrent,
        sentences,
        0.5,
    ),
}
all_networks = pytest.mark.parametrize("name", ["dense", "conv", "recurrent"])


def initial_weights(name):
    return NETWORKS[name].make_keras().get_weights()


def initial_rates(name):
    return [np.full(w.shape, NETWORKS[name].rate) for w in initial_weights(name)]


def head_rates(name, num_variables):
    """The inner rates of ANIL: 0 but for the last variables."""
    rates = initial_rates(name)
    return [0 * r for r in rates[:-num_variables]] + rates[-num_variables:]


@functools.lru_cache(None)
def gradient_function(name):
    """Of (weights, rates, shares, clients): three gradients of the clients' mean query loss.

    That for the weights and that for the rates, by differences, and that at the adapted weights.
    """
    network = NETWORKS[name].network

    def gradients(weights, rates, shares, clients):
        def mean_loss(point):
            one = functools.partial(reference.meta_loss, network, *point)
            return shares @ jax.vmap(one)(clients)

        one = functools.partial(reference.first_order_gradient, network, weights, rates)
        first_order = [jnp.tensordot(shares, g, axes=1) for g in jax.vmap(one)(clients)]
        return *reference.finite_differences(mean_loss, (weights, rates)), first_order

    return reference.in_float64(gradients)


def gradients(name, sizes=SIZES, weights=None, rates=None, **kwargs):
    """Those three at some weights and rates, without which they are the first ones."""
    options = dict(batch_size=2, inner_steps=-(-sizes[-1] // 4), support_fraction=0.5)
    clients = [
        reference.client(*NETWORKS[name].examples(n), **{**options, **kwargs}) for n in sizes
    ]
    return gradient_function(name)(
        weights or initial_weights(name),
        rates or initial_rates(name),
        np.array(sizes) / sum(sizes),
        reference.stacked(clients, max(max(c) for c in COHORTS.values()), max(COHORTS)),
    )


@functools.lru_cache(None)
def build(builder, name="dense", **kwargs):
    network = NETWORKS[name]
    x, _ = network.examples(2)
    spec = {"x": tf.TensorSpec([None, *x.shape[1:]], x.dtype), "y": INPUT_SPEC["y"]}
    options = dict(inner_learning_rate=network.rate, batch_size=2, shuffle=False, split="ordered")
    return builder(
        as_model_fn(network.make_keras, collections.OrderedDict(spec)),
        **{**options, "server_optimizer": SGD(1.0), **kwargs},
    )


def moved(process, name="dense", sizes=SIZES, rounds=1):
    """What training subtracts from the weights."""
    cohort = [fm.client_dataset(*NETWORKS[name].examples(n)) for n in sizes]
    start = state = process.initialize()
    for _ in range(rounds):
        state, _ = process.next(state, cohort)
    before, after = (process.get_model_weights(s).trainable for s in (start, state))
    return [np.asarray(b, np.float64) - a for b, a in zip(before, after)]


def norm(arrays):
    return np.sqrt(sum(np.sum(np.square(array)) for array in arrays))


def relative_error(actual, expected):
    assert [a.shape for a in actual] == [e.shape for e in expected]
    return norm([a - e for a, e in zip(actual, expected)]) / norm(expected)


def assert_gradient(actual, expected, tolerance=1e-3):
    """All of it agrees, and that for each variable unless it is next to nothing."""
    assert norm(expected) > 0.01
    assert relative_error(actual, expected) < tolerance
    for one, other in zip(actual, expected):
        if norm([other]) > 1e-3 * norm(expected):
            assert relative_error([one], [other]) < tolerance


def assert_second_order(expected, without):
    """An implementation that leaves something out could not pass."""
    assert relative_error(without, expected) > 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_the_reference_networks_are_those_of_keras(name):
    network = NETWORKS[name]
    x, _ = network.examples(12)
    model = network.make_keras()
    logits = reference.in_float64(lambda weights: network.network(weights, x))
    np.testing.assert_allclose(logits(model.get_weights()), model(x), rtol=1e-5, atol=1e-5)


def test_the_differences_are_those_of_a_known_gradient():
    def polynomial(point):
        return point["a"] @ point["a"] * point["b"]

    differences = reference.in_float64(functools.partial(reference.finite_differences, polynomial))
    actual = differences({"a": np.array([1.0, -2.0]), "b": 3.0})
    np.testing.assert_allclose(actual["a"], [6.0, -12.0], rtol=1e-9)
    np.testing.assert_allclose(actual["b"], 5.0, rtol=1e-9)


def test_the_batches_of_the_reference_walk_the_support():
    client = reference.client([0] * 5, [0] * 5, batch_size=2, inner_steps=3, support_fraction=0.5)
    halves = [0.5, 0.5, 0, 0, 0]
    np.testing.assert_array_equal(client.steps, [halves, [0, 0, 1, 0, 0], halves])
    np.testing.assert_array_equal(client.query, [0, 0, 0, 0.5, 0.5])


@pytest.mark.parametrize("name", ["dense", "conv", "conv_pool", "masked"])
def test_maml_sends_the_gradient_of_the_query_loss_after_adapting(name):
    process = build(fm.build_maml, name)
    for sizes in COHORTS.values():
        expected, _, first_order = gradients(name, sizes)
        assert_second_order(expected, first_order)
        assert_gradient(moved(process, name, sizes), expected)


@pytest.mark.parametrize("name", ["conv", "recurrent"])
def test_maml_sends_it_also_of_steps_that_are_counted_beforehand(name):
    """Few steps in a number that is known are kept whole, instead of their weights alone."""
    sizes = (10, 12)
    expected, _, first_order = gradients(name, sizes, inner_steps=3)
    assert_second_order(expected, first_order)
    assert_gradient(moved(build(fm.build_maml, name, inner_steps=3), name, sizes), expected)


def test_maml_keeps_only_the_weights_of_many_steps(monkeypatch):
    monkeypatch.setattr(inner_loop, "MOST_UNROLLED", 2)
    sizes = (10, 12)
    expected, _, first_order = gradients("dense", sizes, inner_steps=3)
    assert_second_order(expected, first_order)
    process = build.__wrapped__(fm.build_maml, inner_steps=3)
    assert_gradient(moved(process, sizes=sizes), expected)


@all_networks
def test_meta_sgd_sends_that_gradient_for_the_weights_and_for_the_rates(name):
    process = build(fm.build_meta_sgd, name)
    for sizes in COHORTS.values():
        weights, rates, first_order = gradients(name, sizes)
        assert_second_order(weights, first_order)
        sent = moved(process, name, sizes)
        assert_gradient(sent[: len(weights)], weights)
        assert_gradient(sent[len(weights) :], rates)


@pytest.mark.parametrize("sizes", COHORTS.values())
def test_meta_sgd_adapts_by_the_rates_it_learned(sizes):
    weights, rates = start = initial_weights("dense"), initial_rates("dense")
    for _ in range(2):
        weights_gradient, rates_gradient, _ = gradients("dense", sizes, weights, rates)
        by_first_rates, *_ = gradients("dense", sizes, weights)
        weights = [w - g for w, g in zip(weights, weights_gradient)]
        rates = [r - g for r, g in zip(rates, rates_gradient)]
    assert_second_order(weights_gradient, by_first_rates)
    expected = [s - e for s, e in zip([*start[0], *start[1]], [*weights, *rates])]
    assert_gradient(moved(build(fm.build_meta_sgd), sizes=sizes, rounds=2), expected)


@all_networks
def test_anil_sends_the_gradient_for_all_weights_after_adapting_the_head(name):
    process = build(fm.build_anil, name)
    for sizes in COHORTS.values():
        expected, _, first_order = gradients(name, sizes, rates=head_rates(name, 2))
        assert_second_order(expected, first_order)
        assert_gradient(moved(process, name, sizes), expected)


def test_anil_adapts_as_many_layers_with_weights_as_it_is_told():
    expected, _, first_order = gradients("conv", rates=head_rates("conv", 4))
    assert_second_order(expected, first_order)
    assert_gradient(moved(build(fm.build_anil, "conv", head_layers=2), "conv"), expected)


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_fomaml_sends_the_gradient_at_the_adapted_weights(name):
    process = build(fm.ALGORITHMS["fomaml"], name)
    for sizes in COHORTS.values():
        *_, expected = gradients(name, sizes)
        assert_gradient(moved(process, name, sizes), expected, 1e-5)


@pytest.mark.parametrize("budget", [dict(inner_steps=5), dict(inner_epochs=2)])
def test_maml_walks_the_support_more_than_once(budget):
    sizes = (5, 6)  # of 3 examples, in batches of 2 and 1
    expected, _, first_order = gradients("dense", sizes, inner_steps=budget.get("inner_steps", 4))
    assert_second_order(expected, first_order)
    assert_gradient(moved(build(fm.build_maml, **budget), sizes=sizes), expected)


def dense_gradients(objective, **kwargs):
    """The mean over clients of `objective(weights, reference client)`, differentiated."""
    clients = [reference.client(*make_client(n, n), batch_size=2, **kwargs) for n in SIZES]

    def mean(weights):
        losses = [objective(weights, client) for client in clients]
        return sum(n * loss for n, loss in zip(SIZES, losses)) / sum(SIZES)

    differences = functools.partial(reference.finite_differences, mean)
    return reference.in_float64(differences)(initial_weights("dense"))


def test_maml_on_the_same_examples_minimizes_the_objective_of_the_paper():
    """Finn, Abbeel and Levine, arXiv:1703.03400, eq. 1."""

    def objective(weights, client):
        def loss(weights):
            return reference.loss(reference.dense, weights, client, client.query)

        return loss([w - 0.2 * g for w, g in zip(weights, jax.grad(loss)(weights))])

    expected = dense_gradients(objective, inner_steps=0)
    process = build(fm.build_maml, inner_steps=1, split="same", batch_size=max(SIZES))
    assert_gradient(moved(process), expected)


class Biases(tf.keras.layers.Layer):
    """Logits of three inputs and the sum of so many biases, each with the same gradient."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def build(self, _):
        values = [0.5 / self.number, 0.1 / self.number, -0.2 / self.number]
        start = tf.keras.initializers.Constant(values)
        self.biases = [self.add_weight(f"b{i}", [3], None, start) for i in range(self.number)]

    def call(self, inputs):
        return inputs[:, :3] + sum(self.biases[1:], self.biases[0])


@pytest.mark.parametrize("budget", [dict(inner_steps=3), dict(inner_epochs=3)])
def test_a_tensor_that_is_the_gradient_of_two_weights_counts_once(budget):
    """Steps of two biases are those of their sum at twice the rate."""

    def sent(number):
        model_fn = as_model_fn(lambda: tf.keras.Sequential([tf.keras.Input([6]), Biases(number)]))
        options = dict(batch_size=2, shuffle=False, split="ordered", server_optimizer=SGD(1.0))
        rate = 1.0 / number
        process = fm.build_maml(model_fn, inner_learning_rate=rate, **options, **budget)
        return moved(process)

    (expected,) = sent(1)
    for gradient in sent(2):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_maml_differentiates_through_the_momentum_of_the_inner_steps():
    def objective(momentum):
        return lambda weights, client: reference.meta_loss(
            reference.dense, weights, [0.1] * 4, client, momentum
        )

    kwargs = dict(support_fraction=0.3, inner_steps=3)
    expected = dense_gradients(objective(0.9), **kwargs)
    assert_second_order(expected, dense_gradients(objective(0.0), **kwargs))
    momentum = SGD(123.0, momentum=0.9)  # its rate is that of the inner loop
    kwargs = dict(kwargs, inner_optimizer=momentum, inner_learning_rate=0.1)
    assert_gradient(moved(build(fm.build_maml, **kwargs)), expected)


def test_maml_differentiates_through_the_clipping_of_the_inner_steps():
    """Steps along the gradient, or along one of length 0.2 where it is longer."""

    def objective(longest):
        def of_client(weights, client):
            for shares in client.steps:
                gradient = jax.grad(
                    lambda w, shares=shares: reference.loss(reference.dense, w, client, shares)
                )(weights)
                length = jnp.sqrt(sum(jnp.sum(g**2) for g in gradient))
                scale = jnp.minimum(1.0, longest / length)
                weights = [w - 0.5 * scale * g for w, g in zip(weights, gradient)]
            return reference.loss(reference.dense, weights, client, client.query)

        return of_client

    kwargs = dict(support_fraction=0.3, inner_steps=3)
    expected = dense_gradients(objective(0.2), **kwargs)
    assert relative_error(dense_gradients(objective(jnp.inf), **kwargs), expected) > 0.05
    process = build(fm.build_maml, inner_clip_norm=0.2, inner_learning_rate=0.5, **kwargs)
    assert_gradient(moved(process), expected)


@pytest.mark.parametrize("builder", [fm.build_reptile, baselines.build_fedavg])
def test_reptile_and_fedavg_clip_their_steps(builder):
    def process(**kwargs):
        return builder(
            as_model_fn(make_keras_model),
            inner_learning_rate=1.0,
            batch_size=100,
            inner_steps=1,
            shuffle=False,
            **kwargs,
        )

    def step(process):
        (x, y) = make_client(10, 10)
        start = process.initialize()
        end, _ = process.next(start, [fm.client_dataset(x, y)])
        before, after = (process.get_model_weights(s).trainable for s in (start, end))
        return [b - a for b, a in zip(before, after)]

    whole = step(process())
    assert norm(whole) > 0.05
    clipped = step(process(inner_clip_norm=0.05))
    for one, other in zip(clipped, whole):
        np.testing.assert_allclose(one, other * 0.05 / norm(whole), rtol=1e-4, atol=1e-7)
    loose = step(process(inner_clip_norm=100.0))
    assert relative_error(loose, whole) < 1e-6
