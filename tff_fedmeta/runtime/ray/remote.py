"""What Ray's workers import: it runs tasks of `cluster/tasks.py` and reports on them.

TensorFlow is imported by the first task, not with this module, and quietly.
"""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from tff_fedmeta.runtime.cluster.protocol import Report
from tff_fedmeta.runtime.local import quiet_tensorflow


def run(name: str, key: str, box: list[Any], num_threads: int, *args: Any) -> tuple[Any, Report]:
    """Runs a task of `cluster/tasks.py` and returns its result and its report.

    Args:
      name: The task's.
      key: The work's.
      box: What stands for the work's definition. In a list, because Ray would send what stands in
        an argument's place to every call.
      num_threads: Of this worker.
      *args: The task's other arguments.
    """
    import ray

    quiet_tensorflow()
    from tff_fedmeta.runtime.cluster import tasks

    before = tasks.client_seconds(num_threads)
    result = getattr(tasks, name)(key, lambda: ray.get(box[0]), num_threads, *args)
    seconds = tasks.client_seconds(num_threads) - before
    return result, Report(seconds, platform.node(), _tries())


def versions() -> dict[str, str]:
    """Returns what has to be the same on every node for the same bits."""
    names = ("ray", "tensorflow", "numpy")
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{name: _version(name) for name in names},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _tries() -> int:
    from ray._private import worker

    return worker.global_worker.core_worker.get_current_task_attempt_number() + 1
