"""TFF's C++ runtime: started with a time limit, watched, and never left behind.

TFF runs computations in a separate program, its worker. Left to itself TFF starts one on first use,
waits for it without a time limit, lets it write to the program's own output and does not stop it at
the end. `worker_runtime()` owns the worker instead:

    with worker_runtime():
        state = learning_process.initialize()
        ...

Linux only, as TFF's worker is. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tff_fedmeta.runtime import local, worker_process

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def worker_runtime(
    *,
    num_threads: int | None = None,
    log_file: str | os.PathLike[str] | None = None,
    start_timeout: float = 30.0,
) -> Iterator[WorkerRuntime]:
    """Runs TFF's computations in a worker that lives as long as the `with` block.

    Entering starts the worker and makes it TFF's current execution context; leaving stops it and
    brings the previous context back. The worker also ends with the program however that ends,
    SIGKILL included. A worker that dies is restarted with a logged warning, and the computation it
    died in is repeated once.

    TFF's contexts belong to a thread: computations called in another thread do not see this one.
    The worker listens on all network interfaces, as TFF's always does. It keeps the data and the
    updates of all clients of a round in memory.

    Args:
        num_threads: How many clients run at the same time, each on one core; >= 1. Default: as many
            as there are usable cores. `TF_NUM_INTRAOP_THREADS` in the environment, if set, is how
            many cores each of them gets.
        log_file: Where the worker's output is appended. Default: a temporary file, removed at the
            end.
        start_timeout: How long the worker may take to get ready, at a restart too, in seconds; > 0.

    Yields:
        The `WorkerRuntime`: process id, log file, number of restarts.

    Raises:
        ValueError: If `num_threads` or `start_timeout` is out of range.
        OSError: If `log_file` cannot be written.
        worker.WorkerError: A RuntimeError, if the worker cannot start, ends at once or is not ready
            in time. Computations raise it when their worker died twice. The message has the end of
            the worker's log.
    """
    import tensorflow_federated as tff

    running = WorkerRuntime(num_threads, log_file, start_timeout)
    atexit.register(running._close)  # for those who enter by hand and never leave
    try:
        running._start()
        with tff.framework.get_context_stack().install(_context(running)):
            yield running
    finally:
        running._close()
        atexit.unregister(running._close)


class WorkerRuntime:
    """A running worker, as `worker_runtime()` yields it.

    Attributes:
        num_threads: How many clients run at the same time.
        log_file: Where the worker's output goes.
        restarts: How often the worker died and was started again.
    """

    def __init__(
        self,
        num_threads: int | None,
        log_file: str | os.PathLike[str] | None,
        start_timeout: float,
    ):
        if num_threads is None:
            num_threads = local.usable_cores()
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}.")
        if not start_timeout > 0:
            raise ValueError(f"start_timeout must be positive, not {start_timeout}.")
        self.num_threads = num_threads
        self.restarts = 0
        self._log_is_temporary = log_file is None
        self.log_file = _temporary_log() if log_file is None else Path(log_file)
        self.log_file.open("ab").close()  # a path that cannot be written is an error here
        self._start_timeout = start_timeout
        self._worker: worker_process.Worker | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Process id of the current worker; RuntimeError after the end."""
        return self._current_worker().pid

    def _current_worker(self) -> worker_process.Worker:
        if self._worker is None:
            raise RuntimeError("This worker_runtime() has ended.")
        return self._worker

    def _start(self) -> None:
        self._worker = worker_process.Worker(
            worker_process.worker_binary(), self.num_threads, self.log_file
        )
        self._worker.wait_until_ready(self._start_timeout)

    def _run(self, comp: Any, arg: Any) -> Any:
        """Runs a computation, and runs it again if the worker died under it."""
        current = self._current_worker()
        try:
            return current.run(comp, arg)
        except worker_process.WorkerDiedError as death:
            self._replace(current, death)
        return self._current_worker().run(comp, arg)

    def _replace(self, dead: worker_process.Worker, death: worker_process.WorkerDiedError) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("worker_runtime() ended during a computation.") from death
            if self._worker is not dead:  # another thread was here first
                return
            _LOG.warning(
                "%s It is restarted and its computation repeated. Its log: %s",
                death.cause,
                self.log_file,
            )
            dead.stop()
            self.restarts += 1
            self._start()

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            if self._worker is not None:
                self._worker.stop()
                self._worker = None
        if self._log_is_temporary:
            self.log_file.unlink(missing_ok=True)


def _context(running: WorkerRuntime) -> Any:
    """TFF's view of the runtime: an execution context."""
    import tensorflow_federated as tff

    class WorkerContext(tff.framework.SyncContext):
        def invoke(self, comp: Any, arg: Any) -> Any:
            return running._run(comp, arg)

    return WorkerContext()


def _temporary_log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="tff_worker_", suffix=".log")
    os.close(descriptor)
    return Path(name)
