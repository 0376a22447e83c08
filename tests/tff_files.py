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


def serialize(image, label):
    import tensorflow as tf

    features = {
        "pixels": tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel())),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_database(path, splits=tuple(SPLITS)):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)"
        )
        database.execute(
            "CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)"
        )
        for split in splits:
            for client in range(NUM_CLIENTS):
                x, y = make_examples(split, client)
                name = f"f{client:04d}_00"
                database.executemany(
                    "INSERT INTO examples VALUES (?, ?, ?)",
                    [(split, name, serialize(image, label)) for image, label in zip(x, y)],
                )
                database.execute(
                    "INSERT INTO client_metadata VALUES (?, ?, ?)", (name, split, len(y))
                )
        database.commit()
