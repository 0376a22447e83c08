"""LEAF's JSON folders: users with examples, in `train/` and `test/` or all in one place.

A file holds {"users": [...], "num_samples": [...], "user_data": {user: {"x": [...], "y": [...]}}}
(Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, https://leaf.cmu.edu).
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from datasets.task import DataError

FEMNIST, SHAKESPEARE, SENT140 = TASKS = ("femnist", "shakespeare", "sent140")
_SIDES = ("train", "test")
_BEGINNING = 1_000_000  # characters that tell which of LEAF's data these are
# What a user's first x begins with: a list of numbers, a text, a list of texts.
_FIRST_X = re.compile(r'"x"\s*:\s*\[\s*(\[\s*[-\d.]|"|\[\s*")')

Examples = Mapping[str, list[Any]]  # "x" and "y", of equal length


class LeafUsers(NamedTuple):
    """LEAF's users.

    Attributes:
      examples: User -> examples; those of `train/` first.
      tested: The users whom LEAF holds out; empty: each user is in both folders, or there is one.
      too_few: Users that were left out, as they have fewer than two examples.
    """

    examples: Mapping[str, Examples]
    tested: frozenset[str]
    too_few: tuple[str, ...]


def find(leaf_dir: str) -> dict[str, list[pathlib.Path]]:
    """Returns the files in `train/` and `test/`, or under "train" all there are.

    Raises:
      DataError: If there are none.
    """
    here = pathlib.Path(leaf_dir).expanduser()
    if not here.is_dir():
        raise DataError(f"--leaf_dir={leaf_dir} is not a directory.")
    sides = {side: sorted((here / side).glob("*.json")) for side in _SIDES}
    if not sides["train"]:
        sides = {"train": sorted(here.glob("*.json")), "test": []}
    if not sides["train"]:
        raise DataError(
            f"--leaf_dir={leaf_dir} has no .json files, neither in train/ nor itself: name what "
            "LEAF's preprocess.sh calls data, or one of its folders such as all_data."
        )
    return sides


def kind_of(file: pathlib.Path) -> str:
    """Returns which of LEAF's data a file holds, told by its first example.

    Raises:
      DataError: If it is none of them.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            first = _FIRST_X.search(opened.read(_BEGINNING))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from error
    if first is None:
        raise DataError(
            f'{file} is not a file of LEAF: {{"user_data": {{user: {{"x": [...], "y": [...]}}}}}} '
            "with images, texts or tweets is expected."
        )
    beginning = first[1].replace(" ", "")
    return SHAKESPEARE if beginning == '"' else SENT140 if beginning == '["' else FEMNIST


def read(leaf_dir: str) -> LeafUsers:
    """Reads all users.

    Raises:
      DataError: If there are no files, or one is cut off or not LEAF's.
    """
    import tqdm

    sides = find(leaf_dir)
    users: dict[str, dict[str, dict[str, list[Any]]]] = {side: {} for side in _SIDES}
    files = [(side, file) for side in _SIDES for file in sides[side]]
    for side, file in tqdm.tqdm(files, "reading", unit="file", delay=5, mininterval=5):
        for user, examples in _user_data(file).items():
            known = users[side].setdefault(user, {"x": [], "y": []})
            for name in known:
                known[name] += examples[name]
    train, test = users["train"], users["test"]
    apart = not set(train) & set(test)
    joined: dict[str, Examples] = {
        user: {
            name: train.get(user, _NONE)[name] + test.get(user, _NONE)[name] for name in ("x", "y")
        }
        for user in sorted({*train, *test})
    }
    too_few = tuple(user for user, examples in joined.items() if len(examples["y"]) < 2)
    for user in too_few:
        del joined[user]
    return LeafUsers(joined, frozenset(test) & set(joined) if apart else frozenset(), too_few)


_NONE: dict[str, list[Any]] = {"x": [], "y": []}


def _user_data(file: pathlib.Path) -> dict[str, Examples]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["user_data"]
        for user, examples in found.items():
            if len(examples["x"]) != len(examples["y"]):
                raise DataError(
                    f"{file}: user {user!r} has {len(examples['x'])} x but {len(examples['y'])} y."
                )
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is not a file of LEAF, or is cut off: {reason}.") from error
