"""What `cluster.py` has in processes of their own: our algorithm on Ray, and single costs of it."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import contenders
from benchmarks.workloads import WORKLOADS, Client


def open_workload(name: str, num_examples: int) -> Callable[[str], Client]:
    """Returns what makes a client of a workload from its number."""
    make = WORKLOADS[name].make_client
    return lambda client_id: make(np.random.default_rng([1, int(client_id)]), num_examples)


class OnRay(contenders.Federated):
    """The workload's clients in Ray's processes, as data or by reference."""

    def __init__(self, name: str, sizes: Sequence[int | None], how: dict[str, Any]):
        import tff_fedmeta as fm

        self._stack = contextlib.ExitStack()  # as long as this process
        self._context = self._stack.enter_context(fm.ray_runtime(**how))
        workload = WORKLOADS[name].resized(*sizes)
        federated = contenders.build_ours(workload)
        vars(self).update(vars(federated))
        self._source = fm.ClientSource(
            functools.partial(open_workload, name, workload.num_examples[1]), max_clients=100_000
        )

    def close(self) -> None:
        """Ends Ray, whose files are removed."""
        self._stack.close()

    def figures(self) -> dict[str, float]:
        """Returns what the runtime tells of the last round."""
        return self._context.figures()

    def client_seconds(self) -> float:
        """Returns the seconds that all threads together have spent on clients so far."""
        return self._context.client_clock() * self.figures()["cores"]

    def round_of_references(self, count: int) -> dict[str, float]:
        """Trains for a round with so many clients by reference.

        Returns:
          Its seconds, this process's processor time in it, and the bytes that this process had
          resident more at most than before.
        """
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        before = _resident("VmRSS")
        start, cpu = time.perf_counter(), time.process_time()
        cohort = [self._source.client(str(i), (self._rounds, i)) for i in range(count)]
        self._state, _ = self._process.next(self._state, cohort)
        self._rounds += 1
        return {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - cpu,
            "memory": _resident("VmHWM") - before,
        }

    def round_with_a_kill(self) -> float:
        """Trains for a round in which a worker at work is killed, and returns its seconds."""
        struck = threading.Event()

        def strike() -> None:
            while not struck.is_set():
                for pid in _workers():
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                        struck.set()
                        break
                time.sleep(0.001)

        threading.Thread(target=strike, daemon=True).start()
        seconds = self.round()
        if not struck.is_set():
            raise RuntimeError("The round ended before a worker was seen at work.")
        return seconds


def _workers() -> Iterator[int]:
    """Yields the workers at work of the Ray that this process has started."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[0].startswith("ray::run"):
                yield process.pid


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


class Costs:
    """Single costs, each the median of several."""

    def __init__(self, name: str, num_examples: int):
        import tff_fedmeta as fm

        self._name, self._num_examples = name, num_examples
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(fm.ray_runtime(num_workers=1, threads_per_worker=1))

    def close(self) -> None:
        """Ends Ray, whose files are removed."""
        self._stack.close()

    def measure(self) -> dict[str, float]:
        """Returns seconds: of a client, of a merge, of a broadcast, of a task for the driver."""
        clients, merges, num_bytes = self._clients_and_merges()
        return {
            "client": float(np.median(clients)),
            "merge": float(np.median(merges)),
            "bytes": num_bytes,
            **self._tasks(num_bytes),
        }

    def _clients_and_merges(self) -> tuple[list[float], list[float], int]:
        import tensorflow_federated as tff

        from tff_fedmeta.runtime.engine import ThreadEngine
        from tff_fedmeta.runtime.execution_context import EngineContext

        clients: list[float] = []
        merges: list[float] = []
        num_bytes = [0]

        class Timed(ThreadEngine):
            def reduce(self, work: Any, tasks: Sequence[Any]) -> Any:
                """Times one task after the other, and merges of their results."""
                results = []
                for task in tasks:
                    start = time.perf_counter()
                    results.append(work(task))
                    clients.append(time.perf_counter() - start)
                for _ in range(10):
                    start = time.perf_counter()
                    work.merge(results[0], results[1])
                    merges.append(time.perf_counter() - start)
                num_bytes[0] = sum(array.nbytes for array in results[0])
                return super().reduce(work, tasks)

        context = EngineContext(Timed(1))
        with tff.framework.get_context_stack().install(context):
            federated = contenders.build_ours(WORKLOADS[self._name].resized(8, self._num_examples))
            for _ in range(2):  # the first one prepares graphs
                clients.clear()
                merges.clear()
                federated.round()
        return clients, merges, num_bytes[0]

    def _tasks(self, num_bytes: int) -> dict[str, float]:
        import ray

        read = ray.remote(_first_byte)
        ray.get(read.remote(np.zeros(1)))
        sent, empty = [], []
        for _ in range(10):
            start = time.perf_counter()
            ray.get(read.remote(ray.put(np.zeros(num_bytes, np.uint8))))
            sent.append(time.perf_counter() - start)
            start = time.perf_counter()
            ray.get(read.remote(None))
            empty.append(time.perf_counter() - start)
        before = resource.getrusage(resource.RUSAGE_SELF)
        ray.get([read.remote(None) for _ in range(1000)])
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "broadcast": float(np.median(sent) - np.median(empty)),
            "empty": float(np.median(empty)),
            "task": cpu / 1000,
        }


def _first_byte(array: Any) -> Any:
    return None if array is None else array[0]
