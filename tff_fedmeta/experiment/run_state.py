"""What there is of a run, from its files: its configuration, and the phase that is missing.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tff_fedmeta.algorithms.registry import trains
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import run_directory

_CHECKPOINT = "round_"


def configuration(directory: Path) -> ExperimentConfig:
    """Reads the configuration of a run.

    Raises:
      RunDirectoryError: If there is none in the directory.
    """
    file = directory / "config.json"
    if not directory.is_dir():
        raise run_directory.RunDirectoryError(f"{directory} is no directory of a run.")
    if not file.exists():
        raise run_directory.RunDirectoryError(
            f"{directory} is no directory of a run: it has no config.json. "
            "`python run_experiment.py --list` shows the runs there are."
        )
    try:
        return ExperimentConfig.from_json(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise run_directory.RunDirectoryError(f"{file} cannot be read: {error}") from error


def directories(directory: Path, config: ExperimentConfig) -> Sequence[Path]:
    """Returns the directory of each fold and repetition, which for one is the run's own."""
    return [directory / name for name in config.parts()] or [directory]


def missing_phase(directory: Path, config: ExperimentConfig) -> str | None:
    """Returns the first phase that a run has not finished, in words; None: it is finished."""
    if run_directory.is_finished(directory):
        return None
    parts = config.parts()
    if not parts:
        phases = (_missing_of(directory / name, name, config) for name in config.algorithms)
        return next((phase for phase in phases if phase is not None), "the comparison")
    for name, part in parts.items():
        phase = missing_phase(directory / name, part)
        if phase is not None:
            return f"{phase} in {name}"
    return "the comparison"


def check_finished(directory: Path, config: ExperimentConfig) -> None:
    """Raises RunDirectoryError if a run is not finished, and says what is missing."""
    phase = missing_phase(directory, config)
    if phase is not None:
        raise run_directory.RunDirectoryError(
            f"The run in {directory} is not finished: {phase} is missing. The command that began "
            "it continues it."
        )


def in_words(directory: Path, config: ExperimentConfig) -> str:
    """Returns the state of a run: finished, running or interrupted, and the phase it is in."""
    phase = missing_phase(directory, config)
    if phase is None:
        return "finished"
    at_work = run_directory.is_at_work(directory)
    return f"running, {phase} is next" if at_work else f"interrupted, {phase} is missing"


def rounds_done(directory: Path) -> int:
    """Returns the round of an algorithm's newest checkpoint; 0 if there is none."""
    names = (
        path.name[len(_CHECKPOINT) :] for path in directory.glob(f"checkpoints/{_CHECKPOINT}*")
    )
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _missing_of(directory: Path, algorithm: str, config: ExperimentConfig) -> str | None:
    done, has_model = rounds_done(directory), trains(algorithm)
    stopped = config.patience > 0 and (directory / "adaptation_test.json").exists()
    if has_model and done < config.rounds and not stopped:
        return f"the training of {algorithm} after round {done} of {config.rounds}"
    try:
        adapted = json.loads((directory / "adaptation_test.json").read_text())
    except (OSError, ValueError):
        return f"the evaluation of {algorithm}"
    has_model = has_model and not adapted.get("diverged")
    if has_model and not (directory / "keras_model" / "metadata.json").exists():
        return f"the export of {algorithm}"
    return None
