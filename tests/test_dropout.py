"""Dropout whose masks repeat."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import as_model_fn, assert_equal, dense, differ, make_client

import tff_fedmeta as fm
from tff_fedmeta.client.model_checks import refuse_stochastic_layers

X = tf.constant(np.random.default_rng(0).normal(size=[64, 50]), tf.float32)


def kept(layer, x=X):
    return np.asarray(layer(x, training=True)) != 0


def test_a_mask_is_a_function_of_what_it_masks():
    layer = fm.RepeatableDropout(0.3)
    mask = kept(layer)
    np.testing.assert_array_equal(kept(fm.RepeatableDropout(0.3)), mask)
    assert abs(mask.mean() - 0.7) < 4 * np.sqrt(0.3 * 0.7 / mask.size)
    np.testing.assert_allclose(np.asarray(layer(X, training=True))[mask], X[mask] / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(layer(X, training=False), X)
    for other in (kept(layer, X + 1e-3), kept(fm.RepeatableDropout(0.3, seed=1))):
        assert abs((other == mask).mean() - (0.7**2 + 0.3**2)) < 0.05  # as of independent masks


def test_a_rate_of_1_leaves_nothing_and_is_refused():
    with pytest.raises(ValueError, match="rate must be less than 1"):
        fm.RepeatableDropout(1.0)


def test_it_is_saved_with_its_model(tmp_path):
    model = tf.keras.Sequential([tf.keras.Input([50]), fm.RepeatableDropout(0.3, seed=2)])
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert (loaded.rate, loaded.seed) == (0.3, 2)


def build():
    layers = [dense(8, "tanh", seed=1), fm.RepeatableDropout(0.5), dense(3, seed=3)]
    return tf.keras.Sequential([tf.keras.Input([6]), *layers])


def test_rounds_with_it_repeat_to_the_bit_and_maml_takes_it():
    refuse_stochastic_layers(as_model_fn(build))
    clients = [fm.client_dataset(*make_client(n), seed=(1, n)) for n in (9, 12, 20, 7)]

    def weights_after_a_round(number_of_threads):
        with fm.local_runtime(num_threads=number_of_threads):
            process = fm.build_reptile(as_model_fn(build), inner_learning_rate=0.1, batch_size=4)
            state, _ = process.next(process.initialize(), clients)
            again, _ = process.next(process.initialize(), clients)
            found, repeated = (process.get_model_weights(s).trainable for s in (state, again))
            assert_equal(repeated, found)
            return found

    found = weights_after_a_round(2)
    assert_equal(weights_after_a_round(1), found)
    assert differ(found, build().get_weights())
