import math

import numpy as np
import pytest
import tensorflow as tf

from tff_fedmeta.client import minibatches, support_query


def split(n, seed=(1, 2), **kwargs):
    """The examples 0 to n - 1 on each side."""
    sides = support_query.split_support_query(
        {"x": tf.range(n), "y": -tf.range(n)}, tf.constant(seed, tf.int64), **kwargs
    )
    for side, size in ((sides.support, sides.num_support), (sides.query, sides.num_query)):
        assert len(side["x"]) == size
        np.testing.assert_array_equal(side["y"], -side["x"])
    return sides.support["x"].numpy().tolist(), sides.query["x"].numpy().tolist()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.15, 0.29, 0.35, 0.5, 0.55, 0.7, 0.9, 0.99])
def test_support_has_the_rounded_share_and_both_sides_have_one(fraction):
    sizes = [len(split(n, support_fraction=fraction, split="ordered")[0]) for n in range(2, 51)]
    expected = [min(max(math.floor(fraction * n + 0.5), 1), n - 1) for n in range(2, 51)]
    assert sizes == expected


@pytest.mark.parametrize("kind", ["random", "ordered"])
@pytest.mark.parametrize("n", [2, 3, 10, 31])
def test_support_and_query_are_disjoint_and_complete(kind, n):
    support, query = split(n, support_fraction=0.3, split=kind)
    assert sorted(support + query) == list(range(n))


def test_ordered_support_comes_first():
    assert split(5, support_fraction=0.6, split="ordered") == ([0, 1, 2], [3, 4])


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("fraction", [0.1, 0.9])
def test_same_has_everything_on_both_sides(n, fraction):
    assert split(n, support_fraction=fraction, split="same") == (list(range(n)), list(range(n)))


@pytest.mark.parametrize("kind", ["random", "ordered"])
@pytest.mark.parametrize("n", [0, 1])
def test_too_small_a_client_has_nothing_on_either_side(kind, n):
    assert split(n, split=kind) == ([], [])


def test_the_random_split_is_a_function_of_the_seed():
    assert split(20, (3, 4)) == split(20, (3, 4))
    assert split(20, (3, 4)) != split(20, (3, 5)) != split(20, (4, 4)) != split(20, (3, 4))


def test_the_random_split_does_not_depend_on_the_data():
    seed = tf.constant([3, 4], tf.int64)
    sides = support_query.split_support_query(tf.range(100, 120), seed)
    assert (sides.support - 100).numpy().tolist() == split(20, (3, 4))[0]


def test_every_example_is_as_likely_in_support():
    counts = np.zeros(8)
    for i in range(200):
        counts[split(8, (i, 0), support_fraction=0.5)[0]] += 1
    # 100 expected, standard deviation 7.
    assert counts.min() > 70 and counts.max() < 130


def test_the_split_draws_other_numbers_than_the_training_order():
    seed = tf.constant([3, 4], tf.int64)
    training_seed = tf.random.experimental.stateless_fold_in(seed, minibatches.TRAINING_STREAM)
    support, query = split(20, (3, 4))
    for other in (seed, training_seed):
        assert support + query != minibatches.shuffled_orders(1, 20, other)[0].numpy().tolist()
