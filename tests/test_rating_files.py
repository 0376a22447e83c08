"""Ratings in one's own files are the same task however they are published."""

import numpy as np
import pandas as pd
import pytest

import datasets
from datasets import DataError
from datasets.sources import rating_files


def made(num_users=12, num_items=30):
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, num_users + 1):
        for item in rng.choice(np.arange(1, num_items + 1), 15, replace=False):
            rows.append((user, item, rng.integers(1, 6), 880_000_000 + rng.integers(1000)))
    return pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])


def write(frame, path):
    if path.name == "u.data":
        frame.to_csv(path, sep="\t", header=False, index=False)
        (path.parent / "u.item").write_bytes("7|Amélie (2001)|x\n".encode("latin-1"))
    elif path.name == "ratings.dat":
        lines = ["::".join(map(str, row)) for row in frame.itertuples(index=False)]
        path.write_text("\n".join(lines) + "\n")
        (path.parent / "movies.dat").write_bytes("7::Amélie (2001)::Comedy\n".encode("latin-1"))
    else:
        frame.to_csv(path, index=False)
        (path.parent / "movies.csv").write_text("movieId,title,genres\n7,Amélie (2001),x\n")


@pytest.mark.parametrize("name", ["u.data", "ratings.dat", "ratings.csv"])
def test_each_published_form_is_the_same_task(tmp_path, name):
    frame, path = made(), tmp_path / name
    write(frame, path)
    options = {"ratings": str(path)}
    task = datasets.load("movielens", datasets.Request(options=options))
    assert task.data_source == "file"
    assert sorted(task.train_clients + task.validation_clients + task.test_clients) == sorted(
        map(str, range(1, 13))
    )
    movies = task.assets["movies.json"]["movies"]
    assert {m["movie_id"]: m["title"] for m in movies}["7"] == "Amélie (2001)"
    client = task.train_clients[0]
    x, y = task.read_client(client)
    mine = frame[frame["userId"] == int(client)].sort_values("timestamp", kind="stable")
    if mine["timestamp"].is_unique:
        np.testing.assert_array_equal(y[:, 0], mine["rating"])
        known = [movies[place]["movie_id"] if place else None for place in x[:, 0]]
        assert all(k in (None, str(m)) for k, m in zip(known, mine["movieId"]))
    assert sorted(y[:, 0]) == sorted(mine["rating"])


def test_any_table_of_users_items_and_ratings(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("Score;Item;User\n3,5;a b;u1\n4,0;c;u1\n1,0;c;u2\n")
    table = rating_files.read(str(path))
    assert table.users.tolist() == ["u1", "u1", "u2"] and table.items[0] == "a b"
    assert table.ratings.tolist() == [3.5, 4.0, 1.0] and table.titles == {}


@pytest.mark.parametrize(
    "content, part",
    [
        ("who,what,howmuch\n1,2,x\n", "no column called user or item or rating"),
        ("user,item,rating\n1,2,\n", "lacks a user, an item or a rating in row 1"),
        ("user,item,rating\n1,2,good\n", "'good' in row 1"),
        (None, "No such file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, part):
    path = tmp_path / "ratings.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=part):
        rating_files.read(str(path))


def test_a_file_and_another_source_are_refused(tmp_path):
    write(made(), tmp_path / "ratings.csv")
    options = {"ratings": str(tmp_path / "ratings.csv")}
    with pytest.raises(DataError, match="--ratings names a file"):
        datasets.load("movielens", datasets.Request(data_source="embedded", options=options))
