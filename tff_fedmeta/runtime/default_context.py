"""What runs a computation outside of every `with` block: one runtime for the program, or a warning.

TFF's contexts belong to a thread. The thread that imports TFF gets TFF's own worker as its default
context, other threads get one that raises an error.
"""

from __future__ import annotations

import atexit
import sys
import threading
import warnings
from typing import Any

import tensorflow_federated as tff

from tff_fedmeta.runtime import computations, execution_context, local

_HOW = "`with fm.local_runtime():` around the calls, or once fm.use_local_runtime()."


def use_local_runtime(*, num_threads: int | None = None) -> execution_context.EngineContext:
    """Opens `local_runtime()` for the rest of the program, in all of its threads.

    For notebooks and asyncio programs, where no `with` block can last. A runtime opened by `with`
    takes precedence within its block. A second call changes nothing, unless it asks for another
    number of threads: then it closes the first runtime and opens another.

    Args:
        num_threads: How many clients run at the same time, each on one core; >= 1. Default: as many
            as there are usable cores.

    Returns:
        The context; its `client_clock()` tells how long its threads have worked on clients.

    Raises:
        ValueError: If `num_threads` is out of range.
    """
    with _PROGRAM.lock:
        watch()
        if num_threads in (None, _PROGRAM.num_threads) and _PROGRAM.context is not None:
            return _PROGRAM.context
        opened = local.open_context(num_threads)
        _PROGRAM.close()
        _PROGRAM.context, _PROGRAM.num_threads = opened, num_threads
        return opened


def watch() -> None:
    """Puts a default of ours in the place of TFF's, in this thread and in those that come."""
    stack = tff.framework.get_context_stack()
    _watch_new_threads(type(stack))
    default = stack._stack[0]
    if not isinstance(default, _Default):
        tff.framework.set_default_context(_Default(default))


class _Program:
    """The runtime of the program, if it was opened."""

    def __init__(self) -> None:
        self.context: execution_context.EngineContext | None = None
        self.num_threads: int | None = None
        self.has_warned = False
        self.lock = threading.Lock()

    def close(self) -> None:
        """Waits for the clients that are being worked on."""
        if self.context is not None:
            self.context.close()
            self.context = None


_PROGRAM = _Program()
atexit.register(_PROGRAM.close)


class _Default(tff.framework.SyncContext):
    """A thread's default context: the program's runtime if there is one, or else what was there.

    Args:
        other: What was there, TFF's own worker for one; None: nothing.
    """

    def __init__(self, other: Any):
        self._other = other

    def invoke(self, comp: Any, arg: Any) -> Any:
        """Runs a computation where there is something that runs it."""
        if _PROGRAM.context is not None:
            return _PROGRAM.context.invoke(comp, arg)
        if self._other is None:
            raise RuntimeError(
                "No runtime is open in this thread; those that `with` opens are for its own thread "
                f"alone. Open one: {_HOW}"
            )
        if type(self._other) is tff.framework.SyncExecutionContext:
            self._warn_once(comp)
        return self._other.invoke(comp, arg)

    def _warn_once(self, comp: Any) -> None:
        if _PROGRAM.has_warned or not computations.has_clients(comp.type_signature.parameter):
            return
        _PROGRAM.has_warned = True
        warnings.warn(
            "No runtime is open, so TFF computes this in a worker of its own, which is slower and "
            f"outlives the program. Open one: {_HOW}",
            stacklevel=3 + _calls_within_tff(),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


def _calls_within_tff() -> int:
    """Returns how many calls of TFF's code lie between a context and whoever called it."""
    depth, frame = 0, sys._getframe(3)
    while frame is not None and "tensorflow_federated" in frame.f_globals.get("__name__", ""):
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    return depth


def _watch_new_threads(kind: type) -> None:
    """Gives every thread that has not used TFF yet a default of ours, in the place of an error."""
    first: Any = kind.__init__  # type: ignore[misc]
    if getattr(first, "is_ours", False):
        return

    def init(self: Any, default_context: Any) -> None:  # which threading.local calls per thread
        del default_context
        first(self, _Default(None))

    init.is_ours = True  # type: ignore[attr-defined]
    kind.__init__ = init  # type: ignore[misc]
