"""A Ray of our own on this machine: on loopback alone, and gone with the program."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tff_fedmeta.runtime.ray import installed
from tff_fedmeta.runtime.ray.joined import RayStartError, without_traceback

_MARK = "FEDMETA_RAY"
_JANITOR = Path(__file__).with_name("janitor.py")
_END = 60.0  # seconds


@contextlib.contextmanager
def started(ray: Any, num_workers: int) -> Iterator[None]:
    """Starts a Ray with so many workers, each of which it counts as one CPU, and stops it.

    Its files are in a directory that is removed. However this program ends, SIGKILL included, a
    small process ends whatever is left (`janitor.py`).

    Raises:
      RayStartError: If it does not start.
    """
    # Ray's sockets are in it, and the path of a socket has 107 characters at most.
    directory = tempfile.mkdtemp(prefix="fmray-", dir="/tmp")
    mark = uuid.uuid4().hex
    janitor = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_JANITOR), directory, f"{_MARK}={mark}"],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the program
    )
    try:
        with installed.only_here(ray):
            found = os.pathsep.join(map(os.path.abspath, sys.path))  # what workers import, too
            try:
                with installed.environment({_MARK: mark, "PYTHONPATH": found}):
                    ray.init(
                        address="local",  # not whatever cluster was last started on this machine
                        num_cpus=num_workers,
                        num_gpus=0,
                        include_dashboard=False,
                        log_to_driver=False,
                        configure_logging=False,
                        _temp_dir=directory,
                    )
            except Exception as error:
                raise RayStartError(
                    f"Ray does not start on this machine: {without_traceback(error)}"
                ) from error
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        if janitor.stdin is not None:
            janitor.stdin.close()
        janitor.wait(_END)
