"""What Ray costs beside one process, on this machine; and a model of many.

    python -m benchmarks.cluster
    python -m benchmarks.cluster --simulate

Ray has one worker with a thread for each core, as the local runtime has threads. Contenders take
turns, a round each. Processor time is that of all processes of a contender together: what else runs
on the machine disturbs it less than it disturbs seconds. docs/cluster.md has the results.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import cluster_model, cluster_overhead, command_line, report
from benchmarks.cluster_overhead import running
from tff_fedmeta import runtime

_PARTS = ("overhead", "references", "killed", "rounds")
_EXAMPLES = 100
_FEW_EXAMPLES = 5  # of clients by reference: what is measured is not their training

_OPTIONS: list[command_line.Option] = [
    (flags.DEFINE_list, "parts", ",".join(_PARTS), f"Of: {', '.join(_PARTS)}."),
    (flags.DEFINE_integer, "repetitions", 5, "Timed rounds of each contender, >= 1."),
    (flags.DEFINE_list, "references", "10000,100000", "Clients by reference in a round."),
    (flags.DEFINE_integer, "rounds", 300, "Rounds over which memory must stay flat, >= 1."),
    (flags.DEFINE_boolean, "simulate", False, "Measure single costs, and model many nodes."),
]


def references(counts: Sequence[int]) -> str:
    """Returns a table of rounds of clients by reference, linear model, few examples."""
    header = ("clients", "s", "clients/s", "driver's CPU s", "driver's memory more, MB", "MB sent")
    rows = []
    with running("ray", "linear", 1, _FEW_EXAMPLES) as process:
        process.call("round_of_references", 100)
        for count in counts:
            told = process.call("round_of_references", count)
            sent = process.call("figures")["bytes_sent"]
            rows.append(
                [
                    str(count),
                    f"{told['seconds']:.1f}",
                    f"{count / told['seconds']:.0f}",
                    f"{told['cpu']:.2f}",
                    report.megabytes(told["memory"]),
                    f"{sent / 1e6:.1f}",
                ]
            )
    return report.table(header, rows)


def killed() -> str:
    """Returns what a killed worker costs a round of the CNN with 100 clients."""
    with running("ray", "cnn", 100, _EXAMPLES, num_workers=2, threads_per_worker=1) as process:
        for _ in range(2):
            process.call("round")
        whole = process.call("round")
        struck = process.call("round_with_a_kill")
    return (
        f"- A round of 100 clients of the CNN on two workers: {whole:.1f} s; one of the workers "
        f"killed in it: {struck:.1f} s."
    )


def flat_rounds(count: int) -> str:
    """Returns how memory grows over many rounds of ten linear clients."""
    with running("ray", "linear", 10, 20) as process:
        for _ in range(20):
            process.call("round")
        before = process.resident_memory()
        for _ in range(count - 20):
            process.call("round")
        after = process.resident_memory()
    return (
        f"- All processes after 20 rounds: {report.megabytes(before)} MB; after {count}: "
        f"{report.megabytes(after)} MB."
    )


def simulate() -> str:
    """Returns the single costs, the model's rounds, and the model beside what two nodes did."""
    runtime.quiet_tensorflow()
    with running("costs", "cnn", _EXAMPLES) as process:
        single = process.call("measure")
    with running("ray", "linear", 1, _FEW_EXAMPLES) as process:
        process.call("round_of_references", 100)
        before = process.call("figures")["bytes_sent"]
        rounds = [process.call("round_of_references", 10_000) for _ in range(3)]
        cpu = statistics.median(told["cpu"] for told in rounds)
        sent = process.call("figures")["bytes_sent"] - before
    costs = cluster_model.Costs(
        client=single["client"],
        merge=single["merge"],
        broadcast=single["broadcast"],
        empty=single["empty"],
        task=single["task"],
        reference=cpu / 10_000,
        reference_bytes=sent / 9_900,
        num_bytes=single["bytes"],
    )
    lines = [
        f"- Measured: a client {1e3 * costs.client:.1f} ms of a core, a merge "
        f"{1e3 * costs.merge:.2f} ms, a broadcast {1e3 * costs.broadcast:.1f} ms, an empty task "
        f"{1e3 * costs.empty:.2f} ms, of the driver's processor {1e3 * costs.task:.2f} ms a task "
        f"and {1e6 * costs.reference:.1f} us a client; {costs.reference_bytes:.0f} bytes a client, "
        f"{costs.num_bytes / 1e6:.1f} MB a sum.",
        _checked(costs),
    ]
    header: tuple[str, ...] = (
        "clients",
        "nodes x cores",
        "tasks",
        "depth",
        "driver sends, MB",
        "training, s",
    )
    header += ("moving, s", "merging, s", "driver's CPU s", "round, s")
    rows = []
    for num_clients, nodes in ((10_000, 10), (10_000, 100), (1_000_000, 100), (1_000_000, 1000)):
        cluster = cluster_model.Cluster(nodes, 32, 1.25e9)
        found = cluster_model.predict(costs, cluster, num_clients)
        rows.append(
            [
                f"{num_clients:,}",
                f"{nodes} x 32",
                f"{found.num_blocks} + {found.num_merges}",
                str(found.depth),
                report.megabytes(found.sent_by_driver),
                f"{found.clients:.1f}",
                f"{found.moving:.2f}",
                f"{found.merging:.2f}",
                f"{found.driver:.2f}",
                f"{found.seconds:.1f}",
            ]
        )
    return "\n".join([report.table(header, rows), "", *lines])


def _checked(costs: cluster_model.Costs) -> str:
    """Two workers of one thread stand for two nodes; memory is their network."""
    num_clients, repetitions = 64, 3
    with running("ray", "cnn", 1, _EXAMPLES, num_workers=2, threads_per_worker=1) as process:
        for _ in range(2):
            process.call("round_of_references", num_clients)
        before = process.call("client_seconds")
        rounds = [process.call("round_of_references", num_clients) for _ in range(repetitions)]
        spent = process.call("client_seconds") - before
    measured = [told["seconds"] for told in rounds]
    # The same clients take longer where both cores and other programs are at work.
    then = dataclasses.replace(costs, client=spent / (repetitions * num_clients))
    cluster = cluster_model.Cluster(2, 1, float("inf"))
    predicted = cluster_model.predict(then, cluster, num_clients).seconds
    return (
        f"- Two workers of one core, {num_clients} clients, which took {1e3 * then.client:.1f} ms "
        f"each in these rounds: the model says {predicted:.2f} s, measured were "
        f"{report.spread(measured, 2)} s."
    )


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; returns 0, or 2 if flags are wrong."""
    return command_line.run(argv, "cluster", __doc__, _OPTIONS, _run)


def _run(values: dict[str, Any]) -> tuple[str, int]:
    if values["simulate"]:
        return simulate(), 0
    counts = command_line.positive_ints("--references", values["references"])
    run = {
        "overhead": lambda: cluster_overhead.measure(values["repetitions"]),
        "references": lambda: references(counts),
        "killed": killed,
        "rounds": lambda: flat_rounds(max(values["rounds"], 21)),
    }
    parts = command_line.choices("--parts", values["parts"], _PARTS)
    return "\n\n".join(run[part]() for part in parts), 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
