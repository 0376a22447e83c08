"""Plug-ins: Python files of the user's, imported before flags are resolved.

A plug-in runs with all rights of the user who names it; it may register data sets and algorithms.
"""

import hashlib
import importlib.util
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tff_fedmeta.algorithms import registry

_loaded: dict[Path, str] = {}


def load(paths: Sequence[str]) -> dict[str, str]:
    """Imports plug-ins, each once in a process.

    Args:
      paths: Their files.

    Returns:
      File name -> SHA-256 of the file's content, for the configuration of the run.

    Raises:
      ValueError: If a file is missing or cannot be imported, two have the same name, or what one
        registers cannot be: the message says which and why.
    """
    hashes = {}
    for name in paths:
        path = Path(name).expanduser().resolve()
        if not (path.is_file() and path.suffix == ".py"):
            raise ValueError(f"--plugin must be a Python file, but there is no file {name!r}.")
        if path.name in hashes:
            raise ValueError(f"Two plug-ins are called {path.name}: give one another name.")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if _loaded.get(path) != digest:
            _import(path)
            _loaded[path] = digest
        hashes[path.name] = digest
    return hashes


class Sent:
    """Plug-ins on their way to another process, and what is to be called there after them."""

    def __init__(self, paths: Sequence[str], then: Callable[[], Any]):
        """Reads the files.

        Args:
          paths: Plug-ins that are loaded here.
          then: What is called.
        """
        self._files = [
            (path, path.read_bytes()) for path in (Path(p).expanduser().resolve() for p in paths)
        ]
        self._then = then

    def __call__(self) -> Any:
        """Loads the plug-ins, which may be there, or are written to a temporary directory."""
        for path, content in self._files:
            if hashlib.sha256(content).hexdigest() in _loaded.values():
                continue
            if not (path.is_file() and path.read_bytes() == content):
                path = Path(tempfile.mkdtemp(prefix="plugin-")) / path.name
                path.write_bytes(content)
            load([str(path)])
        return self._then()


def _import(path: Path) -> None:
    """Imports a file; what it registered is taken back if it fails."""
    name = f"fedmeta_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--plugin={path} is not a Python file that can be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = dict(registry.REGISTRY)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        registry.REGISTRY.clear()
        registry.REGISTRY.update(before)
        if not isinstance(error, Exception):
            raise
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(
            f"--plugin={path} cannot be imported: {type(error).__name__}: {error}{where}"
        ) from error
