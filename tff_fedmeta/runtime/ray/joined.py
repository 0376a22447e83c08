"""A Ray cluster that somebody else has started: joined, checked and left."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tff_fedmeta.runtime.cluster.protocol import ClusterError
from tff_fedmeta.runtime.ray import remote

PACKAGE = Path(__file__).parents[2]


class RayStartError(ClusterError):
    """Ray that does not start, or a cluster that cannot be joined; said in one sentence."""


@contextlib.contextmanager
def joined(ray: Any, address: str, folders: Sequence[Path], patience: float) -> Iterator[None]:
    """Joins a cluster; leaving takes back what runs there for this program.

    Args:
      ray: The module.
      address: "auto", the cluster that this machine belongs to, or HOST:PORT.
      folders: Of packages that are sent to its workers, this one among them.
      patience: How long joining may take, in seconds.

    Raises:
      RayStartError: If there is no cluster, or one of other versions or with another token.
    """
    check_answers(address)
    _try(address, patience)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"py_modules": [str(folder) for folder in folders]},
        )
    except Exception as error:
        raise RayStartError(_cannot_join(address, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_workers(ray: Any, cpus: int, patience: float) -> None:
    """Raises unless a core becomes free in time, and all nodes have this program's versions.

    Raises:
      RayStartError: Which of the two it is.
    """
    probe = ray.remote(num_cpus=cpus, max_retries=2)(remote.versions)
    first = probe.remote()
    if not ray.wait([first], timeout=patience)[0]:
        ray.cancel(first, force=True)
        most = max((node["Resources"].get("CPU", 0) for node in ray.nodes()), default=0)
        raise RayStartError(
            f"The Ray cluster has not had {cpus} CPUs of a node free within {patience:g} s; its "
            f"largest node has {most:g}: end what else runs there, add nodes, or ask for fewer "
            "threads."
        )
    here = remote.versions()
    _check_versions("a worker", ray.get(first), here)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    for node in ray.nodes():
        if not node["Alive"] or node["Resources"].get("CPU", 0) < cpus:
            continue
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answer = probe.options(num_cpus=0, scheduling_strategy=there).remote()
        if ray.wait([answer], timeout=patience)[0]:  # a busy one is not waited for
            with contextlib.suppress(ray.exceptions.RayError):  # one that has just gone
                _check_versions(f"the node {node['NodeManagerHostname']}", ray.get(answer), here)


def _check_versions(where: str, there: dict[str, str], here: dict[str, str]) -> None:
    others = [f"{name} {there[name]} instead of {here[name]}" for name in here]
    others = [text for text, name in zip(others, here) if there[name] != here[name]]
    if others:
        raise RayStartError(
            f"The nodes of the cluster and this program must have the same versions, but {where} "
            f"has {', '.join(others)}."
        )


def check_answers(address: str) -> None:
    """Raises `RayStartError` unless something answers at an address; "auto" is not looked for."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise RayStartError(
            f"The address of a Ray cluster is auto or HOST:PORT, such as 10.0.0.5:6379, but is "
            f"{address!r}."
        )
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise RayStartError(
            f"No Ray cluster answers at {address} ({error}): start one there with `ray start "
            "--head`, or give its address."
        ) from error


def _try(address: str, patience: float) -> None:
    """Joins and leaves a cluster in another process: with another token Ray waits for ever."""
    code = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); ray.shutdown()"
    command = [sys.executable, "-c", code, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise RayStartError(
            f"The Ray cluster at {address} does not let this program in within {patience:g} s: set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH as on its nodes."
        ) from None
    if done.returncode != 0:
        raise RayStartError(_cannot_join(address, RuntimeError(done.stderr)))


def _cannot_join(address: str, error: Exception) -> str:
    text = str(error)
    text = text[max(text.find("Version mismatch: "), 0) :]
    if "Version mismatch" in text:
        facts = " ".join(" ".join(text.split()).split()).replace("Version mismatch: ", "")
        return (
            "The cluster's nodes and this program must have the same versions of Ray and Python. "
            f"{facts}."
        )
    if type(error).__name__ == "AuthenticationError" or "token" in text.lower():
        return (
            f"The Ray cluster at {address} asks for another token: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH as on its nodes."
        )
    if address == "auto":
        return (
            "This machine belongs to no Ray cluster: start one with `ray start --head`, or give "
            "the HOST:PORT of one."
        )
    return f"The Ray cluster at {address} cannot be joined: {without_traceback(error)}"


def without_traceback(error: Exception) -> str:
    """Returns the first line of an error, as the end of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (lines[-1] if "Traceback" in str(error) else lines[0]).rstrip(".") + "."
