"""Graphs that any thread may call.

Nothing here imports TensorFlow Federated (`graph_functions.py` makes programs of its computations).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

# Whoever calls a program computes it, on one core: as many at once as there are calling threads.
_CONFIG = tf.compat.v1.ConfigProto(
    intra_op_parallelism_threads=1, inter_op_parallelism_threads=1, use_per_session_threads=True
)
# It moves control edges across the frames of loops: now and then a recurrent layer in nested loops
# could not run. Nothing was slower without it.
_CONFIG.graph_options.rewrite_options.dependency_optimization = (
    rewriter_config_pb2.RewriterConfig.OFF
)


class Program:
    """A graph that any thread may call, with a session, so with variables, for each of them.

    It can be pickled, as its graph; a process that opens it needs TensorFlow alone.

    Arrays are handed over without a copy where memory is aligned, as results' memory is.
    """

    def __init__(self, graph: tf.Graph, feeds: Sequence[str], fetches: Sequence[str]):
        """Takes a graph, and the names of the tensors to feed and to fetch."""
        self._graph = graph
        self._names = tuple(feeds), tuple(fetches)
        self._options = config_pb2.CallableOptions(
            feed=feeds,
            fetch=fetches,
            # In the calling thread, instead of one that would have to be woken up.
            run_options=tf.compat.v1.RunOptions(inter_op_thread_pool=-1),
        )
        self._of_thread = threading.local()
        self._sessions: list[tf.compat.v1.Session] = []
        self._lock = threading.Lock()

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """Returns the fetches' NumPy values for the feeds' values."""
        if not self._options.fetch:
            return []
        of_thread = self._of_thread  # which `stop` replaces
        if not hasattr(of_thread, "run"):
            of_thread.run = self._new_session()
        results = of_thread.run(*values)
        for result in results:
            if isinstance(result, np.ndarray):
                result.setflags(write=False)  # the memory may belong to a constant
        return results

    def _new_session(self) -> Callable[..., list[Any]]:
        with self._lock:
            session = tf.compat.v1.Session(graph=self._graph, config=_CONFIG)
            self._sessions.append(session)
            # What `Session.make_callable` is for, which does not do it where there are feeds.
            return session._make_callable_from_options(self._options)

    def __reduce__(self) -> Any:
        graph = self._graph.as_graph_def().SerializeToString(deterministic=True)
        return _unpickled, (graph, *self._names)

    def stop(self) -> None:
        """Ends the calls that other threads are in, which raise an error at their next step.

        A session that is closed cancels what it runs, and every loop of a graph looks for that
        before it goes round again. Later calls get sessions of their own.
        """
        with self._lock:
            self._of_thread = threading.local()
            stopped, self._sessions = self._sessions, []
        for session in stopped:
            session.close()

    def close(self) -> None:
        """Frees the sessions and their variables."""
        for session in self._sessions:
            session.close()


def _unpickled(definition: bytes, feeds: Sequence[str], fetches: Sequence[str]) -> Program:
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(definition), name="")
    return Program(graph, feeds, fetches)
