"""Who works on clients: an engine, `map` and `reduce`. This one is this process's threads."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Callable, Protocol

from tff_fedmeta.runtime import client_feeds, references
from tff_fedmeta.runtime.tree_sum import TreeSum
from tff_fedmeta.runtime.work import ClientWork, CohortWork

# How many results may wait for an earlier one, per thread.
_AHEAD = 4
# How many tasks with references are begun in the order of their sizes, so that no large one comes
# last: a usual cohort. Their results keep the order given.
_WINDOW = 16


class Engine(Protocol):
    """Computes the tasks of a work side by side, with results that depend on the work alone."""

    def map(self, work: ClientWork, tasks: Sequence[Any]) -> Iterator[Any]:
        """Yields the result of each task, in their order."""

    def reduce(self, work: CohortWork, tasks: Sequence[Any]) -> Any:
        """Returns the tasks' results, merged in the order of `TreeSum`; None if there are none."""

    def client_clock(self) -> float:
        """Returns the seconds spent on clients by all threads together, per thread.

        A round in which every thread works on clients from beginning to end takes that long.
        """

    def figures(self) -> dict[str, float]:
        """Returns named figures of the last call, for people."""

    def close(self) -> None:
        """Waits for the tasks that are being worked on, and frees everything."""


class ThreadEngine:
    """An engine of threads. In memory are a few tasks a thread and as many sums as tree levels."""

    def __init__(self, num_threads: int):
        self._num_threads = num_threads
        self._client_seconds = 0.0
        self._ahead = _AHEAD * num_threads
        self._pool = concurrent.futures.ThreadPoolExecutor(num_threads, "client")
        self._lock = threading.Lock()

    def map(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Generator[Any, None, None]:
        """Yields the result of each task, in their order.

        After an interrupt or an error the tasks that are being worked on are stopped.
        """
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            # Datasets are in the order of their sizes already, which nobody knows of references.
            length = _WINDOW if references.are_in(tasks[:1]) else 1
            for first in range(0, len(tasks), length):
                waiting.extend(self._begin(work, tasks[first : first + length]))
                while len(waiting) >= self._ahead:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            _drop(work, waiting)

    def reduce(self, work: CohortWork, tasks: Sequence[Any]) -> Any:
        """Returns the tasks' results, merged in the order of `TreeSum`; None if there are none."""
        total: TreeSum[Any] = TreeSum(work.merge)
        with contextlib.closing(self.map(work, tasks)) as results:
            for result in results:
                total.add(result)
        return total.total()

    def client_clock(self) -> float:
        """Returns the seconds spent on clients by all threads together, per thread."""
        return self._client_seconds / self._num_threads

    def figures(self) -> dict[str, float]:
        """Returns nothing: what there is to tell, rounds tell themselves."""
        return {}

    def close(self) -> None:
        """Waits for the tasks that are being worked on, and ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(
        self, work: Callable[[Any], Any], tasks: Sequence[Any]
    ) -> list[concurrent.futures.Future]:
        """Begins tasks, the one with the most data first, and returns them in their order.

        References are read here: what reads clients need not stand several threads.
        """
        loaded = [references.loaded(task) for task in tasks]
        futures = {
            index: self._pool.submit(self._timed, work, loaded[index])
            for index in client_feeds.largest_first(loaded)
        }
        return [futures[index] for index in range(len(loaded))]

    def _timed(self, work: Callable[[Any], Any], task: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(task)
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self._client_seconds += seconds


def _first(waiting: collections.deque[concurrent.futures.Future]) -> Any:
    """Takes the first future's result; the future stays there if waiting for it is interrupted."""
    result = waiting[0].result()
    waiting.popleft()
    return result


def _drop(work: Any, waiting: Sequence[concurrent.futures.Future]) -> None:
    """Gives futures up: nothing begins any more, and what has begun stops at its next step."""
    begun = [future for future in waiting if not future.cancel()]
    while not all(future.done() for future in begun):
        if hasattr(work, "stop"):
            work.stop()
        concurrent.futures.wait(begun, timeout=0.1)
