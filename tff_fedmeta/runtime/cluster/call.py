"""The jobs of one call of the engine: kept within bounds, watched, and told about."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from tff_fedmeta.runtime.cluster import tasks as remote
from tff_fedmeta.runtime.cluster.parcel import Parcel, clients_of, names_of
from tff_fedmeta.runtime.cluster.protocol import Cluster, Job, LostError, Report
from tff_fedmeta.runtime.work import Work

_LOG = logging.getLogger(__name__)

# How many blocks wait in the cluster, for each one that is computed: enough to keep it busy.
_AHEAD = 2
_NAMED = 20  # clients that an error names


class Defined(NamedTuple):
    """A work that the cluster knows.

    Attributes:
      key: What tells it from others.
      handle: Stands for the content of its definition.
      num_bytes: The content's size.
    """

    key: str
    handle: Any
    num_bytes: int


class Block(NamedTuple):
    """Neighbours of a cohort, and the job whose result is their sum."""

    job: Job
    tasks: Sequence[Any]


class Call:
    """One call of the engine.

    Attributes:
      client_seconds: What all threads together have spent on clients.
    """

    def __init__(
        self, cluster: Cluster, num_threads: int, work: Work, defined: Defined, is_new: bool
    ):
        """Begins a call.

        Args:
          cluster: Where its jobs run.
          num_threads: Of each worker.
          work: What is to be done.
          defined: The same in the cluster.
          is_new: Whether workers may not have it yet.
        """
        self.client_seconds = 0.0
        self._cluster = cluster
        self._num_threads = num_threads
        self._work = work
        self._defined = defined
        self._start = time.perf_counter()
        self._context = cluster.put(list(work.context))
        self._bytes_a_node = sum(np.asarray(value).nbytes for value in work.context)
        self._bytes_a_node += defined.num_bytes if is_new else 0
        self._bytes = 0
        self._num_workers = cluster.num_workers
        # Job -> its tasks, and whether clients are computed in it.
        self._waiting: dict[Job, tuple[Sequence[Any], bool]] = {}
        self._num_clients = 0
        self._computed_again = 0
        self._nodes: set[str] = set()
        self._helpers: set[str] = set()

    def compute(self, function: Callable[..., Any], tasks: Sequence[Any]) -> Block:
        """Begins a block of tasks, as soon as there is room for it."""
        while len(self._waiting) > _AHEAD * self._num_workers:
            self._collect()
        parcel = Parcel.of(tasks, self._work, self._cluster.dumps)
        self._bytes += parcel.num_bytes
        self._num_clients += len(clients_of(list(tasks)))
        return self._submit(function, tasks, True, self._context, parcel)

    def merge(self, blocks: Sequence[Block]) -> Block:
        """Begins to merge the sums of neighbours."""
        if len(blocks) == 1:
            return blocks[0]
        tasks = [task for block in blocks for task in block.tasks]
        return self._submit(remote.merge, tasks, False, *(block.job.result for block in blocks))

    def finish(self) -> None:
        """Waits for all jobs, and says what was lost and computed again."""
        while self._waiting:
            self._collect()
        lost = self._cluster.lost()
        if lost or self._helpers:
            where = f" on {', '.join(sorted(self._helpers))}" if self._helpers else ""
            _LOG.warning(
                "Lost %s. %d clients were computed again%s; the result is the same.",
                " and ".join(lost) or "a worker's process",
                self._computed_again,
                where,
            )

    def cancel(self) -> None:
        """Stops what is still going on, after an error."""
        if self._waiting:
            self._cluster.cancel(list(self._waiting))
            self._waiting.clear()

    def figures(self) -> dict[str, float]:
        """Returns what it was like: cores, clients a second, bytes that were sent from here."""
        return {
            "cores": self._num_workers * self._num_threads,
            "clients_per_second": self._num_clients / (time.perf_counter() - self._start),
            "bytes_sent": self._bytes + self._bytes_a_node * max(1, len(self._nodes)),
        }

    def _submit(
        self, function: Callable[..., Any], tasks: Sequence[Any], computes: bool, *args: Any
    ) -> Block:
        key, handle, _ = self._defined
        job = self._cluster.submit(function, key, handle, self._num_threads, *args)
        self._waiting[job] = tasks, computes
        return Block(job, tasks)

    def _collect(self) -> None:
        for job in self._cluster.finished(list(self._waiting)):
            tasks, computes = self._waiting.pop(job)
            try:
                report: Report = self._cluster.fetch(job.report)
            except LostError as error:
                raise LostError(f"{error} It worked on {_in_words(tasks)}.") from error
            self._nodes.add(report.node)
            self.client_seconds += report.seconds
            if report.tries > 1:
                self._helpers.add(report.node)
                self._computed_again += len(clients_of(list(tasks))) if computes else 0


def _in_words(tasks: Sequence[Any]) -> str:
    names = names_of(tasks)
    more = len(names) - _NAMED
    return f"the clients {', '.join(names[:_NAMED])}" + (f" and {more} more" if more > 0 else "")
