"""Facts about exported models: each form takes the steps of adaptation that Keras takes."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import dense

import tff_fedmeta as fm
from datasets import shakespeare
from datasets.problems import factorisation
from datasets.tables import models

layers = tf.keras.layers
CROSS_ENTROPY = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MASKED = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
SQUARED = tf.keras.losses.MeanSquaredError()
RATE = 0.1
STEPS, BATCH = 4, 3  # of 7 examples: batches of 3, 3, 1 and again 3
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
    "mlp": (
        models.builder("mlp", 0, 4, models.Front([3], TABLE)),
        CROSS_ENTROPY,
        numbers(3),
        integers(4),
    ),
    "motion": (
        models.builder("conv1d", 0, 4, models.Front([16, 3], TABLE)),
        CROSS_ENTROPY,
        numbers(16, 3),
        integers(4),
    ),
    "factorisation": (
        functools.partial(factorisation.build_model, 0, 30, 4, 3.5),
        SQUARED,
        integers(30, 1),
        numbers(1),
    ),
}
# name -> the model, and how it adapts other than all weights at one rate.
VARIANTS = {
    "cnn head": ("cnn", {"trainable": "head"}),
    "cnn learnt rates": ("cnn", {}),
    "mlp learnt rates by step": ("mlp", {}),
    "cnn held": ("cnn", {"proximal_strength": 3.0}),
}
CASES = [*MODELS, *VARIANTS]

# Adapts plain Keras, the TensorFlow Lite file and the SavedModel to the same examples. A step of
# Keras is `fit` at the rate 1; it is scaled by the rates, which no Keras optimizer has for each
# weight, and pulled back to the start.
COMPARE = """
import json, sys
import numpy as np
import tensorflow as tf

def keras_step(model, x, y, how, rates, start, k):
    before = model.get_weights()
    value = model.fit(x, y, batch_size=len(x), verbose=0).history["loss"][0]
    after = model.get_weights()
    rates = [r[min(k, len(r) - 1)] if np.ndim(r) > b.ndim else r for r, b in zip(rates, before)]
    model.set_weights([
        b + r * (a - b - how["held"] * (b - s)) * moves
        for b, r, a, s, moves in zip(before, rates, after, start, how["moves"])
    ])
    return value

results = {}
for name, how in json.load(open(sys.argv[1])).items():
    data = np.load(how["data"])
    model = tf.keras.models.load_model(how["keras"], compile=False)
    model.compile(tf.keras.optimizers.SGD(1.0), tf.keras.losses.deserialize(how["loss"]))
    start = model.get_weights()
    rates = list(np.load(how["rates"]).values()) if how["rates"] else [how["rate"]] * len(start)
    first = model.predict(data["query"], verbose=0)
    runner = tf.lite.Interpreter(how["tflite"]).get_signature_runner
    keras, lite = [], []
    for k in range(how["steps"]):
        begin = k % 3 * how["batch"]
        batch = {p: data[p][begin : begin + how["batch"]] for p in "xy"}
        keras.append(keras_step(model, **batch, how=how, rates=rates, start=start, k=k))
        lite.append(float(runner("train")(**batch)["loss"]))
    end = model.predict(data["query"], verbose=0)
    adapted = runner("infer")(x=data["query"])["output"]
    runner("reset")()
    again = runner("infer")(x=data["query"])["output"]
    served = tf.saved_model.load(how["savedmodel"]).signatures
    support_x, support_y, query_x = map(tf.constant, (data["x"], data["y"], data["query"]))
    answer = served["adapt_and_predict"](support_x=support_x, support_y=support_y, query_x=query_x)
    nobody = served["adapt_and_predict"](
        support_x=support_x[:0], support_y=support_y[:0], query_x=query_x
    )
    plain = served["serving_default"](x=query_x)
    far = lambda one, other: float(np.abs(one - other).max())
    results[name] = {
        "keras_loss": keras, "lite_loss": lite, "moved": far(end, first),
        "tflite": far(end, adapted), "reset": far(first, again),
        "savedmodel": far(end, answer["output"]), "plain": far(first, plain["output"]),
        "nobody": far(first, nobody["output"]),
    }
assert not {"tff_fedmeta", "tensorflow_federated"} & set(sys.modules)
json.dump(results, open(sys.argv[2], "w"))
"""


def write_case(name, directory):
    """Exports one model, draws examples, and returns what COMPARE reads."""
    base, how = VARIANTS.get(name, (name, {}))
    build, loss, draw_x, draw_y = MODELS[base]
    random = np.random.default_rng(len(name))
    model = build()
    rates = None
    shapes = [tuple(weight.shape) for weight in model.trainable_variables]
    if name.endswith("by step"):  # the last of them for all further steps
        shapes = [(3, *[1] * len(shape)) for shape in shapes]
    if "rates" in name:
        rates = [random.uniform(0, 0.2, shape).astype("f") for shape in shapes]
        np.savez(directory / f"{name}_rates.npz", *rates)
    data = {"query": draw_x(random, 9), "x": draw_x(random, 7), "y": draw_y(random, 7)}
    if loss is MASKED:
        data["y"][:, 0] = 1  # something to predict
    np.savez(directory / f"{name}.npz", **data)
    spec = tuple(tf.TensorSpec([None, *data[p].shape[1:]], data[p].dtype) for p in "xy")
    common = {"loss": loss, "learned_rates": rates, "input_spec": spec, **how}
    if rates is None:
        common["inner_learning_rate"] = RATE
    lite = fm.to_tflite(model, path=directory / f"{name}.tflite", **common)
    served = fm.to_savedmodel(
        model, steps=STEPS, batch_size=BATCH, path=directory / f"{name}_served", **common
    )
    model.save(directory / f"{name}.keras")
    weights = len(model.get_weights())
    ends = {"data": ".npz", "keras": ".keras", "tflite": ".tflite", "savedmodel": "_served"}
    facts = {
        **{kind: str(directory / f"{name}{end}") for kind, end in ends.items()},
        "loss": tf.keras.losses.serialize(loss),
        "rate": RATE,
        "rates": str(directory / f"{name}_rates.npz") if rates else None,
        "held": how.get("proximal_strength", 0.0),
        "moves": [float("trainable" not in how or i >= weights - 2) for i in range(weights)],
        "steps": STEPS,
        "batch": BATCH,
    }
    return lite, served, facts


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Facts of the files, and how they and Keras moved in a process without this package."""
    directory = tmp_path_factory.mktemp("forms")
    cases = {name: write_case(name, directory) for name in CASES}
    (directory / "cases.json").write_text(json.dumps({n: how for n, (*_, how) in cases.items()}))
    arguments = [str(directory / "cases.json"), str(directory / "results.json")]
    subprocess.run([sys.executable, "-c", COMPARE, *arguments], check=True, cwd=directory)
    results = json.loads((directory / "results.json").read_text())
    return {name: (*facts, results[name]) for name, (*facts, _) in cases.items()}


@pytest.mark.parametrize("name", CASES)
def test_steps_in_tflite_are_those_of_keras(compared, name):
    *_, result = compared[name]
    np.testing.assert_allclose(result["lite_loss"], result["keras_loss"], rtol=1e-4)
    assert result["moved"] > 1e-2
    assert result["tflite"] < 1e-4
    assert result["reset"] < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_one_request_to_a_server_takes_the_steps_of_keras(compared, name):
    *_, result = compared[name]
    assert result["savedmodel"] < 1e-4 < 1e-2 < result["moved"]
    assert max(result["plain"], result["nobody"]) < 1e-5


def test_a_head_needs_built_in_operators_alone(compared):
    assert compared["cnn head"][0].select_ops == []
    assert "SparseSoftmaxCrossEntropyWithLogits" in compared["cnn"][0].select_ops


def test_signatures_are_those_of_the_guide(compared):
    names = {"train": ["x", "y"], "infer": ["x"], "reset": []}
    path = {"save": ["checkpoint_path"], "restore": ["checkpoint_path"]}
    arrays = {"save": [], "restore": ["weight_0", "weight_1"]}
    for name, more in (("cnn", path), ("lstm", path), ("cnn head", arrays)):
        signatures = compared[name][0].signatures
        assert {key: value["inputs"] for key, value in signatures.items()} == {**names, **more}
        assert signatures["train"]["outputs"] == ["loss"]
        assert signatures["infer"]["outputs"] == ["output"]


def test_a_server_is_told_its_signatures(compared):
    assert compared["cnn"][1].signatures == {
        "serving_default": {"inputs": ["x"], "outputs": ["output"]},
        "adapt_and_predict": {
            "inputs": ["support_x", "support_y", "query_x"],
            "outputs": ["output"],
        },
    }
