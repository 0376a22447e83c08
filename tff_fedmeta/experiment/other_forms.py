"""A run's models in forms other than Keras' own: TensorFlow Lite and SavedModel."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import tensorflow as tf

from tff_fedmeta import export
from tff_fedmeta.client import layers
from tff_fedmeta.experiment import run_directory
from tff_fedmeta.experiment.scope import Scope
from tff_fedmeta.export import adaptation, savedmodel, tflite

_LOG = logging.getLogger(__name__)


def write(
    task: Any,
    model: tf.keras.Model,
    scope: Scope,
    how: Mapping[str, Any],
    rates: Sequence[Any] | None,
    directory: Path,
    formats: Collection[str],
) -> dict[str, Any]:
    """Writes a trained model in other forms, each of which adapts as the evaluation did.

    A form that cannot express the model is said in one sentence and left out.

    Args:
      task: The `datasets.Task`.
      model: The trained model.
      scope: What moves when a client adapts.
      how: "inner_learning_rate", "steps" and "batch_size" of adaptation.
      rates: Learnt rates of adaptation; None: there are none.
      directory: Where the files go; it is there.
      formats: Of `export.FORMATS`; Keras' own is not written here.

    Returns:
      What `metadata.json` says of each form that was asked for.
    """
    common: dict[str, Any] = {
        "loss": task.build_loss(),
        "inner_learning_rate": how["inner_learning_rate"],
        "learned_rates": rates,
        "trainable": adaptation.HEAD if scope.is_partial else adaptation.ALL,
        # Those that are not frozen.
        "head_layers": len(layers.layers_of(model)) if scope.is_partial else 1,
        "proximal_strength": scope.proximal_strength,
        "input_spec": task.input_spec,
    }
    budget = {"steps": how["steps"], "batch_size": how["batch_size"]}
    writers: dict[str, Callable[..., Any]] = {
        export.TFLITE: functools.partial(tflite.to_tflite, model, **common),
        export.SAVEDMODEL: functools.partial(savedmodel.to_savedmodel, model, **budget, **common),
    }
    return {
        form: _try(writer, directory / export.FILES[form])
        for form, writer in writers.items()
        if form in formats
    }


def _try(write_form: Callable[..., Any], path: Path) -> dict[str, Any]:
    try:
        with run_directory.writing(path):
            facts = write_form(path=path)
    except export.ConversionError as error:
        _LOG.warning("%s is not written: %s", path, error)
        return {"error": str(error)}
    return {"file": path.name, **facts._asdict()}
