import collections

import numpy as np
import pytest
import tensorflow as tf

from tff_fedmeta import seeds
from tff_fedmeta.client import data as client_data


def test_a_client_is_one_element_with_all_examples():
    x, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 2], np.int32)
    (element,) = client_data.client_dataset(x, y, seed=(4, -5))
    assert list(element) == ["x", "y", "seed"]
    np.testing.assert_array_equal(element["x"], x)
    np.testing.assert_array_equal(element["y"], y)
    np.testing.assert_array_equal(element["seed"], [4, -5])
    assert (element["x"].dtype, element["y"].dtype) == (tf.float32, tf.int32)
    assert element["seed"].dtype == tf.int64


@pytest.mark.parametrize(
    "given, kept",
    [
        (np.float64, np.float32),
        (np.float32, np.float32),
        (np.float16, np.float16),
        (np.int64, np.int64),
        (np.uint8, np.uint8),
    ],
)
def test_float64_alone_changes_its_type(given, kept):
    (element,) = client_data.client_dataset(np.zeros([2, 3], given), np.zeros(2, given))
    assert element["x"].dtype == element["y"].dtype == kept


def test_x_and_y_may_be_structures():
    x = collections.OrderedDict(a=np.array([1.0, 2.0]), b=np.array([[1], [2]]))
    (element,) = client_data.client_dataset(x, (np.array([3, 4]), np.array([5, 6])))
    np.testing.assert_array_equal(element["x"]["b"], [[1], [2]])
    assert element["x"]["a"].dtype == tf.float32
    np.testing.assert_array_equal(element["y"][1], [5, 6])


def test_a_client_may_be_empty():
    (element,) = client_data.client_dataset(np.zeros([0, 3]), np.zeros([0], np.int32))
    assert element["x"].shape == (0, 3)


ONE = np.ones(1)


@pytest.mark.parametrize(
    "x, y, seed, message",
    [
        (ONE, np.ones(3), (0, 0), r"equally many examples, but got lengths \[1, 3\]"),
        ({"a": ONE, "b": np.ones(2)}, ONE, (0, 0), r"lengths \[1, 2\]"),
        (1.0, ONE, (0, 0), "scalar"),
        (ONE, 1, (0, 0), "scalar"),
        (ONE, ONE, (0,), r"seed must be two integers, but got shape \(1,\)"),
        (ONE, ONE, 7, r"seed must be two integers, but got shape \(\)"),
    ],
)
def test_what_is_no_client_is_refused(x, y, seed, message):
    with pytest.raises(ValueError, match=message):
        client_data.client_dataset(x, y, seed)


X = tf.TensorSpec([None, 6], tf.float32)
Y = tf.TensorSpec([None], tf.int32)


@pytest.mark.parametrize("input_spec", [{"x": X, "y": Y}, {"y": Y, "x": X}, (X, Y), [X, Y]])
def test_a_models_input_spec_is_a_mapping_or_a_pair(input_spec):
    spec = client_data.element_spec(input_spec)
    assert list(spec.items()) == [("x", X), ("y", Y), ("seed", tf.TensorSpec([2], tf.int64))]


@pytest.mark.parametrize(
    "input_spec, message",
    [
        ((tf.TensorSpec([20, 6]), Y), "batch dimension None"),
        ((X, tf.TensorSpec([])), "batch dimension None"),
        ((tf.TensorSpec(None), Y), "batch dimension None"),
        ({"x": X, "label": Y}, "a mapping with x and y or a pair"),
        ((X, Y, Y), "a mapping with x and y or a pair"),
        (X, "a mapping with x and y or a pair"),
    ],
)
def test_other_input_specs_are_refused(input_spec, message):
    with pytest.raises(ValueError, match=message):
        client_data.element_spec(input_spec)


def test_a_streams_seed_is_the_same_in_every_program():
    assert seeds.stream_seed(1, "local_training", 2, "ann") == (
        3958968455101706427,
        -6337644165759962252,
    )


def test_streams_have_seeds_of_their_own():
    streams = [
        (seed, name, round_num, client)
        for seed in (0, 1)
        for name in ("training", "split")
        for round_num in range(20)
        for client in ("1", "11", 1)
    ]
    halves = [half for stream in streams for half in seeds.stream_seed(*stream)]
    assert len(set(halves)) == 2 * len(streams)
    assert all(-(2**63) <= half < 2**63 for half in halves)
    assert min(halves) < -(2**62) and max(halves) > 2**62


def test_the_int_of_a_stream_fits_31_bits():
    ints = [seeds.stream_seed_int(0, "init", i) for i in range(100)]
    assert len(set(ints)) == 100
    assert min(ints) >= 0 and 2**30 < max(ints) < 2**31


def test_a_client_is_read_once_while_it_is_kept():
    reads = []
    read = client_data.cached_reader(lambda client: (reads.append(client), client), max_clients=2)
    assert [read(client)[1] for client in "abab"] == list("abab")
    assert reads == ["a", "b"]
    read("c")  # takes the place of a, the least recently used
    read("b")
    read("a")
    assert reads == ["a", "b", "c", "a"]
