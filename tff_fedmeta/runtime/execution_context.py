"""A TFF execution context that runs the server's programs here and leaves clients to an engine.

TFF's worker is sent every client's data and weights as messages, keeps a whole cohort in memory and
sends the result back. This context calls the plain TensorFlow that TFF splits a computation into
(`computations.py`).

What a cohort needs in memory does not grow with its size, except in aggregators that collect. The
result depends on the arguments alone, not on the engine or its number of threads or machines:
clients are added up in an order that depends on the cohort. Only what draws from TensorFlow's
stateful generators, as dropout does, differs from run to run, here as in TFF's worker.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.runtime import computations
from tff_fedmeta.runtime.engine import Engine

# What TensorFlow says of a dataset that is not a single element -> how many it has.
_NUMBERS = {"Dataset had more than one element": "several", "Dataset was empty": "none"}


class EngineContext(tff.framework.SyncContext):
    """Runs the forms of TFF's computations that are classes in `computations.py`."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._compiled: dict[int, Any] = {}
        self._finalizers: dict[int, weakref.finalize] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    def invoke(self, comp: Any, arg: Any) -> Any:
        """Runs a computation on its packed arguments, as TFF's contexts do.

        Raises:
          computations.UnsupportedComputationError: If it is of another form.
          TypeError: If an argument is not of the computation's type.
          ValueError: If the runtime is closed, or a client's dataset has not exactly one element.
        """
        if self._is_closed:
            raise ValueError(
                "This runtime is closed, because its with block has ended: open another one."
            )
        with self._lock:
            if id(comp) not in self._compiled:
                self._compiled[id(comp)] = computations.split(comp)
                self._finalizers[id(comp)] = weakref.finalize(comp, self._forget, id(comp))
            compiled = self._compiled[id(comp)]
        try:
            return compiled(arg, self._engine)
        except tf.errors.InvalidArgumentError as error:
            for said, number in _NUMBERS.items():
                if said in str(error):
                    raise ValueError(
                        "A client's dataset must have one element, with all of its examples, but "
                        f"one has {number}: make it by fm.client_dataset(x, y), and instead of "
                        "repeating it give the process inner_epochs."
                    ) from error
            raise

    def client_clock(self) -> float:
        """Returns the seconds that all of the threads together spent on clients, per thread.

        A round in which every thread works on clients from beginning to end takes that long.
        """
        return self._engine.client_clock()

    def figures(self) -> dict[str, float]:
        """Returns named figures of the last call, where the engine has any."""
        return self._engine.figures()

    def close(self) -> None:
        """Waits for the clients that are being worked on, and frees everything."""
        self._is_closed = True
        self._engine.close()
        for key in list(self._compiled):
            self._forget(key)

    def _forget(self, key: int) -> None:
        compiled = self._compiled.pop(key, None)
        if compiled is not None:
            self._finalizers.pop(key).detach()
            compiled.close()
