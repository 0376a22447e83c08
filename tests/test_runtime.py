import collections
import gc
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import (
    as_model_fn,
    assert_close,
    assert_equal,
    initial_weights,
    make_client,
    model_fn,
)

import tff_fedmeta as fm
from tff_fedmeta import runtime
from tff_fedmeta.runtime import computations, engine
from tff_fedmeta.runtime.worker import worker_runtime

# More clients than are trained one at a time, of unequal sizes, some of them left out.
COHORT = [fm.client_dataset(*make_client(n % 7, n), seed=(n, 1)) for n in range(70)]
AGGREGATORS = {
    "mean": None,
    "robust": tff.learning.robust_aggregator(),
    "compressed": tff.learning.compression_aggregator(),
    "uniform": tff.aggregators.UnweightedMeanFactory(),
}
UNIFORM = tff.learning.ClientWeighting.UNIFORM


def build_reptile(aggregator=None, **kwargs):
    return fm.build_reptile(
        model_fn,
        inner_learning_rate=0.1,
        inner_epochs=2,
        batch_size=4,
        model_aggregator=aggregator,
        **kwargs,
    )


def train(process, cohort=COHORT, rounds=2):
    state = process.initialize()
    for _ in range(rounds):
        state, metrics = process.next(state, cohort)
    return tf.nest.flatten(process.get_model_weights(state)), metrics


@pytest.fixture(scope="module")
def worker():
    with worker_runtime() as running:
        context = tff.framework.get_context_stack().current
        yield lambda function, *args: _in(context, function, *args)
        del running


def _in(context, function, *args):
    with tff.framework.get_context_stack().install(context):
        return function(*args)


def test_is_the_context_within_the_block_only():
    stack = tff.framework.get_context_stack()
    before = stack.current
    with fm.local_runtime() as context:
        assert stack.current is context
        with fm.local_runtime(num_threads=1) as inner:
            assert stack.current is inner
        assert stack.current is context
    assert stack.current is before


@pytest.mark.parametrize("number", [0, -1])
def test_impossible_numbers_of_threads(number):
    with (
        pytest.raises(ValueError, match=f"num_threads must be at least 1, not {number}"),
        fm.local_runtime(num_threads=number),
    ):
        pass


@pytest.mark.parametrize("name", AGGREGATORS)
def test_learning_agrees_with_tffs_worker(name, worker):
    process = build_reptile(AGGREGATORS[name])
    expected, expected_metrics = worker(train, process)
    with fm.local_runtime():
        actual, metrics = train(process)
    # Compression rounds at random, and neither here nor there from a seed.
    tolerance = 0.02 if name == "compressed" else 1e-6
    assert_close(actual, expected, tolerance)
    tf.nest.assert_same_structure(metrics, expected_metrics)
    assert metrics["client_work"]["clients"] == expected_metrics["client_work"]["clients"]
    assert_close(tf.nest.flatten(metrics), tf.nest.flatten(expected_metrics), max(tolerance, 1e-4))


def test_dp_without_noise_is_the_clipped_uniform_mean():
    aggregator = tff.learning.dp_aggregator(0.0, 39.0, zeroing=False)
    fixed = tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(0.0, len(COHORT), 1e6)
    with fm.local_runtime():
        expected, _ = train(
            build_reptile(client_weighting=UNIFORM, aggregator=AGGREGATORS["uniform"])
        )
        actual, _ = train(build_reptile(fixed, client_weighting=UNIFORM))
        clipped, metrics = train(build_reptile(aggregator, client_weighting=UNIFORM))
    assert_close(actual, expected)
    assert all(np.isfinite(w).all() for w in clipped)
    assert metrics["aggregator"]["dp_query_metrics"]["clip"] > 0


def test_secure_sums_are_the_mean_up_to_quantisation():
    process = build_reptile(
        tff.learning.secure_aggregator(zeroing=False, clipping=False, weighted=True),
        metrics_aggregator=tff.learning.metrics.secure_sum_then_finalize,
    )
    with fm.local_runtime():
        expected, expected_metrics = train(build_reptile())
        actual, metrics = train(process)
    assert_close(actual, expected, 1e-4)
    assert metrics["client_work"]["clients"] == expected_metrics["client_work"]["clients"]
    assert metrics["client_work"]["train"]["num_examples"] == 2 * sum(n % 7 for n in range(70))


def test_secure_sums_refuse_what_does_not_fit():
    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def total(numbers):
        return tff.federated_secure_sum_bitwidth(numbers, 4)

    with fm.local_runtime():
        assert total([15, 0, 3]) == 18
        for wrong in (16, -1):
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be in \[0, 15\]"):
                total([1, wrong, 2])


def test_an_aggregator_that_collects():
    """A coordinate-wise median: its accumulator grows with every client."""
    vector = tff.TensorType(np.float32, [2])
    collected = tff.TensorType(np.float32, [None, 2])

    @tff.tensorflow.computation
    def zero():
        return tf.zeros([0, 2])

    @tff.tensorflow.computation(collected, vector)
    def accumulate(accumulator, value):
        return tf.concat([accumulator, [value]], 0)

    @tff.tensorflow.computation(collected, collected)
    def merge(one, other):
        return tf.concat([one, other], 0)

    @tff.tensorflow.computation(collected)
    def report(accumulator):
        ordered = tf.sort(accumulator, 0)
        return ordered[tf.shape(accumulator)[0] // 2]

    @tff.federated_computation(tff.FederatedType(vector, tff.CLIENTS))
    def median(values):
        return tff.federated_aggregate(values, zero(), accumulate, merge, report)

    values = np.random.default_rng(0).normal(size=[51, 2]).astype(np.float32)
    with fm.local_runtime():
        np.testing.assert_array_equal(median(list(values)), np.median(values, 0))


@pytest.mark.parametrize("size", [10, 70])
def test_results_depend_neither_on_threads_nor_on_the_order_of_clients(size):
    cohort = [fm.client_dataset(*make_client(n, n), seed=(n, 1)) for n in range(1, size + 1)]
    process = build_reptile()
    results = []
    for threads, order in ((1, 1), (2, 1), (5, 1), (2, -1)):
        with fm.local_runtime(num_threads=threads):
            results.append(train(process, cohort[::order])[0])
    for result in results[1:]:
        assert_equal(result, results[0])


def test_evaluation_returns_clients_in_their_order(worker):
    evaluate = fm.build_adaptation_eval(
        model_fn, inner_learning_rate=0.1, inner_steps=2, batch_size=4
    )
    weights = tff.learning.models.ModelWeights(initial_weights(), ())
    with fm.local_runtime():
        actual = evaluate(weights, COHORT)
        assert evaluate(weights, []) == []
    expected = worker(evaluate, weights, COHORT)
    assert [row["num_support"] + row["num_query"] for row in actual] == [
        n % 7 if n % 7 > 1 else row["num_support"] + row["num_query"]
        for n, row in enumerate(actual)
    ]
    for one, other in zip(actual, expected):
        assert list(one) == list(other)
        assert_close(list(one.values()), list(other.values()))


def test_tffs_own_pipelines_of_batches_run():
    def batches(n):
        x, y = make_client(n, n)
        return tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y)).batch(4)

    sizes = [9, 3, 14]
    stock = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, tff.learning.optimizers.build_sgdm(0.1)
    )
    evaluate = tff.learning.algorithms.build_fed_eval(model_fn)
    ours = fm.build_fedavg(model_fn, inner_learning_rate=0.1, batch_size=4, shuffle=False)
    with fm.local_runtime():
        actual, metrics = train(stock, [batches(n) for n in sizes])
        expected, _ = train(ours, [fm.client_dataset(*make_client(n, n)) for n in sizes])
        evaluated = evaluate.next(evaluate.initialize(), [batches(n) for n in sizes]).metrics
    assert_close(actual, expected)
    assert metrics["client_work"]["train"]["num_examples"] == 26
    assert evaluated["client_work"]["eval"]["total_rounds_metrics"]["num_examples"] == 26


def test_other_computations():
    process = tff.aggregators.MeanFactory().create(
        tff.TensorType(np.float32, [2]), tff.TensorType(np.float32)
    )

    @tff.tensorflow.computation(tff.TensorType(np.str_))
    def length(word):
        return tf.strings.length(word)

    @tff.federated_computation(tff.FederatedType(np.str_, tff.CLIENTS))
    def count(words):
        return tff.federated_sum(tff.federated_map(length, words))

    @tff.tensorflow.computation(tff.TensorType(np.int32))
    def double(x):
        return 2 * x

    @tff.federated_computation(tff.FederatedType(np.int32, tff.SERVER))
    def twice(number):
        return tff.federated_map(double, number)

    with fm.local_runtime():
        values = [np.array([1.0, 2.0], np.float32), np.array([4.0, 8.0], np.float32)]
        output = process.next(process.initialize(), values, [3.0, 1.0])
        np.testing.assert_allclose(output.result, [1.75, 3.5])
        assert twice(4) == 8 and double(3) == 6
        assert count(["a", "bcd"]) == 4 and count([]) == 0


def test_what_cannot_run_here_is_said():
    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def twice_summed(numbers):
        total = tff.federated_broadcast(tff.federated_sum(numbers))
        return tff.federated_sum(total)

    with (
        fm.local_runtime(),
        pytest.raises(
            computations.UnsupportedComputationError, match=r"cannot be run by local_runtime\(\)"
        ),
    ):
        twice_summed([1, 2])


def test_wrong_clients_are_type_errors():
    process = build_reptile()
    x, y = make_client(5)
    wrong = {
        "shape": fm.client_dataset(x[:, :3], y),
        "dtype": fm.client_dataset(x, y.astype(np.int64)),
        "structure": tf.data.Dataset.from_tensors((x, y)),
        "no dataset": (x, y),
    }
    with fm.local_runtime():
        state = process.initialize()
        for client in wrong.values():
            with pytest.raises(TypeError, match="client"):
                process.next(state, [COHORT[5], client])
        with pytest.raises(TypeError, match="list"):
            process.next(state, COHORT[5])
        with pytest.raises(TypeError, match="is not what this computation takes"):
            process.next((1, 2), COHORT[5:7])
        process.next(state, COHORT[5:7])


def test_a_round_changes_none_of_its_arguments():
    """Arrays are handed over without a copy, and the model's steps are in place."""
    x, y = (tf.constant(array) for array in make_client(64))
    process = build_reptile()
    with fm.local_runtime():
        state, _ = process.next(process.initialize(), COHORT)
        leaves = [x, y, *tf.nest.flatten(process.get_model_weights(state))]
        before = [np.array(leaf) for leaf in leaves]
        process.next(state, [fm.client_dataset(x, y)] * 5)
        assert_equal([np.asarray(leaf) for leaf in leaves], before)


def test_results_cannot_be_changed_in_place():
    """Their memory may be that of a constant in a graph, or of another result."""
    process = build_reptile()
    with fm.local_runtime():
        state = process.initialize()
        weights = process.get_model_weights(state).trainable
        with pytest.raises(ValueError, match="read-only"):
            weights[0][...] = 7


def test_masked_recurrent_layers_are_evaluated():
    """Several times, because TensorFlow's optimizer could break some of their graphs."""
    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 7], tf.int32), y=tf.TensorSpec([None], tf.int32)
    )
    layers = tf.keras.layers

    def make_keras_model():
        return tf.keras.Sequential(
            [
                layers.Embedding(50, 8, mask_zero=True, input_length=7),
                layers.Bidirectional(layers.LSTM(4)),
                layers.Dense(3),
            ]
        )

    recurrent = as_model_fn(make_keras_model, spec)
    rng = np.random.default_rng(0)
    clients = [
        fm.client_dataset(rng.integers(0, 50, [n, 7], np.int32), np.arange(n, dtype=np.int32) % 3)
        for n in (3, 9, 6)
    ]
    process = fm.build_reptile(recurrent, inner_learning_rate=0.1, batch_size=4)
    with fm.local_runtime():
        weights = process.get_model_weights(process.initialize())
        for _ in range(2):
            evaluate = fm.build_adaptation_eval(
                recurrent, inner_learning_rate=0.3, inner_steps=3, batch_size=4
            )
            losses = [row["loss"] for row in evaluate(weights, clients)]
            assert np.isfinite(losses).all()


def test_modular_sums():
    factory = tff.aggregators.SecureModularSumFactory(2**31 - 1)
    process = factory.create(tff.TensorType(np.int32))
    values = [2**31 - 3, 2**31 - 4, 9]
    with fm.local_runtime():
        assert process.next(process.initialize(), values).result == sum(values) % (2**31 - 1)


def test_python_values_are_converted_only_where_nothing_is_lost():
    @tff.tensorflow.computation(tff.TensorType(np.int32))
    def twice(x):
        return 2 * x

    @tff.tensorflow.computation(tff.TensorType(np.str_))
    def same(x):
        return tf.identity(x)

    @tff.federated_computation(
        [
            ("a", tff.FederatedType(np.int32, tff.CLIENTS)),
            ("b", tff.FederatedType(np.int32, tff.SERVER)),
        ]
    )
    def total(a, b):
        return tff.federated_sum(a), b

    with fm.local_runtime():
        assert twice(3) == 6
        for wrong in (1.7, 2**40, True, "x"):
            with pytest.raises(TypeError, match="Expected a tensor of type int32"):
                twice(wrong)
        assert same(b"a\0b\0") == b"a\0b\0"
        assert tuple(total(collections.OrderedDict(a=[1, 2], b=4))) == (3, 4)


def test_a_dataset_as_a_result_is_refused():
    @tff.tensorflow.computation
    def numbers():
        return tf.data.Dataset.range(3)

    with (
        fm.local_runtime(),
        pytest.raises(computations.UnsupportedComputationError, match="cannot be run"),
    ):
        numbers()


def test_nothing_is_built_again_in_later_rounds(monkeypatch):
    built = []
    real = tf.compat.v1.Session
    monkeypatch.setattr(tf.compat.v1, "Session", lambda **kw: built.append(1) or real(**kw))
    process = build_reptile()
    with fm.local_runtime(num_threads=1):
        state, _ = process.next(process.initialize(), COHORT)
        first = len(built)
        assert first > 0
        for size in (3, 70, 17):
            state, _ = process.next(state, COHORT[:size])
    assert len(built) == first


def test_computations_that_are_gone_are_forgotten():
    with fm.local_runtime() as context:
        process = build_reptile()
        train(process, rounds=1)
        count = len(context._compiled)
        assert count >= 3
        del process
        gc.collect()
        assert len(context._compiled) == 0
    del count


def test_waiting_results_are_bounded_however_many_clients_there_are():
    threads = engine.ThreadEngine(2)
    done, most = [], 0
    results = threads.map(lambda task: done.append(task) or task, range(500))
    for consumed, result in enumerate(results):
        assert result == consumed
        most = max(most, len(done) - consumed)
    threads.close()
    assert most <= 9 and len(done) == 500


def test_client_clock_is_the_mean_over_threads():
    threads = engine.ThreadEngine(2)
    list(threads.map(time.sleep, [0.1, 0.1, 0.2]))
    threads.close()
    assert 0.2 <= threads.client_clock() < 0.3


def test_error_in_one_client_ends_the_round_and_the_next_one_runs():
    @tff.tensorflow.computation(tff.TensorType(np.int32))
    def positive(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return tf.identity(x)

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def total(numbers):
        return tff.federated_sum(tff.federated_map(positive, numbers))

    with fm.local_runtime():
        with pytest.raises(tf.errors.InvalidArgumentError):
            total([3] * 50 + [-1] + [3] * 50)
        assert total([3] * 50) == 150


def test_runs_in_another_thread():
    results = []

    def work():
        with fm.local_runtime():
            results.append(train(build_reptile(), rounds=1)[1]["client_work"]["clients"])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(results) == 1 and results[0]["contributing"] == sum(n % 7 > 0 for n in range(70))


def test_usable_cores():
    assert runtime.usable_cores() >= 1
