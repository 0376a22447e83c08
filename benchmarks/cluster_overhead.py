"""A round in one process beside the same round on Ray: a part of `cluster.py`."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import report
from benchmarks.processes import Process

_COHORTS = (("cnn", 10), ("cnn", 100), ("linear", 100))
_EXAMPLES = 100
# How a table calls it -> the contender, and what it does in a round.
_CONTENDERS = {
    "ours": ("ours", "round"),
    "ray": ("ray", "round"),
    "ray, by reference": ("ray", "round_of_references"),
}


@contextlib.contextmanager
def running(contender: str, *args: Any, **how: Any) -> Iterator[Process]:
    """Runs a contender that can be closed in a process of its own, and closes it at the end."""
    with Process(contender, *args, **how) as process:
        process.wait_until_ready()
        yield process
        process.call("close")


def measure(repetitions: int) -> str:
    """Returns a table of rounds in one process and on Ray."""
    header = [
        *("workload", "clients", "contender", "s a round", "CPU s a round", "CPU / ours"),
        *("driver's CPU s", "MB sent a round", "peak, MB"),
    ]
    rows = [row for cohort in _COHORTS for row in _by_turns(*cohort, repetitions)]
    return f"{report.table(header, rows)}\n\n- Final weights are equal, bit for bit, in every row."


def _by_turns(name: str, num_clients: int, repetitions: int) -> list[list[str]]:
    """Returns a row for each contender of `_CONTENDERS`."""
    arguments = {kind: [num_clients] if "reference" in kind else [] for kind in _CONTENDERS}
    taken: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in _CONTENDERS}
    with contextlib.ExitStack() as stack:
        processes: dict[str, Process] = {}
        for kind, (contender, method) in _CONTENDERS.items():
            process = stack.enter_context(running(contender, name, num_clients, _EXAMPLES))
            processes[kind] = process
            for _ in range(2):  # which trace
                process.call(method, *arguments[kind])
        for _ in range(repetitions):
            for kind, process in processes.items():
                before = process.cpu_seconds(), process.cpu_seconds(alone=True)
                start = time.perf_counter()
                process.call(_CONTENDERS[kind][1], *arguments[kind])
                seconds = time.perf_counter() - start
                cpu = process.cpu_seconds() - before[0]
                taken[kind].append((seconds, cpu, process.cpu_seconds(alone=True) - before[1]))
        weights = [process.call("weights") for process in processes.values()]
        for others in weights[1:]:
            if any((one != other).any() for one, other in zip(weights[0], others)):
                raise ValueError(f"{name}, {num_clients} clients: the weights differ.")
        sent = {
            kind: f"{process.call('figures')['bytes_sent'] / 1e6:.1f}" if kind != "ours" else ""
            for kind, process in processes.items()
        }
        peaks = {
            kind: report.megabytes(process.peak_memory()) for kind, process in processes.items()
        }
    base = statistics.median(cpu for _, cpu, _ in taken["ours"])
    rows = []
    for kind, figures in taken.items():
        seconds_, cpu_, driver = zip(*figures)
        rows.append(
            [
                *(name, str(num_clients), kind),
                *(report.spread(seconds_, 2), report.spread(cpu_, 2)),
                f"{statistics.median(cpu_) / base:.2f}",
                *(report.spread(driver, 2), sent[kind], peaks[kind]),
            ]
        )
    return rows
