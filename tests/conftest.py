import collections
import signal

import numpy as np
import pytest

from tff_fedmeta import runtime

runtime.quiet_tensorflow()
import tensorflow as tf  # noqa: E402
import tensorflow_federated as tff  # noqa: E402

# A shell that starts the tests in the background has them ignore Ctrl-C, and programs that they
# start inherit that; some tests are about Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What trains, or starts programs; `make quick` leaves these out, and all that needs a runtime.
SLOW_MODULES = frozenset(
    {
        "test_alone",
        "test_benchmarks",
        "test_client_source",
        "test_cluster",
        "test_damage",
        "test_datasets_contract",
        "test_datasets_csv",
        "test_datasets_emnist",
        "test_datasets_leaf",
        "test_datasets_movielens",
        "test_datasets_omniglot",
        "test_datasets_shakespeare",
        "test_datasets_sinusoid",
        "test_datasets_stackoverflow",
        "test_documents",
        "test_export",
        "test_exported_adaptation",
        "test_meta_gradients",
        "test_notebook",
        "test_notebook_runtime",
        "test_package",
        "test_plugins",
        "test_ray_runtime",
        "test_readme",
        "test_run_experiment",
        "test_run_failures",
        "test_run_family",
        "test_runtime",
        "test_savedmodel",
        "test_tflite",
        "test_tune",
        "test_worker_runtime",
    }
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW_MODULES or "tff_runtime" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


INPUT_SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 6], tf.float32), y=tf.TensorSpec([None], tf.int32)
)


@pytest.fixture(scope="session")
def tff_runtime():
    # Every thread prepares the graphs of a process for itself, which is most of what tests do.
    with runtime.local_runtime(num_threads=1):
        yield


def dense(units, activation=None, seed=0):
    return tf.keras.layers.Dense(
        units,
        activation,
        kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.5, seed=seed),
        bias_initializer=tf.keras.initializers.RandomNormal(stddev=0.5, seed=seed + 1),
    )


def make_keras_model():
    """The network of reference_numpy.py: dense 6 -> 8, tanh, dense 8 -> 3."""
    return tf.keras.Sequential([tf.keras.Input([6]), dense(8, "tanh", seed=1), dense(3, seed=3)])


def save_digits_model(directory):
    """Saves a small network for the ten digits as a file for --model; its path.

    TensorFlow prepares its graphs in a tenth of the time of EMNIST's own network.
    """
    path = directory / "digits.keras"
    tf.keras.Sequential(
        [tf.keras.Input([28, 28]), tf.keras.layers.Flatten(), dense(12, "tanh"), dense(10, seed=2)]
    ).save(path)
    return path


def as_model_fn(make_keras_model, input_spec=INPUT_SPEC):
    return lambda: tff.learning.models.from_keras_model(
        make_keras_model(),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=input_spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )


model_fn = as_model_fn(make_keras_model)


def initial_weights():
    """The trainable arrays model_fn starts from."""
    return make_keras_model().get_weights()


def make_client(n, seed=0):
    """Arrays x [n, 6] and y [n], with a task that clients share but for their inputs' centre."""
    random = np.random.default_rng([seed, n])
    x = random.normal(random.normal(size=6), 1.0, [n, 6]).astype(np.float32)
    y = np.argmax(x[:, :3] - x[:, 3:], axis=1).astype(np.int32)
    return x, y


def assert_close(actual, expected, tolerance=1e-5):
    """Two lists of arrays agree."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def assert_equal(actual, expected):
    """Two lists of arrays agree bit for bit."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected):
        np.testing.assert_array_equal(one, other)


def differ(one, other):
    return any(not np.array_equal(a, b) for a, b in zip(one, other))


def cell(text, row, column):
    """The text in the one of a text's Markdown tables that has the column, at the row's name."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        for line in text.splitlines()
    ]
    header = None
    found = []
    for cells in lines:
        if cells is None:
            header = None
        elif header is None:
            header = cells
        elif cells[0] == row and column in header:
            found.append(cells[header.index(column)])
    (only,) = found
    return only
