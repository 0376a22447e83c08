import collections

import pytest
import tensorflow as tf
from conftest import as_model_fn

from tff_fedmeta.client.model_checks import (
    refuse_moving_statistics,
    refuse_stochastic_layers,
)

layers = tf.keras.layers
FLAT, SEQUENCE, IMAGE = (6,), (5, 2), (8, 8, 2)


def models(*make_layers, shape=FLAT, dtype=tf.float32, spec_as=collections.OrderedDict):
    """The model_fn of a Sequential: an input, the layers (functions that make them), Dense 3."""

    def make_keras_model():
        made = [make_layer() for make_layer in make_layers]
        last = [layers.Flatten(), layers.Dense(3)]
        return tf.keras.Sequential([tf.keras.Input(shape, dtype=dtype), *made, *last])

    spec = [("x", tf.TensorSpec([None, *shape], dtype)), ("y", tf.TensorSpec([None], tf.int32))]
    is_tuple = spec_as is tuple
    return as_model_fn(make_keras_model, tuple(s for _, s in spec) if is_tuple else spec_as(spec))


def nested(*make_layers, trainable=True):
    def make_block():
        block = tf.keras.Sequential([make() for make in make_layers], name="block")
        block.trainable = trainable
        return block

    return make_block


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.first = layers.Dense(4, name="first")
        self.noise = layers.Dropout(0.5, name="noise")
        self.norm = layers.BatchNormalization(name="norm")
        self.last = layers.Dense(3, name="last")

    def call(self, x, training=None):
        x = self.noise(self.first(x), training=training)
        return self.last(self.norm(x, training=training))


def subclassed():
    def make_keras_model():
        model = Subclassed()
        model(tf.zeros([1, 6]))
        return model

    return as_model_fn(make_keras_model)


class Inside(layers.Layer):
    """Counts, or draws from a tf.random.Generator, deep within functions, loops and branches."""

    def __init__(self, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what

    def build(self, _):
        self.count = self.add_weight("count", (), tf.int32, "zeros", trainable=False)
        self.generator = tf.random.Generator.from_seed(1)

    @tf.function
    def call(self, x):
        for i in tf.range(2):
            if tf.reduce_sum(x) > 0:
                x += tf.switch_case(i, [lambda: 1.0, self.value])
        return x

    def value(self):
        if self.what == "count":
            return tf.cast(self.count.assign_add(1), tf.float32)
        return self.generator.normal([]) if self.what == "draw" else tf.cast(self.count, tf.float32)


DETERMINISTIC = {
    "dense": models(),
    "tuple": models(spec_as=tuple),
    "convolution": models(lambda: layers.Conv2D(2, 3), layers.MaxPool2D, shape=IMAGE),
    "lstm": models(lambda: layers.LSTM(4), shape=SEQUENCE),
    "embedding": models(
        lambda: layers.Embedding(9, 3, mask_zero=True),
        lambda: layers.LSTM(4),
        shape=(5,),
        dtype=tf.int32,
        spec_as=tuple,
    ),
    "other normalisations": models(
        lambda: layers.GroupNormalization(2), layers.LayerNormalization, shape=IMAGE
    ),
    "frozen": models(lambda: layers.BatchNormalization(trainable=False)),
    "frozen block": models(nested(layers.BatchNormalization, trainable=False)),
    "no rate": models(lambda: layers.Dropout(0.0), lambda: layers.Dropout(0)),
    "functions": models(lambda: Inside("nothing")),
    "stateless": models(
        lambda: layers.Lambda(lambda x: x + tf.random.stateless_normal([6], [1, 2]))
    ),
}

# name -> (model_fn, the layers that a message must name)
MOVING = {
    "dense": (models(layers.BatchNormalization), "batch_normalization"),
    "tuple": (models(layers.BatchNormalization, spec_as=tuple), "batch_normalization"),
    "two": (
        models(
            lambda: layers.BatchNormalization(name="one"),
            lambda: layers.BatchNormalization(name="frozen", trainable=False),
            lambda: layers.BatchNormalization(name="other"),
        ),
        "one, other",
    ),
    "fused": (
        models(
            lambda: layers.Conv2D(2, 3), lambda: layers.BatchNormalization(name="bn"), shape=IMAGE
        ),
        "bn",
    ),
    "embedding": (
        models(
            lambda: layers.Embedding(9, 3), layers.BatchNormalization, shape=(5,), dtype=tf.int32
        ),
        "batch_normalization",
    ),
    "nested": (
        models(nested(lambda: layers.Dense(4), layers.BatchNormalization)),
        "block/batch_normalization",
    ),
    "subclassed": (subclassed(), "own/norm"),
    "functions": (models(lambda: Inside("count", name="counter")), "counter"),
}

STOCHASTIC = {
    "dropout": (models(lambda: layers.Dropout(0.5, name="mine")), "sequential/mine"),
    "tuple": (models(lambda: layers.Dropout(0.5), spec_as=tuple), "sequential/dropout"),
    "seeded": (models(lambda: layers.Dropout(0.5, seed=1)), "sequential/dropout"),
    "two": (
        models(lambda: layers.Dropout(0.1), lambda: layers.Dropout(0.2)),
        "sequential/dropout, sequential/dropout_1",
    ),
    "noise": (models(lambda: layers.GaussianNoise(0.1)), "sequential/gaussian_noise"),
    "spatial": (
        models(
            lambda: layers.Embedding(9, 3),
            lambda: layers.SpatialDropout1D(0.5),
            shape=(5,),
            dtype=tf.int32,
        ),
        "sequential/spatial_dropout1d",
    ),
    "lstm": (
        models(lambda: layers.LSTM(4, dropout=0.5), shape=SEQUENCE),
        "sequential/lstm/lstm_cell",
    ),
    "recurrent": (
        models(lambda: layers.LSTM(4, recurrent_dropout=0.5, name="mine"), shape=SEQUENCE),
        "sequential/mine/lstm_cell",
    ),
    "flip": (
        models(lambda: layers.RandomFlip("vertical", name="mine"), shape=IMAGE),
        "sequential/mine/random_flip_up_down",
    ),
    "nested": (
        models(nested(lambda: layers.Dropout(0.5, name="mine"))),
        "sequential/block/mine",
    ),
    "subclassed": (subclassed(), "own/noise"),
    "shuffle": (
        models(lambda: layers.Lambda(tf.random.shuffle, name="mine")),
        "sequential/mine",
    ),
    "functions": (models(lambda: Inside("draw", name="mine")), "sequential/mine/switch_case"),
}


@pytest.mark.parametrize("model_fn", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_a_model_that_repeats_itself_passes(model_fn):
    refuse_moving_statistics(model_fn)
    refuse_stochastic_layers(model_fn)


@pytest.mark.parametrize("model_fn, names", MOVING.values(), ids=MOVING)
def test_moving_statistics_are_refused_by_layer(model_fn, names):
    with pytest.raises(ValueError, match=f"other state of {names}: .*GroupNorm.*trainable=False"):
        refuse_moving_statistics(model_fn)


@pytest.mark.parametrize("model_fn, names", STOCHASTIC.values(), ids=STOCHASTIC)
def test_random_numbers_are_refused_by_layer(model_fn, names):
    with pytest.raises(ValueError, match=f"random numbers in {names}: .*first_order=True"):
        refuse_stochastic_layers(model_fn)


def test_each_check_minds_its_own_business():
    refuse_moving_statistics(STOCHASTIC["dropout"][0])
    refuse_stochastic_layers(MOVING["dense"][0])
    refuse_stochastic_layers(MOVING["functions"][0])


def test_the_callers_graph_stays_empty():
    with tf.Graph().as_default() as graph:
        refuse_moving_statistics(DETERMINISTIC["dense"])
        refuse_stochastic_layers(DETERMINISTIC["dense"])
        assert tf.compat.v1.get_default_graph() is graph and not graph.get_operations()
