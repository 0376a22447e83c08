"""Ends a Ray that a program has started, and removes its files, when the program is gone.

    python janitor.py DIRECTORY MARK

It waits until its standard input closes, which a SIGKILL of the program does too. Then it ends all
that belongs to this Ray, by MARK in its environment or DIRECTORY in its command line, and removes
DIRECTORY. It imports nothing but Python.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def belonging(directory: str, mark: str) -> list[int]:
    """Returns the processes of a Ray: with the mark, with its directory, or started by such.

    Some of Ray's programs write their titles over their environment, so that no mark is seen there.
    """
    parents, found = {}, set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            marked = mark.encode() in (entry / "environ").read_bytes().split(b"\0")
            if marked or directory.encode() in (entry / "cmdline").read_bytes():
                found.add(pid)
    found.discard(os.getpid())
    more = found
    while more:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
    return sorted(found)


def main(directory: str, mark: str) -> None:
    """Waits, ends and removes."""
    sys.stdin.buffer.read()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pids = belonging(directory, mark)
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
