"""The table of `searches.results`, from the directories of finished runs.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import (
    comparison,
    comparison_words,
    report_tables,
    results,
    run_directory,
    run_state,
)

REPORT = "results.md"
_BEGIN, _END = "<!-- searches.results -->\n", "<!-- end of searches.results -->"
_EXPLANATION = (
    "*global*: the trained model as it is; *adapted*: after adapting on a client's support, both "
    "on its query; *local*: a client alone. *versus* fedavg, adapted, on the same clients, with "
    "its 95 % interval over clients. *gradients*: gradient evaluations of a repetition, *seconds*: "
    "of its training, both on average. Accuracies are in %. Every row of a data set had the same "
    "rounds, cohorts and examples; rate and steps of adaptation were chosen on validation clients."
)


def write(output_dir: Path, names: Sequence[str], document: str | None = None) -> str:
    """Writes the table of the runs that are finished, and returns it.

    Args:
      output_dir: Where the runs are, and where `results.md` goes.
      names: Of the runs' directories, in the order of the table.
      document: A file whose marked section is replaced as well.
    """
    parts = [
        _part(output_dir, name) for name in names if run_directory.is_finished(output_dir / name)
    ]
    text = "\n\n".join([*parts, _EXPLANATION] if parts else ["No run is finished."])
    run_directory.write_text(output_dir / REPORT, text + "\n")
    if document is not None:
        before, after = split_at_section(Path(document))
        run_directory.write_text(Path(document), f"{before}\n{text}\n\n{after}")
    return text


def split_at_section(document: Path) -> tuple[str, str]:
    """Returns what a file has up to the first mark and from the last, marks included.

    Raises:
      ValueError: If the file cannot be read or has no marks.
    """
    try:
        text = document.read_text()
    except OSError as error:
        raise ValueError(f"--write: {document} cannot be read: {error.strerror}.") from error
    match = re.fullmatch(f"(.*{re.escape(_BEGIN)}).*({re.escape(_END)}.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"--write: {document} has no section from {_BEGIN.strip()} to {_END}.")
    return match[1], match[2]


def _part(output_dir: Path, name: str) -> str:
    """Returns the heading, the command and the rows of one run."""
    directory = output_dir / name
    config = run_state.configuration(directory)
    compared = json.loads((directory / comparison.FILE).read_text())
    rows = {
        algorithm: {**_figures(compared, algorithm), **_budget(directory, config, algorithm)}
        for algorithm in config.algorithms
    }
    stand_in = " **A synthetic stand-in.**" if compared["data_source"] == "embedded" else ""
    return "\n\n".join(
        [
            f"### {name}: {compared['metric']}",
            f"{_command(output_dir, name)}{compared['num_clients']} test clients, "
            f"{compared['repetitions']} repetitions, {config.rounds:,} rounds of "
            f"{config.clients_per_round} clients, data source {compared['data_source']}.{stand_in}",
            report_tables.markdown(rows),
        ]
    )


def _command(output_dir: Path, name: str) -> str:
    file = output_dir / f"{name}.command.json"
    return f"`python {' '.join(json.loads(file.read_text()))}`: " if file.exists() else ""


def _figures(compared: Mapping[str, Any], algorithm: str) -> dict[str, str]:
    row, unit = compared["algorithms"][algorithm], comparison_words.Unit(compared["metric"])
    low, high = row["after"]["ci95"]
    half = "" if low is None else f" ± {unit.number((high - low) / 2)}"
    versus = row["versus_baseline"] or {"mean": None, "ci95": [None, None]}
    least, most = versus["ci95"]
    return {
        "global": unit.number(row["before"]["mean"]),
        "adapted": unit.number(row["after"]["mean"]) + half,
        "versus": unit.signed(versus["mean"]),
        "95 %": "-" if least is None else f"{unit.signed(least)} to {unit.signed(most)}",
    }


def _budget(directory: Path, config: ExperimentConfig, algorithm: str) -> dict[str, str]:
    parts = [part / algorithm for part in run_state.directories(directory, config)]
    frames = [results.read_metrics(part) for part in parts if (part / "metrics.csv").exists()]
    if not frames:
        return {"gradients": "0", "seconds": "0"}
    gradients = np.mean([results.gradient_evaluations(frame).sum() for frame in frames])
    seconds = np.mean([frame["seconds"].sum() for frame in frames])
    return {"gradients": f"{gradients:,.0f}", "seconds": f"{seconds:,.0f}"}
