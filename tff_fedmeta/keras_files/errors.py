"""What is raised at a Keras file that is not opened."""

from __future__ import annotations


class KerasFileError(ValueError):
    """A Keras file is not there, damaged or refused; the message is one sentence for the user."""


class Refusal(Exception):
    """Why a file is refused, as a clause without the file's name."""
