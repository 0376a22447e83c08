"""What travels to workers: works, once for each of them, and the clients of a block."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from tff_fedmeta.runtime.client_feeds import Fed
from tff_fedmeta.runtime.references import is_reference
from tff_fedmeta.runtime.work import Work

# Arrays below this many bytes are copied, which costs less than handing them over by themselves.
_SMALL_BUFFER = 16_384


class UnsendableError(ValueError):
    """Something of the user's that another process cannot be given; said in one sentence."""


class Definition(NamedTuple):
    """A work without its context, which changes from round to round.

    Attributes:
      key: What tells it from others: a hash.
      content: The pickled kind of work, programs and feeds.
    """

    key: str
    content: bytes

    @classmethod
    def of(cls, work: Work) -> Definition:
        """Describes a work."""
        content = pickle.dumps((type(work), work.programs, work.feeds), protocol=5)
        return cls(hashlib.sha256(content).hexdigest(), content)


class Parcel(NamedTuple):
    """Tasks as bytes, the memory of arrays apart, which shared memory need not copy.

    Attributes:
      content: The pickled tasks without their arrays.
      buffers: The arrays' memory.
    """

    content: bytes
    buffers: list[np.ndarray]

    @classmethod
    def of(cls, tasks: Sequence[Any], work: Work, dumps: Callable[..., bytes]) -> Parcel:
        """Packs tasks: references as they are, data as the arrays that they are fed as.

        Args:
          tasks: Clients, or lists of clients.
          work: What is to be done with them.
          dumps: As `pickle.dumps`.

        Raises:
          UnsendableError: If a reference cannot be pickled.
          TypeError: If a client is not of the work's type.
        """
        buffers: list[np.ndarray] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            memory = buffer.raw()
            if memory.nbytes < _SMALL_BUFFER:
                return True  # it stays with the rest
            buffers.append(np.frombuffer(memory, np.uint8))
            return False

        sendable = [_sendable(task, work) for task in tasks]
        try:
            return cls(dumps(sendable, protocol=5, buffer_callback=keep), buffers)
        except Exception as error:  # pickle's own, and whatever objects raise
            raise UnsendableError(
                f"{_source_in_words(tasks)} cannot be sent to other processes, because it cannot "
                f"be pickled: {_first_line(error)} Give a function of a module, with arguments "
                "that can be pickled."
            ) from error

    @property
    def num_bytes(self) -> int:
        """How much is sent."""
        return len(self.content) + sum(buffer.nbytes for buffer in self.buffers)

    def open(self) -> list[Any]:
        """Returns the tasks."""
        return pickle.loads(self.content, buffers=self.buffers)


def clients_of(tasks: Any) -> list[list[Any]]:
    """Returns the clients of tasks, each a list of its leaves."""
    if not tasks or not isinstance(tasks[0], list):
        return [tasks]
    return [client for task in tasks for client in clients_of(task)]


def names_of(tasks: Sequence[Any]) -> list[str]:
    """Returns what the clients of tasks are called; the nameless are counted in one name."""
    clients = clients_of(list(tasks))
    names = [
        str(leaf.client_id) for client in clients for leaf in client if hasattr(leaf, "client_id")
    ]
    nameless = len(clients) - len(names)
    return names + ([f"{nameless} without an id"] if nameless > 0 else [])


def _sendable(task: Any, work: Work) -> Any:
    if isinstance(task[0], list):
        return [_sendable(client, work) for client in task]
    return task if any(map(is_reference, task)) else Fed(work.feeds.feed(task))


def _source_in_words(tasks: Sequence[Any]) -> str:
    for client in clients_of(list(tasks)):
        for leaf in filter(is_reference, client):
            return f"What reads the clients, {getattr(leaf, 'source', leaf)!r:.120},"
    return "A client"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].rstrip(".") + "."
