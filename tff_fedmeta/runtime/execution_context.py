"""A TFF execution context that computes in this process, clients side by side on its threads.

TFF's worker is sent every client's data and weights as messages, keeps a whole cohort in memory and
sends the result back. This context calls the plain TensorFlow that TFF splits a computation into
(`computations.py`).

What a cohort needs in memory does not grow with its size, except in aggregators that collect. The
result depends on the arguments alone, not on the number of threads: clients are added up in an
order that depends on the cohort. Only what draws from TensorFlow's stateful generators, as dropout
does, differs from run to run, here as in TFF's worker.
"""

import collections
import concurrent.futures
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import tensorflow_federated as tff

from tff_fedmeta.runtime import computations

# How many results may wait for an earlier one, per thread.
_AHEAD = 4


class InProcessContext(tff.framework.SyncContext):
    """Runs the forms of TFF's computations that are classes in `computations.py`."""

    def __init__(self, num_threads: int):
        self._num_threads = num_threads
        self._client_seconds = 0.0
        self._ahead = _AHEAD * num_threads
        self._pool = concurrent.futures.ThreadPoolExecutor(num_threads, "client")
        self._compiled: dict[int, Any] = {}
        self._finalizers: dict[int, weakref.finalize] = {}
        self._lock = threading.Lock()

    def invoke(self, comp: Any, arg: Any) -> Any:
        """Runs a computation on its packed arguments, as TFF's contexts do.

        Raises:
          computations.UnsupportedComputationError: If it is of another form.
          TypeError: If an argument is not of the computation's type.
        """
        with self._lock:
            if id(comp) not in self._compiled:
                self._compiled[id(comp)] = computations.split(comp)
                self._finalizers[id(comp)] = weakref.finalize(comp, self._forget, id(comp))
            compiled = self._compiled[id(comp)]
        return compiled(arg, self._in_order)

    def client_clock(self) -> float:
        """Returns the seconds that all of the threads together spent on clients, per thread.

        A round in which every thread works on clients from beginning to end takes that long.
        """
        return self._client_seconds / self._num_threads

    def close(self) -> None:
        """Waits for the clients that are being worked on, and frees everything."""
        self._pool.shutdown(cancel_futures=True)
        for key in list(self._compiled):
            self._forget(key)

    def _forget(self, key: int) -> None:
        compiled = self._compiled.pop(key, None)
        if compiled is not None:
            self._finalizers.pop(key).detach()
            compiled.close()

    def _in_order(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yields function(task) for each task in their order, computed side by side."""
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(self._timed, function, task))
                if len(waiting) >= self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _timed(self, function: Callable[[Any], Any], task: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(task)
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self._client_seconds += seconds
