"""`ray_runtime()`: TFF's computations with clients on the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tff_fedmeta.runtime.local import usable_cores
from tff_fedmeta.runtime.ray import installed

if TYPE_CHECKING:
    from tff_fedmeta.runtime import execution_context


@contextlib.contextmanager
def ray_runtime(
    address: str | None = None,
    *,
    num_workers: int | None = None,
    threads_per_worker: int | None = None,
    patience: float = 60.0,
    modules: Sequence[ModuleType] = (),
) -> Iterator[execution_context.EngineContext]:
    """Runs TFF's computations with clients in Ray's processes, within the `with` block.

    As `local_runtime()`, with the same bits: the server's programs run in this process, and what
    clients compute in workers, on this machine or on many. A worker imports TensorFlow but not TFF.
    Weights are sent once a round and node; clients' results are added up where they are, and one
    sum comes back. What a worker or a node was doing when it died is computed elsewhere, three
    times at most, and a warning says so.

    Clients may be datasets, which are sent, or references (`fm.ClientSource`), which workers read.

    Args:
        address: None starts Ray on this machine, on the loopback interface only, and stops it at
            the end. "auto" joins the cluster that this machine belongs to, and "HOST:PORT" the one
            there.
        num_workers: How many processes work on clients; >= 1. Default: one. Only without an
            address: a cluster has as many as its nodes have room for.
        threads_per_worker: How many clients a worker works on at the same time, each on one core;
            >= 1. Default: the usable cores, shared by the workers; in a cluster, as many as the
            node with the fewest has.
        patience: How long the cluster may be without a free worker at the start, and without any
            worker later on, in seconds; > 0.
        modules: Packages beside this one that workers need, to read clients for one, and that the
            cluster's nodes are sent. Without an address workers find what this process finds.

    Yields:
        The context; its `client_clock()` tells how long its threads have worked on clients, and
        its `figures()` the cores, clients a second and bytes sent of the last call.

    Raises:
        ValueError: If an argument is out of range, or Ray is not installed.
        ClusterError: A RuntimeError, if Ray does not start or the cluster cannot be joined, has
            other versions, or no free core in time; and of computations, if clients died in three
            workers, or no worker is left.
    """
    for name, value in (("num_workers", num_workers), ("threads_per_worker", threads_per_worker)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"{name} must be at least 1, not {value!r}: a whole number.")
    if not patience > 0:
        raise ValueError(f"patience must be positive, not {patience}.")
    if address is not None and num_workers is not None:
        raise ValueError(
            "num_workers is for a Ray that is started here; the cluster at an address has as many "
            "workers as its nodes have room for."
        )
    ray = installed.load()
    if ray.is_initialized():
        raise ValueError(
            "This process is connected to Ray already: leave the other ray_runtime(), or call "
            "ray.shutdown() first."
        )
    from tff_fedmeta.runtime.ray import joined, own

    with contextlib.ExitStack() as stack:
        stack.enter_context(installed.quiet())
        if address is None:
            workers = num_workers or 1
            threads = threads_per_worker or max(1, usable_cores() // workers)
            stack.enter_context(own.started(ray, workers))
            cpus = 1  # what a worker is counted as
        else:
            folders = [joined.PACKAGE, *(Path(m.__file__ or "").parent for m in modules)]
            stack.enter_context(joined.joined(ray, address, folders, patience))
            threads = cpus = threads_per_worker or _fewest_cores(ray)
            joined.check_workers(ray, cpus, patience)
        yield stack.enter_context(_installed_context(ray, cpus, threads, patience))


@contextlib.contextmanager
def _installed_context(
    ray: Any, cpus: int, threads: int, patience: float
) -> Iterator[execution_context.EngineContext]:
    import tensorflow_federated as tff

    from tff_fedmeta.runtime import execution_context
    from tff_fedmeta.runtime.cluster.engine import ClusterEngine
    from tff_fedmeta.runtime.ray.cluster import RayCluster

    engine = ClusterEngine(RayCluster(ray, cpus, patience), threads)
    context = execution_context.EngineContext(engine)
    try:
        with tff.framework.get_context_stack().install(context):
            yield context
    finally:
        context.close()


def _fewest_cores(ray: Any) -> int:
    """Returns the cores of the smallest of the nodes that have any."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return min((count for count in cores if count >= 1), default=1)
