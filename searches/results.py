"""When which method pays: the same algorithms on many data sets, and one table of what came out.

    python -m searches.results --cache_dir=DIR --csv=motion.csv

Runs `run_experiment.py` on one data set after the other, each in OUTPUT_DIR/NAME, and writes
OUTPUT_DIR/results.md anew after every one. The same command continues; finished runs are only read.
With `--write=docs/results.md` the table goes into the marked section of that file, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from searches import results_table
from tff_fedmeta.checks import check_choice
from tff_fedmeta.command_line import flags
from tff_fedmeta.command_line.flags import LIST, Flag
from tff_fedmeta.experiment import run_directory

ROOT = Path(__file__).resolve().parent.parent
ALGORITHMS = (
    *("local", "fedavg", "reptile", "fomaml"),
    *("maml", "meta_sgd", "anil", "per_fedavg"),
)


class Experiment(NamedTuple):
    """A data set of the table.

    Attributes:
      flags: Of run_experiment.py: the data and the budget.
      needs: The flags of this program without which it cannot run.
    """

    flags: Sequence[str]
    needs: Sequence[str] = ()


_OMNIGLOT = ("--dataset=omniglot", "--data_source=tfds", "--rounds=300")
EXPERIMENTS: dict[str, Experiment] = {
    "sinusoid": Experiment(("--dataset=sinusoid", "--rounds=500")),
    "homes": Experiment(("--dataset=csv", "--data_source=embedded", "--rounds=60")),
    "motion": Experiment(("--dataset=csv", "--rounds=60"), ("csv",)),
    "movielens": Experiment(("--dataset=movielens", "--rounds=60")),
    "omniglot": Experiment(_OMNIGLOT, ("tfds_dir",)),
    "emnist": Experiment(("--dataset=emnist", "--data_source=tff", "--rounds=200"), ("cache_dir",)),
    "shakespeare": Experiment(
        ("--dataset=shakespeare", "--data_source=tff", "--rounds=40"), ("cache_dir",)
    ),
    "stackoverflow": Experiment(
        ("--dataset=stackoverflow", "--data_source=tff", "--rounds=50"), ("cache_dir",)
    ),
}
_FLAGS = [
    Flag("output_dir", str, "runs/results", "Where the runs and results.md go."),
    Flag("only", LIST, list(EXPERIMENTS), "Which data sets, in this order."),
    Flag("algorithms", LIST, list(ALGORITHMS), "What is compared."),
    Flag("repetitions", int, 3, "Seeds of each run."),
    Flag("cache_dir", str, None, "Where TFF's files are: emnist, shakespeare, stackoverflow."),
    Flag("tfds_dir", str, None, "Where TensorFlow Datasets' omniglot is."),
    Flag("csv", str, None, "A table of people's motion, with its columns given by --csv_flags."),
    Flag("csv_flags", str, "", "Further flags of the table, separated by spaces."),
    Flag("ratings", str, None, "MovieLens as GroupLens publishes it; else the stand-in, marked."),
    Flag("hours", float, None, "After so many hours no further run is begun."),
    Flag("write", str, None, "Also replace the section of this file, e.g. docs/results.md."),
]


def main(argv: Sequence[str]) -> int:
    """Runs what is not finished, writes the table; returns 0, or 2 after a user's mistake."""
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(f"{__doc__}\n{flags.help_of({'Results': _FLAGS})}")
        return 0
    try:
        values = flags.parse({"Results": _FLAGS}, argv)
        for name in values["only"]:
            check_choice("--only", name, EXPERIMENTS)
        if values["repetitions"] < 1:
            raise ValueError("--repetitions must be >= 1.")
        if values["write"] is not None:
            results_table.split_at_section(Path(values["write"]))
        text = _run_all(values)
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    print(text)
    return 0


def _run_all(values: Mapping[str, Any]) -> str:
    output_dir = Path(values["output_dir"]).expanduser()
    output_dir.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    for name in values["only"]:
        directory = output_dir / name
        missing = [flag for flag in EXPERIMENTS[name].needs if values[flag] is None]
        over = values["hours"] is not None and time.monotonic() - begun > 3600 * values["hours"]
        if missing:
            print(f"{name} is not run: it needs --{missing[0]}.", flush=True)
        elif over:
            print(f"{name} is not run: the hours are over.", flush=True)
        elif not run_directory.is_finished(directory):
            command = command_of(name, values)
            directory.mkdir(parents=True, exist_ok=True)
            note = json.dumps([argument for argument in command if "output_dir" not in argument])
            (output_dir / f"{name}.command.json").write_text(note + "\n")
            whole = [sys.executable, *command]
            if subprocess.run(whole, cwd=ROOT, check=False).returncode:
                print(f"{name} did not come to its end: see above.", file=sys.stderr)
        results_table.write(output_dir, list(EXPERIMENTS), values["write"])
    return results_table.write(output_dir, list(EXPERIMENTS), values["write"])


def command_of(name: str, values: Mapping[str, Any]) -> list[str]:
    """Returns the command line of a data set's run, without the interpreter."""
    given = list(EXPERIMENTS[name].flags)
    for flag in EXPERIMENTS[name].needs:
        path = Path(values[flag]).expanduser().absolute()
        given.append(f"--{'cache_dir' if flag == 'tfds_dir' else flag}={path}")
    if name == "motion":
        given += values["csv_flags"].split()
    if name == "movielens":
        source = "embedded" if values["ratings"] is None else "file"
        given.append(f"--data_source={source}")
        if values["ratings"] is not None:
            given.append(f"--ratings={Path(values['ratings']).expanduser().absolute()}")
    directory = Path(values["output_dir"]).expanduser().absolute() / name
    return [
        "run_experiment.py",
        *given,
        f"--algorithms={','.join(values['algorithms'])}",
        f"--repetitions={values['repetitions']}",
        f"--output_dir={directory}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
