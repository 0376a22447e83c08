"""How time and memory grow with the clients of a round.

    python -m benchmarks.scaling

The EMNIST network in our runtime, every cohort in a fresh process, so that its peak is its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import command_line, report
from benchmarks.processes import Process
from benchmarks.workloads import WORKLOADS

_WORKLOAD = "cnn"
_HEADER = ("contender", "clients", "ms per client", "first round, s", "peak, MB", "of it data, MB")

_OPTIONS: list[command_line.Option] = [
    (flags.DEFINE_list, "cohorts", "10,30,100,300,1000", "Clients in a round, each >= 1."),
    (flags.DEFINE_list, "stock", "", "Cohorts to run with stock TFF too, e.g. 10,100."),
    (flags.DEFINE_integer, "examples", 100, "Examples of every client, >= 1."),
    (flags.DEFINE_integer, "repetitions", 3, "Timed rounds of each cohort, >= 1."),
]


def measure(contender: str, num_clients: int, num_examples: int, repetitions: int) -> list[str]:
    """Trains one cohort and returns its row of the table."""
    with Process(contender, _WORKLOAD, num_clients, num_examples) as process:
        process.wait_until_ready()
        first = process.call("round")
        seconds = [process.call("round") for _ in range(repetitions)]
        peak = process.peak_memory()
    client = WORKLOADS[_WORKLOAD].resized(1, num_examples).clients()[0]
    return [
        contender,
        str(num_clients),
        report.spread([1000 * s / num_clients for s in seconds], 2),
        f"{first:.1f}",
        report.megabytes(peak),
        report.megabytes(num_clients * sum(array.nbytes for array in client)),
    ]


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; returns 0, or 2 if flags are wrong."""
    return command_line.run(argv, "scaling", __doc__, _OPTIONS, _run)


def _run(values: dict[str, Any]) -> tuple[str, int]:
    cohorts = [("ours", n) for n in command_line.positive_ints("--cohorts", values["cohorts"])]
    if values["stock"]:
        cohorts += [("stock", n) for n in command_line.positive_ints("--stock", values["stock"])]
    results = []
    for contender, num_clients in cohorts:
        results.append(measure(contender, num_clients, values["examples"], values["repetitions"]))
        print(f"{contender}: {num_clients} clients are done.", file=sys.stderr, flush=True)
    return report.table(_HEADER, results), 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
