"""The parts of a Keras configuration: nested JSON in which some dictionaries stand for objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tff_fedmeta.keras_files import allowed

Object = Mapping[str, Any]


def children(value: Any) -> Iterator[Any]:
    """Yields the values in a dictionary or list; of anything else nothing."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def kind_of(config: Object) -> tuple[Any, Any]:
    """Returns the module and the class that an object names."""
    return config.get("module"), config.get("class_name")


def is_object(value: Any) -> bool:
    """Returns whether Keras would make an object of a value."""
    return isinstance(value, dict) and "class_name" in value


def is_layer(value: Any) -> bool:
    """Returns whether a value stands for a layer or a model."""
    return is_object(value) and kind_of(value)[0] in (
        allowed.FUNCTIONAL[0],
        allowed.SEQUENTIAL[0],
        allowed.OPERATIONS_MODULE,
        "keras.layers",
    )


def name_of(config: Object, around: str = "") -> str:
    """Returns a layer's name; for an initializer and the like, its layer's."""
    inner = config.get("config")
    own = inner.get("name") if isinstance(inner, dict) else None
    return str(config.get("name") or own or around or config.get("class_name"))


def show(value: Any) -> str:
    """Returns what a message quotes of a file: on one line, and not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
