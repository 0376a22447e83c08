"""Ray as a cluster: what the engine asks for, in Ray's words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Callable

from tff_fedmeta.runtime.cluster.protocol import ClusterError, Job, LostError
from tff_fedmeta.runtime.ray import remote

TRIES = 3  # of a task, before the clients in it are blamed
_GLANCE = 5.0  # seconds between looks at whether there is still a worker


class RayCluster:
    """Workers that Ray chooses, for every task anew: tasks, not actors, so that none is waited for.

    A task that dies with its process or its node is begun again wherever there is room.
    """

    def __init__(self, ray: Any, cpus_per_task: int, patience: float):
        """Takes the connected module `ray`.

        Args:
          ray: The module, connected to a cluster.
          cpus_per_task: How many of Ray's CPUs a task takes.
          patience: Seconds that the cluster may be without any worker.
        """
        self._ray = ray
        self._cpus = cpus_per_task
        self._patience = patience
        self._run = ray.remote(
            num_cpus=cpus_per_task, num_returns=2, max_retries=TRIES - 1, retry_exceptions=False
        )(remote.run)
        self._alive = self._nodes()
        self._gone: list[Any] = []

    @property
    def num_workers(self) -> int:
        """How many tasks are computed at the same time now, >= 1."""
        return max(1, self._places())

    def dumps(self, value: Any, **options: Any) -> bytes:
        """Does what `pickle.dumps` does, functions without a module included."""
        return self._ray.cloudpickle.dumps(value, **options)

    def put(self, value: Any) -> Any:
        """Returns what stands for a value that each node is sent once, when a task needs it."""
        return self._ray.put(value)

    def submit(self, function: Callable[..., Any], key: str, definition: Any, *args: Any) -> Job:
        """Begins a task of `cluster/tasks.py`."""
        return Job(*self._run.remote(function.__name__, key, [definition], *args))

    def finished(self, jobs: Sequence[Job]) -> list[Job]:
        """Waits until one or more of the jobs have ended, well or not, and returns those."""
        by_report = {job.report: job for job in jobs}
        since = time.monotonic()
        while True:
            done, _ = self._ray.wait(
                list(by_report), num_returns=1, timeout=_GLANCE, fetch_local=False
            )
            if done:
                rest = [report for report in by_report if report not in done]
                if rest:
                    more, _ = self._ray.wait(
                        rest, num_returns=len(rest), timeout=0, fetch_local=False
                    )
                    done += more
                return [by_report[report] for report in done]
            self._gone += self._look()
            if self._places():
                since = time.monotonic()
            elif time.monotonic() - since > self._patience:
                raise ClusterError(
                    f"No node with {self._cpus} CPUs is left in the Ray cluster, and none came "
                    f"within {self._patience:g} s."
                )

    def fetch(self, handle: Any) -> Any:
        """Returns what a job's result or report stands for."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(handle)
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.RayError):  # an argument was lost
                raise _lost(error.cause) from None
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except errors.RayError as error:
            raise _lost(error) from None

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Lets jobs end without a result."""
        for job in jobs:
            self._ray.cancel(job.result, force=False)

    def lost(self) -> list[str]:
        """Returns the nodes that have gone since the last call, in words."""
        gone = self._gone + self._look()
        self._gone = []
        return [f"the node {n['NodeManagerHostname']} ({n['NodeManagerAddress']})" for n in gone]

    def close(self) -> None:
        """Does nothing: Ray frees what nobody refers to."""

    def _nodes(self) -> dict[str, Any]:
        return {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}

    def _look(self) -> list[Any]:
        """Looks which nodes there are now, and returns those that have gone."""
        before, self._alive = self._alive, self._nodes()
        return [node for key, node in before.items() if key not in self._alive]

    def _places(self) -> int:
        """Returns how many tasks fit on nodes at the same time."""
        cpus = (node["Resources"].get("CPU", 0) for node in self._alive.values())
        return sum(int(count // self._cpus) for count in cpus)


def _lost(error: Exception) -> LostError:
    kind = type(error).__name__
    return LostError(f"A task of the Ray cluster died in each of {TRIES} tries ({kind}).")
