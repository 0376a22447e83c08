"""What is raised at a Keras file that is not opened."""

from __future__ import annotations


class KerasFileError(ValueError):
    """A Keras file is not there, damaged or refused; the message is one sentence for the user."""


class Refusal(Exception):
    """Why a file is refused, as a clause without the file's name."""


def first_line(error: Exception) -> str:
    """Returns what a library says of an error, on one short line that a terminal can show."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return "".join(c if c.isprintable() else "?" for c in line[:300])
