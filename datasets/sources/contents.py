"""What the examples of one client in a TFF file must be, and the sentence when they are not.

TensorFlow parses the examples; its error names neither file nor client. Only then is the client
read a second time here, to say which example and which feature is at fault.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

import numpy as np

from datasets.task import DataError


class Contents(NamedTuple):
    """What a split of a file holds.

    Attributes:
      path: The `.sqlite` file.
      split: The split's name in it.
      kinds: For each feature its kind, "float", "int64" or "bytes", and its number of values.
      check: Returns what is wrong with a client's features [n, ...] that could be parsed, as a
        clause, or None.
    """

    path: pathlib.Path
    split: str
    kinds: Mapping[str, tuple[str, int]]
    check: Callable[[Mapping[str, np.ndarray]], str | None] = lambda examples: None

    def fault(self, client_id: str, what: str) -> DataError:
        """Returns the error that says what is wrong with a client."""
        return DataError(
            f"{self.path} cannot be used: in split {self.split!r}, client {client_id!r}, {what}."
        )

    def unreadable(self, client_id: str, error: Exception) -> DataError:
        """Returns the error for a client whose examples TensorFlow did not parse."""
        try:
            found = self._find_fault(client_id)
        except sqlite3.DatabaseError as damage:
            found = f"SQLite says: {damage}"
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return self.fault(client_id, found or f"TensorFlow says: {first_line.rstrip('.')}")

    def _find_fault(self, client_id: str) -> str | None:
        uri = f"{self.path.absolute().as_uri()}?immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            rows = database.execute(
                "SELECT serialized_example_proto FROM examples WHERE client_id = ? AND "
                "split_name = ?",
                (client_id, self.split),
            )
            number = 0
            for number, (serialized,) in enumerate(rows, start=1):
                what = _find_fault_of_example(serialized, self.kinds)
                if what is not None:
                    return f"example {number} {what}"
        return None if number else "there are no examples, though client_metadata counts some"


def _find_fault_of_example(serialized: Any, kinds: Mapping[str, tuple[str, int]]) -> str | None:
    import tensorflow as tf

    if not isinstance(serialized, bytes):
        return f"is {type(serialized).__name__}, not the bytes of a tf.train.Example"
    if not serialized:
        return "is empty"
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # protobuf's own error, which has no public name in TensorFlow
        return "is not a tf.train.Example"
    for name, (kind, number) in kinds.items():
        if name not in features:
            return f"has no feature {name!r}"
        found = features[name].WhichOneof("kind")
        if found != f"{kind}_list":
            return f"has {name!r} as {found or 'nothing'}, not as {kind}_list"
        length = len(getattr(features[name], found).value)
        if length != number:
            return f"has {length:,} values in {name!r} instead of {number:,}"
    return None


def check_range(name: str, values: np.ndarray, low: float, high: float) -> str | None:
    """Returns a clause unless all values are finite and in [low, high]."""
    if not np.isfinite(values).all():
        return f"{name} has a value that is not finite"
    least, most = (values.min(), values.max()) if values.size else (low, low)
    if least < low or most > high:
        return f"{name} must lie between {low:g} and {high:g}, but has {least:g} to {most:g}"
    return None
