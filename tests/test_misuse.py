"""Misuses of the library: each is one sentence that names the fault, and nothing else changes."""

import collections
import warnings

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import make_keras_model, model_fn

import tff_fedmeta as fm
from tff_fedmeta.client import tracing
from tff_fedmeta.client.examination import examine
from tff_fedmeta.client.model_checks import ModelError

layers, losses = tf.keras.layers, tf.keras.losses
SPEC = collections.OrderedDict(x=tf.TensorSpec([None, 6]), y=tf.TensorSpec([None], tf.int32))


def as_tff(build, loss=None, metrics=None, spec=SPEC):
    return lambda: tff.learning.models.from_keras_model(
        build(),
        loss=loss or losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=metrics,
        input_spec=spec,
    )


def dense():
    return tf.keras.Sequential([tf.keras.Input([6]), layers.Dense(3)])


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(x)


def frozen():
    model = dense()
    model.trainable = False
    return model


def with_set_weights():
    model = dense()
    model.set_weights([np.ones([6, 3]), np.ones([3])])
    return model


def with_adapted_layer():
    normalize = layers.Normalization()
    normalize.adapt(np.ones([4, 6], np.float32))
    return tf.keras.Sequential([tf.keras.Input([6]), normalize, layers.Dense(3)])


def with_activity_regularizer():
    return tf.keras.Sequential(
        [tf.keras.Input([6]), layers.Dense(4, activity_regularizer="l2"), layers.Dense(3)]
    )


class OwnSum(losses.Loss):
    def __init__(self):
        super().__init__(reduction="none")

    def __call__(self, y_true, y_pred, sample_weight=None):
        labels = tf.one_hot(y_true, 3)
        return tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(labels, y_pred))


def crossentropy(reduction):
    return losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)


outside = dense()
MODELS = {
    "a Keras model": (lambda: dense(), TypeError, "is a model"),
    "a number": (lambda: 3, TypeError, "but is int"),
    "builds a Keras model": (lambda: dense, TypeError, "returns a Keras one"),
    "builds nothing": (lambda: lambda: None, TypeError, "returns NoneType"),
    "captures a model": (lambda: as_tff(lambda: outside), ModelError, "made outside"),
    "not built": (lambda: as_tff(Subclassed), ModelError, "no weights to learn"),
    "frozen": (lambda: as_tff(frozen), ModelError, "all of its 2 weights are frozen"),
    "weights set": (lambda: as_tff(with_set_weights), ModelError, "initial_weights="),
    "adapted": (lambda: as_tff(with_adapted_layer), ModelError, "adapted inside model_fn"),
    "sum": (lambda: as_tff(dense, crossentropy("sum")), ModelError, "mean over a batch"),
    "none": (lambda: as_tff(dense, crossentropy("none")), ModelError, "has shape"),
    "own sum": (lambda: as_tff(dense, OwnSum()), ModelError, "mean over a batch"),
    "late metric": (
        lambda: as_tff(
            dense,
            losses.CategoricalCrossentropy(from_logits=True),
            [tf.keras.metrics.F1Score()],
            (tf.TensorSpec([None, 6]), tf.TensorSpec([None, 3])),
        ),
        ModelError,
        "at its first call",
    ),
    "activity regularizer": (lambda: as_tff(with_activity_regularizer), ModelError, "add_loss"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_trained_is_one_sentence(name):
    make, kind, said = MODELS[name]
    with tracing.as_found(), pytest.raises(kind, match=said) as error:
        examine(make())
    assert "\n" not in str(error.value)


def kept_weights():
    return fm.model_fn(
        with_set_weights, losses.SparseCategoricalCrossentropy(from_logits=True), [], SPEC
    )


def masked_mean():
    def loss(y_true, y_pred):
        each = tf.keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        mask = tf.cast(y_true > 0, tf.float32)
        return tf.reduce_sum(each * mask) / tf.reduce_sum(mask)

    class Masked(losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return loss(y_true, y_pred)

    return as_tff(dense, Masked())


def regularized():
    return as_tff(
        lambda: tf.keras.Sequential(
            [tf.keras.Input([6]), layers.Dense(3, kernel_regularizer="l2"), layers.Dropout(0.5)]
        )
    )


@pytest.mark.parametrize("make", [lambda: model_fn, kept_weights, masked_mean, regularized])
def test_a_model_that_can_be_trained_passes(make):
    with tracing.as_found():
        examine(make())


@pytest.mark.parametrize(("from_logits", "softmax"), [(True, True), (False, True), (True, False)])
def test_probabilities_under_a_loss_of_logits_are_warned_of(from_logits, softmax):
    def build():
        return tf.keras.Sequential(
            [tf.keras.Input([6]), layers.Dense(3, "softmax" if softmax else None)]
        )

    loss = losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    with tracing.as_found(), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        examine(as_tff(build, loss))
    said = [str(warning.message) for warning in seen if "probabilities" in str(warning.message)]
    assert len(said) == (from_logits and softmax)


def test_eager_execution_must_be_on(monkeypatch):
    monkeypatch.setattr(tf.compat.v1, "executing_eagerly_outside_functions", lambda: False)
    with pytest.raises(ValueError, match="Eager execution is switched off"):
        fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)


ARGUMENTS = [
    (dict(server_optimizer=tf.keras.optimizers.SGD(1.0)), TypeError, "but is Keras' SGD"),
    (dict(server_optimizer=lambda: None), TypeError, "is a function; give what it should return"),
    (dict(inner_optimizer="adam"), TypeError, "inner_optimizer must be a tff.learning.optimizers"),
    (dict(model_aggregator="median"), TypeError, "fm.build_aggregator"),
    (dict(metrics_aggregator="secure"), TypeError, "metrics_aggregator must be a function"),
    (dict(client_weighting="examples"), TypeError, "must be a tff.learning.ClientWeighting"),
    (dict(shuffle="no"), TypeError, "shuffle must be True or False"),
    (dict(batchsize=3), TypeError, "Did you mean 'batch_size'"),
    (dict(inner_steps=2, inner_epochs=1), ValueError, "exclude each other"),
]


@pytest.mark.parametrize(("more", "kind", "said"), ARGUMENTS, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_is_one_sentence(more, kind, said):
    with pytest.raises(kind, match=said) as error:
        fm.build_reptile(model_fn, **{**dict(inner_learning_rate=0.1, batch_size=4), **more})
    assert "\n" not in str(error.value)


def test_a_missing_argument_is_one_sentence():
    with pytest.raises(TypeError, match=r"build_maml: missing a required.*'inner_learning_rate'"):
        fm.build_maml(model_fn, batch_size=4)


def test_keras_models_made_before_are_usable_after_tracing():
    model, own, x = make_keras_model(), Subclassed(), np.ones([2, 6], np.float32)
    before, own_before = model.predict(x, verbose=0), own.predict(x, verbose=0)
    fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    np.testing.assert_array_equal(own.predict(x, verbose=0), own_before)
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, np.zeros(2), verbose=0)


def test_functions_run_eagerly_change_no_figure(tff_runtime):
    x, y = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32), np.arange(9) % 3
    client = fm.client_dataset(x, y.astype(np.int32))
    weights = tff.learning.models.ModelWeights(make_keras_model().get_weights(), [])
    how = dict(inner_learning_rate=0.1, inner_steps=1, batch_size=4)
    expected = fm.build_adaptation_eval(model_fn, **how)(weights, [client])[0]["loss"]
    tf.config.run_functions_eagerly(True)
    try:
        found = fm.build_adaptation_eval(model_fn, **how)(weights, [client])[0]["loss"]
        assert tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)
    assert (expected > 0).all()
    np.testing.assert_array_equal(found, expected)


TABLE = pd.DataFrame({"age": [20, 30], "member": [True, False], "city": ["a", "b"], "y": [0, 1]})


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (TABLE[["age", "city"]], TABLE["y"], "they are mixed"),
        (tf.ragged.constant([[1, 2], [3]]), np.zeros(2), "RaggedTensor"),
        (tf.sparse.from_dense(np.eye(3)), np.zeros(3), "SparseTensor"),
        ([[1, 2], [3]], [0, 1], "different shapes"),
        ([np.zeros((9, 1)), np.zeros((9, 2))], np.zeros(9), "tuple or a dict"),
        (np.zeros((9, 2)), None, "give labels"),
    ],
)
def test_data_that_are_no_arrays_are_one_sentence(x, y, said):
    with pytest.raises(ValueError, match=said) as error:
        fm.client_dataset(x, y)
    assert "\n" not in str(error.value)


def test_numbers_and_truth_values_of_a_table_become_numbers():
    client = fm.client_dataset(TABLE[["age", "member"]], TABLE["y"]).get_single_element()
    np.testing.assert_array_equal(client["x"], [[20, 1], [30, 0]])
    assert client["x"].dtype == tf.float32
