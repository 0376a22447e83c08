"""Whose run is it? Checkpoints are programs, so continuing a run means trusting its author."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def foreign_owner(directory: Path) -> str | None:
    """Says in one sentence if a run's directory, or its checkpoints, are of another user.

    Returns:
      The sentence; None if all is the user's own, or is not there.
    """
    for path in (directory, directory / "config.json", *sorted(directory.glob("*/checkpoints"))):
        for entry in (path, *(sorted(path.iterdir()) if path.name == "checkpoints" else ())):
            try:
                owner = entry.stat().st_uid
            except OSError:
                continue
            if owner != os.geteuid():
                return (
                    f"{entry} belongs to {_name(owner)}: continuing the run executes what its "
                    "checkpoints say, so continue it only if you trust their author."
                )
    return None


def _name(user: int) -> str:
    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user number {user}"
