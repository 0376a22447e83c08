"""Which weights are of the last layers, and which of layers by name."""

import types

import pytest
import tensorflow as tf
from test_model_checks import FLAT, SEQUENCE, models, nested, subclassed  # noqa: F401

from tff_fedmeta.client.layers import (
    head_variables,
    local_variables,
    moving_variables,
    names_of,
    shared_variables,
)

layers = tf.keras.layers


def head(model_fn, head_layers):
    """The names of the head's variables."""
    with tf.Graph().as_default():
        model = model_fn()
        return [
            model.trainable_variables[i].name.split(":")[0]
            for i in head_variables(model, head_layers)
        ]


def test_the_head_is_counted_from_the_end():
    model_fn = models(lambda: layers.LSTM(4), layers.LayerNormalization, shape=SEQUENCE)
    dense = ["dense/kernel", "dense/bias"]
    norm = ["layer_normalization/gamma", "layer_normalization/beta"]
    lstm = [f"lstm/lstm_cell/{name}" for name in ("kernel", "recurrent_kernel", "bias")]
    assert [head(model_fn, n) for n in (1, 2, 3)] == [dense, norm + dense, lstm + norm + dense]


def test_a_frozen_layer_is_no_layer_of_the_head():
    model_fn = models(lambda: layers.Dense(4), lambda: layers.Dense(4, trainable=False))
    assert head(model_fn, 2) == ["dense/kernel", "dense/bias", "dense_2/kernel", "dense_2/bias"]


def test_a_subclassed_models_own_name_is_no_layer():
    assert head(subclassed(), 1) == ["own/last/kernel", "own/last/bias"]
    assert len(head(subclassed(), 2)) == 4


def test_a_nested_model_is_one_layer():
    model_fn = models(nested(lambda: layers.Dense(4), lambda: layers.Dense(4)))
    assert len(head(model_fn, 1)) == 2 and len(head(model_fn, 2)) == 6


def named(*names):
    return types.SimpleNamespace(
        trainable_variables=[types.SimpleNamespace(name=f"{name}:0") for name in names]
    )


@pytest.mark.parametrize(
    "names, one, all_layers",
    [
        (["lstm/cell/a", "lstm/cell/b"], [0, 1], 1),
        (["m/a/x", "m/b/x", "m/a/y"], [1], 2),
        (["m/x", "m/a/x", "m/b/x"], [2], 3),
        (["m/ab/x", "m/ac/x"], [1], 2),
    ],
)
def test_layers_are_told_apart_by_names(names, one, all_layers):
    assert head_variables(named(*names), 1) == one
    assert head_variables(named(*names), all_layers) == list(range(len(names)))
    with pytest.raises(ValueError, match=f"between 1 and {all_layers}, "):
        head_variables(named(*names), all_layers + 1)


@pytest.mark.parametrize("head_layers", [0, -1, 4, True, 1.0, "1", None])
def test_a_head_the_model_does_not_have_is_refused(head_layers):
    with pytest.raises(ValueError) as error:
        head_variables(named("conv2d/w", "dense/w", "dense_1/w"), head_layers)
    assert str(error.value) == (
        "head_layers must lie between 1 and 3, the layers that have weights "
        f"(conv2d, dense, dense_1), but is {head_layers!r}."
    )


THREE = named("conv2d/w", "dense/w", "dense/b", "dense_1/w")


def test_layers_by_name_go_before_the_head():
    assert local_variables(THREE, 1) == [3]
    assert local_variables(THREE, 1, ["dense"]) == [1, 2]
    assert local_variables(THREE, 1, ["dense_1", "conv2d", "conv2d"]) == [0, 3]
    assert shared_variables(THREE, 1, ["dense"]) == [0, 3]
    assert shared_variables(THREE, 2) == [0]


@pytest.mark.parametrize(
    "head_layers, names, message",
    [
        (1, ["dens"], "A layer of local_layers must be one of: conv2d, dense, dense_1; got 'dens'"),
        (3, [], "head_layers is 3, so that the head is the whole model.*give fewer"),
        (4, [], "head_layers must lie between 1 and 3"),
        (1, ["dense", "dense_1", "conv2d"], "the local part is the whole model.*name fewer"),
    ],
)
def test_a_local_part_that_cannot_be_is_refused(head_layers, names, message):
    with pytest.raises(ValueError, match=message):
        shared_variables(THREE, head_layers, names)


def test_what_adapts_does_not_depend_on_models_made_before():
    """Keras numbers layers on: the second model made in eager mode has a dense_2."""
    model_fn = models(lambda: layers.Dense(4))
    model_fn()
    for _ in range(2):
        assert moving_variables(model_fn, None, ["dense_1"]) == [2, 3]
    assert moving_variables(model_fn, None) == [0, 1, 2, 3]
    assert moving_variables(model_fn, 1) == [2, 3]


def test_names_are_a_list_or_a_text():
    assert names_of("a, b,") == ("a", "b") == names_of(["a", "b"])
    assert names_of("") == () == names_of(())
