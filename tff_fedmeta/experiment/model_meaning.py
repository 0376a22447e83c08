"""What `metadata.json` says of a model's inputs and outputs, for whoever has the model alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def describe(task: Any) -> dict[str, Any]:
    """Returns shapes and dtypes and, where the task tells them, meaning and names.

    Args:
      task: The `datasets.Task`.

    Returns:
      {"input": {"shape", "dtype", "meaning", "channels", "ids_file"}, "target": {"shape", "dtype",
      "meaning", "mean", "scale"}, "output": {"meaning", "classes", "classes_file", "mean",
      "scale"}}; what there is not is left out. The first dimension, of examples, is null.
    """
    x, y = task.input_spec
    facts = {"input": _form(x), "target": _form(y), "output": {}}
    told = task.meaning
    if told is None:
        return facts
    facts["input"].update(meaning=told.inputs)
    facts["target"].update(meaning=told.target)
    facts["output"].update(meaning=told.output)
    for part, name in (
        ("input", "channels"),
        ("input", "ids_file"),
        ("output", "classes"),
        ("output", "classes_file"),
    ):
        value = getattr(told, name)
        if value:
            facts[part][name] = value if isinstance(value, str) else list(value)
    if (told.mean, told.scale) != (0.0, 1.0):
        for part in ("target", "output"):
            facts[part].update(mean=told.mean, scale=told.scale)
    return facts


def _form(spec: Any) -> dict[str, Any]:
    """Returns shape and dtype of one tensor; of a structure of tensors there is no such line."""
    if not isinstance(spec, tf.TensorSpec):
        return {}
    return {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}
