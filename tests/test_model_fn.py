import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import INPUT_SPEC, assert_equal, dense, make_keras_model

import tff_fedmeta as fm
from tff_fedmeta.client.model_fn import with_initial_weights

LOSS = functools.partial(tf.keras.losses.SparseCategoricalCrossentropy, from_logits=True)
SPEC = (INPUT_SPEC["x"], INPUT_SPEC["y"])


def accuracy():
    return [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")]


def pretrained():
    """Arrays that no initializer gives."""
    return [np.full_like(w, 0.5 + i) for i, w in enumerate(make_keras_model().get_weights())]


def initial(model_fn):
    """What a learning process starts from."""
    process = fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)
    return list(process.get_model_weights(process.initialize()).trainable)


def test_arrays_are_what_training_starts_from(tff_runtime):
    model_fn = fm.model_fn(make_keras_model, LOSS, accuracy, SPEC, pretrained())
    assert_equal(initial(model_fn), pretrained())


def test_a_file_is_what_training_starts_from(tff_runtime, tmp_path):
    model = make_keras_model()
    model.set_weights(pretrained())
    model.save(tmp_path / "base.keras")
    model_fn = fm.model_fn(make_keras_model, LOSS, accuracy, SPEC, tmp_path / "base.keras")
    assert_equal(initial(model_fn), pretrained())


def test_weights_set_while_building_count(tff_runtime):
    def build():
        model = make_keras_model()
        if tf.executing_eagerly():
            model.set_weights(pretrained())
        return model

    assert_equal(initial(fm.model_fn(build, LOSS(), accuracy(), SPEC)), pretrained())


def test_without_weights_all_builds_start_alike():
    build = with_initial_weights(
        lambda: tf.keras.Sequential([tf.keras.Input([3]), tf.keras.layers.Dense(2)])
    )
    first, second = build().get_weights(), build().get_weights()
    assert_equal(first, second)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = build().variables
        session.run([v.initializer for v in variables])
        assert_equal(session.run(variables), first)


def test_non_trainable_weights_are_kept():
    def build():
        layer = tf.keras.layers.Normalization()
        model = tf.keras.Sequential([tf.keras.Input([6]), layer, dense(3)])
        if tf.executing_eagerly():
            layer.adapt(np.arange(12.0).reshape(2, 6))
        return model

    expected = build().get_weights()
    assert expected[0][0] == 3.0  # the mean of 0 and 6
    assert_equal(with_initial_weights(build)().get_weights(), expected)


def test_every_model_has_metrics_of_its_own():
    shared = accuracy()
    make = fm.model_fn(make_keras_model, LOSS, shared, SPEC)
    with tf.Graph().as_default():
        names = [[v.name for v in make().local_variables] for _ in range(2)]
    assert len(names[0]) == len(names[1]) >= 2
    assert isinstance(make(), tff.learning.models.VariableModel)


@pytest.mark.parametrize(
    "weights, message",
    [
        ([], "initial_weights must be 4 arrays.*but are 0"),
        ([*pretrained()[:3], np.zeros(4)], r"\(3,\), but have \(4,\)"),
    ],
)
def test_arrays_of_another_model_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        fm.model_fn(make_keras_model, LOSS, accuracy, SPEC, weights)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="has no weights yet: begin it"):
        with_initial_weights(lambda: tf.keras.Sequential([tf.keras.layers.Dense(2)]))


def test_a_file_of_another_network_is_refused_by_layer(tmp_path):
    other = tf.keras.Sequential(
        [tf.keras.Input([6]), dense(9), tf.keras.layers.Dense(3, name="last"), dense(2)]
    )
    other.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"\(6, 9\).*last \[\(9, 3\).*missing in the model"):
        fm.model_fn(make_keras_model, LOSS, accuracy, SPEC, tmp_path / "other.keras")
