"""An order of summation that any number of machines can share without changing a bit.

Values are the leaves of a binary tree whose shape depends on their number alone: neighbours are
added first, and a value without a neighbour waits for the next level. An aligned block of 2^k
values is a subtree, so it can be added up anywhere, at any time, to the same sum, which is then a
leaf of the tree of blocks. The error also grows with the logarithm of the number of values, not
with the number: see Higham, "The accuracy of floating point summation" (1993).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TreeSum(Generic[T]):
    """Adds up values in their order, and keeps as many sums as the tree has levels."""

    def __init__(self, merge: Callable[[T, T], T]):
        """Takes the function that adds two values, the left one first."""
        self._merge = merge
        self._sums: list[tuple[int, T]] = []  # (level, sum of 2^level values), the largest first

    def add(self, value: T) -> None:
        """Adds the next value."""
        level = 0
        while self._sums and self._sums[-1][0] == level:
            value = self._merge(self._sums.pop()[1], value)
            level += 1
        self._sums.append((level, value))

    def total(self) -> T | None:
        """Returns the sum of all values, None if there are none; nothing can be added after it."""
        if not self._sums:
            return None
        total = self._sums.pop()[1]
        while self._sums:
            total = self._merge(self._sums.pop()[1], total)
        return total
