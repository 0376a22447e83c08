import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_equal, dense, initial_weights, make_client, make_keras_model, model_fn

import tff_fedmeta as fm
from tff_fedmeta import export


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


def test_exports_open_in_a_fresh_process_unless_they_are_damaged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directories = [Path("one"), Path("two")]  # a relative path must be found from there, too
    x, _ = make_client(7)
    expected = {}
    for directory, make in zip(directories, (make_keras_model, normalized_model)):
        keras_model = make()
        expected[directory] = keras_model.predict(x, verbose=0)
        export.save(keras_model, directory, {"algorithm": "reptile"})
        assert json.loads((directory / "metadata.json").read_text()) == {"algorithm": "reptile"}
        assert {path.name for path in directory.iterdir()} == {"model.keras", "metadata.json"}
    export.verify(expected, x)

    file = directories[1] / "model.keras"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match="does not open"):
        export.verify(expected, x)


def test_an_export_that_predicts_something_else_is_refused(tmp_path):
    x, _ = make_client(7)
    keras_model = make_keras_model()
    export.save(keras_model, tmp_path, {})
    keras_model.set_weights([1.01 * weight for weight in initial_weights()])
    with pytest.raises(RuntimeError, match=f"{tmp_path}.* predicts something else"):
        export.verify({tmp_path: keras_model.predict(x, verbose=0)}, x)


def test_saving_again_replaces_the_export(tmp_path):
    for keras_model in (normalized_model(), make_keras_model()):
        export.save(keras_model, tmp_path, {"inputs": 6})
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded.get_weights(), initial_weights())


def test_keras_adapts_an_export_as_the_evaluation_did(tff_runtime, tmp_path):
    x, y = make_client(20, 3)
    trained = tff.learning.models.ModelWeights([w + 0.1 for w in initial_weights()], [])
    evaluate = fm.build_adaptation_eval(
        model_fn, inner_learning_rate=0.3, inner_steps=2, batch_size=10, split="ordered"
    )
    (measured,) = evaluate(trained, [fm.client_dataset(x, y)])

    export.save(fm.to_keras(make_keras_model(), trained), tmp_path, {})
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
