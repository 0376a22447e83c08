"""Facts about the SavedModels: requests do not meet, strings are served, Python is refused."""

import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf
from conftest import dense, make_client, make_keras_model

import tff_fedmeta as fm
from tff_fedmeta.export import ConversionError

layers = tf.keras.layers
CROSS_ENTROPY = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def export(model, path, **how):
    arguments = {"inner_learning_rate": 0.5, "steps": 20, "batch_size": 4, **how}
    return fm.to_savedmodel(model, loss=CROSS_ENTROPY, path=path, **arguments)


def test_requests_at_the_same_time_do_not_meet(tmp_path):
    """As TF Serving answers them: one session for all, loaded by the names of the signatures."""
    model = make_keras_model()
    before = model.get_weights()
    export(model, tmp_path / "served")
    query, _ = make_client(5)
    supports = [make_client(9, seed) for seed in range(12)]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "served"))
        signature = loaded.signature_def["adapt_and_predict"]
        names = {key: tensor.name for key, tensor in signature.inputs.items()}

        def answer(support):
            values = {"support_x": support[0], "support_y": support[1], "query_x": query}
            feed = {names[key]: value for key, value in values.items()}
            return session.run(signature.outputs["output"].name, feed)

        alone = [answer(support) for support in supports]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            together = list(pool.map(answer, supports * 3))
    for one, other in zip(alone * 3, together):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    for mine, theirs in zip(model.get_weights(), before):
        np.testing.assert_array_equal(mine, theirs)


def test_strings_are_looked_up_by_the_server(tmp_path):
    words = layers.TextVectorization(vocabulary=["good", "bad"], output_mode="multi_hot")
    model = tf.keras.Sequential([tf.keras.Input([1], dtype=tf.string), words, dense(2)])
    export(model, tmp_path / "served")
    x, y = tf.constant([["good"], ["bad"]]), tf.constant([1, 0])
    served = tf.saved_model.load(str(tmp_path / "served")).signatures
    (answer,) = served["adapt_and_predict"](support_x=x, support_y=y, query_x=x).values()
    np.testing.assert_array_equal(np.argmax(answer, 1), y)
    np.testing.assert_allclose(*served["serving_default"](x=x).values(), model(x), atol=1e-6)


def test_a_penalty_on_weights_is_part_of_the_step(tmp_path):
    penalty = tf.keras.regularizers.L2(0.5)
    model = tf.keras.Sequential(
        [tf.keras.Input([6]), tf.keras.layers.Dense(3, kernel_regularizer=penalty)]
    )
    export(model, tmp_path / "served", steps=1, batch_size=9)
    x, y = make_client(9)
    served = tf.saved_model.load(str(tmp_path / "served")).signatures
    arguments = {"support_x": x, "support_y": y, "query_x": x}
    arguments = {name: tf.constant(value) for name, value in arguments.items()}
    (answer,) = served["adapt_and_predict"](**arguments).values()
    model.compile(tf.keras.optimizers.SGD(0.5), CROSS_ENTROPY)
    model.fit(x, y, batch_size=9, verbose=0)
    np.testing.assert_allclose(answer, model.predict(x, verbose=0), atol=1e-5)


def test_a_directory_that_is_something_else_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there and is not a SavedModel: choose another path"):
        export(make_keras_model(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def unchanged(array):
    return array


def test_a_function_of_python_is_named_and_what_was_there_stays(tmp_path):
    export(make_keras_model(), tmp_path / "served", steps=0)
    before = {path.name for path in (tmp_path / "served").iterdir()}
    call = layers.Lambda(
        lambda x: tf.ensure_shape(tf.numpy_function(unchanged, [x], tf.float32), [None, 6])
    )
    model = tf.keras.Sequential([tf.keras.Input([6]), call, dense(3)])
    with pytest.raises(ConversionError, match="because of the operation PyFunc, which calls"):
        export(model, tmp_path / "served")
    assert {path.name for path in (tmp_path / "served").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    export(make_keras_model(), tmp_path / "served")  # replaces it
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


@pytest.mark.parametrize(
    "how, message",
    [
        ({"steps": -1}, "steps must be"),
        ({"steps": 1.5}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"proximal_strength": -1.0}, "proximal_strength must be >= 0"),
        ({"proximal_strength": 1.0, "learned_rates": [0.1] * 4}, "give no learned_rates"),
        ({"trainable": "heads"}, "trainable must be one of: all, head"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, how, message):
    with pytest.raises(ValueError, match=message):
        export(make_keras_model(), tmp_path / "served", **how)
    assert not list(tmp_path.iterdir())
