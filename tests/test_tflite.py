"""Facts about the TensorFlow Lite files: what they hold, what they need, what is refused."""

import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import dense, make_client, make_keras_model

import tff_fedmeta as fm
from tff_fedmeta import export as forms
from tff_fedmeta.export import losses

layers = tf.keras.layers
CROSS_ENTROPY = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MASKED = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
SQUARED = tf.keras.losses.MeanSquaredError()
RATE = 0.1


def test_a_head_whose_loss_is_not_known_takes_select_operators(tmp_path):
    huber = tf.keras.losses.Huber()
    model = tf.keras.Sequential([tf.keras.Input([6]), dense(3)])
    facts = fm.to_tflite(
        model, loss=huber, inner_learning_rate=RATE, trainable="head", path=tmp_path / "a.tflite"
    )
    assert facts.select_ops
    assert facts.checkpoints == "file"


def adapt(runner, steps=2):
    x, y = make_client(9)
    for _ in range(steps):
        runner("train")(x=x, y=y)
    return runner("infer")(x=x)["output"]


def export(path, **how):
    return fm.to_tflite(
        make_keras_model(), loss=CROSS_ENTROPY, inner_learning_rate=RATE, path=path, **how
    )


def open_file(path):
    return tf.lite.Interpreter(str(path)).get_signature_runner


def test_weights_saved_to_a_file_are_restored_in_another_interpreter(tmp_path):
    export(tmp_path / "a.tflite")
    first, second = open_file(tmp_path / "a.tflite"), open_file(tmp_path / "a.tflite")
    adapted = adapt(first)
    checkpoint = np.array(str(tmp_path / "weights.ckpt"), np.bytes_)
    first("save")(checkpoint_path=checkpoint)
    x, _ = make_client(9)
    assert np.abs(second("infer")(x=x)["output"] - adapted).max() > 1e-2
    second("restore")(checkpoint_path=checkpoint)
    np.testing.assert_array_equal(second("infer")(x=x)["output"], adapted)


def test_weights_of_a_head_are_saved_and_restored_as_arrays(tmp_path):
    assert export(tmp_path / "a.tflite", trainable="head").checkpoints == "arrays"
    first, second = open_file(tmp_path / "a.tflite"), open_file(tmp_path / "a.tflite")
    adapted = adapt(first)
    weights = first("save")()
    assert {name: array.shape for name, array in weights.items()} == {
        "weight_0": (8, 3),
        "weight_1": (3,),
    }
    second("restore")(**weights)
    np.testing.assert_array_equal(second("infer")(x=make_client(9)[0])["output"], adapted)


def test_a_head_may_save_to_a_file_where_select_operators_are_wanted(tmp_path):
    facts = export(tmp_path / "a.tflite", trainable="head", select_ops=True)
    assert (facts.checkpoints, {"Save", "Restore"} <= set(facts.select_ops)) == ("file", True)


def test_exporting_leaves_the_model_alone(tmp_path):
    model = make_keras_model()
    before = model.get_weights()
    fm.to_tflite(model, loss=CROSS_ENTROPY, inner_learning_rate=RATE, path=tmp_path / "a.tflite")
    adapt(open_file(tmp_path / "a.tflite"))
    for mine, theirs in zip(model.get_weights(), before):
        np.testing.assert_array_equal(mine, theirs)


def test_the_file_holds_the_weights_once(tmp_path):
    model = tf.keras.Sequential([tf.keras.Input([500]), dense(500), dense(3)])
    path = tmp_path / "a.tflite"
    facts = fm.to_tflite(model, loss=CROSS_ENTROPY, inner_learning_rate=RATE, path=path)
    assert facts.num_bytes == path.stat().st_size < 1.05 * 4 * model.count_params()


def test_a_penalty_on_weights_is_part_of_the_step(tmp_path):
    penalty = tf.keras.regularizers.L2(0.5)
    model = tf.keras.Sequential(
        [tf.keras.Input([6]), tf.keras.layers.Dense(3, kernel_regularizer=penalty)]
    )
    path = tmp_path / "a.tflite"
    fm.to_tflite(model, loss=CROSS_ENTROPY, inner_learning_rate=RATE, path=path)
    adapted = adapt(open_file(path), steps=1)
    x, y = make_client(9)
    model.compile(tf.keras.optimizers.SGD(RATE), CROSS_ENTROPY)
    model.fit(x, y, batch_size=9, verbose=0)
    np.testing.assert_allclose(adapted, model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, MASKED, SQUARED])
def test_built_in_losses_are_those_of_keras(loss):
    random = np.random.default_rng(0)
    y = random.normal(size=[5, 4]) if loss is SQUARED else random.integers(0, 3, [5, 4])
    output = tf.constant(random.normal(size=[5, 4] if loss is SQUARED else [5, 4, 3]), tf.float32)
    values = []
    for function in (loss, losses.with_builtin_gradient(loss)):
        with tf.GradientTape() as tape:
            tape.watch(output)
            value = function(tf.constant(y, tf.float32 if loss is SQUARED else tf.int64), output)
        values.append((value, tape.gradient(value, output)))
    assert function is not loss
    for mine, theirs in zip(*values):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def unchanged(array):
    return array


def python_function():
    call = functools.partial(tf.numpy_function, unchanged, Tout=tf.float32)
    return layers.Lambda(lambda x: tf.ensure_shape(call([x]), [None, 6]))


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda: [tf.keras.Input([6]), python_function(), dense(3)], "because of the operation Py"),
        (
            lambda: [
                tf.keras.Input([6], dtype=tf.int64),
                layers.IntegerLookup(vocabulary=[1, 2], output_mode="multi_hot"),
                dense(3),
            ],
            "a table of a lookup layer",
        ),
        (
            lambda: [
                tf.keras.Input([1], dtype=tf.string),
                layers.TextVectorization(vocabulary=["a"], output_mode="multi_hot"),
                dense(3),
            ],
            "cannot train on strings, but x is",
        ),
    ],
)
def test_what_cannot_be_converted_is_named_and_not_written(tmp_path, model, message):
    path = tmp_path / "a.tflite"
    with pytest.raises(forms.ConversionError, match=message):
        fm.to_tflite(
            tf.keras.Sequential(model()), loss=CROSS_ENTROPY, inner_learning_rate=0.1, path=path
        )
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    "how, message",
    [
        ({"trainable": "heads"}, "trainable must be one of: all, head; .* mean 'head'"),
        ({"trainable": "head", "head_layers": 3}, "head_layers must lie between 1 and 2"),
        ({"inner_learning_rate": -0.1}, "inner_learning_rate must be >= 0"),
        ({"inner_learning_rate": None}, "inner_learning_rate must be a finite number"),
        ({"learned_rates": [0.1, 0.1]}, "learned_rates must have .* each of the 4 trainable"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, how, message):
    arguments = {"inner_learning_rate": RATE, **how}
    with pytest.raises(ValueError, match=message):
        fm.to_tflite(make_keras_model(), loss=CROSS_ENTROPY, path=tmp_path / "a", **arguments)
