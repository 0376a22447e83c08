"""TFF's worker: the process that computes, started, watched and stopped; `worker.py` uses it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc

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


class WorkerError(RuntimeError):
    """A worker that cannot start, or died; the message ends with the end of its log."""


class WorkerDiedError(WorkerError):
    """The worker's process has ended by itself; `cause` says how in one sentence."""

    def __init__(self, cause: str, log_file: Path):
        super().__init__(f"{cause}\n{_end_of(log_file)}")
        self.cause = cause


class Worker:
    """One worker process, and TFF's way to it."""

    def __init__(self, binary: Path, num_threads: int, log_file: Path):
        if not os.access(binary, os.X_OK):
            raise WorkerError(f"TFF's worker is missing or cannot be executed: {binary}")
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
        """The process id."""
        return self._process.result().pid

    def wait_until_ready(self, timeout: float) -> None:
        """Returns when the worker listens; WorkerError if it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while not _is_listening(self._port):
            if self._has_ended(wait=0.05):
                raise self._death()
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"TFF's worker was not ready after {timeout:g} s.\n{_end_of(self._log_file)}"
                )

    def run(self, comp: Any, arg: Any) -> Any:
        """Runs a computation; WorkerDiedError if the worker is gone."""
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

    def _death(self) -> WorkerDiedError:
        try:
            code = self._process.result().returncode
        except OSError as error:
            return WorkerDiedError(f"TFF's worker cannot be started: {error}.", self._log_file)
        how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        hint = ", often a lack of memory" if code == -signal.SIGKILL else ""
        return WorkerDiedError(f"TFF's worker died ({how}{hint}).", self._log_file)


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


def worker_binary() -> Path:
    """Returns where TFF's wheel keeps the worker's program."""
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
