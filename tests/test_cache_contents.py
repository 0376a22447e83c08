"""Files in the cache that are whole but hold something odd: one sentence, with file and client."""

import contextlib
import functools
import os
import sqlite3

import numpy as np
import pytest
import tfds_files
import tff_files
from loading import load_task

import run_experiment
from datasets import DataError, emnist, shakespeare, stackoverflow
from datasets.tables import files

IMAGE = np.linspace(0, 1, 784).astype(np.float32)
FIRST = "f0000_00"


def load_emnist(cache_dir):
    return load_task("emnist", data_source="tff", cache_dir=cache_dir)


def write_emnist(directory, first, others=None):
    """Writes a file of eight writers, of whom the first has the given rows, then a good one."""
    good = {"pixels": IMAGE, "label": 3}
    tff_files.write_clients(
        directory / emnist.FILE_NAME,
        {
            (split, f"f{client:04d}_00"): [*(first if client == 0 else others or [good]), good]
            for split in ("all_train", "all_test")
            for client in range(8)
        },
    )
    return directory / emnist.FILE_NAME


def said(load, *parts):
    with pytest.raises(DataError) as error:
        load()
    sentence = str(error.value)
    assert "\n" not in sentence and "Traceback" not in sentence
    for part in parts:
        assert part in sentence, sentence
    return sentence


def execute(path, *statement):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(*statement)
        database.commit()


BIG = np.float32(255) * IMAGE
ROWS = {
    "too few pixels": ({"pixels": IMAGE[:783], "label": 1}, "783 values in 'pixels' instead of"),
    "too many pixels": ({"pixels": [*IMAGE, 0.5], "label": 1}, "785 values in 'pixels'"),
    "no pixels": ({"label": 1}, "no feature 'pixels'"),
    "no label": ({"pixels": IMAGE}, "no feature 'label'"),
    "pixels as text": ({"pixels": "abc", "label": 1}, "'pixels' as bytes_list, not as float_list"),
    "pixels as numbers": ({"pixels": 7, "label": 1}, "'pixels' as int64_list"),
    "label as text": ({"pixels": IMAGE, "label": "a"}, "'label' as bytes_list"),
    "label as float": ({"pixels": IMAGE, "label": [1.0]}, "'label' as float_list"),
    "label 62": (
        {"pixels": IMAGE, "label": 62},
        "between 0 and 61, but has 3 to 62",
    ),
    "label -1": ({"pixels": IMAGE, "label": -1}, "but has -1 to 3"),
    "label 10^9": ({"pixels": IMAGE, "label": 10**9}, "label must lie between 0 and 61"),
    "pixels to 255": ({"pixels": BIG, "label": 1}, "has 0 to 255 (values up to 255 are to be"),
    "negative pixels": ({"pixels": -IMAGE, "label": 1}, "pixels must lie between 0 and 1"),
    "NaN": ({"pixels": IMAGE * np.nan, "label": 1}, "pixels has a value that is not finite"),
}


@pytest.mark.parametrize("name", list(ROWS))
def test_odd_emnist_examples_are_named(tmp_path, name):
    row, part = ROWS[name]
    path = write_emnist(tmp_path, [row])
    said(
        lambda: load_emnist(tmp_path),
        str(path),
        repr(FIRST),
        part,
    )


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (b"", "example 1 is empty"),
        (b"\xff\xff garbled", "example 1 is not a tf.train.Example"),
        ("text", "example 1 is str"),
        (17, "example 1 is int"),
        (None, "example 1 is NoneType"),
    ],
)
def test_garbled_emnist_examples_are_named(tmp_path, value, part):
    path = write_emnist(tmp_path, [])
    execute(
        path,
        "UPDATE examples SET serialized_example_proto = ? WHERE client_id = ?",
        (value, FIRST),
    )
    said(
        lambda: load_emnist(tmp_path),
        str(path),
        repr(FIRST),
        part,
    )


@pytest.mark.parametrize("odd", [b"f0000_00", None, "", "o'hara", "x' OR '1'='1"])
def test_odd_client_ids_are_named(tmp_path, odd):
    path = write_emnist(tmp_path, [])
    for table in ("examples", "client_metadata"):
        execute(path, f"ALTER TABLE {table} RENAME TO old")
        execute(path, f"CREATE TABLE {table} AS SELECT * FROM old")
        execute(path, "DROP TABLE old")
        with contextlib.closing(sqlite3.connect(path)) as database:
            # Text affinity would make text of a number.
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            database.execute(f"CREATE TABLE new ({', '.join(columns)})")
            database.execute(f"INSERT INTO new SELECT {', '.join(columns)} FROM {table}")
            database.execute(f"DROP TABLE {table}")
            database.execute(f"ALTER TABLE new RENAME TO {table}")
            database.execute(f"UPDATE {table} SET client_id = ? WHERE client_id = ?", (odd, FIRST))
            database.commit()
    said(
        lambda: load_emnist(tmp_path),
        str(path),
        f"id {odd!r} (",
    )


def test_a_client_id_that_is_not_utf8_is_named(tmp_path):
    path = write_emnist(tmp_path, [])
    for table in ("examples", "client_metadata"):
        execute(
            path,
            f"UPDATE {table} SET client_id = CAST(? AS TEXT) WHERE client_id = ?",
            (b"\xffa", FIRST),
        )
    said(
        lambda: load_emnist(tmp_path),
        str(path),
        "id b'\\xffa' (text)",
    )


def test_a_client_without_its_examples_is_named(tmp_path):
    path = write_emnist(tmp_path, [])
    other = "f0001_00"
    execute(path, "UPDATE examples SET client_id = ? WHERE client_id = ?", (other, FIRST))
    load = lambda: load_emnist(tmp_path)  # noqa: E731
    said(load, repr(FIRST), "there are no examples")


def test_a_view_that_never_ends_and_a_virtual_table_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.sources.tff_files._METADATA_SECONDS", 0.2)
    path = write_emnist(tmp_path, [])
    execute(path, "ALTER TABLE client_metadata RENAME TO m")
    execute(
        path,
        "CREATE VIEW client_metadata AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
        "FROM n) SELECT 'a' || i AS client_id, 'all_train' AS split_name, 1 AS num_examples FROM n",
    )
    said(lambda: load_emnist(tmp_path), str(path), "interrupted")
    execute(path, "DROP VIEW client_metadata")
    execute(path, "CREATE VIRTUAL TABLE client_metadata USING fts4(client_id, split_name, n)")
    said(lambda: load_emnist(tmp_path), "not an ordinary table")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("module", [emnist, shakespeare, stackoverflow])
def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path, module, make):
    path = tmp_path / module.FILE_NAME
    make(path)
    load = lambda: load_task(module.NAME, data_source="tff", cache_dir=tmp_path)  # noqa: E731
    said(load, str(path), "not an ordinary file")


def test_the_command_line_says_it_with_status_two_also_in_the_middle(tmp_path, capsys):
    path = write_emnist(tmp_path, [], others=[{"pixels": IMAGE, "label": 70}])
    command = ["x", "--dataset=emnist", "--data_source=tff", f"--cache_dir={tmp_path}"]
    small = ["--algorithms=fedavg", "--rounds=1", "--clients_per_round=2", "--adaptation_steps=1"]
    assert run_experiment.main([*command, *small, f"--output_dir={tmp_path / 'run'}"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "Error" in line]
    assert len(errors) == 1 and str(path) in errors[0]
    assert "label must lie between 0 and 61, but has 3 to 70" in errors[0]


# --- the other files ------------------------------------------------------------------------------


def write_text(directory, module, first):
    """Writes a Shakespeare or Stack Overflow file whose client "0" has the given row."""
    good = {"snippets": "Hello."} if module is shakespeare else tff_files.post("hello world")
    tff_files.write_clients(
        directory / module.FILE_NAME,
        {
            (split, f"{split[0]}{client}"): [first if client == 0 else good, good]
            for split in module.SPLITS
            for client in range(8)
        },
    )


@pytest.mark.parametrize(
    ("module", "row", "part"),
    [
        (shakespeare, {}, "example 1 has no feature 'snippets'"),
        (shakespeare, {"text": "a"}, "no feature 'snippets'"),
        (shakespeare, {"snippets": 5}, "'snippets' as int64_list, not as bytes_list"),
        (stackoverflow, {"tokens": "a"}, "no feature 'creation_date'"),
        (stackoverflow, {**tff_files.post("a"), "tokens": 5}, "'tokens' as int64_list"),
        (stackoverflow, {**tff_files.post("a"), "score": "b"}, "'score' as bytes_list"),
    ],
)
def test_odd_text_examples_are_named(tmp_path, module, row, part):
    write_text(tmp_path, module, row)
    load = lambda: load_task(module.NAME, data_source="tff", cache_dir=tmp_path)  # noqa: E731
    said(load, str(tmp_path / module.FILE_NAME), "client 't0'", part)


def test_odd_ratings_are_named(tmp_path):
    stars = [(user, movie, 4.0, 1) for user in range(8) for movie in range(6)]
    tfds_files.write_movielens(tmp_path, [*stars, (3, 7, 500.0, 1)])
    load = lambda: load_task("movielens", data_source="tfds", cache_dir=tmp_path)  # noqa: E731
    said(load, "must lie between 0 and 5, but user '3' has one of 500")


def test_a_pipe_or_a_foreign_class_in_a_directory_of_tfds_is_refused(tmp_path):
    stars = [(user, movie, 4.0, 1) for user in range(8) for movie in range(6)]
    path = tfds_files.write_movielens(tmp_path, stars)
    load = lambda: load_task("movielens", data_source="tfds", cache_dir=tmp_path)  # noqa: E731
    features = path / "features.json"
    content = features.read_text()
    assert "tensorflow_datasets.core.features.text_feature.Text" in content
    features.write_text(
        content.replace("tensorflow_datasets.core.features.text_feature.Text", "os_evil.Text")
    )
    said(load, str(features), "'os_evil.Text' imported")
    features.unlink()
    os.mkfifo(features)
    said(load, str(features), "not an ordinary file")


def rewrite_records(path, example):
    """Writes the same example again and again in the place of a data set's records."""
    import tensorflow as tf

    (records,) = path.glob("*train.tfrecord*")
    with tf.io.TFRecordWriter(str(records)) as writer:
        for _ in range(60):
            writer.write(example)


@pytest.mark.parametrize(
    ("example", "part"),
    [
        (b"\xff\xfe garbled", "an example is not a tf.train.Example"),
        (tff_files.serialize({"user_id": 5}), "Data types don't match"),
        (tff_files.serialize({"user_id": "5"}), "is required but could not be found"),
    ],
)
def test_odd_records_of_tfds_are_one_sentence(tmp_path, example, part):
    stars = [(user, movie, 4.0, 1) for user in range(10) for movie in range(6)]
    rewrite_records(tfds_files.write_movielens(tmp_path, stars), example)
    load = lambda: load_task("movielens", data_source="tfds", cache_dir=tmp_path)  # noqa: E731
    said(load, "movielens/100k-ratings", part)


def test_an_image_that_is_none_is_one_sentence(tmp_path):
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 3)),
            "label": tfds.features.ClassLabel(num_classes=60),
        }
    )
    rows = [{"image": np.zeros([28, 28, 3], np.uint8), "label": label} for label in range(60)]
    path = tfds_files.write(tmp_path, "omniglot", "3.0.0", features, {"train": rows})
    rewrite_records(path, tff_files.serialize({"image": "not an image", "label": 1}))
    load = lambda: load_task("omniglot", data_source="tfds", cache_dir=tmp_path)  # noqa: E731
    said(load, "omniglot", "Unknown image file format")


def test_a_table_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "table.csv"
    os.mkfifo(pipe)
    for read in (files.read, files.sha256):
        said(functools.partial(read, str(pipe)), "not an ordinary file")
