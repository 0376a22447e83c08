"""The engine of a cluster: blocks of a cohort are added up where they are, and the sums merged.

What clients compute never comes here one by one. The result has the bits of `ThreadEngine`, with
any number of workers and threads, because a block is a subtree of the sum (`tree_sum.py`).
"""

from __future__ import annotations

import collections
import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from tff_fedmeta.runtime.cluster import blocks
from tff_fedmeta.runtime.cluster import tasks as remote
from tff_fedmeta.runtime.cluster.call import Call, Defined
from tff_fedmeta.runtime.cluster.parcel import Definition
from tff_fedmeta.runtime.cluster.protocol import Cluster
from tff_fedmeta.runtime.work import ClientWork, CohortWork, Work

# The most clients whose results are sent in one piece.
_MOST_RESULTS = 64


class ClusterEngine:
    """An engine that hands blocks of tasks to a cluster's workers."""

    def __init__(self, cluster: Cluster, num_threads: int):
        """Takes a cluster, and how many threads each of its workers has for clients."""
        self._cluster = cluster
        self._num_threads = num_threads
        self._clock = 0.0
        self._figures: dict[str, float] = {}
        # By the first program of a work.
        self._defined: weakref.WeakKeyDictionary[Any, Defined] = weakref.WeakKeyDictionary()

    def map(self, work: ClientWork, tasks: Sequence[Any]) -> Iterator[Any]:
        """Yields the result of each task, in their order."""
        length = -(-len(tasks) // (blocks.PER_WORKER * self._cluster.num_workers))
        length = max(min(length, _MOST_RESULTS), self._num_threads)
        with self._call(work) as call:
            computed = collections.deque(
                call.compute(remote.compute_each, block) for block in blocks.cut(tasks, length)
            )
            call.finish()
        while computed:
            yield from self._cluster.fetch(computed.popleft().job.result)

    def reduce(self, work: CohortWork, tasks: Sequence[Any]) -> Any:
        """Returns the tasks' results, merged in the order of `TreeSum`; None if there are none."""
        if not tasks:
            return None
        length = blocks.size(len(tasks), self._cluster.num_workers, self._num_threads)
        with self._call(work) as call:
            level = [call.compute(remote.add_up, block) for block in blocks.cut(tasks, length)]
            while len(level) > 1:
                level = [call.merge(group) for group in blocks.cut(level, blocks.FAN_IN)]
            call.finish()
            return self._cluster.fetch(level[0].job.result)

    def client_clock(self) -> float:
        """Returns the seconds spent on clients by all threads of the cluster, per thread."""
        return self._clock

    def figures(self) -> dict[str, float]:
        """Returns what the last call was like: cores, clients a second, bytes sent from here."""
        return dict(self._figures)

    def close(self) -> None:
        """Lets go of everything that is kept in the cluster."""
        self._defined.clear()
        self._cluster.close()

    @contextlib.contextmanager
    def _call(self, work: Work) -> Iterator[Call]:
        first = work.programs[0]
        is_new = first not in self._defined
        if is_new:
            key, content = Definition.of(work)
            self._defined[first] = Defined(key, self._cluster.put(content), len(content))
        call = Call(self._cluster, self._num_threads, work, self._defined[first], is_new)
        try:
            yield call
        finally:
            call.cancel()
            self._figures = call.figures()
            self._clock += call.client_seconds / self._figures["cores"]
