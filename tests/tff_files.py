"""Writes small files in TFF's SQLite format, for tests of what is loaded through TFF."""

import contextlib
import sqlite3

import numpy as np

SPLITS = {"all_train": 62, "all_test": 62, "digits_only_train": 10, "digits_only_test": 10}
NUM_CLIENTS = 8  # of 3 to 10 examples


def make_examples(split, client):
    """Labels and images of one client in one split; the first image is paper with one ink dot."""
    rng = np.random.default_rng([sorted(SPLITS).index(split), client])
    x = rng.uniform(0, 1, (3 + client, 28, 28)).astype(np.float32)
    x[0] = 1.0
    x[0, 14, 14] = 0.0
    return x, rng.integers(0, SPLITS[split], len(x)).astype(np.int32)


def write_database(path, splits=tuple(SPLITS)):
    """Writes EMNIST's file."""
    write_clients(
        path,
        {
            (split, f"f{client:04d}_00"): [
                {"pixels": image.ravel(), "label": int(label)}
                for image, label in zip(*make_examples(split, client))
            ]
            for split in splits
            for client in range(NUM_CLIENTS)
        },
    )


def write_clients(path, examples):
    """Writes any data set's file: (split, client) -> each example's features by name."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)"
        )
        database.execute(
            "CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)"
        )
        for (split, client), rows in examples.items():
            database.executemany(
                "INSERT INTO examples VALUES (?, ?, ?)",
                [(split, client, serialize(features)) for features in rows],
            )
            database.execute(
                "INSERT INTO client_metadata VALUES (?, ?, ?)", (client, split, len(rows))
            )
        database.commit()


def serialize(features):
    """Returns a `tf.train.Example` as bytes, of strings, integers and arrays of floats."""
    import tensorflow as tf

    def feature(value):
        if isinstance(value, str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))

    example = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=example)).SerializeToString()


def post(tokens, date="2010-01-01 00:00:00 UTC"):
    """The features of a sentence on Stack Overflow."""
    return {
        "creation_date": date,
        "score": 1,
        "tags": "python",
        "title": "a title",
        "tokens": tokens,
        "type": "question",
    }
