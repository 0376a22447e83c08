"""How tasks are shared out: blocks of a power of two, so that each is a subtree of the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

# So many blocks a worker that the last one to end keeps the others waiting for a short time only.
PER_WORKER = 4
# How many sums a task merges: a power of two, because they are a subtree too.
FAN_IN = 8

T = TypeVar("T")


def size(num_tasks: int, num_workers: int, num_threads: int) -> int:
    """Returns how many tasks of a sum a block has; the sum's bits do not depend on it.

    Args:
      num_tasks: >= 0.
      num_workers: How many blocks are worked on at the same time, >= 1.
      num_threads: How many tasks a worker works on at the same time, >= 1.

    Returns:
      A power of two that gives each thread a task and each worker, where there are so many tasks,
      four to eight blocks; one or two to a worker that is alone, which nobody waits for.
    """
    fewest = num_workers * PER_WORKER if num_workers > 1 else 1
    block = 1
    while block < num_threads or num_tasks > 2 * fewest * block:
        block *= 2
    return block


def cut(items: Sequence[T], length: int) -> list[Sequence[T]]:
    """Returns the items in pieces of that length; the last one may be shorter."""
    return [items[first : first + length] for first in range(0, len(items), length)]
