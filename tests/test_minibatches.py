import numpy as np
import pytest
import tensorflow as tf

from tff_fedmeta.client import minibatches


def plan(n, seed=(1, 2), **kwargs):
    return minibatches.plan_minibatches(tf.constant(n), tf.constant(seed, tf.int64), **kwargs)


def steps(n, seed=(1, 2), **kwargs):
    """The examples each step sees, as lists."""
    planned = plan(n, seed, **kwargs)
    return [planned.indices(step).numpy().tolist() for step in range(int(planned.num_steps))]


@pytest.mark.parametrize(
    "n, batch_size, budget, expected",
    [
        (5, 2, dict(inner_epochs=1), [[0, 1], [2, 3], [4]]),
        (4, 2, dict(inner_epochs=2), [[0, 1], [2, 3], [0, 1], [2, 3]]),
        (3, 9, dict(inner_epochs=2), [[0, 1, 2], [0, 1, 2]]),
        (3, 1, dict(inner_epochs=1), [[0], [1], [2]]),
        (5, 2, dict(inner_steps=5), [[0, 1], [2, 3], [4], [0, 1], [2, 3]]),
        (5, 2, dict(inner_steps=2), [[0, 1], [2, 3]]),
        (1, 4, dict(inner_steps=3), [[0], [0], [0]]),
        (5, 2, dict(inner_epochs=0), []),
        (5, 2, dict(inner_steps=0), []),
        (0, 2, dict(inner_epochs=3), []),
        (0, 2, dict(inner_steps=3), []),
    ],
)
def test_unshuffled_steps_walk_the_order_given(n, batch_size, budget, expected):
    assert steps(n, batch_size=batch_size, shuffle=False, **budget) == expected


@pytest.mark.parametrize("n, batch_size, batches", [(0, 2, 0), (1, 2, 1), (4, 2, 2), (5, 2, 3)])
def test_an_epoch_has_as_many_steps_as_batches(n, batch_size, batches):
    assert plan(n, batch_size=batch_size, inner_epochs=1).steps_per_epoch == batches


@pytest.mark.parametrize("budget", [dict(inner_epochs=4), dict(inner_steps=16)])
def test_each_shuffled_epoch_is_another_permutation(budget):
    walked = steps(23, batch_size=6, **budget)
    assert [len(batch) for batch in walked] == [6, 6, 6, 5] * 4
    epochs = np.concatenate(walked).reshape(4, 23)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), [range(23)] * 4)
    assert len({tuple(epoch) for epoch in [*epochs, np.arange(23)]}) == 5


def test_the_order_is_a_function_of_the_seed():
    def walked(seed):
        return steps(20, seed, batch_size=6, inner_epochs=2)

    assert walked((3, 4)) == walked((3, 4))
    assert walked((3, 4)) != walked((3, 5)) != walked((4, 4)) != walked((3, 4))


def test_all_permutations_are_equally_likely():
    orders = minibatches.shuffled_orders(6000, tf.constant(3), tf.constant([1, 2], tf.int64))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    # 1000 expected, standard deviation 29.
    assert len(counts) == 6 and counts.min() > 870 and counts.max() < 1130


def test_examples_are_gathered_from_every_tensor():
    examples = {"x": tf.constant([[0, 0], [1, 1], [2, 2]]), "y": tf.constant([10, 11, 12])}
    gathered = minibatches.gather_examples(examples, tf.constant([2, 0]))
    assert gathered["x"].numpy().tolist() == [[2, 2], [0, 0]]
    assert gathered["y"].numpy().tolist() == [12, 10]
    assert minibatches.count_examples(examples) == 3
