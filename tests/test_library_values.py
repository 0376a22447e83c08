"""What users may fairly expect of any Keras model: right values, or one sentence of ours."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from conftest import INPUT_SPEC, as_model_fn, assert_close, dense, make_client, make_keras_model
from conftest import model_fn as plain_model_fn

import tff_fedmeta as fm
from tff_fedmeta.client import second_derivatives
from tff_fedmeta.client.model_checks import ModelError

layers, losses, keras_metrics = tf.keras.layers, tf.keras.losses, tf.keras.metrics
X, Y = make_client(9)
STEP = dict(inner_learning_rate=0.1, batch_size=100, inner_steps=1)


def moved(process, client):
    """How far a round with one client moves each weight."""
    state = process.initialize()
    before = process.get_model_weights(state).trainable
    after, metrics = process.next(state, [client])
    now = process.get_model_weights(after).trainable
    return [b - a for a, b in zip(before, now)], metrics["client_work"]


def gradient(model, loss, x, y):
    with tf.GradientTape() as tape:
        value = loss(y, model(x))
        if model.losses:
            value += tf.add_n(model.losses)
    return [g.numpy() for g in tape.gradient(value, model.trainable_variables)]


ONE_EPOCH = dict(inner_learning_rate=0.1, batch_size=100)


# --- float64 ---------------------------------------------------------------------------------

SPEC64 = collections.OrderedDict(
    x=tf.TensorSpec([None, 6], tf.float64), y=tf.TensorSpec([None], tf.int32)
)


def float64_model():
    model = tf.keras.Sequential([tf.keras.Input([6], dtype=tf.float64)])
    for units, activation in ((8, "tanh"), (3, None)):
        initializer = tf.keras.initializers.RandomNormal(stddev=0.5, seed=units)
        model.add(layers.Dense(units, activation, True, initializer, dtype=tf.float64))
    return model


def test_a_float64_model_is_trained_in_float64(tff_runtime):
    client = fm.client_dataset(X.astype(np.float64), Y.astype(np.int64), input_spec=SPEC64)
    found, _ = moved(fm.build_fedavg(as_model_fn(float64_model, SPEC64), **STEP), client)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = gradient(float64_model(), loss, X.astype(np.float64), Y)
    rate = float(np.float32(0.1))  # a rate is a float32, whatever the weights are
    assert_close(found, [-rate * g for g in expected], 1e-12)


def test_federated_sgd_says_that_it_is_of_float32():
    with pytest.raises(ModelError, match=r"computes in float32, .* weights of float64: use"):
        fm.build_fedsgd(as_model_fn(float64_model, SPEC64), batch_size=9)


def test_input_spec_converts_what_does_not_change():
    client = fm.client_dataset(X.tolist(), Y.astype(float), input_spec=INPUT_SPEC)
    element = client.get_single_element()
    assert (element["x"].dtype, element["y"].dtype) == (tf.float32, tf.int32)
    with pytest.raises(ValueError, match="int32, but an array of float64 has numbers that"):
        fm.client_dataset(X, Y + 0.5, input_spec=INPUT_SPEC)
    with pytest.raises(ValueError, match="the structure of input_spec"):
        fm.client_dataset({"a": X, "b": X}, Y, input_spec=INPUT_SPEC)


def test_float64_as_keras_default_is_kept():
    tf.keras.backend.set_floatx("float64")
    try:
        client = fm.client_dataset(X.astype(np.float64), Y)
    finally:
        tf.keras.backend.set_floatx("float32")
    assert client.element_spec["x"].dtype == tf.float64


# --- metrics that build late, losses that layers add -----------------------------------------


def test_metrics_that_build_late_are_those_of_keras(tff_runtime):
    def metrics():
        return [
            keras_metrics.F1Score(name="f1"),
            keras_metrics.AUC(multi_label=True, from_logits=True, name="auc"),
            keras_metrics.R2Score(name="r2"),
        ]

    def build():
        return tf.keras.Sequential([tf.keras.Input([6]), dense(3)])

    labels = np.eye(3, dtype=np.float32)[Y]
    spec = (tf.TensorSpec([None, 6]), tf.TensorSpec([None, 3]))
    model_fn = fm.model_fn(build, losses.MeanSquaredError(), metrics, spec)
    process = fm.build_reptile(model_fn, **{**STEP, "inner_learning_rate": 0.0})
    halves = [fm.client_dataset(X[part], labels[part]) for part in (slice(0, 4), slice(4, 9))]
    _, measured = process.next(process.initialize(), halves)
    for metric in metrics():
        metric.update_state(labels, build()(X))
        found = measured["client_work"]["train"][metric.name]
        np.testing.assert_allclose(found, metric.result(), rtol=1e-5)


class Penalty(layers.Layer):
    def call(self, x):
        self.add_loss(0.5 * tf.reduce_mean(x**2))
        return x


def test_losses_that_layers_add_are_trained_on(tff_runtime):
    def build():
        first = dense(8, "tanh", seed=1)
        first.activity_regularizer = tf.keras.regularizers.L2(0.3)
        return tf.keras.Sequential([tf.keras.Input([6]), first, Penalty(), dense(3, seed=3)])

    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model_fn = fm.model_fn(build, loss, [], INPUT_SPEC)
    found, _ = moved(fm.build_reptile(model_fn, **STEP), fm.client_dataset(X, Y))
    expected = gradient(build(), loss, X, Y)
    assert_close(found, [-0.1 * g for g in expected])
    assert np.abs(gradient(make_keras_model(), loss, X, Y)[0] - expected[0]).max() > 1e-3


# --- second derivatives ----------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_resizing_has_the_second_derivative_of_the_matrix_it_is(interpolation):
    second_derivatives.register()
    resize = layers.UpSampling2D(2, interpolation=interpolation)
    images = tf.reshape(tf.eye(9), [9, 3, 3, 1])
    matrix = tf.reshape(resize(images), [9, 36])
    x = tf.constant(np.random.default_rng(0).normal(size=[1, 9]), tf.float32)

    def hessian_product(enlarge):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = tf.reduce_sum(tf.sin(enlarge(x)))
            slope = tf.reduce_sum(inner.gradient(value, x) ** 2)
        return outer.gradient(slope, x)

    found = hessian_product(lambda x: tf.reshape(resize(tf.reshape(x, [1, 3, 3, 1])), [1, 36]))
    np.testing.assert_allclose(found, hessian_product(lambda x: x @ matrix), rtol=1e-4, atol=1e-5)


def test_a_layer_without_a_second_derivative_is_one_sentence():
    def build():
        cubic = layers.UpSampling2D(2, interpolation="bicubic")
        return tf.keras.Sequential(
            [tf.keras.Input([6]), layers.Reshape([2, 3, 1]), cubic, layers.Flatten(), dense(3)]
        )

    with pytest.raises(ModelError, match="second derivative of a layer of the model") as error:
        fm.build_maml(as_model_fn(body_before(build)), inner_learning_rate=0.1, batch_size=4)
    assert "\n" not in str(error.value) and "ResizeBicubicGrad" in str(error.value)


def body_before(build):
    """Puts a layer with weights before a model, so that it is differentiated through."""
    return lambda: tf.keras.Sequential([tf.keras.Input([6]), dense(6, "tanh"), build()])


# --- weights of clients ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["given", "function"])
def test_clients_count_as_much_as_they_say(how, tff_runtime):
    own = {"given": "given", "function": lambda x, y: tf.reduce_sum(tf.cast(y, tf.float32))}[how]
    process = fm.build_reptile(plain_model_fn, client_weighting=own, **STEP)
    data = [make_client(n) for n in (5, 9)]
    weights = [float(y.sum()) for _, y in data]
    more = [{"weight": weight} if how == "given" else {} for weight in weights]
    clients = [fm.client_dataset(x, y, **given) for (x, y), given in zip(data, more)]
    state = process.initialize()
    before, *after = (
        process.get_model_weights(reached).trainable
        for reached in (state, *(process.next(state, [c])[0] for c in clients))
    )
    both = process.get_model_weights(process.next(state, clients)[0]).trainable
    share = weights[0] / sum(weights)
    assert 0.1 < share < 0.45
    expected = [share * one + (1 - share) * other for one, other in zip(*after)]
    assert_close(both, expected)
    assert np.abs(both[0] - before[0]).max() > 1e-3


def test_a_weight_that_cannot_be_is_one_sentence():
    with pytest.raises(ValueError, match="weight must be >= 0, but is -1"):
        fm.client_dataset(X, Y, weight=-1)
    with pytest.raises(TypeError, match="TFF's FedAvg weighs clients by"):
        fm.build_fedavg(plain_model_fn, client_weighting="given", **ONE_EPOCH)
    with pytest.raises(TypeError, match='"given" or a function of x and y, but is 3'):
        fm.build_reptile(plain_model_fn, client_weighting=3, **ONE_EPOCH)


# --- processes and runtimes ------------------------------------------------------------------


@pytest.fixture(scope="module")
def process(tff_runtime):
    return fm.build_reptile(plain_model_fn, inner_learning_rate=0.1, batch_size=4)


@pytest.fixture(scope="module")
def state(process):
    return process.initialize()


def test_metrics_of_nobody_are_nan_and_not_0(process, state):
    broken = fm.client_dataset(X * np.float32("nan"), Y)
    after, measured = process.next(state, [broken, broken])
    train, clients = (measured["client_work"][name] for name in ("train", "clients"))
    assert np.isnan([train["loss"], train["accuracy"]]).all()
    assert clients["non_finite"] == 2 and train["num_examples"] == 0
    assert_close(
        process.get_model_weights(after).trainable, process.get_model_weights(state).trainable, 0
    )


CLIENT = fm.client_dataset(X, Y)
BATCHES = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=X, y=Y)).batch(4)
MISUSES = {
    "no state": (lambda p, s: p.next(None, [CLIENT]), TypeError, "None is not what this"),
    "weights": (
        lambda p, s: p.next(p.get_model_weights(s), [CLIENT]),
        TypeError,
        "A value of ModelWeights is not what this",
    ),
    "a number": (lambda p, s: p.get_model_weights(3), TypeError, "A value of int is not"),
    "other state": (
        lambda p, s: p.next([np.zeros(3)], [CLIENT]),
        TypeError,
        "give the state that initialize",
    ),
    "repeated": (lambda p, s: p.next(s, [CLIENT.repeat(3)]), ValueError, "one has several"),
    "empty": (lambda p, s: p.next(s, [CLIENT.take(0)]), ValueError, "one has none"),
    "arrays": (lambda p, s: p.next(s, [(X, Y)]), TypeError, "must be a tf.data.Dataset"),
    "batches": (lambda p, s: p.next(s, [BATCHES]), TypeError, "fm.client_dataset_from"),
    "labels": (
        lambda p, s: p.next(s, [fm.client_dataset(X, Y.astype(np.int64))]),
        TypeError,
        r"y: int64 \[9\].*but the model takes .*y: int32 \[n\]",
    ),
    "width": (
        lambda p, s: p.next(s, [fm.client_dataset(X[:, :3], Y)]),
        TypeError,
        r"x: float32 \[9, 3\]",
    ),
    "one client": (lambda p, s: p.next(s, CLIENT), TypeError, "a list with a value for each"),
    "Keras of a state": (
        lambda p, s: fm.to_keras(make_keras_model(), s),
        TypeError,
        "but is the state of a process",
    ),
    "Keras of None": (lambda p, s: fm.to_keras(make_keras_model(), None), TypeError, "is None"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_of_a_process_is_one_sentence(name, process, state):
    misuse, kind, said = MISUSES[name]
    with pytest.raises(kind, match=said) as error:
        misuse(process, state)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("threads", [0, 1.5, "2", True])
def test_threads_are_counted_in_whole_numbers(threads):
    with pytest.raises(ValueError, match="a whole number"), fm.local_runtime(num_threads=threads):
        pass


def test_a_runtime_is_entered_once_and_closed_at_its_end(process):
    block = fm.local_runtime(num_threads=1)
    with block as context:
        pass
    with pytest.raises(ValueError, match=r"entered once.*call local_runtime\(\) again"), block:
        pass
    with pytest.raises(ValueError, match="This runtime is closed"):
        context.invoke(process.initialize, None)
