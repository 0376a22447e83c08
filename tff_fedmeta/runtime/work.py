"""What clients compute, as data: programs, the round's context, and how a client is fed.

An engine (`engine.py`) calls a work for each task, in this process or in another one. Nothing here
imports TensorFlow Federated, so that a process that only works on clients need not, either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tff_fedmeta.runtime.client_feeds import ClientFeeds
from tff_fedmeta.runtime.programs import Program

# Clients that one call trains, one after the other: a call costs as much as a small client does.
# Smaller cohorts take one at a time, for all threads to have work.
CLIENTS_PER_CALL = 4
_SMALL_COHORT = 64


@dataclasses.dataclass(frozen=True)
class Work:
    """What all tasks of a call share.

    Attributes:
      programs: What is run.
      feeds: How a client becomes arrays.
      context: What the server broadcasts.
    """

    programs: tuple[Program, ...]
    feeds: ClientFeeds
    context: Sequence[np.ndarray]

    def stop(self) -> None:
        """Ends the calls that other threads are in, which raise an error at their next step."""
        for program in self.programs:
            program.stop()


class ClientWork(Work):
    """A program (context, client) -> result. A task is one client, a list of leaves."""

    def __call__(self, client: list[Any]) -> list[np.ndarray]:
        """Returns the leaves of the client's result."""
        (program,) = self.programs
        return program([*self.context, *self.feeds.feed(client)])


class CohortWork(Work):
    """Programs (clients, context) -> sums and (sums, sums) -> sums. A task is a list of clients."""

    def __call__(self, clients: Sequence[list[Any]]) -> list[np.ndarray]:
        """Returns the sums over a task's clients, at most `CLIENTS_PER_CALL`."""
        fed = [self.feeds.feed(client) for client in clients]
        slots = fed + [self.feeds.empty()] * (CLIENTS_PER_CALL - len(fed))
        return self.programs[0](
            [np.int32(len(fed)), *self.context, *(array for slot in slots for array in slot)]
        )

    def merge(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the sums of two tasks together."""
        return self.programs[1]([*one, *other])


def in_calls(clients: Sequence[Any]) -> list[Sequence[Any]]:
    """Returns the tasks of a cohort's work: as many clients a call as its size decides."""
    count = 1 if len(clients) < _SMALL_COHORT else CLIENTS_PER_CALL
    return [clients[first : first + count] for first in range(0, len(clients), count)]
