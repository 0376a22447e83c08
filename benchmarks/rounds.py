"""Rounds of stock TFF, of ours and of a bare TensorFlow loop, side by side.

    python -m benchmarks.rounds

All contenders train the same model on the same batches of the same clients, a round of one, then a
round of the next, each in processes of its own, the others idle. A run whose contenders do not end
with the same weights fails. docs/performance.md says how to read the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import command_line, report
from benchmarks.processes import Process
from benchmarks.workloads import WORKLOADS, Workload

TOLERANCE = 1e-5
CONTENDERS = ("stock", "ours", "bare", "bare_per_core")
_LIMITS = ("bare", "bare_per_core")

_OPTIONS: list[command_line.Option] = [
    (flags.DEFINE_list, "workloads", ",".join(WORKLOADS), f"Of: {', '.join(WORKLOADS)}."),
    (flags.DEFINE_list, "contenders", ",".join(CONTENDERS), f"Of: {', '.join(CONTENDERS)}."),
    (flags.DEFINE_integer, "repetitions", 5, "Timed rounds of each contender, >= 1."),
    (flags.DEFINE_integer, "warmup", 2, "Rounds before them, which trace, >= 1."),
    (flags.DEFINE_integer, "clients", None, "Clients in a round, instead of the workload's own."),
    (flags.DEFINE_integer, "examples", None, "Examples of every client, instead of its own."),
]


class Contender:
    """One way to train, in one process or several that share the clients.

    Args:
      processes: Freshly started; they are stopped with the `with` block.
    """

    def __init__(self, processes: Sequence[Process]):
        self._processes = processes

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.ExitStack() as stack:  # all of them, even if one cannot be stopped
            for process in self._processes:
                stack.callback(process.stop)

    def wait_until_ready(self) -> None:
        """Returns when every process has built its model."""
        for process in self._processes:
            process.wait_until_ready()

    def round(self) -> float:
        """Trains for a round and returns its seconds."""
        (process,) = self._processes
        return process.call("round")

    def weights(self) -> list[np.ndarray]:
        """Returns the weights after the last round."""
        return self._processes[0].call("weights")

    def peak_memory(self) -> int:
        """Returns the bytes that its processes had resident at most, each at its own peak."""
        return sum(process.peak_memory() for process in self._processes)


class BareContender(Contender):
    """The bare loop. Putting the shares together between rounds is not timed: it is a limit."""

    def round(self) -> float:
        """Trains for a round and returns the seconds of the slowest process."""
        seconds, sums, counts = zip(*self._all("round"))
        total = sum(counts)
        self._all("set_weights", [sum(parts) / np.float32(total) for parts in zip(*sums)])
        return max(seconds)

    def _all(self, method: str, *args: Any) -> list[Any]:
        for process in self._processes:
            process.send(method, *args)
        return [process.receive() for process in self._processes]


def start(contender: str, name: str, workload: Workload, sizes: Sequence[Any]) -> Contender:
    """Starts a contender's processes.

    Args:
      contender: Of `CONTENDERS`.
      name: Of the workload.
      workload: In its final size.
      sizes: What it was resized with.
    """
    if contender == "bare":
        return BareContender([Process("Bare", name, *sizes)])
    if contender == "bare_per_core":
        shares = balanced_shares(workload.sizes(), len(os.sched_getaffinity(0)))
        return BareContender(
            [Process("Bare", name, *sizes, share=share, num_threads=1) for share in shares]
        )
    return Contender([Process(contender, name, *sizes)])


def balanced_shares(sizes: Sequence[int], num_shares: int) -> list[list[int]]:
    """Deals clients out, the largest first, each to the process with the fewest examples so far.

    Args:
      sizes: Each client's number of examples.
      num_shares: The most shares there may be; none is empty.

    Returns:
      The shares, lists of indices into `sizes`.
    """
    shares: list[list[int]] = [[] for _ in range(min(num_shares, len(sizes)))]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        min(shares, key=lambda share: sum(sizes[i] for i in share)).append(index)
    return shares


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured on one workload; dictionaries by contender, the first is the reference.

    Attributes:
      name: Of the workload.
      num_clients: Clients in a round.
      num_examples: Examples in a round.
      seconds: Of each timed round, in their order.
      start_up: Seconds from the start of the process to the end of the first round.
      peak_memory: Bytes.
      distance: Between the final weights and the reference's, see `distance`.
      moved: Between the reference's first and final weights, so that `distance` has a scale.
    """

    name: str
    num_clients: int
    num_examples: int
    seconds: dict[str, list[float]]
    start_up: dict[str, float]
    peak_memory: dict[str, int]
    distance: dict[str, float]
    moved: float

    @property
    def agrees(self) -> bool:
        """Whether all contenders have trained the same weights."""
        return all(value <= TOLERANCE for value in self.distance.values())  # NaN does not


def measure(
    name: str,
    contenders: Sequence[str],
    *,
    repetitions: int,
    warmup: int,
    sizes: Sequence[Any] = (None, None),
) -> Measurement:
    """Lets the contenders train one workload by turns."""
    workload = WORKLOADS[name].resized(*sizes)
    running: dict[str, Contender] = {}
    start_up, first_weights = {}, {}
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    with contextlib.ExitStack() as stack:
        for contender in contenders:  # one after another, so that start-up is measured alone
            begin = time.perf_counter()
            running[contender] = stack.enter_context(start(contender, name, workload, sizes))
            running[contender].wait_until_ready()
            first_weights[contender] = running[contender].weights()
            running[contender].round()
            start_up[contender] = time.perf_counter() - begin
            print(f"{name}: {contender} is ready.", file=sys.stderr, flush=True)
        for repetition in range(1 - warmup, repetitions):
            for contender in contenders:
                lasted = running[contender].round()
                if repetition >= 0:
                    seconds[contender].append(lasted)
        peak_memory = {contender: running[contender].peak_memory() for contender in contenders}
        weights = {contender: running[contender].weights() for contender in contenders}
    reference = contenders[0]
    return Measurement(
        name=name,
        num_clients=workload.num_clients,
        num_examples=sum(workload.sizes()),
        seconds=seconds,
        start_up=start_up,
        peak_memory=peak_memory,
        distance={
            contender: distance(weights[contender], weights[reference]) for contender in contenders
        },
        moved=distance(weights[reference], first_weights[reference]),
    )


def distance(weights: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Returns |a - b| / |b|, Euclidean norms over all weights together.

    Not tensor by tensor: a bias is so small at first that one ReLU which falls on its other side,
    because sums were rounded in another order, is 1e-4 of it.
    """
    return _norm([a - b for a, b in zip(weights, reference)]) / _norm(reference)


def _norm(weights: Sequence[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(w, dtype=np.float64)) for w in weights)))


def rows(measurement: Measurement) -> list[list[str]]:
    """Returns a row of the table for each contender."""
    seconds = measurement.seconds

    def speed_over(other: str, contender: str) -> str:
        if other not in seconds or other == contender:
            return ""
        return report.spread([b / a for a, b in zip(seconds[contender], seconds[other])], 2)

    return [
        [
            measurement.name,
            contender,
            f"{measurement.num_examples / statistics.median(times):.0f}",
            report.spread([1000 * t / measurement.num_clients for t in times], 2),
            *(speed_over(other, contender) for other in ("stock", *_LIMITS)),
            f"{measurement.start_up[contender]:.1f}",
            report.megabytes(measurement.peak_memory[contender]),
        ]
        for contender, times in seconds.items()
    ]


_HEADER = (
    "workload",
    "contender",
    "examples/s",
    "ms per client",
    "speed / stock",
    *(f"speed / {limit}" for limit in _LIMITS),
    "start-up, s",
    "peak, MB",
)


def remarks(measurement: Measurement) -> list[str]:
    """Returns sentences on what a client costs beyond its training, and on the final weights."""
    seconds = measurement.seconds
    sentences = []
    for limit in _LIMITS:
        if limit in seconds and "ours" in seconds:
            extra = [
                1000 * (a - b) / measurement.num_clients
                for a, b in zip(seconds["ours"], seconds[limit])
            ]
            sentences.append(
                f"{measurement.name}: ours takes {report.spread(extra, 2)} ms more per client "
                f"than {limit}."
            )
    reference, *others = measurement.distance
    if others:
        distances = ", ".join(f"{name} {measurement.distance[name]:.1e}" for name in others)
        verdict = "agree" if measurement.agrees else f"DISAGREE by more than {TOLERANCE:g}"
        sentences.append(
            f"{measurement.name}: final weights {verdict}. Relative distance from {reference}: "
            f"{distances}; training moved the weights by {measurement.moved:.1e}."
        )
    return sentences


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; returns 0, or 1 if weights disagree, or 2 if flags are wrong."""
    return command_line.run(argv, "rounds", __doc__, _OPTIONS, _run)


def _run(values: dict[str, Any]) -> tuple[str, int]:
    names = command_line.choices("--workloads", values["workloads"], list(WORKLOADS))
    contenders = command_line.choices("--contenders", values["contenders"], CONTENDERS)
    measurements = [
        measure(
            name,
            contenders,
            repetitions=values["repetitions"],
            warmup=values["warmup"],
            sizes=(values["clients"], values["examples"]),
        )
        for name in names
    ]
    table = report.table(_HEADER, [row for result in measurements for row in rows(result)])
    lines = [f"- {line}" for result in measurements for line in remarks(result)]
    text = "\n".join([table, "", *lines]).rstrip()
    return text, 0 if all(measurement.agrees for measurement in measurements) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
