"""TFF's C++ runtime: started with a time limit, watched, and never left behind.

TFF runs computations in a separate program, its worker. Left to itself TFF starts one on first use,
waits for it without a time limit, lets it write to the program's own output and does not stop it at
the end. `local_runtime()` owns the worker instead:

    with local_runtime():
        state = learning_process.initialize()
        ...

Linux only, as TFF's worker is. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc

_LOG = logging.getLogger(__name__)
_LOG_LINES = 20  # of the worker's log, shown in an error

# Messages as long as in TFF. The worker is on this machine: the environment's proxy is not for it.
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 2_000_000_000),
    ("grpc.max_send_message_length", 2_000_000_000),
    ("grpc.enable_http_proxy", 0),
]

# Becomes the worker, after asking the kernel to kill it when its parent dies (1: PR_SET_PDEATHSIG).
# A program of its own, because code between fork and exec can deadlock when there are threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("The program that started the worker is gone.")
os.execv(sys.argv[2], sys.argv[2:])
"""


def quiet_tensorflow() -> None:
    """Keeps `import tensorflow` and `import tensorflow_federated` from printing.

    Call it before TensorFlow is first imported. A `TF_CPP_MIN_LOG_LEVEL` already set is kept.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)


@contextlib.contextmanager
def local_runtime(
    *,
    num_threads: int | None = None,
    log_file: str | os.PathLike[str] | None = None,
    start_timeout: float = 30.0,
) -> Iterator[LocalRuntime]:
    """Runs TFF's computations in a worker that lives as long as the `with` block.

    Entering starts the worker and makes it TFF's current execution context; leaving stops it and
    brings the previous context back. The worker also ends with the program however that ends,
    SIGKILL included. A worker that dies is restarted with a logged warning, and the computation it
    died in is repeated once.

    TFF's contexts belong to a thread: computations called in another thread do not see this one.
    The worker listens on all network interfaces, as TFF's always does.

    Args:
        num_threads: How many clients run at the same time, each on one core; >= 1. Default: as many
            as there are usable cores. `TF_NUM_INTRAOP_THREADS` in the environment, if set, is how
            many cores each of them gets.
        log_file: Where the worker's output is appended. Default: a temporary file, removed at the
            end.
        start_timeout: How long the worker may take to get ready, at a restart too, in seconds; > 0.

    Yields:
        The `LocalRuntime`: process id, log file, number of restarts.

    Raises:
        ValueError: If `num_threads` or `start_timeout` is out of range.
        OSError: If `log_file` cannot be written.
        RuntimeError: If the worker cannot start, ends at once or is not ready in time. Computations
            raise it when their worker died twice. The message has the end of the worker's log.
    """
    import tensorflow_federated as tff

    runtime = LocalRuntime(num_threads, log_file, start_timeout)
    atexit.register(runtime._close)  # for those who enter by hand and never leave
    try:
        runtime._start()
        with tff.framework.get_context_stack().install(_context(runtime)):
            yield runtime
    finally:
        runtime._close()
        atexit.unregister(runtime._close)


class LocalRuntime:
    """A running local runtime, as `local_runtime()` yields it.

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
            num_threads = len(os.sched_getaffinity(0))
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
        self._worker: _Worker | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Process id of the current worker; RuntimeError after the end."""
        return self._current_worker().pid

    def _current_worker(self) -> _Worker:
        if self._worker is None:
            raise RuntimeError("This local_runtime() has ended.")
        return self._worker

    def _start(self) -> None:
        self._worker = _Worker(_worker_binary(), self.num_threads, self.log_file)
        self._worker.wait_until_ready(self._start_timeout)

    def _run(self, comp: Any, arg: Any) -> Any:
        """Runs a computation, and runs it again if the worker died under it."""
        worker = self._current_worker()
        try:
            return worker.run(comp, arg)
        except _WorkerDiedError as death:
            self._replace(worker, death)
        return self._current_worker().run(comp, arg)

    def _replace(self, dead: _Worker, death: _WorkerDiedError) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("local_runtime() ended during a computation.") from death
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


class _WorkerDiedError(RuntimeError):
    """The worker's process has ended by itself; `cause` says how in one sentence."""

    def __init__(self, cause: str, log_file: Path):
        super().__init__(f"{cause}\n{_end_of(log_file)}")
        self.cause = cause


class _Worker:
    """One worker process, and TFF's way to it."""

    def __init__(self, binary: Path, num_threads: int, log_file: Path):
        if not os.access(binary, os.X_OK):
            raise RuntimeError(f"TFF's worker is missing or cannot be executed: {binary}")
        self._log_file = log_file
        self._port_holder, self._port = _reserve_port()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._port}", _CHANNEL_OPTIONS)
        self._context = _worker_context(self._channel)
        command = [
            *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())),
            str(binary),
            f"--port={self._port}",
            f"--max_concurrent_computation_calls={num_threads}",
        ]
        self._process: Future[subprocess.Popen[bytes]] = Future()
        self._keeper = threading.Thread(target=self._keep, args=(command,), daemon=True)
        self._keeper.start()

    def _keep(self, command: list[str]) -> None:
        """Starts the process and stays until it ends.

        Not in the caller's thread: the kernel kills the worker when the thread that started it
        ends.
        """
        try:
            with self._log_file.open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # The log shall have warnings even if the program's own TensorFlow is quiet.
                    env={"TF_NUM_INTRAOP_THREADS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "1"},
                    start_new_session=True,  # Ctrl-C is for the program, which stops the worker
                )
        except OSError as error:
            self._process.set_exception(error)
            return
        self._process.set_result(process)
        process.wait()

    @property
    def pid(self) -> int:
        return self._process.result().pid

    def wait_until_ready(self, timeout: float) -> None:
        """Returns when the worker listens; RuntimeError if it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while not _is_listening(self._port):
            if self._has_ended(wait=0.05):
                raise self._death()
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"TFF's worker was not ready after {timeout:g} s.\n{_end_of(self._log_file)}"
                )

    def run(self, comp: Any, arg: Any) -> Any:
        """Runs a computation; _WorkerDiedError if the worker is gone."""
        try:
            return self._context.invoke(comp, arg)
        except Exception as error:
            # The connection breaks a moment before the process can be seen to have ended.
            if self._has_ended(wait=2.0 if _is_unavailable(error) else 0.0):
                raise self._death() from error
            raise

    def stop(self) -> None:
        """Kills the process, which has nothing to save, if it is still there."""
        with contextlib.suppress(OSError):
            self._process.result().kill()
        self._keeper.join()
        self._channel.close()
        self._port_holder.close()

    def _has_ended(self, wait: float) -> bool:
        self._keeper.join(wait)
        return not self._keeper.is_alive()

    def _death(self) -> _WorkerDiedError:
        try:
            code = self._process.result().returncode
        except OSError as error:
            return _WorkerDiedError(f"TFF's worker cannot be started: {error}.", self._log_file)
        how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        hint = ", often a lack of memory" if code == -signal.SIGKILL else ""
        return _WorkerDiedError(f"TFF's worker died ({how}{hint}).", self._log_file)


def _context(runtime: LocalRuntime) -> Any:
    """TFF's view of the runtime: an execution context."""
    import tensorflow_federated as tff

    class LocalContext(tff.framework.SyncContext):
        def invoke(self, comp: Any, arg: Any) -> Any:
            return runtime._run(comp, arg)

    return LocalContext()


def _worker_context(channel: grpc.Channel) -> Any:
    """TFF's own local context, but for a worker that somebody else looks after."""
    import tensorflow_federated as tff

    # Given the channel itself the stub watches it, in a thread that prints an error when it closes.
    calls_only = types.SimpleNamespace(
        unary_unary=channel.unary_unary, subscribe=lambda *args, **kwargs: None
    )
    stub = _ImpatientStub(tff.framework.RemoteExecutorGrpcStub(calls_only))

    def executor(cardinalities: dict[Any, int]) -> Any:
        remote = tff.framework.RemoteExecutor(stub)
        # Computations without client arguments, such as initialize(), have no clients.
        remote.set_cardinalities({tff.CLIENTS: 0, **cardinalities})
        return remote

    return tff.framework.SyncExecutionContext(
        tff.framework.ResourceManagingExecutorFactory(executor),
        compiler_fn=tff.backends.native.desugar_and_transform_to_native,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )


class _ImpatientStub:
    """A `RemoteExecutorGrpcStub` that lets the loss of the worker be seen.

    TFF answers the stub's "retryable" error with endless retries; here the plain gRPC error goes
    up.
    """

    def __init__(self, stub: Any):
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)

        def request(message: Any) -> Any:
            try:
                return method(message)
            except (grpc.RpcError, ValueError) as error:  # ValueError: on a closed channel
                if name in ("dispose", "dispose_executor"):
                    return None  # nothing is left to dispose of
                if _is_unavailable(error):
                    raise error.__context__ or error from None
                raise

        return request


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.UNAVAILABLE


def _worker_binary() -> Path:
    import tensorflow_federated as tff

    return Path(tff.__file__).parent / "data" / "worker_binary"


def _reserve_port() -> tuple[socket.socket, int]:
    """A free TCP port, and a socket that keeps it from other programs until the worker's end."""
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


def _temporary_log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="tff_worker_", suffix=".log")
    os.close(descriptor)
    return Path(name)


def _end_of(log_file: Path) -> str:
    """The last lines of the worker's log, with a heading."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 10_000))
            lines = log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    except FileNotFoundError:  # somebody tidied up
        lines = []
    heading = f"The end of its log {log_file}:" if lines else f"Its log {log_file} is empty."
    return "\n".join([heading, *lines])


@atexit.register
def _drop_default_context() -> None:
    """Lets go of the context which importing TFF makes, while its destructor can still work.

    Later on the destructor prints an error, and leaves the worker behind if there is one.
    """
    tff = sys.modules.get("tensorflow_federated")
    if tff is not None:
        tff.test.set_no_default_context()
