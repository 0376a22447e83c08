"""Facts about the split of clients."""

import subprocess
import sys

import pytest
from loading import load_task

from datasets.task import DataError, split_clients

IDS = [f"client_{i}" for i in range(40)]


def test_split_is_disjoint_complete_and_has_the_documented_sizes():
    train, validation, test = split_clients(IDS, seed=3)
    assert (len(train), len(validation), len(test)) == (30, 4, 6)
    assert sorted(train + validation + test) == sorted(IDS)


def test_split_depends_on_ids_and_seed_only():
    assert split_clients(IDS, seed=3) == split_clients(IDS[::-1] + IDS[:5], seed=3)
    assert split_clients(IDS, seed=3) != split_clients(IDS, seed=4)


@pytest.mark.parametrize("name", ["emnist", "shakespeare", "movielens", "csv"])
def test_another_split_seed_draws_other_test_clients_of_the_same_clients(name):
    tasks = [load_task(name, data_source="embedded", split_seed=seed) for seed in (0, 0, 5)]
    sides = [(task.train_clients, task.validation_clients, task.test_clients) for task in tasks]
    assert sides[0] == sides[1] and set(sides[0][2]) != set(sides[2][2])
    assert [len(side) for side in sides[0]] == [len(side) for side in sides[2]]
    assert set(sum(sides[0], ())) == set(sum(sides[2], ()))


def test_fewer_test_clients_are_the_first_of_more():
    assert split_clients(IDS, 3, num_test_clients=2)[2] == split_clients(IDS, 3)[2][:2]


def test_three_clients_are_one_each():
    assert [len(group) for group in split_clients("abc", seed=0)] == [1, 1, 1]


@pytest.mark.parametrize(("ids", "num_test"), [("ab", None), (IDS, 36), (IDS, 0), (IDS, -1)])
def test_impossible_split_is_refused(ids, num_test):
    with pytest.raises(DataError, match="clients"):
        split_clients(ids, 0, num_test)


def test_largest_test_group_leaves_one_client_for_training():
    assert len(split_clients(IDS, 0, num_test_clients=35)[0]) == 1


def test_importing_datasets_imports_no_tensorflow():
    code = "import sys, datasets; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
