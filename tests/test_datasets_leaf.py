"""Facts about LEAF's JSON folders: the arrays are the files', users split as LEAF has it."""

import json

import numpy as np
import pytest

import datasets
import run_experiment
from datasets import DataError
from datasets.problems import leaf_examples
from datasets.task import Fold

RANDOM = np.random.default_rng(0)
PLAY = "To be, or not to be: that is the question. "


def images(n):
    return {
        "x": (RANDOM.integers(0, 256, [n, 784]) / 255).tolist(),
        "y": RANDOM.integers(0, 62, n).tolist(),
    }


def lines(n, start=0):
    text = PLAY * 5
    return {
        "x": [text[i : i + 80] for i in range(start, start + n)],
        "y": [text[i + 80] for i in range(start, start + n)],
    }


def tweets(n):
    words = ["so good", "so bad", "Good day!"]
    x = [[str(i), "Mon", "NO_QUERY", "me", words[i % 3]] for i in range(n)]
    return {"x": x, "y": [int(i % 3 != 1) for i in range(n)]}


MAKERS = {"femnist": images, "shakespeare": lines, "sent140": tweets}


def write(path, users):
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = [len(examples["y"]) for examples in users.values()]
    content = {"users": list(users), "num_samples": sizes, "user_data": users}
    path.write_text(json.dumps(content))


def folder(home, kind, by_user=True):
    """LEAF's folder of eight users: two files to train, one to test."""
    make = MAKERS[kind]
    users = {f"u{i}": make(4 + i) for i in range(8)}
    names = list(users)
    if by_user:
        write(home / "train" / "part_0.json", {name: users[name] for name in names[:3]})
        write(home / "train" / "part_1.json", {name: users[name] for name in names[3:6]})
        write(home / "test" / "part_0.json", {name: users[name] for name in names[6:]})
    else:
        for side, kept in (("train", slice(None, -2)), ("test", slice(-2, None))):
            part = {u: {k: v[kept] for k, v in e.items()} for u, e in users.items()}
            write(home / side / "part.json", part)
    return users


def load(home, fold=None, num_test_clients=None, **options):
    options = {"leaf_dir": str(home), **options}
    return datasets.load("leaf", datasets.Request(options=options, fold=fold,
                                                  num_test_clients=num_test_clients))  # fmt: skip


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("by_user", [True, False])
def test_users_are_split_as_leaf_does_or_joined(tmp_path, kind, by_user):
    users = folder(tmp_path, kind, by_user)
    task = load(tmp_path, leaf_units=4)
    sides = (task.train_clients, task.validation_clients, task.test_clients)
    assert sorted(user for side in sides for user in side) == sorted(users)
    if by_user:
        assert sorted(task.test_clients) == ["u6", "u7"]
        assert len(load(tmp_path, num_test_clients=1, leaf_units=4).test_clients) == 1
    for user, examples in users.items():
        assert len(task.read_client(user)[1]) == len(examples["y"])
    x, y = task.read_client(task.train_clients[0])
    assert task.build_keras_model()(x).shape[0] == len(y)
    folds = [load(tmp_path, fold=Fold(number, 4), leaf_units=4) for number in range(4)]
    assert sorted(user for fold in folds for user in fold.test_clients) == sorted(users)


def test_images_are_the_files_numbers(tmp_path):
    users = folder(tmp_path, "femnist")
    task = load(tmp_path)
    x, y = task.read_client("u2")
    np.testing.assert_array_equal(x.reshape(-1, 784), np.float32(users["u2"]["x"]))
    assert y.tolist() == users["u2"]["y"]
    assert task.meaning.classes[10] == "A" and task.meaning.classes[36] == "a"


def test_characters_are_places_in_the_vocabulary_of_training_users(tmp_path):
    users = folder(tmp_path, "shakespeare")
    users["u7"]["x"][0] = "Z" * 79 + "o"
    write(tmp_path / "test" / "part_0.json", {"u6": users["u6"], "u7": users["u7"]})
    task = load(tmp_path, leaf_units=4)
    names = task.assets["vocabulary.json"]
    x, y = task.read_client("u7")
    assert x[0].tolist() == [0] * 79 + [names.index("o")]
    assert "".join(names[place] for place in x[1]) == users["u7"]["x"][1]
    assert [names[place] for place in y] == users["u7"]["y"]
    assert task.split == "ordered"
    short, _ = leaf_examples.sequences({"x": ["ab"], "y": ["c"]}, {"a": 1, "b": 2}, 4)
    assert short.tolist() == [[0, 0, 1, 2]]


def test_tweets_are_counts_or_places_of_words(tmp_path):
    folder(tmp_path, "sent140")
    task = load(tmp_path)
    names = task.assets["vocabulary.json"]
    x, y = task.read_client("u0")
    assert x.shape == (4, len(names)) and y.tolist() == [1, 0, 1, 1]
    counted = {names[place]: count for place, count in enumerate(x[2]) if count}
    assert counted == {"good": 1, "day": 1, "!": 1}
    few = load(tmp_path, leaf_vocabulary=1)
    assert few.assets["vocabulary.json"] == ["<unknown>", "so"]
    assert few.read_client("u0")[0][[0, 2]].tolist() == [[1, 1], [3, 0]]
    ids, _ = load(tmp_path, leaf_words="ids").read_client("u0")
    assert [names[place] for place in ids[2][:3]] == ["good", "day", "!"] and ids.shape == (4, 25)


@pytest.mark.parametrize(
    "content, part",
    [
        ({}, "is not a file of LEAF"),
        ({"user_data": {u: {"x": [[0.5]] * 2, "y": [1, 1]} for u in "abc"}}, "not 28 x 28"),
        ({"user_data": {u: {"x": [[2] * 784] * 2, "y": [1, 1]} for u in "abc"}}, "from 2 to 2"),
        ({"user_data": {"u": {"x": [[0.5], [0.1]], "y": [1]}}}, "has 2 x but 1 y"),
        ('{"user_data": {"u": {"x": [[0.5', "cut off"),
    ],
)  # fmt: skip
def test_what_is_not_leafs_is_one_sentence(tmp_path, content, part):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "all_data.json").write_text(text)
    with pytest.raises(DataError, match=part) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no \.json files"):
        load(tmp_path)
    with pytest.raises(DataError, match="give --leaf_dir"):
        datasets.load("leaf")


def test_from_folder_to_comparison(tmp_path, capsys):
    folder(tmp_path / "leaf", "sent140")
    command = ["run", "--dataset=leaf", f"--leaf_dir={tmp_path / 'leaf'}", "--rounds=1"]
    command += ["--algorithms=fedavg", "--adaptation_steps=1", f"--output_dir={tmp_path / 'run'}"]
    assert run_experiment.main(command) == 0
    captured = capsys.readouterr()
    assert "LEAF's sent140: 8 users with 60 examples" in captured.err
    confused = json.loads((tmp_path / "run" / "confusion.json").read_text())
    assert confused["classes"] == ["bad", "good"]
    assert run_experiment.main([*command, "--leaf_task=other"]) == 2
