"""The named streams that everything random in a run derives from. Needs no TensorFlow."""

import hashlib
from typing import Any

import numpy as np


def stream_seed(seed: int, *stream: Any) -> tuple[int, int]:
    """Derives two independent int64 seeds for a named stream of a run.

    A pure function of its arguments, so a round or a client can be replayed on its own.

    Args:
      seed: The experiment's seed.
      *stream: What the numbers are for, e.g. `"local_training", round, client_id`.
    """
    digest = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    first, second = np.frombuffer(digest[:16], dtype="<i8")
    return int(first), int(second)


def stream_seed_int(seed: int, *stream: Any) -> int:
    """As `stream_seed`, as one int in [0, 2**31) for interfaces that take no more."""
    return stream_seed(seed, *stream)[0] % 2**31
