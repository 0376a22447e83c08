"""What a worker's process does: opens works once, and computes blocks of tasks on its threads.

Nothing here imports TensorFlow Federated. Every function is a pure function of its arguments: what
is lost with a process can be computed again in another one.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from tff_fedmeta.runtime.cluster.parcel import Parcel
from tff_fedmeta.runtime.engine import ThreadEngine
from tff_fedmeta.runtime.tree_sum import TreeSum

Context = Sequence[np.ndarray]
Fetch = Callable[[], bytes]  # returns a definition's content

# Works that are kept ready, by their keys: an experiment's algorithm has about ten.
_MOST_WORKS = 24
_works: collections.OrderedDict[str, tuple[type, tuple, Any]] = collections.OrderedDict()
_engines: dict[int, ThreadEngine] = {}


def add_up(key: str, fetch: Fetch, num_threads: int, context: Context, block: Parcel) -> Any:
    """Returns the sums over a block of a cohort."""
    return engine(num_threads).reduce(_work(key, fetch, context), block.open())


def merge(key: str, fetch: Fetch, num_threads: int, *sums: Sequence[np.ndarray]) -> Any:
    """Returns the sum of neighbouring blocks' sums."""
    del num_threads
    total: TreeSum[Any] = TreeSum(_work(key, fetch, ()).merge)
    for part in sums:
        total.add(part)
    return total.total()


def compute_each(
    key: str, fetch: Fetch, num_threads: int, context: Context, block: Parcel
) -> list[Any]:
    """Returns the result of each of a block's clients, in their order."""
    return list(engine(num_threads).map(_work(key, fetch, context), block.open()))


def engine(num_threads: int) -> ThreadEngine:
    """Returns this process's threads."""
    if num_threads not in _engines:
        _engines[num_threads] = ThreadEngine(num_threads)
    return _engines[num_threads]


def client_seconds(num_threads: int) -> float:
    """Returns the seconds that this process's threads have spent on clients, all together."""
    return engine(num_threads).client_clock() * num_threads


def _work(key: str, fetch: Fetch, context: Context) -> Any:
    if key not in _works:
        _works[key] = pickle.loads(fetch())
        if len(_works) > _MOST_WORKS:
            _, (_, programs, _) = _works.popitem(last=False)
            for program in programs:
                program.close()
    _works.move_to_end(key)
    kind, programs, feeds = _works[key]
    return kind(programs, feeds, context)
