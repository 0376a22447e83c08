"""What the engine asks of a cluster; `runtime/ray/` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Protocol


class ClusterError(RuntimeError):
    """The cluster cannot do the work; said in one sentence."""


class LostError(ClusterError):
    """A task whose processes died, as often as it was tried."""


class Report(NamedTuple):
    """What a task says of itself.

    Attributes:
      seconds: Spent on clients by all of its threads together.
      node: Where it was computed.
      tries: How often it was begun, >= 1: more than once if a process died.
    """

    seconds: float
    node: str
    tries: int


class Job(NamedTuple):
    """A task that was handed to the cluster.

    Attributes:
      result: Stands for what it returns; as an argument of a later task it becomes that.
      report: Stands for its `Report`.
    """

    result: Any
    report: Any


class Cluster(Protocol):
    """Processes, its workers, that compute the functions of `tasks.py`."""

    @property
    def num_workers(self) -> int:
        """How many tasks it computes at the same time now, >= 1."""

    def dumps(self, value: Any, **options: Any) -> bytes:
        """Does what `pickle.dumps` does, for all that its workers can open."""

    def put(self, value: Any) -> Any:
        """Returns what stands for a value that each node is sent once, when a task needs it."""

    def submit(self, function: Callable[..., Any], key: str, definition: Any, *args: Any) -> Job:
        """Begins a task of `tasks.py`, and tries it again elsewhere if its process dies.

        Args:
          function: Of `tasks.py`.
          key: The work's.
          definition: What `put` returned for the content of the work's definition.
          *args: The function's other arguments. What `put` returned, and the results of jobs, are
            sent to where the task is computed.
        """

    def finished(self, jobs: Sequence[Job]) -> list[Job]:
        """Waits until one or more of the jobs have ended, well or not, and returns those.

        Raises:
          ClusterError: If no worker is left.
        """

    def fetch(self, handle: Any) -> Any:
        """Returns what a job's result or report stands for.

        Raises:
          LostError: If its processes died too often.
          Exception: What the task raised, as it was raised.
        """

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Lets jobs end without a result."""

    def lost(self) -> list[str]:
        """Returns the nodes that have gone since the last call, in words."""

    def close(self) -> None:
        """Lets go of everything."""
