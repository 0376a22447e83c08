"""The round loop: sample a cohort, run a round, evaluate, record, checkpoint, resume."""

import contextlib
import io
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import pandas as pd
import tensorflow_federated as tff

from tff_fedmeta.experiment import board, checkpoints, divergence, progress, run_directory
from tff_fedmeta.experiment.early_stopping import Patience
from tff_fedmeta.experiment.event_loop import LoopThread

_LOG = logging.getLogger(__name__)

# What the progress bar shows -> the column it comes from.
_SHOWN = {
    "loss": "train/loss",
    "accuracy": "train/accuracy",
    "seconds": "seconds",
    "cores": "runtime/cores",
    "clients/s": "runtime/clients_per_second",
    "bytes sent": "runtime/bytes_sent",
}

_ROWS = "metrics.csv"

# What a round without clients tells.
_REJECTED = "server/update_rejected"
_NOTHING = {"train/num_examples": 0, "train/num_batches": 0, _REJECTED: 0}


def train(
    process: tff.learning.templates.LearningProcess,
    clients_of_round: Callable[[int], list[Any]],
    rounds: int,
    *,
    directory: Optional[Path] = None,
    title: str = "",
    labels: Optional[Mapping[str, Any]] = None,
    evaluate: Optional[Callable[[Any], Mapping[str, float]]] = None,
    rounds_per_evaluation: int = 1,
    rounds_per_checkpoint: int = 1,
    client_clock: Optional[Callable[[], float]] = None,
    runtime_figures: Optional[Callable[[], Mapping[str, float]]] = None,
    runs_empty: bool = False,
    figures_of_round: Optional[Callable[[int], Mapping[str, Any]]] = None,
    on_row: Optional[Callable[[Mapping[str, Any], int], None]] = None,
    patience: Optional[Patience] = None,
) -> Any:
    """Runs a learning process for `rounds` rounds, continuing from a checkpoint if there is one.

    A round is a pure function of the state before it and its number, so that a continued run ends
    with the weights of an uninterrupted one. A round to which no client contributes leaves the
    state as it was.

    Args:
      process: What to train.
      clients_of_round: Round number, from 1 -> the clients' datasets; may be none.
      rounds: Rounds altogether, those before the checkpoint included.
      directory: Where `metrics.csv`, `checkpoints/` and `tensorboard/` go; None keeps nothing.
        `metrics.csv` is written with each checkpoint.
      title: What the progress bar calls it.
      labels: Constant columns of `metrics.csv`.
      evaluate: The model's weights -> named figures, added to the row of their round.
      rounds_per_evaluation: Rounds between evaluations; the last round is evaluated too.
      rounds_per_checkpoint: Rounds between checkpoints; the last round is kept too.
      client_clock: Returns the seconds spent on clients so far, as `local_runtime` tells them.
      runtime_figures: Returns named figures of the last round, such as cores in use, as
        `ray_runtime` tells them: columns under "runtime/".
      runs_empty: Whether a round to which no client contributes changes the state all the same: one
        with noise for privacy does.
      figures_of_round: Round number -> more columns of its row, a pure function.
      on_row: Called with each row and its round; what it raises ends the training.
      patience: When to stop early; needs a directory, where the best round is kept.

    Returns:
      The process's state after the last round or, with patience, after the best one.
    """
    labels = labels or {}
    state = process.initialize()
    with contextlib.closing(_Records(directory, on_row)) as records:
        state, done = records.latest(state)

        def evaluated() -> dict[str, float]:
            if evaluate is None:
                return {}
            start = time.perf_counter()
            figures = evaluate(process.get_model_weights(state))
            return {**figures, "evaluation_seconds": time.perf_counter() - start}

        if done == 0 and evaluate is not None:
            records.add_row({**labels, **evaluated()}, 0)
        watch = divergence.Watch(records.rows)
        with progress.bar(rounds, title, "round", done) as bar:
            for round_num in range(done + 1, rounds + 1):
                if patience is not None and patience.is_exhausted(records.rows):
                    break
                start = _times(client_clock)
                state, row = _next(process, state, clients_of_round(round_num), runs_empty)
                seconds = {name: now - start[name] for name, now in _times(client_clock).items()}
                figures = dict(figures_of_round(round_num)) if figures_of_round else {}
                if runtime_figures is not None and row is not _NOTHING:
                    named = runtime_figures()
                    figures.update({f"runtime/{name}": named[name] for name in named})
                row = {**labels, **row, **figures, **seconds}
                if _none_contributed(row):
                    so = "It made a step of noise." if runs_empty else "The model stays as it was."
                    bar.write(f"{title}, round {round_num}: no client contributed. {so}")
                elif row[_REJECTED]:
                    bar.write(f"{title}, round {round_num}: the update is not finite; left out.")
                last = round_num == rounds
                if last or round_num % rounds_per_evaluation == 0:
                    row.update(evaluated())
                diverged = watch.see(round_num, row)
                if diverged is not None:
                    bar.write(f"WARNING: {diverged.in_words(title)}")
                records.add_row(row, round_num)
                best = None if patience is None else patience.best_round(records.rows)
                stops = patience is not None and patience.is_exhausted(records.rows)
                due = last or stops or best == round_num
                if due or round_num % rounds_per_checkpoint == 0:
                    records.add_checkpoint(state, round_num, best)
                if stops:
                    which = "none was measured" if best is None else f"round {best} was the best"
                    bar.write(f"{title} stops after round {round_num}: {which}.")
                shown = {name: f"{row[key]:.4g}" for name, key in _SHOWN.items() if key in row}
                bar.set_postfix(shown, refresh=False)
                bar.update()
        if patience is not None:
            state = records.state_of(patience.best_round(records.rows), state)
    return state


def _next(
    process: tff.learning.templates.LearningProcess,
    state: Any,
    clients: list[Any],
    runs_empty: bool,
) -> tuple[Any, dict[str, Any]]:
    """Runs one round; returns the new state and its flat metrics.

    If no client contributed, the old state is kept: some aggregators turn an empty cohort into an
    update of zeros, on which an optimizer with momentum would still move.
    """
    if not clients and not runs_empty:
        return state, _NOTHING
    after, metrics = process.next(state, clients)
    row = _flat(metrics)
    if _none_contributed(row):  # a mean over no clients is not zero
        row = {k: v for k, v in row.items() if k in _NOTHING or not k.startswith("train/")}
    stays = row[_REJECTED] or (_none_contributed(row) and not runs_empty)
    return (state if stays else after), row


def _none_contributed(row: Mapping[str, Any]) -> bool:
    return row.get("train/num_examples") == 0


def _times(client_clock: Optional[Callable[[], float]]) -> dict[str, float]:
    times = {"seconds": time.perf_counter()}
    if client_clock is not None:
        times["client_seconds"] = client_clock()
    return times


class _Records:
    """Writes one algorithm's rows and checkpoints; does nothing if `directory` is None."""

    def __init__(
        self,
        directory: Optional[Path],
        on_row: Optional[Callable[[Mapping[str, Any], int], None]] = None,
    ):
        self._loop = LoopThread()
        self._directory = directory
        self._on_row = on_row
        self.rows: list[Mapping[str, Any]] = []
        if directory is not None:
            self._checkpoints = checkpoints.Checkpoints(directory / "checkpoints", self._loop)
            self._board = tff.program.TensorBoardReleaseManager(directory / "tensorboard")

    def latest(self, initial_state: Any) -> tuple[Any, int]:
        """Returns the last sound checkpoint and its round, or the initial state and 0.

        `metrics.csv` then has the rows of that checkpoint, whatever was done to it.
        """
        if self._directory is None:
            return initial_state, 0
        expected = self._checkpoints.texts()  # before damaged ones are set aside
        found = self._checkpoints.latest(initial_state)
        file = self._directory / _ROWS
        there = file.read_bytes().decode(errors="replace") if file.exists() else None
        if found is None:
            if there is not None:
                _LOG.warning("%s has rows but no checkpoint: the rounds are run again.", file)
            return initial_state, 0
        # A kill may come between a checkpoint and this file, whose first text it then never had.
        if there not in expected and (there is not None or len(expected) > 1):
            _LOG.warning(
                "%s is not what the run wrote: its rows come from the checkpoint of round %d.",
                file,
                found.round_num,
            )
        if there != found.rows:
            run_directory.write_text(file, found.rows)
        rows = pd.read_csv(io.StringIO(found.rows), float_precision="round_trip")
        self.rows = rows.to_dict("records")
        return found.state, found.round_num

    def add_row(self, row: Mapping[str, Any], round_num: int) -> None:
        """Adds a round's row, which is in the file from the next checkpoint on."""
        if self._directory is not None:
            self.rows.append({"round": round_num, **row})
            self._loop.run(self._board.release(board.tags(row), round_num))
        if self._on_row is not None:
            self._on_row(row, round_num)

    def state_of(self, round_num: Optional[int], state: Any) -> Any:
        """Returns the state after a round that was kept; None: `state`, the last one."""
        if round_num is None or not self.rows or round_num == self.rows[-1]["round"]:
            return state
        return self._checkpoints.load(round_num, state)

    def add_checkpoint(self, state: Any, round_num: int, best: Optional[int] = None) -> None:
        """Keeps a state with the rows that led to it, and writes the rows' file.

        The checkpoint of the best round, if one is given, stays among those that are kept.

        The file is written whole, as TFF's manager of such files would do for every row: a kill
        amid an append would leave half a row.
        """
        if self._directory is not None:
            text = pd.DataFrame(self.rows).to_csv(index=False)
            self._checkpoints.save(state, text, round_num)
            run_directory.write_text(self._directory / _ROWS, text)
            self._checkpoints.drop_old(best)

    def close(self) -> None:
        self._loop.close()


def _flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a round's metrics under flat names, such as train/loss and aggregator/non_finite."""
    nested = {**metrics["client_work"], "aggregator": metrics["aggregator"]}
    # TFF's finalizer leaves the model as it is if the aggregated update is not finite.
    nested["server"] = {"update_rejected": int(metrics["finalizer"]["update_non_finite"])}
    flat = pd.json_normalize(nested, sep="/").iloc[0].to_dict()
    return {name: value for name, value in flat.items() if value != ()}  # nothing was measured
