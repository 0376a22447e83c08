"""More rounds for a finished run: whether its schedule allows them, and how they begin.

A round is a pure function of the state before it and its number. So the first rounds of a longer
run are those of the shorter one, unless something is spread over all rounds of a run.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from tff_fedmeta.config import ExperimentConfig, aggregator_options
from tff_fedmeta.experiment import run_directory, run_state


def shorter_run(
    config: ExperimentConfig, output_dir: Path, resume: bool, left_open: Sequence[str] = ()
) -> ExperimentConfig | None:
    """Looks for a finished run that differs from what is asked for in having fewer rounds alone.

    Args:
      config: What is asked for.
      output_dir: Where it is to go.
      resume: Whether a run that is there may be continued.
      left_open: As in `run_directory.find_run`.

    Returns:
      The configuration of the finished run; None if there is no such run.

    Raises:
      ValueError: If there is, but more rounds would not be the same run.
    """
    try:
        found = run_state.configuration(output_dir)
        if found.rounds >= config.rounds:
            return None
        as_long = dataclasses.replace(config, rounds=found.rounds)
        run_directory.find_run(as_long, output_dir, resume, left_open)
    except ValueError:
        return None  # whatever it is, `find_run` says it of the run that is asked for
    if not any(map(run_directory.is_finished, (output_dir, _kept(output_dir, found)))):
        return None
    why = _why_not(found)
    if why is not None:
        raise ValueError(
            f"The run in {output_dir} cannot go on from round {found.rounds} to {config.rounds}: "
            f"{why}. Choose another --output_dir for a new run."
        )
    return found


def begin(found: ExperimentConfig, config: ExperimentConfig, output_dir: Path) -> Path:
    """Makes a finished run one that is interrupted after its last round.

    Args:
      found: What `shorter_run` returned.
      config: The same with more rounds.
      output_dir: Where it is.

    Returns:
      Where the results of the shorter run are kept: all of its files but the checkpoints.

    Raises:
      ValueError: If another process is at work there, or a file cannot be written.
    """
    kept = _kept(output_dir, found)
    if run_directory.is_at_work(output_dir):
        raise ValueError(f"Another process is at work in {output_dir}. Wait for it.")
    if not kept.exists():
        partial = kept.with_name(f"{kept.name}.partial")
        left_out = shutil.ignore_patterns("checkpoints", "tensorboard", ".lock", "rounds_*")
        with run_directory.writing(kept):
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(output_dir, partial, ignore=left_out)
            partial.rename(kept)
    parts = run_state.directories(output_dir, config)
    for directory in dict.fromkeys([output_dir, *parts]):
        (directory / run_directory.COMPARISON).unlink(missing_ok=True)
    for directory, part in zip(parts, list(config.parts().values()) or [config]):
        run_directory.write_text(directory / "config.json", part.to_json())
    # The last, because before it the same command begins again.
    run_directory.write_text(output_dir / "config.json", config.to_json())
    return kept


def _kept(output_dir: Path, found: ExperimentConfig) -> Path:
    return output_dir / f"rounds_{found.rounds}"


def _why_not(config: ExperimentConfig) -> str | None:
    """Says what is spread over all rounds of a run; None: nothing is."""
    for name, values in config.hyperparameters.items():
        if values.get("server_schedule", "constant") != "constant":
            return (
                f"the server's rate of {name} falls to 0 over the run (server_schedule "
                f"{values['server_schedule']}), so that all rounds of a longer run differ"
            )
    options = config.aggregator_options
    if config.aggregator in aggregator_options.PRIVATE and options.get("dp_epsilon") is not None:
        return "the noise was chosen so that dp_epsilon is spent after its last round"
    return None
