"""Clients by reference: read where they are trained, with the bits of their datasets."""

import functools
import pickle
import socket

import numpy as np
import pytest
from conftest import assert_equal, make_client, model_fn, tf, tff
from test_cluster import InProcess, cluster_runtime

import datasets
import tff_fedmeta as fm
from tff_fedmeta import plugins
from tff_fedmeta.client import source as client_source
from tff_fedmeta.runtime.cluster import parcel

OPENED = []


def open_reader(name, exists=True):
    """Opens a data set of clients that are called by their size and their number."""
    OPENED.append(name)
    if not exists:
        raise FileNotFoundError(f"There is no {name}.")

    def read(client_id):
        size, number = map(int, client_id.split("_"))
        return make_client(size, number)

    return read


def source_of(*args, **kwargs):
    return fm.ClientSource(functools.partial(open_reader, *args, **kwargs))


@functools.lru_cache(None)
def reptile(roles=False):
    return fm.build_reptile(
        model_fn, inner_learning_rate=0.1, inner_steps=2, batch_size=4, roles=roles
    )


def train(clients, roles=False):
    process = reptile(roles)
    state = process.initialize()
    for _ in range(2):
        state, _ = process.next(state, clients)
    return tf.nest.flatten(process.get_model_weights(state))


IDS = [f"{n % 7}_{n}" for n in range(70)]


def test_references_are_their_datasets_in_the_order_given():
    source = source_of("homes")
    same_size = [f"5_{n}" for n in range(11)]  # so that no order by size interferes
    with fm.local_runtime(num_threads=1):
        expected = train([fm.client_dataset(*source(i), seed=(1, 2)) for i in same_size])
        assert_equal(train([source.client(i, (1, 2)) for i in same_size]), expected)
    with fm.local_runtime(num_threads=2):
        assert_equal(train([source.client(i, (1, 2)) for i in same_size]), expected)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_cluster_reads_references_itself_and_agrees(num_workers):
    name = f"writers {num_workers}"
    source = source_of(name)
    clients = [source.client(i, fm.stream_seed(0, i)) for i in IDS]
    with fm.local_runtime(num_threads=2):
        expected = train(clients)
    OPENED.clear()
    with cluster_runtime(InProcess(num_workers)) as context:
        assert_equal(train(clients), expected)
        assert context.figures()["bytes_sent"] < 15_000  # the weights among them, not the data
    assert [name] == OPENED  # once for all blocks and rounds


def test_roles_and_other_targets_travel():
    source = source_of("homes")
    role = (0.5, 1.0, 0.0)
    flipped = [
        source.client("9_1", (1, 2), role, functools.partial(np.subtract, 2)),
        source.client("6_2", (3, 4), role),
    ]
    with fm.local_runtime(num_threads=1):
        x, y = source("9_1")
        datasets_ = [
            fm.client_dataset(x, 2 - y, (1, 2), role),
            fm.client_dataset(*source("6_2"), (3, 4), role),
        ]
        expected = train(datasets_, roles=True)
    with cluster_runtime(InProcess(2)):
        assert_equal(train(flipped, roles=True), expected)


def test_a_machine_without_the_data_says_so_by_its_name():
    source = source_of("attic", exists=False)
    assert pickle.loads(pickle.dumps(source)) is not source
    with (
        cluster_runtime(InProcess(2)),
        pytest.raises(
            client_source.ClientSourceError,
            match=f"machine {socket.gethostname()} cannot read clients: There is no attic",
        ),
    ):
        train([source.client("5_1")])


def test_a_source_that_cannot_be_sent_is_named():
    def open_here():
        return make_client

    source = fm.ClientSource(open_here)
    with (
        cluster_runtime(InProcess(2)),
        pytest.raises(parcel.UnsendableError, match=r"ClientSource\(.*open_here\), cannot be sent"),
    ):
        train([source.client("5_1")])


def test_clients_are_kept_and_forgotten():
    reads = []

    def read(client_id):
        reads.append(client_id)
        return make_client(3)

    source = fm.ClientSource(open_reader, read=read, max_clients=2)
    for client_id in "aabbcca":
        source(client_id)
    assert reads == list("abca")


def test_a_process_keeps_few_sources_open():
    OPENED.clear()
    copies = [pickle.loads(pickle.dumps(source_of(name))) for name in "abc"]
    for index in (0, 0, 1, 2, 2, 0):
        copies[index]("3_0")
        copies[index]._read = None  # as another block's copy
    assert OPENED == ["a", "b", "c", "a"]


def test_an_evaluation_takes_references():
    source = source_of("homes")
    evaluate = fm.build_adaptation_eval(
        model_fn, inner_learning_rate=0.1, inner_steps=1, batch_size=4
    )
    weights = tff.learning.models.ModelWeights.from_model(model_fn())
    weights = tf.nest.map_structure(np.asarray, weights)
    with fm.local_runtime(num_threads=1):
        expected = evaluate(weights, [fm.client_dataset(*source(i)) for i in IDS[:9]])
        actual = evaluate(weights, [source.client(i) for i in IDS[:9]])
    assert_equal(tf.nest.flatten(actual), tf.nest.flatten(expected))


def test_a_data_sets_reader_and_plug_ins_travel(tmp_path, monkeypatch):
    code = "import datasets\nLOADED = []\n"
    path = tmp_path / "own_homes.py"
    path.write_text(code)
    request = datasets.Request("embedded", seed=3, options={"max_phase": 1.0})
    opening = plugins.Sent(
        [str(path)], functools.partial(datasets.open_reader, "sinusoid", request)
    )
    opening = pickle.loads(pickle.dumps(opening))
    path.unlink()
    monkeypatch.setattr(plugins, "_loaded", {})
    read = opening()
    (there,) = plugins._loaded
    assert there.name == "own_homes.py" and there.read_text() == code
    task = datasets.load("sinusoid", request)
    client_id = task.train_clients[0]
    assert_equal(read(client_id), task.read_client(client_id))
    opening()  # once in a process
    assert list(plugins._loaded) == [there]
