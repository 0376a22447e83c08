"""iMAML against the gradient of the problem that it solves."""

import functools

import numpy as np
import pytest
import reference_numpy as reference
import scipy.optimize
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_close, dense, initial_weights, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.algorithms import imaml as imaml_module
from tff_fedmeta.algorithms import maml as maml_module
from tff_fedmeta.client import linear_solver, minibatches, support_query
from tff_fedmeta.client import model as client_model
from tff_fedmeta.client.meta_gradient import hessian
from tff_fedmeta.client.proximal import ProximalSGD

ORDERED = functools.partial(support_query.split_support_query, split="ordered")
SEED = (0, 0)


def plan_of(num_steps):
    return functools.partial(
        minibatches.plan_minibatches, batch_size=100, inner_steps=num_steps, shuffle=False
    )


def regression_model():
    """Strongly convex in its weights: least squares with a bias."""
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential([tf.keras.Input([6]), dense(1, seed=5)]),
        loss=tf.keras.losses.MeanSquaredError(),
        input_spec=(tf.TensorSpec([None, 6]), tf.TensorSpec([None, 1])),
    )


def regression_client(n):
    random = np.random.default_rng(n)
    x = random.normal(size=[n, 6]).astype(np.float32)
    return x, (x @ random.normal(size=[6, 1]) + random.normal(size=[n, 1])).astype(np.float32)


def quadratic_gradient(weights, client, strength):
    """lambda (A + lambda)^-1 grad L_q at phi = (A + lambda)^-1 (b + lambda theta), in float64."""
    x, y = (np.asarray(part, np.float64) for part in client)
    x, half = np.hstack([x, np.ones([len(x), 1])]), (len(x) + 1) // 2
    theta = np.concatenate([np.ravel(w) for w in weights]).astype(np.float64)[:, None]
    matrix = 2 * x[:half].T @ x[:half] / half + strength * np.eye(7)
    phi = np.linalg.solve(matrix, 2 * x[:half].T @ y[:half] / half + strength * theta)
    at_query = 2 * x[half:].T @ (x[half:] @ phi - y[half:]) / (len(x) - half)
    found = strength * np.linalg.solve(matrix, at_query)
    return [found[:6], found[6]]


def update(method, model_fn, weights, client, num_steps, rate, strength, **more):
    """The update of one client, computed without TFF."""
    model = model_fn()
    for variable, value in zip(model.trainable_variables, weights):
        variable.assign(value)
    x, y = client

    @tf.function
    def compute():
        return method(
            model,
            client_model.as_batch(model, tf.constant(x), tf.constant(y)),
            tf.constant(SEED, tf.int64),
            rule=ProximalSGD(rate, strength),
            split=ORDERED,
            plan=plan_of(num_steps),
            **more,
        )

    return compute()


regression_update = functools.partial(update, model_fn=regression_model)


def test_on_a_quadratic_it_is_the_closed_form():
    weights = [w.numpy() for w in regression_model().trainable_variables]
    client = regression_client(21)
    found = regression_update(
        imaml_module.imaml,
        weights=weights,
        client=client,
        num_steps=200,
        rate=0.1,
        strength=2.0,
        proximal_strength=2.0,
        cg_steps=10,
    )
    assert_close(found.update, quadratic_gradient(weights, client, 2.0))
    # 11 support examples and 10 of query are a batch each.
    assert found.examples == 200 * 11 + 10
    products = (int(found.gradient_evaluations) - 200 - 1) // 2
    assert 5 <= products <= 8  # of a matrix of seven rows, up to rounding


def test_on_a_quadratic_it_is_many_steps_of_maml():
    weights = [w.numpy() for w in regression_model().trainable_variables]
    common = dict(weights=weights, client=regression_client(21), num_steps=200)
    implicit = regression_update(
        imaml_module.imaml, **common, rate=0.1, strength=2.0, proximal_strength=2.0, cg_steps=10
    )
    explicit = regression_update(maml_module.maml, **common, rate=0.1, strength=2.0)
    assert_close(implicit.update, explicit.update)


def test_on_a_network_it_is_the_derivative_of_the_solved_problem():
    """Central differences, in float64, of the query loss at SciPy's solution."""
    strength, start = 3.0, [np.asarray(w, np.float64) for w in initial_weights()]
    x, y = make_client(14, 14)
    shapes = [w.shape for w in start]

    def unravel(vector):
        parts = np.split(vector, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes)]

    def ravel(tensors):
        return np.concatenate([np.ravel(tensor) for tensor in tensors])

    def query_loss(theta):
        def problem(phi):
            value = reference.loss(unravel(phi), x[:7], y[:7])
            slope = ravel(reference.gradient(unravel(phi), x[:7], y[:7]))
            pull = phi - theta
            return value + strength / 2 * pull @ pull, slope + strength * pull

        found = scipy.optimize.minimize(
            problem, theta, jac=True, method="BFGS", options={"gtol": 1e-10}
        )
        assert np.abs(found.jac).max() < 1e-7
        return reference.loss(unravel(found.x), x[7:], y[7:])

    implicit = update(
        imaml_module.imaml,
        model_fn,
        initial_weights(),
        (x, y),
        num_steps=150,
        rate=0.2,
        strength=strength,
        proximal_strength=strength,
        cg_steps=30,
    )
    theta, random = ravel(start), np.random.default_rng(0)
    for _ in range(6):
        direction = random.normal(size=theta.shape)
        ends = [query_loss(theta + offset * direction) for offset in (1e-4, -1e-4)]
        slope = (ends[0] - ends[1]) / 2e-4
        assert ravel(implicit.update) @ direction == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.usefixtures("tff_runtime")
def test_the_server_descends_along_the_mean_of_the_clients():
    sizes = (11, 21)
    process = fm.build_imaml(
        regression_model,
        inner_learning_rate=0.1,
        batch_size=100,
        proximal_strength=2.0,
        cg_steps=10,
        inner_steps=200,
        split="ordered",
        server_optimizer=tff.learning.optimizers.build_sgdm(0.5),
    )
    state = process.initialize()
    before = process.get_model_weights(state).trainable
    state, _ = process.next(state, [fm.client_dataset(*regression_client(n)) for n in sizes])
    gradients = [quadratic_gradient(before, regression_client(n), 2.0) for n in sizes]
    mean = [sum(n * g for n, g in zip(sizes, pair)) / sum(sizes) for pair in zip(*gradients)]
    after = process.get_model_weights(state).trainable
    assert_close(after, [w - 0.5 * g for w, g in zip(before, mean)])


def solve(matrix, right, num_steps):
    rest = tf.constant(2 * (np.asarray(matrix) - np.eye(len(matrix))), tf.float32)
    [found], products = linear_solver.conjugate_gradient(
        lambda vector: [tf.linalg.matvec(rest, vector[0])],
        0.5,
        [tf.constant(right, tf.float32)],
        num_steps,
    )
    return found.numpy(), int(products)


def test_conjugate_gradient_solves_in_as_many_steps_as_there_are_eigenvalues():
    found, products = solve(np.diag([1.0, 1.0, 4.0, 4.0]), [1.0, 2.0, 3.0, 4.0], 10)
    np.testing.assert_allclose(found, [1.0, 2.0, 0.75, 1.0], rtol=1e-5)
    assert products <= 3


def test_conjugate_gradient_stops_where_the_matrix_is_not_positive():
    found, products = solve(np.diag([-1.0, -2.0]), [1.0, 2.0], 5)
    np.testing.assert_array_equal(found, [1.0, 2.0])
    assert products == 1
    found, _ = solve(np.diag([5.0, -1.0]), [1.0, 0.1], 5)
    assert np.isfinite(found).all() and found @ [1.0, 0.1] > 0


def test_conjugate_gradient_of_nothing_is_nothing_and_of_nan_is_seen():
    np.testing.assert_array_equal(solve(np.eye(2), [0.0, 0.0], 3)[0], [0.0, 0.0])
    assert np.isnan(solve(np.eye(2), [np.nan, 0.0], 3)[0]).any()
    assert np.isnan(solve(np.diag([np.nan, 1.0]), [1.0, 1.0], 3)[0]).any()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(proximal_strength=-1.0), "proximal_strength must be >= 0, but is -1.0"),
        (dict(proximal_strength=0.0), "proximal_strength must be > 0"),
        (dict(cg_steps=0), "cg_steps must be >= 1, but is 0"),
        (dict(inner_steps=0), "inner_steps must be >= 1, but is 0"),
    ],
)
def test_what_imaml_cannot_use_is_refused(change, message):
    kwargs = dict(inner_learning_rate=0.1, batch_size=4, inner_steps=2, proximal_strength=1.0)
    with pytest.raises(ValueError, match=message):
        fm.build_imaml(model_fn, **{**kwargs, **change})


def test_conjugate_gradient_is_the_same_in_the_graphs_that_tff_makes():
    with tf.Graph().as_default():
        found, products = linear_solver.conjugate_gradient(
            lambda vector: [-3.0 * vector[0]], 1.0, [tf.constant([1.0, 2.0])], 5
        )
        with tf.compat.v1.Session() as session:
            [found], products = session.run((found, products))
    np.testing.assert_array_equal(found, [1.0, 2.0])
    assert products == 1


@pytest.mark.parametrize("passes", [1, 3])
def test_hessian_products_are_those_of_finite_differences(passes, monkeypatch):
    """In one pass, whose gradient is kept, and in several, of the last of which is a part."""
    monkeypatch.setattr(minibatches, "PASS", 14 if passes == 1 else 5)
    x, y = make_client(14, 14)
    start = [np.asarray(w, np.float64) for w in initial_weights()]
    model = model_fn()
    for variable, value in zip(model.trainable_variables, start):
        variable.assign(value)
    random = np.random.default_rng(0)
    direction = [random.normal(size=w.shape) for w in start]

    @tf.function
    def multiply():
        product = hessian(model, {"x": tf.constant(x), "y": tf.constant(y)})
        vector = [tf.constant(d, tf.float32) for d in direction]
        return product(vector), product([2 * v for v in vector])

    found, twice = multiply()
    ends = [
        reference.gradient([w + e * d for w, d in zip(start, direction)], x, y)
        for e in (1e-5, -1e-5)
    ]
    expected = [(a - b) / 2e-5 for a, b in zip(*ends)]
    assert_close([p.numpy() for p in found], expected)
    assert_close([p.numpy() for p in twice], [2 * e for e in expected])
