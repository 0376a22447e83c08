"""`with` blocks that say so where they are entered twice."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Callable, Generic, TypeVar

Opened = TypeVar("Opened")


class Block(contextlib.AbstractContextManager, Generic[Opened]):
    """A context manager that can be entered once."""

    def __init__(self, name: str, manager: contextlib.AbstractContextManager[Opened]):
        self._name = name
        self._manager = manager
        self._entered = False

    def __enter__(self) -> Opened:
        if self._entered:
            raise ValueError(
                f"A runtime is entered once, but this one was entered before: call {self._name}() "
                "again for another."
            )
        self._entered = True
        return self._manager.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._manager.__exit__(kind, error, traceback)


def once(make: Callable[..., Iterator[Opened]]) -> Callable[..., Block[Opened]]:
    """As `contextlib.contextmanager`, for what is entered once: entering it again says so."""
    manager = contextlib.contextmanager(make)

    @functools.wraps(make)
    def open_block(*args: Any, **kwargs: Any) -> Block[Opened]:
        return Block(make.__name__, manager(*args, **kwargs))

    return open_block
