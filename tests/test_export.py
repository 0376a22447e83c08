import json
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_equal, dense, initial_weights, make_client, make_keras_model, model_fn

import run_experiment
import tff_fedmeta as fm
from tff_fedmeta.experiment import model_files, other_forms
from tff_fedmeta.experiment.evaluation import Scope


def normalized_model():
    return tf.keras.Sequential(
        [tf.keras.Input([6]), tf.keras.layers.BatchNormalization(), dense(3)]
    )


def random_weights(keras_model, copies=1):
    random = np.random.default_rng(1)

    def like(variables):
        return [random.normal(size=v.shape).astype(np.float32) for v in variables]

    return tff.learning.models.ModelWeights(
        like(keras_model.trainable_variables * copies), like(keras_model.non_trainable_variables)
    )


def test_keras_has_exactly_the_trained_weights():
    keras_model = normalized_model()
    weights = random_weights(keras_model)
    assert fm.to_keras(keras_model, weights) is keras_model
    assert_equal(keras_model.trainable_weights, weights.trainable)
    assert_equal(keras_model.non_trainable_weights, weights.non_trainable)


def test_of_learned_rates_keras_gets_the_weights_alone():
    keras_model = normalized_model()
    weights = random_weights(keras_model, copies=2)
    fm.to_keras(keras_model, weights, learned_rates=True)
    assert_equal(keras_model.trainable_weights, weights.trainable[:4])


def last_as(change):
    return lambda arrays: [*arrays[:-1], change(arrays[-1])]


@pytest.mark.parametrize(
    "part, change, learned_rates, message",
    [
        ("trainable", lambda arrays: arrays[:-1], False, "4 trainable .* but got 3"),
        (
            "trainable",
            lambda arrays: arrays * 2,
            False,
            "4 trainable .* but got 8.*give learned_rates=True",
        ),
        ("trainable", list, True, "8 tensors and as many learnt rates .* but got 4"),
        ("non_trainable", lambda arrays: [], False, "2 non-trainable .* but got 0"),
        ("trainable", last_as(lambda a: a[:2]), False, r"shape \(3,\) .* has \(2,\)"),
        ("trainable", last_as(lambda a: a[np.newaxis]), False, r"shape \(3,\) .* has \(1, 3\)"),
        ("non_trainable", last_as(lambda a: a[:2]), False, r"shape \(6,\) .* has \(2,\)"),
        ("trainable", last_as(np.float64), False, "float32.* float64"),
        ("trainable", last_as(np.int32), False, "float32.* int32"),
    ],
)
def test_other_weights_are_refused_and_none_is_set(part, change, learned_rates, message):
    keras_model = normalized_model()
    before = keras_model.get_weights()
    weights = random_weights(keras_model)
    weights = weights._replace(**{part: change(getattr(weights, part))})
    with pytest.raises(ValueError, match=message):
        fm.to_keras(keras_model, weights, learned_rates=learned_rates)
    assert_equal(keras_model.get_weights(), before)


# Whoever takes the model home has only Keras.
RELOAD = """
import sys
import numpy as np
import tensorflow as tf
model = tf.keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
assert "tff_fedmeta" not in sys.modules
"""


@pytest.mark.parametrize("make", [make_keras_model, normalized_model])
def test_exports_open_in_a_fresh_process(make, tmp_path):
    x, _ = make_client(7)
    keras_model = make()
    model_files.save(keras_model, tmp_path / "home", {"algorithm": "reptile"})
    metadata = json.loads((tmp_path / "home" / "metadata.json").read_text())
    assert metadata == {"algorithm": "reptile"}
    np.save(tmp_path / "x.npy", x)
    files = [tmp_path / "home" / "model.keras", tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run([sys.executable, "-c", RELOAD, *files], cwd=tmp_path, check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), keras_model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


def test_saving_again_replaces_the_export(tmp_path):
    for keras_model in (normalized_model(), make_keras_model()):
        model_files.save(keras_model, tmp_path, {"inputs": 6})
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded.get_weights(), initial_weights())


def test_an_export_is_not_larger_by_the_momentum_that_it_does_not_use(tmp_path):
    keras_model = tf.keras.Sequential([tf.keras.Input([500]), dense(500)])
    keras_model.compile(tf.keras.optimizers.SGD(0.3), "mse")
    keras_model.optimizer.build(keras_model.trainable_variables)
    model_files.save(keras_model, tmp_path, {})
    assert (tmp_path / "model.keras").stat().st_size < 1.05 * 4 * keras_model.count_params()
    assert_equal(
        tf.keras.models.load_model(tmp_path / "model.keras").get_weights(),
        keras_model.get_weights(),
    )


def test_a_form_that_cannot_take_the_model_is_said_and_the_others_are_written(tmp_path, caplog):
    """A table of a lookup layer is no obstacle to a server."""
    lookup = tf.keras.layers.IntegerLookup(vocabulary=[1, 2], output_mode="multi_hot")
    model = tf.keras.Sequential([tf.keras.Input([6], dtype=tf.int64), lookup, dense(3)])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    spec = tf.TensorSpec([None, 6], tf.int64), tf.TensorSpec([None], tf.int32)
    facts = other_forms.write(
        types.SimpleNamespace(build_loss=lambda: loss, input_spec=spec),
        model,
        Scope(),
        {"inner_learning_rate": 0.1, "steps": 2, "batch_size": 5},
        None,
        tmp_path,
        ("keras", "tflite", "savedmodel"),
    )
    (said,) = caplog.messages
    assert said == f"{tmp_path / 'adaptable.tflite'} is not written: {facts['tflite']['error']}"
    assert "because of a resource that is not a variable, such as a table" in said
    assert [path.name for path in tmp_path.iterdir()] == ["savedmodel"]
    assert facts["savedmodel"]["file"] == "savedmodel"


def test_an_unknown_form_is_one_sentence_before_any_data_is_loaded(capsys):
    assert run_experiment.main(["", "--export=keras,savedmodle", "--cache_dir=/nowhere"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("Error: --export must be one of: keras, ")
    assert "'savedmodel'?" in said


def test_keras_adapts_an_export_as_the_evaluation_did(tff_runtime, tmp_path):
    x, y = make_client(20, 3)
    trained = tff.learning.models.ModelWeights([w + 0.1 for w in initial_weights()], [])
    evaluate = fm.build_adaptation_eval(
        model_fn, inner_learning_rate=0.3, inner_steps=2, batch_size=10, split="ordered"
    )
    (measured,) = evaluate(trained, [fm.client_dataset(x, y)])

    model_files.save(fm.to_keras(make_keras_model(), trained), tmp_path, {})
    keras_model = tf.keras.models.load_model(tmp_path / "model.keras")
    keras_model.compile(
        tf.keras.optimizers.SGD(0.3),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
    )
    curve = [keras_model.evaluate(x[10:], y[10:], verbose=0)]
    for _ in range(2):
        keras_model.fit(x[:10], y[:10], batch_size=10, verbose=0)
        curve.append(keras_model.evaluate(x[10:], y[10:], verbose=0))
    np.testing.assert_allclose(np.stack([measured["loss"], measured["accuracy"]], 1), curve, 1e-5)
