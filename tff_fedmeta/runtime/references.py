"""Clients in the place of their data: read where they are trained, in this process or in another.

A reference is any object with a method `load_dataset()` that returns the client's `tf.data.Dataset`
of one element. A method and not a class, because whoever makes clients knows no runtime. An engine
of several processes pickles it.
"""

from __future__ import annotations

from typing import Any


def is_reference(value: Any) -> bool:
    """Returns whether a client's value is a reference to its dataset."""
    return hasattr(value, "load_dataset")


def are_in(tasks: Any) -> bool:
    """Returns whether a client of the tasks, lists of clients' leaves, is a reference."""
    if isinstance(tasks, (list, tuple)) and not is_reference(tasks):
        return any(map(are_in, tasks))
    return is_reference(tasks)


def loaded(task: Any) -> Any:
    """Returns a task of an engine, lists of clients' leaves, with all references read."""
    if isinstance(task, list):
        return [loaded(part) for part in task]
    return task.load_dataset() if is_reference(task) else task
