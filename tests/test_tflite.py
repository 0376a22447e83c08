"""Facts about the TensorFlow Lite files: they adapt as Keras does, and say what they need."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import dense, make_client, make_keras_model

import tff_fedmeta as fm
from datasets import movielens, shakespeare
from datasets.tables import models
from tff_fedmeta.export import losses, tflite

layers = tf.keras.layers
CROSS_ENTROPY = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MASKED = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
SQUARED = tf.keras.losses.MeanSquaredError()
RATE = 0.1
TABLE = ([0.5] * 3, [2.0] * 3)  # mean and scale of the channels


def cnn():
    return tf.keras.Sequential(
        [
            tf.keras.Input([12, 12]),
            layers.Reshape([12, 12, 1]),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            dense(8, "relu"),
            dense(5),
        ]
    )


def integers(high, *shape):
    return lambda random, n: random.integers(0, high, [n, *shape])


def numbers(*shape):
    return lambda random, n: random.normal(size=[n, *shape]).astype(np.float32)


# name -> how the model is built, its loss, and how inputs and targets of n examples are drawn
MODELS = {
    "cnn": (cnn, CROSS_ENTROPY, numbers(12, 12), integers(5)),
    "lstm": (
        functools.partial(shakespeare.build_lstm, 0, 12, 6, 3, 4),
        MASKED,
        integers(12, 6),
        integers(12, 6),
    ),
    "mlp": (models.builder("mlp", 0, [3], 4, TABLE), CROSS_ENTROPY, numbers(3), integers(4)),
    "motion": (
        models.builder("conv1d", 0, [16, 3], 4, TABLE),
        CROSS_ENTROPY,
        numbers(16, 3),
        integers(4),
    ),
    "factorisation": (
        functools.partial(movielens.build_factorisation, 0, 30, 4, 3.5),
        SQUARED,
        integers(30, 1),
        numbers(1),
    ),
}
# What moves, beside all weights at one rate.
VARIANTS = {"cnn head": "cnn", "cnn learnt rates": "cnn"}
CASES = [*MODELS, *VARIANTS]

# Trains plain Keras and the file on the same batches. `fit` is Keras' own; for learnt rates, which
# no Keras optimizer has, every weight gets its step from one of rate 1.
COMPARE = """
import json, sys
import numpy as np
import tensorflow as tf

def steps(model, x, y, how):
    if how["rates"] is None:
        if how["head"]:
            for layer in model.layers[:-1]:
                layer.trainable = False
        loss = tf.keras.losses.deserialize(how["loss"])
        model.compile(tf.keras.optimizers.SGD(how["rate"]), loss)
        return lambda x, y: model.fit(x, y, batch_size=len(x), verbose=0).history["loss"][0]
    rates = list(np.load(how["rates"]).values())
    loss = tf.keras.losses.deserialize(how["loss"])
    def step(x, y):
        before = model.get_weights()
        model.compile(tf.keras.optimizers.SGD(1.0), loss)
        value = model.fit(x, y, batch_size=len(x), verbose=0).history["loss"][0]
        after = model.get_weights()
        model.set_weights([b + r * (a - b) for b, r, a in zip(before, rates, after)])
        return value
    return step

results = {}
for name, how in json.load(open(sys.argv[1])).items():
    data = np.load(how["data"])
    model = tf.keras.models.load_model(how["keras"], compile=False)
    start = model.predict(data["query"], verbose=0)
    runner = tf.lite.Interpreter(how["tflite"]).get_signature_runner
    step, keras, lite = steps(model, None, None, how), [], []
    for k in range(4):
        x, y = data[f"x{k}"], data[f"y{k}"]
        keras.append(step(x, y))
        lite.append(float(runner("train")(x=x, y=y)["loss"]))
    end = model.predict(data["query"], verbose=0)
    adapted = runner("infer")(x=data["query"])["output"]
    runner("reset")()
    again = runner("infer")(x=data["query"])["output"]
    results[name] = {
        "keras_loss": keras, "lite_loss": lite, "moved": float(np.abs(end - start).max()),
        "adapted": float(np.abs(end - adapted).max()), "reset": float(np.abs(start - again).max()),
    }
assert not {"tff_fedmeta", "tensorflow_federated"} & set(sys.modules)
json.dump(results, open(sys.argv[2], "w"))
"""


def write_case(name, directory):
    """Exports one model, with batches of different sizes, and returns what COMPARE reads."""
    build, loss, draw_x, draw_y = MODELS[VARIANTS.get(name, name)]
    random = np.random.default_rng(len(name))
    model, head = build(), name.endswith("head")
    rates = None
    if name.endswith("rates"):
        rates = [random.uniform(0, 0.2, w.shape).astype("f") for w in model.trainable_variables]
        np.savez(directory / "rates.npz", *rates)
    x, y = draw_x(random, 1), draw_y(random, 1)
    spec = tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in (x, y))
    facts = fm.to_tflite(
        model,
        loss=loss,
        inner_learning_rate=None if rates else RATE,
        learned_rates=rates,
        trainable="head" if head else "all",
        path=directory / f"{name}.tflite",
        input_spec=spec,
    )
    model.save(directory / f"{name}.keras")
    data = {"query": draw_x(random, 9)}
    for step, n in enumerate((7, 3, 1, 7)):
        data[f"x{step}"], data[f"y{step}"] = draw_x(random, n), draw_y(random, n)
        if loss is MASKED:
            data[f"y{step}"][:, 0] = 1  # something to predict
    np.savez(directory / f"{name}.npz", **data)
    paths = {
        kind: str(directory / f"{name}.{end}")
        for kind, end in (("data", "npz"), ("keras", "keras"), ("tflite", "tflite"))
    }
    how = {
        "loss": tf.keras.losses.serialize(loss),
        "rate": RATE,
        "rates": str(directory / "rates.npz") if rates else None,
        "head": head,
    }
    return facts, {**paths, **how}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Facts of each file, and how it and plain Keras moved in a process without this package."""
    directory = tmp_path_factory.mktemp("tflite")
    cases = {name: write_case(name, directory) for name in CASES}
    (directory / "cases.json").write_text(json.dumps({n: how for n, (_, how) in cases.items()}))
    arguments = [str(directory / "cases.json"), str(directory / "results.json")]
    subprocess.run([sys.executable, "-c", COMPARE, *arguments], check=True, cwd=directory)
    results = json.loads((directory / "results.json").read_text())
    return {name: (facts, results[name]) for name, (facts, _) in cases.items()}


@pytest.mark.parametrize("name", CASES)
def test_steps_in_tflite_are_those_of_keras(compared, name):
    _, result = compared[name]
    np.testing.assert_allclose(result["lite_loss"], result["keras_loss"], rtol=1e-4)
    assert result["moved"] > 1e-2
    assert result["adapted"] < 1e-4
    assert result["reset"] < 1e-5


def test_a_head_needs_built_in_operators_alone(compared):
    assert compared["cnn head"][0].select_ops == []
    assert "SparseSoftmaxCrossEntropyWithLogits" in compared["cnn"][0].select_ops


def test_a_head_whose_loss_is_not_known_takes_select_operators(tmp_path):
    huber = tf.keras.losses.Huber()
    model = tf.keras.Sequential([tf.keras.Input([6]), dense(3)])
    facts = fm.to_tflite(
        model, loss=huber, inner_learning_rate=RATE, trainable="head", path=tmp_path / "a.tflite"
    )
    assert facts.select_ops
    assert facts.checkpoints == "file"


def test_signatures_are_those_of_the_guide(compared):
    names = {"train": ["x", "y"], "infer": ["x"], "reset": []}
    path = {"save": ["checkpoint_path"], "restore": ["checkpoint_path"]}
    arrays = {"save": [], "restore": ["weight_0", "weight_1"]}
    for name, more in (("cnn", path), ("lstm", path), ("cnn head", arrays)):
        signatures = compared[name][0].signatures
        assert {key: value["inputs"] for key, value in signatures.items()} == {**names, **more}
        assert signatures["train"]["outputs"] == ["loss"]
        assert signatures["infer"]["outputs"] == ["output"]


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
    with pytest.raises(tflite.ConversionError, match=message):
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
