"""Whether memory stays flat over many rounds.

    python -m benchmarks.memory

Small clients of the linear model in our runtime, another cohort in every round. Every client has
taken part before memory is read for the first time, so that growth is not first use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import command_line, report
from benchmarks.processes import Process

_WORKLOAD = "linear"
_HEADER = ("rounds", "resident, MB", "more than at first, MB")

_OPTIONS: list[command_line.Option] = [
    (flags.DEFINE_list, "rounds", "30,100,300", "After which rounds memory is read, each >= 1."),
    (flags.DEFINE_integer, "clients", 100, "Clients there are, >= 1."),
    (flags.DEFINE_integer, "cohort", 10, "Clients in a round, >= 1."),
    (flags.DEFINE_integer, "examples", 20, "Examples of every client, >= 1."),
]


def measure(
    rounds: Sequence[int], *, num_clients: int, cohort: int, num_examples: int
) -> dict[int, int]:
    """Returns the bytes resident in all processes after each of these rounds, which ascend."""
    resident = {}
    with Process("ours", _WORKLOAD, num_clients, num_examples) as process:
        process.wait_until_ready()
        for done in range(rounds[-1]):
            members = [(done * cohort + i) % num_clients for i in range(cohort)]
            process.call("round", members)
            if done + 1 in rounds:
                resident[done + 1] = process.resident_memory()
    return resident


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; returns 0, or 2 if flags are wrong."""
    return command_line.run(argv, "memory", __doc__, _OPTIONS, _run)


def _run(values: dict[str, Any]) -> tuple[str, int]:
    rounds = sorted(set(command_line.positive_ints("--rounds", values["rounds"])))
    num_clients, cohort = values["clients"], values["cohort"]
    if cohort > num_clients:
        raise ValueError(f"--cohort must be at most --clients, {num_clients}, but is {cohort}.")
    if rounds[0] * cohort < num_clients:
        raise ValueError(
            f"--rounds must begin when all {num_clients} clients have taken part, with round "
            f"{-(-num_clients // cohort)} or later, but begins with {rounds[0]}."
        )
    resident = measure(
        rounds, num_clients=num_clients, cohort=cohort, num_examples=values["examples"]
    )
    first = resident[rounds[0]]
    text = report.table(
        _HEADER,
        [
            [str(n), report.megabytes(value), report.megabytes(value - first)]
            for n, value in resident.items()
        ],
    )
    return text, 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
