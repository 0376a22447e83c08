"""Tracing models without a trace: Keras and TensorFlow are left as they were found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def as_found() -> Iterator[None]:
    """Keeps what happens in the block from changing Keras' classes, or depending on some switches.

    Building a Keras model in a graph, as TFF does, swaps the base classes of Keras' layers and
    models for the classes of TensorFlow 1, until a model is built eagerly again. In between, models
    made before raise "Your Layer or Model is in an invalid state". This restores the base classes.

    `tf.config.run_functions_eagerly(True)`, with which functions in a graph lose the order of their
    operations, is off in the block.
    """
    bases = {kind: kind.__bases__ for kind in _descendants(tf.keras.layers.Layer)}
    eagerly = tf.config.functions_run_eagerly()
    if eagerly:
        tf.config.run_functions_eagerly(False)
    try:
        yield
    finally:
        if eagerly:
            tf.config.run_functions_eagerly(True)
        for kind, before in bases.items():  # bases first
            if kind.__bases__ != before:
                kind.__bases__ = before


def _descendants(kind: type) -> list[type]:
    """Returns all subclasses of a class, each after one that it is derived from."""
    found = {kind: None}
    todo = [kind]
    while todo:
        below = [sub for parent in todo for sub in parent.__subclasses__() if sub not in found]
        todo = list(dict.fromkeys(below))
        found.update(dict.fromkeys(todo))
    return list(found)
