"""Clients that are read where they are trained: a source that any process can open, and references.

A reference is small, whatever the client has, so that a cohort of 100,000 is a list of 100,000 ids.
"""

from __future__ import annotations

import collections
import socket
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tff_fedmeta.client import data as client_data

Read = Callable[[str], client_data.Arrays]

# What other processes' sources have opened here, by key; an experiment needs one at a time.
_MOST_OPENED = 2
_opened: collections.OrderedDict[str, Read] = collections.OrderedDict()
_lock = threading.Lock()


class ClientSourceError(ValueError):
    """A process that cannot read clients; said in one sentence that names its machine."""


class ClientSource:
    """Reads clients, in this process and in every one that it is sent to.

        source = fm.ClientSource(functools.partial(open_homes, "/data/homes.parquet"))
        cohort = [source.client(name, fm.stream_seed(0, round_num, name)) for name in names]
        state, metrics = process.next(state, cohort)

    Every process opens it once, and keeps the clients that it used last.
    """

    def __init__(
        self,
        open_reader: Callable[[], Read],
        *,
        read: Read | None = None,
        max_clients: int = 1000,
    ):
        """Takes what opens the data.

        Args:
          open_reader: Returns a function that reads a client by its id: `(x, y)`, as
            `client_dataset` takes them, the same at every call. To be sent to other processes it
            must be a function of a module, or a `functools.partial` of one, whose arguments can be
            pickled; the files that it reads must be there.
          read: What `open_reader` would return in this process, where that is open already.
          max_clients: How many clients a process keeps in memory, >= 1.
        """
        self._open_reader = open_reader
        self._max_clients = max_clients
        self._key = uuid.uuid4().hex
        self._is_from_elsewhere = False
        self._read = None if read is None else client_data.cached_reader(read, max_clients)

    def __call__(self, client_id: str) -> client_data.Arrays:
        """Reads a client."""
        if self._read is None:
            self._read = self._opened()
        return self._read(client_id)

    def client(
        self,
        client_id: str,
        seed: Sequence[int] = (0, 0),
        role: Sequence[float] | None = None,
        relabel: Callable[[Any], Any] | None = None,
        support_size: int | None = None,
    ) -> ClientReference:
        """Returns a client by reference, in the place of its dataset.

        Args:
          client_id: What the reader calls it.
          seed: As in `client_dataset`.
          role: As in `client_dataset`.
          relabel: Makes other targets of the client's own.
          support_size: As in `client_dataset`.
        """
        return ClientReference(self, client_id, tuple(seed), role, relabel, support_size)

    def __repr__(self) -> str:
        call = self._open_reader
        return f"ClientSource({getattr(call, '__qualname__', call)!s:.80})"

    def __reduce__(self) -> Any:
        return _from_elsewhere, (self._open_reader, self._max_clients, self._key)

    def _opened(self) -> Read:
        if not self._is_from_elsewhere:
            return client_data.cached_reader(self._open_reader(), self._max_clients)
        with _lock:
            if self._key not in _opened:
                try:
                    reader = self._open_reader()
                except Exception as error:  # whatever reading data raises
                    raise ClientSourceError(
                        f"The machine {socket.gethostname()} cannot read clients: {error}"
                    ) from error
                _opened[self._key] = client_data.cached_reader(reader, self._max_clients)
                if len(_opened) > _MOST_OPENED:
                    _opened.popitem(last=False)
            _opened.move_to_end(self._key)
            return _opened[self._key]


def _from_elsewhere(open_reader: Callable[[], Read], max_clients: int, key: str) -> ClientSource:
    source = ClientSource(open_reader, max_clients=max_clients)
    source._key = key
    source._is_from_elsewhere = True
    return source


class ClientReference(NamedTuple):
    """A client of a source, as a runtime takes it in the place of its dataset.

    Attributes:
      source: Who reads it.
      client_id: What the source calls it.
      seed: As in `client_dataset`.
      role: As in `client_dataset`.
      relabel: Makes other targets of the client's own, if anything.
      support_size: As in `client_dataset`.
    """

    source: Callable[[str], client_data.Arrays]
    client_id: str
    seed: Sequence[int] = (0, 0)
    role: Sequence[float] | None = None
    relabel: Callable[[Any], Any] | None = None
    support_size: int | None = None

    def load_dataset(self) -> tf.data.Dataset:
        """Reads the client and returns its `client_dataset`."""
        x, y = self.source(self.client_id)
        if self.relabel is not None:
            y = self.relabel(y)
        return client_data.client_dataset(x, y, self.seed, self.role, self.support_size)


def client_of(
    read: Read,
    client_id: str,
    seed: Sequence[int],
    role: Sequence[float] | None = None,
    relabel: Callable[[Any], Any] | None = None,
    support_size: int | None = None,
) -> Any:
    """Returns a client: by reference if a source reads it, else as the dataset that it is."""
    if isinstance(read, ClientSource):
        return read.client(client_id, seed, role, relabel, support_size)
    return ClientReference(read, client_id, seed, role, relabel, support_size).load_dataset()
