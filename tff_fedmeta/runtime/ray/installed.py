"""Ray, where it is installed: importing it, and the settings that it reads in doing so."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from typing import Any

_LOG = logging.getLogger(__name__)

# Read when Ray is imported, here and by the programs that it starts. Set already, they are kept.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports to its makers by default
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a change of its defaults, which it warns of
    "RAY_task_oom_retries": "2",  # as many as for any other death of a process; else for ever
}
_ONLY_HERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # in spite of its name: 0 means loopback


class RayMissingError(ValueError):
    """Ray is not installed, or cannot be; said in one sentence."""


def check() -> None:
    """Raises `RayMissingError` unless Ray can be imported. Imports nothing."""
    if sys.version_info < (3, 10):
        raise RayMissingError(
            "The Ray runtime needs Python 3.10 or 3.11, but this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}: install the project with another "
            "Python, or use runtime local."
        )
    if importlib.util.find_spec("ray") is None:
        raise RayMissingError(
            "The Ray runtime needs Ray, which is not installed: `make ray` installs it, or use "
            "runtime local."
        )


def load() -> Any:
    """Returns the module `ray`.

    Raises:
      RayMissingError: If it is not installed.
    """
    check()
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.cloudpickle
    import ray.exceptions

    return ray


@contextlib.contextmanager
def only_here(ray: Any) -> Iterator[None]:
    """Has a Ray that is started within the block listen on loopback alone, and ask for a token.

    The token, which is new for each, is in the environment of Ray's programs and in no file: other
    users of this machine cannot make a Ray that belongs to this one compute.
    """
    from ray._private import ray_constants

    was_open = ray_constants.ENABLE_RAY_CLUSTER
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with environment({_ONLY_HERE: "0", **token}):
        ray_constants.ENABLE_RAY_CLUSTER = False
        _forget_token(ray)
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = was_open
    _forget_token(ray)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Has Ray's messages on lost processes, a page each, logged as details within the block.

    `call.py` says in a line what was lost. Ray prints them by a function, for which it has no
    setting.
    """
    from ray._private import worker

    printing = worker.print_to_stdstream

    def log(data: dict[str, Any], **options: Any) -> None:
        del options
        _LOG.debug("Ray: %s", "\n".join(data["lines"]))

    worker.print_to_stdstream = log
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


def _forget_token(ray: Any) -> None:
    """Has Ray read its settings of authentication again; it reads them once in a process."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables within the block, for what is started there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
