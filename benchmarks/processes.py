"""Contenders in processes of their own: started, told what to do, measured, never left behind.

    with Process("stock", "linear") as process:
        process.wait_until_ready()
        seconds = process.call("round")

A process builds an object of `contenders.py` and calls its methods on demand. It leads its own
session, and ends with all that it has started when the `with` block is left, or when the program
is gone and the pipe to it closes. Importing this needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from multiprocessing import connection
from pathlib import Path
from typing import Any

import psutil

_ROOT = Path(__file__).parent.parent


class ProcessError(RuntimeError):
    """A process that failed or ended; the message ends with why."""


class Process:
    """A process that holds one contender.

    Args:
      kind: The contender's name in `contenders.py`.
      *args: What it is made with.
      **kwargs: What it is made with.
    """

    def __init__(self, kind: str, *args: Any, **kwargs: Any):
        self._kind = kind
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (`stop` closes it)
        self._pipe, theirs = connection.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,  # a pipe would be held open by TFF's worker
                stderr=self._log,
                start_new_session=True,
            )
        self._pipe.send((kind, args, kwargs))

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        """Returns when the contender is made; ProcessError if that failed."""
        self.receive()

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the contender and returns its result."""
        self.send(method, *args)
        return self.receive()

    def send(self, method: str, *args: Any) -> None:
        """Starts a method of the contender; `receive` has its result."""
        with contextlib.suppress(BrokenPipeError):  # `receive` says why
            self._pipe.send((method, args))

    def receive(self) -> Any:
        """Waits for a result; ProcessError if the method failed or the process ended."""
        while not self._pipe.poll(1.0):  # what it has started may hold the pipe open
            if self._process.poll() is not None:
                break
        try:
            error, result = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            status = self._process.wait()
            self._log.seek(0)
            log = self._log.read().decode(errors="replace")
            error = f"It ended with status {status}. The end of its output:\n{log[-2000:]}"
        if error is not None:
            raise ProcessError(f"The process of {self._kind!r} failed. {error}")
        return result

    def resident_memory(self) -> int:
        """Returns the bytes that this process and its offspring hold in memory now."""
        return sum(_resident(process) for process in _family(self._process.pid))

    def peak_memory(self) -> int:
        """Returns the most bytes that each of them has held in memory so far, summed."""
        return sum(_peak(process) for process in _family(self._process.pid))

    def cpu_seconds(self, alone: bool = False) -> float:
        """Returns the processor time so far of this process and its offspring, or of it alone."""
        family = _family(self._process.pid)
        return sum(_cpu_seconds(process) for process in (family[:1] if alone else family))

    def stop(self) -> None:
        """Kills the process and everything that it has started."""
        family = _family(self._process.pid)  # also processes in other sessions
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._pipe.close()
        self._log.close()


def _family(pid: int) -> list[psutil.Process]:
    """Returns a process and all that descend from it; none if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_seconds(process: psutil.Process) -> float:
    """Returns the processor time of a process, and of its children that have ended."""
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0.0


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _peak(process: psutil.Process) -> int:
    """Returns the most bytes a process has held; from /proc, as psutil knows no peak on Linux."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0  # a process that ends has no memory


def _serve(pipe: connection.Connection) -> None:
    """Makes a contender and calls its methods until the pipe closes."""
    kind, args, kwargs = pipe.recv()
    from tff_fedmeta import runtime

    runtime.quiet_tensorflow()
    from benchmarks import contenders

    contender = getattr(contenders, kind)(*args, **kwargs)
    pipe.send((None, None))
    while True:
        method, args = pipe.recv()
        pipe.send((None, getattr(contender, method)(*args)))


def _main() -> None:
    pipe = connection.Connection(int(sys.argv[1]))
    os.set_inheritable(pipe.fileno(), False)
    try:
        _serve(pipe)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the program is gone
    except Exception:
        with contextlib.suppress(BrokenPipeError):
            pipe.send((traceback.format_exc(), None))
    os.killpg(0, signal.SIGKILL)  # TFF's worker would outlive this process


if __name__ == "__main__":
    _main()
