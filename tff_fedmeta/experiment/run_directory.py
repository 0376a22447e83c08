"""The files of a run: who may write where, and writing them whole or not at all.

    OUTPUT_DIR/
      config.json  versions.json  timings.json
      vocabulary.json or whatever else a task has to be used with
      task.json                                        what the report reads of the task
      comparison.json  comparison.png  report.html
      comparison.md                                    a run that has the table is finished
      checksums.json                                   of the files of a finished run
      example_client.png                               where the task can draw a client
      confusion.json  confusion.png                    where the task has classes to confuse
      fold_0/ ...  seed_0/ ...                         the runs of --folds and --repetitions
      ALGORITHM/metrics.csv  checkpoints/  tensorboard/  adaptation_test.json
      ALGORITHM/measures_test.json                     where the task has measures of its own
      ALGORITHM/day_by_day.json                        with --day_by_day
      ALGORITHM/keras_model/model.keras  metadata.json
      ALGORITHM/keras_model/adaptation_rates.npz       of Meta-SGD
      ALGORITHM/keras_model/adaptable.tflite           with --export=keras,tflite
      ALGORITHM/keras_model/savedmodel/                with --export=keras,savedmodel

Importing this needs no TensorFlow.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Optional

from tff_fedmeta import runtime
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import ownership

_LOG = logging.getLogger(__name__)

COMPARISON = "comparison.md"
CHECKSUMS = "checksums.json"
# What stands where, as a file (True) or as a directory.
_KINDS = {
    **dict.fromkeys(("config.json", "versions.json", "timings.json", COMPARISON), True),
    **dict.fromkeys(("task.json", "report.html"), True),
    **dict.fromkeys(
        ("comparison.json", "comparison.png", "example_client.png", CHECKSUMS, ".lock"), True
    ),
    **dict.fromkeys(("confusion.json", "confusion.png"), True),
}
_KINDS_OF_ALGORITHM = {
    **dict.fromkeys((".", "checkpoints", "tensorboard", "keras_model"), False),
    "keras_model/savedmodel": False,
    **dict.fromkeys(
        ("metrics.csv", "adaptation_test.json", "measures_test.json", "day_by_day.json"), True
    ),
    **dict.fromkeys(
        (
            "keras_model/model.keras",
            "keras_model/metadata.json",
            "keras_model/adaptation_rates.npz",
            "keras_model/adaptable.tflite",
        ),
        True,
    ),
}
# What may change, or be removed to save space, without a result being another.
_NOT_RESULTS = ("checkpoints", "tensorboard")
_PACKAGES = ("tensorflow", "tensorflow-federated", "keras", "numpy", "jax", "jaxlib")


class RunDirectoryError(ValueError):
    """Files of a run that cannot be read or written, in one sentence."""


def find_run(
    config: ExperimentConfig, output_dir: Path, resume: bool, left_open: Collection[str] = ()
) -> Optional[ExperimentConfig]:
    """Looks for a run of this configuration that can be continued.

    Args:
      config: What is to be run. If its data source is "auto", a run with either source fits.
      output_dir: Where its files are or will be.
      resume: Whether a run that is there may be continued.
      left_open: Fields that the data decide, as the user did not: what the run has fits.

    Returns:
      The configuration found there, or None if the place is free.

    Raises:
      ValueError: If the place is taken: by another configuration, by this one and `resume` is
        False, or by files that no configuration explains.
    """
    advice = "Choose another --output_dir."
    config_file = output_dir / "config.json"
    nearest = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ValueError(f"{output_dir} cannot be written: {nearest} does not allow it. {advice}")
    _check_kinds(output_dir, config.algorithms)
    if not config_file.exists():
        ours = [COMPARISON, "comparison.json", "comparison.png", "timings.json", *config.algorithms]
        clash = [name for name in ours if (output_dir / name).exists()]
        if clash:
            raise ValueError(
                f"{output_dir} has {', '.join(clash)} but no config.json that says of which run "
                f"they are. {advice}"
            )
        return None
    try:
        found = ExperimentConfig.from_json(config_file.read_text())
    except (ValueError, OSError, RecursionError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{config_file} cannot be read: {reason}. {advice}") from error
    if config.data_source == "auto":
        left_open = ("data_source", *left_open)
    config = dataclasses.replace(config, **{name: getattr(found, name) for name in left_open})
    if found != config:
        raise ValueError(
            f"{output_dir} holds a run of another configuration: {config.differences(found)}. "
            f"{advice}"
        )
    if not resume:
        raise ValueError(f"{output_dir} holds this run already. {advice} Or drop --noresume.")
    return found


def _check_kinds(output_dir: Path, algorithms: Iterable[str]) -> None:
    """Refuses a file that stands where a directory belongs, and the other way round."""
    expected = dict(_KINDS)
    for name in algorithms:
        expected.update({f"{name}/{path}": kind for path, kind in _KINDS_OF_ALGORITHM.items()})
    for name, is_file in expected.items():
        path = output_dir / name
        if path.exists() and path.is_file() != is_file:
            kinds = ("a file", "a directory") if is_file else ("a directory", "a file")
            raise RunDirectoryError(
                f"{path} must be {kinds[0]}, but is {kinds[1]}. Move it away, or choose another "
                "--output_dir."
            )


def is_finished(output_dir: Path) -> bool:
    """Returns whether the run in `output_dir` has written everything."""
    return (output_dir / COMPARISON).exists()


def is_at_work(output_dir: Path) -> bool:
    """Returns whether a process holds the lock of a run."""
    try:
        lock = os.open(output_dir / ".lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def finish(output_dir: Path) -> None:
    """Writes the checksums of a run's files, after the last of them."""
    write_json(output_dir / CHECKSUMS, _results(output_dir))


def damage(output_dir: Path) -> Optional[str]:
    """Says which files of a finished run are not as it wrote them; None: all are."""
    try:
        expected = dict(json.loads((output_dir / CHECKSUMS).read_text()))
        found = _results(output_dir)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return f"The files of {output_dir} cannot be checked: {error}."
    wrong = [
        f"{name} ({'changed' if name in found else 'missing'})"
        for name in expected
        if found.get(name) != expected[name]
    ]
    if not wrong:
        return None
    return (
        f"Files of {output_dir} are not as the run wrote them: {', '.join(wrong)}. Remove "
        f"{output_dir / COMPARISON}, and the same command writes them again."
    )


def _results(output_dir: Path) -> dict[str, str]:
    return {
        name: digest
        for name, digest in checksums(output_dir, skip=_NOT_RESULTS).items()
        if name != CHECKSUMS and not name.endswith((".lock", ".log"))
    }


def checksums(directory: Path, skip: Collection[str] = ()) -> dict[str, str]:
    """Returns the SHA-256 of each file under a directory, by its path within.

    Args:
      directory: The directory.
      skip: Names of directories that are left out, with all in them.
    """
    files = {path.relative_to(directory): path for path in sorted(directory.rglob("*"))}
    return {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if path.is_file() and not set(name.parts[:-1]) & set(skip)
    }


def claim(
    config: ExperimentConfig, output_dir: Path, assets: Optional[Mapping[str, Any]] = None
) -> IO[str]:
    """Takes `output_dir`, which `find_run` found free or this run's, for this process alone.

    Args:
      config: What is to be run.
      output_dir: Where its files are or will be.
      assets: The task's, which are derived from data: the name of a JSON file and its content.

    Returns:
      The lock, held as long as it is open; the kernel opens it when the process ends, however.

    Raises:
      ValueError: If another process is at work there, or a run was begun there with other assets.
    """
    with writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    foreign = ownership.foreign_owner(output_dir)
    if foreign is not None:
        _LOG.warning("%s", foreign)
    # A link in a directory from elsewhere must not make this write where it points.
    with writing(output_dir / ".lock"):
        flags = os.O_WRONLY | os.O_CREAT
        lock = os.fdopen(_without_links(str(output_dir / ".lock"), flags), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(
            f"Another process is at work in {output_dir}. Wait for it, or choose another "
            "--output_dir."
        ) from error
    for name, content in (assets or {}).items():
        file = output_dir / name
        if _read_json(file) not in (None, json.loads(json.dumps(content))):
            raise ValueError(
                f"{file} is not what the data give now, so this run cannot be continued: restore "
                "the data it was begun with, or choose another --output_dir."
            )
        write_json(file, content)
    write_text(output_dir / "config.json", config.to_json())
    versions_file, now = output_dir / "versions.json", versions()
    if _read_json(versions_file) not in (None, now):
        _LOG.warning(
            "This run was begun with other versions or on another machine (%s had them): its "
            "weights may differ from the weights of an uninterrupted one.",
            versions_file,
        )
    write_json(versions_file, now)
    return lock


def missing(output_dir: Path) -> list[Path]:
    """Returns the directories that `claim` will make, the innermost first."""
    return [path for path in (output_dir, *output_dir.absolute().parents) if not path.exists()]


def abandon(output_dir: Path, made: Collection[Path]) -> None:
    """Removes a directory that `claim` made for a run that cannot be, and has written nothing yet.

    Args:
      output_dir: The run's directory.
      made: What was `missing` before.
    """
    if output_dir not in made or any(path.is_dir() for path in output_dir.iterdir()):
        return
    shutil.rmtree(output_dir)
    for parent in made:
        with contextlib.suppress(OSError):  # somebody else's files are in it by now
            parent.rmdir()


def _read_json(file: Path) -> Any:
    """Returns what a file that is written anew says; None: it is not there, or damaged."""
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text())
    except (ValueError, OSError, RecursionError) as error:
        _LOG.warning("%s is damaged and is written anew: %s", file, error)
        return None


def versions() -> dict[str, str]:
    """Returns the versions and the machine that results may depend on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": platform.machine(),
        "cores": str(runtime.usable_cores()),
    }


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON; NaN and infinities, which JSON has not, are an error."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, for text."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it: a reader sees the old file or the new one, whole."""
    aside = path.with_name(path.name + ".partial")
    with writing(path):
        with open(aside, "wb", opener=_without_links) as file:
            file.write(content)
        os.replace(aside, path)


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes one sentence of what the operating system has against a file.

    Raises:
      RunDirectoryError: If the disk is full, a directory stands in the file's place, and the like.
    """
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror or error}.") from error
