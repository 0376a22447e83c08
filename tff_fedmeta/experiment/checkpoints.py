"""Checkpoints of a training: each carries its rows and checksums, and the newest sound one counts.

    checkpoints/round_N/            TFF's program state, a SavedModel
      metrics.csv                   the rows of the rounds up to N
      checksums.json                {"round": N, "files": {"metrics.csv": SHA-256, ...}}
    checkpoints/damaged_round_N/    a checkpoint that was found damaged, set aside

A checkpoint is written in `checkpoints/partial` and renamed when it is whole.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_federated as tff

from tff_fedmeta.experiment import run_directory
from tff_fedmeta.experiment.event_loop import LoopThread

_LOG = logging.getLogger(__name__)

_PREFIX = "round_"
_ROWS = "metrics.csv"
_CHECKSUMS = "checksums.json"
_KEPT = 2


class CheckpointError(run_directory.RunDirectoryError):
    """A whole checkpoint that this version cannot read."""


class Checkpoint(NamedTuple):
    """What training continues from.

    Attributes:
      state: The state after `round_num` rounds.
      rows: The text of `metrics.csv` up to then.
      round_num: The number of rounds done.
    """

    state: Any
    rows: str
    round_num: int


class Checkpoints:
    """The checkpoints in one directory, of which the newest two are kept."""

    def __init__(self, directory: Path, loop: LoopThread):
        """Opens a directory and removes what a killed run left half written.

        Args:
          directory: Where the checkpoints are; made if it is not there.
          loop: Runs TFF's reading and writing.
        """
        self._directory = directory
        self._loop = loop
        self._partial = directory / "partial"
        directory.mkdir(parents=True, exist_ok=True)
        for left in (self._partial, *directory.glob(f"{_PREFIX}*_temp*")):
            _remove(left)

    def latest(self, structure: Any) -> Checkpoint | None:
        """Returns the newest sound checkpoint; sets damaged newer ones aside and says so.

        Args:
          structure: A state of the process, whose values do not matter.

        Raises:
          CheckpointError: If a checkpoint is whole, but is not a state of this structure.
        """
        damaged: list[str] = []
        for round_num in reversed(self._rounds()):
            path = self._path(round_num)
            fault = find_fault(path, round_num)
            if fault is None:
                found = Checkpoint(self._load(round_num, structure), _read_rows(path), round_num)
                self._say(damaged, f"Training continues after round {round_num}.")
                return found
            aside = path.with_name(f"damaged_{path.name}")
            _remove(aside)
            path.rename(aside)
            damaged.append(f"{path.name} ({fault}; now {aside.name})")
        self._say(damaged, "None is left that is sound: training starts again at round 1.")
        return None

    def _say(self, damaged: list[str], so: str) -> None:
        if damaged:
            _LOG.warning("Damaged in %s: %s. %s", self._directory, ", ".join(damaged), so)

    def _load(self, round_num: int, structure: Any) -> Any:
        manager = tff.program.FileProgramStateManager(self._directory, prefix=_PREFIX)
        try:
            return self._loop.run(manager.load(round_num, structure))
        except Exception as error:  # whatever TensorFlow makes of a file of another version
            raise CheckpointError(
                f"{self._path(round_num)} is whole but is not a state that this version can "
                f"continue ({type(error).__name__}). Choose another --output_dir."
            ) from error

    def texts(self) -> set[str]:
        """Returns the rows' texts that a kill may have left in the file beside the checkpoints."""
        return {
            _read_rows(self._path(round_num))
            for round_num in self._rounds()
            if (self._path(round_num) / _ROWS).is_file()
        }

    def save(self, state: Any, rows: str, round_num: int) -> None:
        """Keeps a state with the rows that led to it, in one rename."""
        manager = tff.program.FileProgramStateManager(
            self._partial, prefix=_PREFIX, keep_total=0, keep_first=False
        )
        written = self._partial / self._path(round_num).name
        with run_directory.writing(self._path(round_num)):
            self._loop.run(manager.save(state, round_num))
            (written / _ROWS).write_bytes(rows.encode())
            sums = {"round": round_num, "files": run_directory.checksums(written)}
            (written / _CHECKSUMS).write_text(json.dumps(sums, indent=2))
            written.rename(self._path(round_num))

    def load(self, round_num: int, structure: Any) -> Any:
        """Returns the state of one round that must be there.

        Args:
          round_num: The round.
          structure: As in `latest`.

        Raises:
          CheckpointError: If the checkpoint is damaged or of another structure.
        """
        fault = find_fault(self._path(round_num), round_num)
        if fault is not None:
            raise CheckpointError(
                f"{self._path(round_num)}, the best round of the training, is damaged ({fault}): "
                f"remove {self._directory.parent}, and the same command trains it again."
            )
        return self._load(round_num, structure)

    def drop_old(self, best: int | None = None) -> None:
        """Removes all but the newest checkpoints and, if one is given, that of the best round."""
        for round_num in self._rounds()[:-_KEPT]:
            if round_num == best:
                continue
            # Renamed first, so that a kill does not leave half of it under its name.
            self._partial.mkdir(exist_ok=True)
            self._path(round_num).rename(self._partial / self._path(round_num).name)
        _remove(self._partial)

    def _path(self, round_num: int) -> Path:
        return self._directory / f"{_PREFIX}{round_num}"

    def _rounds(self) -> list[int]:
        """Returns the rounds that something is kept for, in order."""
        names = (path.name[len(_PREFIX) :] for path in self._directory.glob(f"{_PREFIX}*"))
        return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def find_fault(path: Path, round_num: int) -> str | None:
    """Returns what is wrong with a checkpoint of that round, or None if it is as it was written."""
    if not path.is_dir():
        return "not a directory"
    try:
        sums = json.loads((path / _CHECKSUMS).read_text())
        expected, of_round = dict(sums["files"]), sums["round"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{_CHECKSUMS} cannot be read"
    if of_round != round_num:
        return f"it is of round {of_round}"
    try:
        found = run_directory.checksums(path)
        del found[_CHECKSUMS]
    except OSError as error:
        return f"{error.filename} cannot be read"
    wrong = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    return f"{', '.join(wrong)} changed" if wrong else None


def _read_rows(path: Path) -> str:
    return (path / _ROWS).read_bytes().decode(errors="replace")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
