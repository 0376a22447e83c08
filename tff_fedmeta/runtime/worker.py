"""TFF's C++ runtime, the reference for `local`: started with a time limit and never left behind.

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
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tff_fedmeta.runtime import local, remote_executor

_LOG_LINES = 20  # of the worker's log, shown in an error

# Becomes the worker, after asking the kernel to kill it when its parent dies (1: PR_SET_PDEATHSIG).
# A separate program, because code between fork and exec can deadlock when there are threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("The program that started the worker is gone.")
os.execv(sys.argv[2], sys.argv[2:])
"""


class WorkerError(RuntimeError):
    """The worker cannot start, or died; the message ends with the end of its log."""


@contextlib.contextmanager
def worker_runtime(
    *,
    num_threads: int | None = None,
    log_file: str | os.PathLike[str] | None = None,
    start_timeout: float = 30.0,
) -> Iterator[Worker]:
    """Runs TFF's computations in a worker that lives as long as the `with` block.

    Entering starts the worker and makes it TFF's current execution context; leaving stops it and
    brings the previous context back. The worker also ends with the program however that ends,
    SIGKILL included, and with the thread that entered.

    TFF's contexts belong to a thread: computations called in another thread do not see this one.
    The worker listens on all network interfaces, as TFF's always does. It keeps the data and the
    updates of all clients of a round in memory.

    Args:
      num_threads: How many clients run at the same time, each on one core; >= 1. Default: as many
        as there are usable cores. `TF_NUM_INTRAOP_THREADS` in the environment, if set, is how many
        cores each of them gets.
      log_file: Where the worker's output is appended. Default: a temporary file, removed at the
        end.
      start_timeout: How long the worker may take to get ready, in seconds; > 0.

    Yields:
      The `Worker`: process id, number of threads, log file.

    Raises:
      ValueError: If `num_threads` or `start_timeout` is out of range.
      OSError: If `log_file` cannot be written.
      worker.WorkerError: A RuntimeError, if the worker cannot start, ends at once or is not ready
        in time. Computations raise it when their worker dies.
    """
    import tensorflow_federated as tff

    num_threads = local.usable_cores() if num_threads is None else num_threads
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, not {num_threads}.")
    if not start_timeout > 0:
        raise ValueError(f"start_timeout must be positive, not {start_timeout}.")
    with contextlib.ExitStack() as stack:
        if log_file is None:
            log_file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="tff_worker_")).name
        worker = Worker(num_threads, Path(log_file))
        stack.callback(atexit.unregister, worker.stop)
        stack.callback(worker.stop)
        atexit.register(worker.stop)  # for those who enter by hand and never leave
        worker.wait_until_ready(start_timeout)
        stack.enter_context(tff.framework.get_context_stack().install(_context(worker)))
        yield worker


class Worker:
    """A running worker, as `worker_runtime()` yields it.

    Attributes:
      num_threads: How many clients run at the same time.
      log_file: Where the worker's output goes.
    """

    def __init__(self, num_threads: int, log_file: Path):
        binary = worker_binary()
        if not os.access(binary, os.X_OK):
            raise WorkerError(f"TFF's worker is missing or cannot be executed: {binary}")
        self.num_threads = num_threads
        self.log_file = log_file
        self._resources = contextlib.ExitStack()
        holder, self._port = _reserve_port()
        self._resources.callback(holder.close)
        command = [
            *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())),
            str(binary),
            f"--port={self._port}",
            f"--max_concurrent_computation_calls={num_threads}",
        ]
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The log shall have warnings even if the program's own TensorFlow is quiet.
                env={"TF_NUM_INTRAOP_THREADS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "1"},
                start_new_session=True,  # Ctrl-C is for the program, which stops the worker
            )
        self._resources.callback(self._process.wait)
        self._resources.callback(self._process.kill)
        channel = remote_executor.channel(self._port)
        self._resources.callback(channel.close)
        self._context = remote_executor.context(channel)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_until_ready(self, timeout: float) -> None:
        """Returns when the worker listens; WorkerError if it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while not _is_listening(self._port):
            if self._has_ended(wait=0.05):
                raise self._death()
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"TFF's worker was not ready after {timeout:g} s.\n{_end_of(self.log_file)}"
                )

    def run(self, comp: Any, arg: Any) -> Any:
        """Runs a computation; WorkerError if the worker is gone."""
        try:
            return self._context.invoke(comp, arg)
        except Exception as error:
            # The connection breaks a moment before the process can be seen to have ended.
            if self._has_ended(wait=2.0 if remote_executor.is_unavailable(error) else 0.0):
                raise self._death() from error
            raise

    def stop(self) -> None:
        """Kills the process, which has nothing to save; a second call does nothing."""
        self._resources.close()

    def _has_ended(self, wait: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait)
        return self._process.poll() is not None

    def _death(self) -> WorkerError:
        code = self._process.returncode
        how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        hint = ", often a lack of memory" if code == -signal.SIGKILL else ""
        return WorkerError(f"TFF's worker died ({how}{hint}).\n{_end_of(self.log_file)}")


def worker_binary() -> Path:
    """Returns where TFF's wheel keeps the worker's program."""
    import tensorflow_federated as tff

    return Path(tff.__file__).parent / "data" / "worker_binary"


def _context(worker: Worker) -> Any:
    """Returns TFF's view of the runtime: an execution context."""
    import tensorflow_federated as tff

    class WorkerContext(tff.framework.SyncContext):
        def invoke(self, comp: Any, arg: Any) -> Any:
            return worker.run(comp, arg)

    return WorkerContext()


def _reserve_port() -> tuple[socket.socket, int]:
    """Returns a socket that keeps a free TCP port from other programs, and the port."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # gRPC sets it too, so they share
    holder.bind(("", 0))
    return holder, holder.getsockname()[1]


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _end_of(log_file: Path) -> str:
    """Returns the last lines of the worker's log, with a heading."""
    try:
        lines = log_file.read_bytes()[-10_000:].decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    heading = f"The end of its log {log_file}:" if lines else f"Its log {log_file} is empty."
    return "\n".join([heading, *lines[-_LOG_LINES:]])
