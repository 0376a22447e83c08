"""Loading tasks and real data in tests."""

import dataclasses
import os
from pathlib import Path

import pytest

import datasets

_REQUEST = {field.name for field in dataclasses.fields(datasets.Request)} - {"options"}


def load_task(name, **values):
    """Loads a data set; the values that are not of a `Request` are the data set's options."""
    request = {key: values.pop(key) for key in _REQUEST & set(values)}
    return datasets.load(name, datasets.Request(**request, options=values))


def graph_weights(task):
    """The initial weights as TFF sees them: built in a graph of their own."""
    import tensorflow as tf
    import tensorflow_federated as tff

    with tf.Graph().as_default():
        weights = tff.learning.models.ModelWeights.from_model(task.model_fn())
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            return session.run(list(weights.trainable))


def real_data_file(name):
    """A file of the directory FEDMETA_TEST_DATA; skips the test if there is none."""
    directory = os.environ.get("FEDMETA_TEST_DATA")
    path = Path(directory or ".") / name
    if not (directory and path.exists()):
        pytest.skip(f"needs {name} in the directory FEDMETA_TEST_DATA")
    return path
