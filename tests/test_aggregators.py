"""Every aggregator: its numbers against NumPy, and a whole algorithm under it."""

import functools

import numpy as np
import pytest
import tensorflow_federated as tff
from conftest import (
    as_model_fn,
    assert_close,
    assert_equal,
    dense,
    differ,
    make_client,
    model_fn,
    tf,
)

import tff_fedmeta as fm
from tff_fedmeta.aggregation import aggregators, secure_sums
from tff_fedmeta.algorithms.registry import REGISTRY
from tff_fedmeta.config import aggregator_options
from tff_fedmeta.config import experiment as config
from tff_fedmeta.runtime import bytes_sent

pytestmark = pytest.mark.usefixtures("tff_runtime")

BUILDERS = {name: row.build for name, row in REGISTRY.items() if row.trains}
LOCAL = dict(inner_learning_rate=0.1, inner_steps=2, batch_size=4)
VALUE_TYPE = tff.types.to_type([(np.float32, [3, 2]), (np.float32, [4])])
# "dp" makes a step of noise of nobody and never repeats: it has tests of its own.
NOT_PRIVATE = [name for name in config.AGGREGATORS if name not in aggregator_options.PRIVATE]
every_aggregator = pytest.mark.parametrize("name", NOT_PRIVATE)


@functools.lru_cache(None)  # a process takes seconds to build and to prepare
def aggregation(name, **options):
    return aggregators.build_aggregator(name, **options).create(
        VALUE_TYPE, tff.TensorType(np.float32)
    )


def aggregate(name, updates, weights, rounds=1, **options):
    """Returns the result [10], the shapes one after the other, and the measurements."""
    process = aggregation(name, **options)
    state = process.initialize()
    values = [[u[:6].reshape(3, 2), u[6:]] for u in np.asarray(updates, np.float32)]
    for _ in range(rounds):
        output = process.next(state, values, [float(w) for w in weights])
        state = output.state
    return np.concatenate([np.ravel(r) for r in output.result]), output.measurements


@functools.lru_cache(None)
def learning(aggregator, algorithm="meta_sgd", model_fn=model_fn):
    settings = LOCAL if algorithm != "fedsgd" else dict(batch_size=4)
    return BUILDERS[algorithm](
        model_fn,
        **settings,
        model_aggregator=aggregators.build_aggregator(aggregator),
        metrics_aggregator=aggregators.build_metrics_aggregator(aggregator),
    )


def cohort(*sizes):
    return [fm.client_dataset(*make_client(n, n), seed=(0, n)) for n in sizes]


def train(process, clients, rounds=3):
    state = process.initialize()
    for _ in range(rounds):
        state, metrics = process.next(state, clients)
    return list(process.get_model_weights(state).trainable), metrics


def updates(n, seed=0):
    """n updates [n, 10] around one direction, and their weights [n]."""
    random = np.random.default_rng(seed)
    weights = random.integers(1, 100, n)
    return random.normal(np.linspace(-1, 1, 10), 0.1, [n, 10]).astype(np.float32), weights


@pytest.mark.parametrize("name", ["mean", "secure", "compressed"])
def test_means_are_weighted(name):
    u, w = updates(7)
    expected = np.average(u, axis=0, weights=w)
    np.testing.assert_allclose(aggregate(name, u, w)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_the_median_is_that_of_every_coordinate_whatever_the_weights(n):
    u, w = updates(n)
    result, measurements = aggregate("median", u, w)
    np.testing.assert_allclose(result, np.median(u, axis=0), rtol=1e-6)
    assert measurements["clients"] == n


@pytest.mark.parametrize("n, cut", [(1, 0), (3, 0), (4, 1), (10, 3), (11, 3)])
def test_the_trimmed_mean_leaves_out_both_ends_of_every_coordinate(n, cut):
    u, w = updates(n)
    expected = np.sort(u, axis=0)[cut : n - cut].mean(axis=0)
    result, _ = aggregate("trimmed_mean", u, w, trim_fraction=0.3)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_a_share_is_not_rounded_below_the_clients_that_it_is():
    u, w = updates(100)  # 0.29 * 100 is 28.999999999999996
    expected = np.sort(u, axis=0)[29:71].mean(axis=0)
    result, _ = aggregate("trimmed_mean", u, w, trim_fraction=0.29)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "secure", "compressed"])
def test_left_out_and_broken_clients_do_not_count(name):
    u, w = updates(9)
    u[2], w[2] = 0, 0
    u[5, 3] = np.nan
    u[6, 9] = np.inf
    kept = [0, 1, 3, 4, 7, 8]
    expected, _ = aggregate(name, u[kept], w[kept])
    result, measurements = aggregate(name, u, w)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert measurements["non_finite"] == 2


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
def test_attackers_that_flip_and_multiply_are_outvoted(name):
    u, w = updates(10)
    attacked = np.concatenate([u[:8], -5 * u[8:]])
    honest = u[:8].mean(axis=0)
    assert np.abs(aggregate("mean", attacked, w)[0] - honest).max() > 0.5
    assert np.abs(aggregate(name, attacked, w)[0] - honest).max() < 0.15


def test_robust_bounds_scaled_clients_and_leaves_out_broken_ones():
    u, w = updates(10)
    w[:] = 1
    honest = u[:8].mean(axis=0)
    attacked = u.copy()
    attacked[8] *= 1000
    attacked[9] = np.nan
    result, measurements = aggregate("robust", attacked, w)
    assert measurements["non_finite"] == 1 and measurements["zeroed_count"] == 1
    # The norm is clipped to 1 in the first round: shorter, but the same way.
    cosine = result @ honest / np.linalg.norm(result) / np.linalg.norm(honest)
    assert cosine > 0.99 and 0.5 < np.linalg.norm(result) <= 1
    later, measurements = aggregate("robust", attacked, w, rounds=30)
    norm = np.linalg.norm(later) / np.linalg.norm(honest)
    assert 0.8 < norm < 1.3 and measurements["zeroed_count"] <= 1


@every_aggregator
def test_no_client_at_all_gives_what_the_finalizer_rejects(name):
    result, _ = aggregate(name, np.zeros([3, 10]), [0, 0, 0])
    assert not np.isfinite(result).any()


@pytest.mark.parametrize("name", ["trimmed_mean", "secure"])  # of all, the NaN is seen to above
def test_a_round_without_contributing_clients_leaves_model_and_optimizer(name):
    process = learning(name)
    state, _ = process.next(process.initialize(), cohort(9, 14))
    after, metrics = process.next(state, cohort(0, 1))
    assert metrics["client_work"]["clients"] == dict(contributing=0, too_small=2, non_finite=0)
    for part in ("global_model_weights", "finalizer"):
        before = tf.nest.flatten(getattr(state, part))
        assert len(before) >= 8
        assert_equal(tf.nest.flatten(getattr(after, part)), before)


@every_aggregator
def test_three_rounds_train_weights_and_rates_and_repeat(name):
    clients = cohort(5, 9, 14)
    weights, metrics = train(learning(name), clients)
    again, _ = train(learning(name), clients)
    initial = learning(name).get_model_weights(learning(name).initialize()).trainable
    assert len(weights) == 8 and all(differ([w], [v]) for w, v in zip(weights, initial))
    assert all(np.isfinite(w).all() for w in weights)
    assert np.isfinite(metrics["client_work"]["train"]["loss"])
    assert_equal(again, weights)  # nothing is large enough for "compressed" to round


def test_rounds_of_nobody_leave_robust_its_estimates():
    process = aggregation("robust")
    begun, empty = process.initialize(), process.next(process.initialize(), [], [])
    assert_equal(tf.nest.flatten(empty.state), tf.nest.flatten(begun))
    u, w = updates(4)
    _, measured = aggregate("robust", [*u[:3], 1000 * u[3]], w)
    assert measured["zeroed_count"] == 1


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "secure"])
def test_the_order_of_clients_does_not_matter_at_all(name):
    u, w = updates(9)
    order = np.random.default_rng(1).permutation(9)
    assert_equal([aggregate(name, u[order], w[order])[0]], [aggregate(name, u, w)[0]])


@pytest.mark.parametrize("algorithm", ["reptile", "maml", "meta_sgd", "fedrep"])
def test_secure_is_the_mean(algorithm):
    clients = cohort(5, 9, 14)
    expected, mean_metrics = train(learning("mean", algorithm), clients)
    weights, metrics = train(learning("secure", algorithm), clients)
    assert_close(weights, expected, 1e-6)
    one, other = (tf.nest.flatten(m["client_work"]) for m in (metrics, mean_metrics))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert metrics["aggregator"] == dict(clipped_clients=0, clipped_weights=0, non_finite=0)


def test_secure_sums_clip_and_say_so():
    u = np.full([4, 10], 0.25, np.float32)
    u[0, 3], u[1] = 7.0, -9.0
    result, measurements = aggregate("secure", u, [1, 1, 2, 4], secure_clip=0.5)
    expected = np.average(np.clip(u, -0.5, 0.5), axis=0, weights=[1, 1, 2, 4])
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert measurements["clipped_clients"] == 2
    all_of_them = aggregate("secure", u, [1, 1, 2, 4], secure_clip=0.1)
    assert all_of_them[1]["clipped_clients"] == 4
    result, measurements = aggregate("secure", u, [1, 0, 1, 2.0**20])
    assert measurements["clipped_weights"] == 1
    weights = [1, 0, 1, secure_sums.MAX_WEIGHT]
    np.testing.assert_allclose(result, np.average(u, axis=0, weights=weights), rtol=1e-6)


def test_what_no_client_changes_is_exactly_zero_after_secure_sums():
    """Or an adaptive server optimizer would make a step of it."""
    u, w = updates(5)
    u[:, 4] = 0
    assert aggregate("secure", u, w)[0][4] == 0.0


def test_secure_metrics_are_those_of_tff():
    finalizers = dict(loss=lambda x: x[0] / x[1], count=lambda x: x[0])
    types = dict(loss=[np.float32, np.float32], count=[np.int64])
    clients = [
        dict(loss=[-2.5, 4.0], count=[3]),
        dict(loss=[1e5, 2.0], count=[2**29 + 1]),
        dict(loss=[0.001, 1.0], count=[0]),
    ]

    @tff.federated_computation(tff.FederatedType(types, tff.CLIENTS))
    def secure(metrics):
        return secure_sums.secure_sum_then_finalize(finalizers)(metrics)

    result = secure(clients)
    assert result["loss"] == pytest.approx((-2.5 + 1e5 + 0.001) / 7, rel=1e-6)
    assert result["count"] == 2**29 + 4
    clients[0]["loss"][0] = np.nan
    assert secure(clients)["loss"] > 1e7


def wide_model():
    """Dense 6 -> 300 -> 3: 2100 + 903 weights, in tensors of 1800, 300, 900 and 3."""
    return tf.keras.Sequential([tf.keras.Input([6]), dense(300, "tanh"), dense(3)])


# Loss and accuracy: two float32 each; num_examples, num_batches: int64; five int32 counts.
METRICS = 2 * 2 * 4 + 2 * 8 + 5 * 4
# Of 10 clients with b bits each, a modulus that their sum fits into.
MODULUS = int(np.ceil(np.log2(10 * (2**52 - 1) + 1)))
UP = {
    "mean": 3003 * 4 + 4 + METRICS,
    # Besides: two estimates of a quantile, each of a count below and all; clipped, zeroed, broken,
    # contributing.
    "robust": 3003 * 4 + 4 + METRICS + 2 * 2 * 4 + 4 * 4,
    "median": 3003 * 4 + 4 + METRICS + 4,
    "trimmed_mean": 3003 * 4 + 4 + METRICS + 4,
    # Weights, the client's weight, 11 numbers of metrics; and six of one bit: clipped, broken, one.
    "secure": int(np.ceil(((3003 + 1 + 11) * MODULUS + 6 * 4) / 8)),
    # 1800 weights of 8 bits in words of 28, their least and greatest, the others as they are.
    "compressed": int(np.ceil(1800 * 8 / 28)) * 4 + 2 * 4 + 1203 * 4 + 4 + METRICS + 4,
}


@every_aggregator
def test_bytes_are_those_of_what_is_sent(name):
    sent = bytes_sent.bytes_per_client(learning(name, "reptile", as_model_fn(wide_model)), 10)
    assert sent.up == UP[name]
    assert 0 <= sent.down - 3003 * 4 <= 16  # beside the weights, clipping norms at most
    assert MODULUS == 56


def test_a_secure_sum_has_no_bits_of_a_head_that_is_not_sent():
    sent = bytes_sent.bytes_per_client(learning("secure", "fedrep", as_model_fn(wide_model)), 10)
    assert sent.up == int(np.ceil(((2100 + 1 + 11) * MODULUS + 6 * 4) / 8))
