"""What a network takes in memory, and whether this machine has it, before anything is made."""

from __future__ import annotations

import os
import pathlib

from datasets.task import DataError

# In training: the server's weights, two moments of its optimizer and the sum of updates; a client's
# weights, gradient and update, and those it started from.
_COPIES = 8
_BYTES = 4  # float32
_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")  # what a container may use, or "max"


def check_weights(number: int, options: str) -> None:
    """Raises DataError unless a network of so many weights can be trained on this machine.

    Args:
      number: Of weights.
      options: What decides it, such as "--lstm_size=1000".
    """
    check(_COPIES * _BYTES * number, f"Training {number:,} weights ({options})")


def check(needed: int, what: str) -> None:
    """Raises DataError unless this machine has so many bytes.

    Args:
      needed: Estimated bytes.
      what: What takes them, the subject of the sentence.
    """
    has = machine_bytes()
    if needed > has:
        raise DataError(
            f"{what} takes about {needed / 1e9:,.0f} GB of memory, but this machine has "
            f"{has / 1e9:,.0f} GB: choose something smaller."
        )


def machine_bytes() -> int:
    """Returns the bytes of memory that this machine has, or that this container may use."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(physical, int(_LIMIT.read_text()))
    except (OSError, ValueError):
        return physical
