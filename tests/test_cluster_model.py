"""The model of many nodes against rounds worked out by hand."""

import dataclasses

import pytest

from benchmarks import cluster
from benchmarks.cluster_model import Cluster, Costs, predict

FREE = Costs(
    client=1.0,
    merge=0.0,
    broadcast=0.0,
    empty=0.0,
    task=0.0,
    reference=0.0,
    reference_bytes=0.0,
    num_bytes=0.0,
)
HERE = Cluster(nodes=2, cores=1, bandwidth=float("inf"))


def test_clients_alone_are_shared_by_the_cores():
    found = predict(FREE, HERE, 64)  # 16 calls of 4, a block each, 8 on each node
    assert (found.num_blocks, found.num_merges, found.depth) == (16, 3, 2)
    assert found.seconds == found.clients == 32
    assert predict(FREE, Cluster(4, 2, 1e9), 256).seconds == 256 / 8
    assert predict(FREE, Cluster(1, 1, 1e9), 4).seconds == 4  # one at a time


def test_what_the_rest_costs():
    merge = predict(dataclasses.replace(FREE, merge=0.1), HERE, 64)
    assert merge.merging == pytest.approx(2 * 7 * 0.1) and merge.seconds == pytest.approx(33.4)
    moved = predict(dataclasses.replace(FREE, num_bytes=4e6), Cluster(2, 1, 1e6), 64)
    assert moved.moving == pytest.approx(4 + 2 * 7 * 4) and moved.sent_by_driver == 8e6
    tasks = predict(dataclasses.replace(FREE, task=2.0, client=0.0), HERE, 64)
    assert tasks.driver == tasks.seconds == 2.0 * (16 + 3)
    ids = predict(dataclasses.replace(FREE, reference=1.0, reference_bytes=50.0), HERE, 64)
    assert ids.driver == 64 and ids.sent_by_driver == 50 * 64 and ids.seconds == 64


def test_a_million_clients_are_some_thousand_tasks():
    found = predict(FREE, Cluster(100, 32, 1.25e9), 1_000_000)  # 489, 62, 8, 1
    assert 400 <= found.num_blocks <= 800 and found.depth == 3
    assert found.clients == pytest.approx(1_000_000 / 3200, rel=0.3)


def test_flags_that_are_wrong_are_one_sentence(capsys):
    assert cluster.main(["cluster", "--parts=speed"]) == 2
    assert "must be one of: overhead, references, killed, rounds" in capsys.readouterr().err
    assert cluster.main(["cluster", "--references=many"]) == 2
    assert "--references must be whole numbers >= 1" in capsys.readouterr().err
