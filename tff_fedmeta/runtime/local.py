"""Where computations run: in this process by default, or in TFF's worker (`worker.py`).

    with local_runtime():
        state = learning_process.initialize()
        ...

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import atexit
import logging
import numbers
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tff_fedmeta.runtime.blocks import once

if TYPE_CHECKING:
    from tff_fedmeta.runtime import execution_context


def quiet_tensorflow() -> None:
    """Keeps TensorFlow, TensorFlow Federated and their imports from printing what is no warning.

    Call it before TensorFlow is first imported. A `TF_CPP_MIN_LOG_LEVEL` already set is kept.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    # In a notebook TensorFlow tells of every file that it writes.
    logging.getLogger("tensorflow").addFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


@once
def local_runtime(*, num_threads: int | None = None) -> Iterator[execution_context.EngineContext]:
    """Runs TFF's computations in this process, clients side by side, within the `with` block.

    Entering makes it TFF's current execution context; leaving waits for the clients that are being
    worked on and brings the previous context back. TFF's contexts belong to a thread: computations
    called in another thread do not see this one (`use_local_runtime()` is for all threads).

    An interrupt (Ctrl-C) or an error stops the clients that are being worked on at their next step,
    and leaves the runtime usable.

    Results do not depend on the number of threads, if this package is imported before TensorFlow is
    first used. Learning processes, aggregation processes and evaluations run here, under all of
    TFF's aggregators, secure sums included, which `worker_runtime()` cannot. Computations that do
    not split into the server's and the clients' parts are refused; they need `worker_runtime()`.

    Args:
        num_threads: How many clients run at the same time, each on one core; >= 1. Default: as many
            as there are usable cores.

    Yields:
        The context; its `client_clock()` tells how long its threads have worked on clients.

    Raises:
        ValueError: If `num_threads` is out of range.
    """
    context = open_context(num_threads)
    import tensorflow_federated as tff

    try:
        with tff.framework.get_context_stack().install(context):
            yield context
    finally:
        context.close()


def open_context(num_threads: int | None) -> execution_context.EngineContext:
    """Returns a context of this many threads, which its owner closes; None: one for each core.

    Raises:
        ValueError: If `num_threads` is out of range.
    """
    threads = usable_cores() if num_threads is None else num_threads
    if isinstance(threads, bool) or not isinstance(threads, numbers.Integral) or threads < 1:
        raise ValueError(f"num_threads must be at least 1, not {threads!r}: a whole number.")
    from tff_fedmeta.runtime import engine, execution_context

    return execution_context.EngineContext(engine.ThreadEngine(threads))


def usable_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


@atexit.register
def _drop_default_context() -> None:
    """Lets go of the context which importing TFF makes, while its destructor can still work.

    Later on the destructor prints an error, and leaves the worker behind if there is one.
    """
    tff = sys.modules.get("tensorflow_federated")
    if tff is not None:
        tff.test.set_no_default_context()
