"""The order of summation: its shape, its bits when it is shared out, and its accuracy."""

import math

import numpy as np
import pytest

from tff_fedmeta.runtime.tree_sum import TreeSum


def tree_sum(values, merge=lambda one, other: one + other):
    total = TreeSum(merge)
    for value in values:
        total.add(value)
    return total.total()


def bracketed(one, other):
    return f"({one}{other})"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("", None),
        ("a", "a"),
        ("ab", "(ab)"),
        ("abc", "((ab)c)"),
        ("abcd", "((ab)(cd))"),
        ("abcdefg", "(((ab)(cd))((ef)g))"),
        ("abcdefghi", "((((ab)(cd))((ef)(gh)))i)"),
    ],
)
def test_neighbours_are_added_first(values, expected):
    assert tree_sum(values, bracketed) == expected


@pytest.mark.parametrize("block", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("fan_in", [2, 4, 8])
def test_blocks_of_a_power_of_two_and_their_sums_make_the_same_tree(block, fan_in):
    for count in (*range(1, 40), 100, 333):
        values = [f"{n}," for n in range(count)]
        sums = [tree_sum(values[i : i + block], bracketed) for i in range(0, count, block)]
        while len(sums) > 1:
            sums = [tree_sum(sums[i : i + fan_in], bracketed) for i in range(0, len(sums), fan_in)]
        assert sums == [tree_sum(values, bracketed)]


def test_other_blocks_make_other_trees():
    values = "abcdef"
    assert tree_sum([tree_sum("abc", bracketed), tree_sum("def", bracketed)], bracketed) != (
        tree_sum(values, bracketed)
    )


def test_keeps_as_many_sums_as_the_tree_has_levels():
    total = TreeSum(lambda one, other: one + other)
    most = 0
    for number in range(1000):
        total.add(number)
        most = max(most, len(total._sums))
    assert most <= 10 and total.total() == 999 * 500


def test_is_more_accurate_than_a_chain():
    values = np.random.default_rng(0).uniform(size=100_000).astype(np.float32)
    exact = math.fsum(values.tolist())
    chain = np.float32(0)
    for value in values:
        chain += value
    assert abs(tree_sum(values) - exact) / exact < 2e-7 < abs(chain - exact) / exact
