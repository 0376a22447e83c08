"""LEAF's own JSON folders: FEMNIST, Shakespeare and Sent140, one client per user.

    python run_experiment.py --dataset=leaf --leaf_dir=leaf/data/femnist/data

Users whom LEAF holds out (`-t user`) are tested; where each user is in train/ and test/ (`-t
sample`), a user's examples are joined and clients are split here, as adaptation tests clients that
were never trained on. Which of the data these are, the files tell.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from datasets import emnist, shakespeare
from datasets import options as schema
from datasets.data_set import FILE, About, DataSet, Request
from datasets.problems import leaf_tasks
from datasets.sources import leaf_files
from datasets.tables import files
from datasets.task import DataError, Sides, Task, split_clients

NAME = "leaf"
_TWEETS: Mapping[str, Mapping[str, Any]] = {  # untried
    "reptile": {"inner_learning_rate": 0.1},
    "fedavg": {"inner_learning_rate": 0.1},
    "fedprox": {"inner_learning_rate": 0.1},
}

DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedavg"),
    "rounds": 100,
    "clients_per_round": 10,
    "batch_size": 20,
    "inner_epochs": 1,
    "support_fraction": 0.5,
    "adaptation_steps": 20,
    "adaptation_learning_rates": (0.01, 0.03, 0.1),
    "rounds_per_evaluation": 20,
    "rounds_per_checkpoint": 20,
    "hyperparameters": _TWEETS,
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of LEAF's data; their `option` says what each means."""

    leaf_dir: str | None = schema.option(
        None, "The folder with train/ and test/, or one with .json files."
    )
    leaf_task: str | None = schema.option(
        None, "Which data these are; found out if not given.", choices=leaf_files.TASKS
    )
    leaf_words: str = schema.option(
        "bag", "Sent140: bag: how often each word occurs; ids: the first words in their order.",
        choices=("bag", "ids"),
    )  # fmt: skip
    leaf_vocabulary: int = schema.option(5000, "Sent140: words that are told apart.", at_least=1)
    leaf_units: int = schema.option(
        256, "Shakespeare: units of each of the two LSTMs.", at_least=1, at_most=10_000
    )
    leaf_sha256: str | None = schema.option(
        None, "SHA-256 of the files; a run notes it and continues on no others."
    )


ABOUT = About(
    source=FILE,
    clients="LEAF's users: writers, roles of plays, people who tweet",
    model="the networks of emnist and shakespeare; for tweets an MLP",
    metric="accuracy",
    download="none: the folders that LEAF's preprocess.sh writes",
    licence="LEAF: BSD-2-Clause; the data's own",
    has_stand_in=False,
)


def complete(options: Options) -> Options:
    """Finds out which data these are, and makes the files' hash an option.

    Raises:
      DataError: If a folder is named that has no files, or not LEAF's.
    """
    if options.leaf_dir is None:
        return options
    first = leaf_files.find(options.leaf_dir)["train"][0]
    return dataclasses.replace(
        options,
        leaf_task=options.leaf_task or leaf_files.kind_of(first),
        leaf_sha256=options.leaf_sha256 or files.sha256(options.leaf_dir),
    )


def adjust(options: Options) -> dict[str, Any]:
    """Returns how training clients split, and rates that suit the network."""
    if options.leaf_task == leaf_files.SHAKESPEARE:
        return {
            "split": "ordered",
            "hyperparameters": shakespeare.DEFAULTS["hyperparameters"],
            "adaptation_learning_rates": shakespeare.DEFAULTS["adaptation_learning_rates"],
        }
    if options.leaf_task == leaf_files.FEMNIST:
        return {"hyperparameters": emnist.DEFAULTS["hyperparameters"]}
    return {}


def load(request: Request) -> Task:
    """Loads LEAF's files.

    Returns:
      A `Task`. Of FEMNIST x is float32 [n, 28, 28] with 1 = paper and y int32 [n]; of Shakespeare x
      int64 [n, 80], places of characters in the vocabulary, and y the place of the next one; of
      Sent140 x float32 [n, words] or int64 [n, 25] and y 0 or 1.

    Raises:
      DataError: If a file cannot be used, was changed, or there are too few users.
    """
    options: Options = request.options
    if options.leaf_dir is None:
        raise DataError("--dataset=leaf reads files: give --leaf_dir=FOLDER.")
    if files.sha256(options.leaf_dir) != options.leaf_sha256:
        raise DataError(
            f"{options.leaf_dir} does not have the files that --leaf_sha256 means: they changed."
        )
    users = leaf_files.read(options.leaf_dir)
    sides = _split(users, request)
    _say(users, options)
    request.announce(sides[0], np.int32)
    build = {
        leaf_files.FEMNIST: leaf_tasks.femnist,
        leaf_files.SHAKESPEARE: leaf_tasks.shakespeare,
        leaf_files.SENT140: leaf_tasks.sent140,
    }
    assert options.leaf_task is not None
    return build[options.leaf_task](users.examples, sides, request)


def _split(users: leaf_files.LeafUsers, request: Request) -> Sides:
    if not users.tested or request.fold is not None:
        return split_clients(
            users.examples, request.split_seed, request.num_test_clients, request.fold
        )
    tested = sorted(users.tested)
    others = sorted(set(users.examples) - users.tested)
    if len(others) < 2:
        raise DataError("train/ has fewer than two users: training and validation need one each.")
    rng = np.random.default_rng(request.split_seed)
    tested = [tested[i] for i in rng.permutation(len(tested))][: request.num_test_clients]
    others = [others[i] for i in rng.permutation(len(others))]
    count = max(1, round(0.1 * len(others)))
    return tuple(others[count:]), tuple(others[:count]), tuple(tested)


def _say(users: leaf_files.LeafUsers, options: Options) -> None:
    examples = sum(len(of_user["y"]) for of_user in users.examples.values())
    lines = [
        f"LEAF's {options.leaf_task}: {len(users.examples):,} users with {examples:,} examples."
    ]
    if users.too_few:
        lines.append(f"Left out, users with fewer than two examples: {len(users.too_few):,}.")
    if users.tested:
        lines.append(f"Tested are {len(users.tested):,} users whom LEAF holds out.")
    print("\n".join(lines), file=sys.stderr, flush=True)


DATASET = DataSet(
    NAME, ABOUT, Options, DEFAULTS, load, complete=complete, adjust=adjust, has_folds=True
)
