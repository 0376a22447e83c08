"""The engine of a cluster, on one whose workers are this process: shares, bits, losses, errors.

tests/test_ray_runtime.py has the same on Ray, where it is installed.
"""

import collections
import contextlib
import functools
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_equal, initial_weights, make_client, model_fn, tf, tff

import tff_fedmeta as fm
from tff_fedmeta.runtime import engine, execution_context, tree_sum
from tff_fedmeta.runtime.cluster import blocks, parcel, protocol
from tff_fedmeta.runtime.cluster.engine import ClusterEngine

ROOT = Path(__file__).resolve().parent.parent
COHORT = [fm.client_dataset(*make_client(n % 7, n), seed=(n, 1)) for n in range(70)]


class InProcess:
    """A cluster without processes: everything it is given goes through pickle all the same."""

    def __init__(self, num_workers, fails=()):
        self.num_workers = num_workers
        self.fails = set(fails)  # numbers of jobs that are lost for good
        self.jobs = []
        self.functions = collections.Counter()
        self.gone = []
        self.tries = 1
        self.cancelled = []

    def dumps(self, value, **options):
        return pickle.dumps(value, **options)

    def put(self, value):
        return pickle.dumps(value)

    def submit(self, function, key, definition, num_threads, *args):
        number = len(self.jobs)
        opened = (_opened(arg) for arg in args)
        fetch = functools.partial(pickle.loads, definition)
        try:
            if number in self.fails:
                raise protocol.LostError("A task died.")
            result = pickle.loads(pickle.dumps(function(key, fetch, num_threads, *opened)))
            report = protocol.Report(1.5, "elsewhere", self.tries)
        except Exception as error:
            result = report = error
        self.functions[function.__name__] += 1
        self.jobs.append((result, report))
        return protocol.Job(_Handle(result), _Handle(report))

    def finished(self, jobs):
        return jobs[:1]

    def fetch(self, handle):
        if isinstance(handle.value, Exception):
            raise handle.value
        return handle.value

    def cancel(self, jobs):
        self.cancelled += jobs

    def lost(self):
        gone, self.gone = self.gone, []
        return gone

    def close(self):
        pass


class _Handle:
    """What stands for a value."""

    def __init__(self, value):
        self.value = value


def _opened(argument):
    """What a worker is given in the place of an argument."""
    if isinstance(argument, bytes):
        return pickle.loads(argument)
    if not isinstance(argument, _Handle):
        return argument
    if isinstance(argument.value, Exception):
        raise argument.value
    return argument.value


@contextlib.contextmanager
def cluster_runtime(cluster, num_threads=1):
    context = execution_context.EngineContext(ClusterEngine(cluster, num_threads))
    with tff.framework.get_context_stack().install(context):
        yield context
    context.close()


@functools.lru_cache(None)
def reptile():
    return fm.build_reptile(model_fn, inner_learning_rate=0.1, inner_epochs=2, batch_size=4)


def train(cohort, rounds=2):
    process = reptile()
    state = process.initialize()
    for _ in range(rounds):
        state, _ = process.next(state, cohort)
    return tf.nest.flatten(process.get_model_weights(state))


@functools.lru_cache(None)
def locally(size):
    with fm.local_runtime(num_threads=1):
        return train(COHORT[:size])


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("size", [11, 70])
def test_any_number_of_workers_gives_the_bits_of_one_process(num_workers, size):
    cluster = InProcess(num_workers)
    with cluster_runtime(cluster, num_threads=1 + num_workers % 2) as context:
        assert_equal(train(COHORT[:size]), locally(size))
        assert context.client_clock() > 0
    assert cluster.functions["add_up"] > cluster.functions["merge"] > 0


def test_figures_are_of_the_last_call():
    cluster = InProcess(3)
    with cluster_runtime(cluster, num_threads=2) as context:
        train(COHORT[:11], rounds=2)
        second = context.figures()
        assert second["cores"] == 6 and second["clients_per_second"] > 0
        arrays = sum(a.nbytes for client in COHORT[:11] for a in _arrays(client))
        weights = sum(w.nbytes for w in initial_weights())
        assert arrays + weights <= second["bytes_sent"] < arrays + weights + 11 * 1000
        # Two rounds of 1.5 s a task in seven or eight tasks, shared by six cores.
        assert context.client_clock() == pytest.approx(len(cluster.jobs) * 1.5 / 6)


def _arrays(client):
    return map(np.asarray, tf.nest.flatten(client.get_single_element()))


def test_evaluations_come_back_in_the_order_of_the_clients():
    evaluate = fm.build_adaptation_eval(
        model_fn, inner_learning_rate=0.1, inner_steps=2, batch_size=4
    )
    weights = tff.learning.models.ModelWeights(initial_weights(), ())
    with fm.local_runtime(num_threads=1):
        expected = evaluate(weights, COHORT[:20])
    cluster = InProcess(2)
    with cluster_runtime(cluster):
        actual = evaluate(weights, COHORT[:20])
        assert evaluate(weights, []) == []
    for one, other in zip(actual, expected):
        assert_equal(list(one.values()), list(other.values()))
    assert len(actual) == 20 and cluster.functions == {"compute_each": 7}


def test_a_round_of_nobody_is_no_task():
    cluster = InProcess(2)
    with cluster_runtime(cluster), fm.local_runtime(num_threads=1):
        expected = train([], rounds=1)
    with cluster_runtime(cluster):
        assert_equal(train([], rounds=1), expected)
    assert not cluster.jobs


def test_what_clients_raise_is_raised_here():
    x, y = make_client(5)
    wrong = fm.client_dataset(x, np.full_like(y, 7))  # there are three classes
    said = []
    for runtime in (fm.local_runtime(num_threads=1), cluster_runtime(InProcess(2))):
        with runtime, pytest.raises(tf.errors.InvalidArgumentError) as raised:
            train([*COHORT[:9], wrong])
        said.append(raised.value.message.splitlines()[0])
    assert said[0] == said[1]
    with cluster_runtime(InProcess(2)), pytest.raises(TypeError, match="client's dataset"):
        train([*COHORT[:9], fm.client_dataset(x[:, :2], y)])


def test_clients_that_no_worker_survives_are_named():
    class Named:
        def __init__(self, number):
            self.client_id = f"writer_{number}"
            self._number = number

        def load_dataset(self):
            return COHORT[self._number]

    globals()["Named"] = Named
    Named.__qualname__ = "Named"
    cluster = InProcess(2, fails=[1])
    with (
        cluster_runtime(cluster),
        pytest.raises(protocol.LostError, match=r"It worked on the clients writer_1\.") as raised,
    ):
        train([Named(n) for n in range(9)])
    assert "writer_2" not in str(raised.value)
    assert cluster.cancelled  # the rest of the round


def test_what_was_lost_is_one_line(caplog):
    cluster = InProcess(2)
    with cluster_runtime(cluster), caplog.at_level(logging.WARNING):
        train(COHORT[:11], rounds=1)
        assert not caplog.records
        cluster.tries = 2
        cluster.gone = ["the node b (10.0.0.7)"]
        train(COHORT[:11], rounds=1)
    (record,) = caplog.records
    assert record.getMessage() == (
        "Lost the node b (10.0.0.7). 11 clients were computed again on elsewhere; the result is "
        "the same."
    )


def test_what_cannot_be_pickled_is_named():
    class Local:
        client_id = "one"
        source = "a source of clients"

        def load_dataset(self):
            raise AssertionError

    with (
        cluster_runtime(InProcess(2)),
        pytest.raises(parcel.UnsendableError, match="'a source of clients', cannot be sent"),
    ):
        train([Local()])


@pytest.mark.parametrize("num_tasks", [1, 2, 7, 64, 1000, 25_000])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 100])
@pytest.mark.parametrize("num_threads", [1, 2, 6, 32])
def test_blocks_are_subtrees_that_keep_everybody_busy(num_tasks, num_workers, num_threads):
    length = blocks.size(num_tasks, num_workers, num_threads)
    shares = blocks.cut(range(num_tasks), length)
    assert length & (length - 1) == 0 and length >= num_threads
    assert [task for share in shares for task in share] == list(range(num_tasks))
    fewest = 4 * num_workers if num_workers > 1 else 1
    assert len(shares) <= max(2 * fewest, 1)
    if num_tasks >= fewest * 2 * num_threads:
        assert len(shares) >= fewest
    bracketed = _sum_of([_sum_of(map(str, share)) for share in shares])
    assert bracketed == _sum_of(map(str, range(num_tasks)))


def _sum_of(values):
    total = tree_sum.TreeSum(lambda one, other: hash((one, other)))
    for value in values:
        total.add(value)
    return total.total()


def test_an_arrays_memory_travels_beside_the_rest():
    class Work:
        class feeds:
            feed = staticmethod(list)

    arrays = [np.arange(10_000.0), np.float32(3)]
    packed = parcel.Parcel.of([[arrays], [arrays]], Work, pickle.dumps)
    assert len(packed.content) < 1000 and packed.num_bytes > 80_000
    first, second = packed.open()
    assert_equal(list(first[0]), arrays)
    assert np.shares_memory(second[0][0], packed.buffers[0])


def test_a_worker_needs_no_tff():
    modules = ["runtime.ray.remote", "runtime.cluster.tasks", "runtime.engine", "client.source"]
    code = "; ".join(f"import tff_fedmeta.{name}" for name in modules)
    code += "; import sys; assert 'tensorflow' in sys.modules"
    code += "; sys.exit('tensorflow_federated' in sys.modules)"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, cwd=fm.__path__[0] + "/.."
    )


def test_threads_begin_with_the_largest_and_answer_in_order():
    begun = []

    def work(task):
        (dataset,) = task
        begun.append(int(dataset.get_single_element().shape[0]))
        return begun[-1]

    class Reference:
        def __init__(self, size):
            self.load_dataset = functools.partial(tf.data.Dataset.from_tensors, np.zeros(size))

    threads = engine.ThreadEngine(1)
    sizes = [3, 9, 1, 7, 5]
    assert list(threads.map(work, [[Reference(size)] for size in sizes])) == sizes
    assert begun == sorted(sizes, reverse=True)
    threads.close()


def test_threads_read_references_in_the_calling_thread():
    class Reference:
        def load_dataset(self):
            import threading

            return threading.current_thread().name

    threads = engine.ThreadEngine(2)
    assert list(threads.map(list, [[Reference(), 1], [Reference(), 2]])) == [
        ["MainThread", 1],
        ["MainThread", 2],
    ]
    threads.close()
