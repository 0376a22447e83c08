"""The Keras model that a run leaves for each algorithm, and what adapts it."""

import io
import os
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedmeta import export
from tff_fedmeta.client.learned_rates import learned_rates_of
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import model_meaning, other_forms, run_directory
from tff_fedmeta.experiment.scope import Scope
from tff_fedmeta.export import keras

RATES = "adaptation_rates.npz"


def export_model(
    config: ExperimentConfig,
    task: Any,
    algorithm: str,
    scope: Scope,
    weights: Any,
    chosen: Mapping[str, Any],
    directory: Path,
    formats: Collection[str] = (export.KERAS,),
) -> tf.keras.Model:
    """Writes the trained Keras model with what is needed to adapt it, and returns it.

    Where some layers alone adapt, the others are frozen: `model.fit` on a client's examples is
    the adaptation that was measured.

    Args:
      config: The run's configuration.
      task: The `datasets.Task`.
      algorithm: What trained the weights.
      scope: What moves when a client adapts.
      weights: The trained `ModelWeights`, with learnt rates behind them if there are.
      chosen: What was chosen of adaptation: {"inner_learning_rate", "steps", ...}.
      directory: Where `model.keras`, `metadata.json` and the task's assets go.
      formats: Of `export.FORMATS`; `model.keras` is always written. A form that the model cannot
        take is said in one sentence and left out.
    """
    model, rates = task.build_keras_model(), None
    how: dict[str, Any] = {**chosen, "batch_size": config.adaptation_batch_size}
    how["adapts"] = scope.in_words()
    keras.to_keras(model, weights, learned_rates=scope.learned_rates)
    learned = learned_rates_of(scope.learned_rates)
    if learned is not None:
        # Left uncompiled: no Keras optimizer has such rates, and another would adapt, but not as it
        # was measured.
        behind = list(weights.trainable)[len(model.trainable_variables) :]
        rates = learned.by_variable(model, behind)
        how.update(learned_rates=RATES, inner_rates=learned.kind)
    moving = scope.moving(task.model_fn)
    if moving is not None:
        freeze_all_but(model, moving)
        how["weights"] = [variable.name for variable in model.trainable_variables]
    if scope.proximal_strength:
        # Left uncompiled too: no Keras optimizer pulls the weights to where they began.
        how["proximal_strength"] = scope.proximal_strength
    elif learned is None:
        _compile(model, task, chosen["inner_learning_rate"])
    metadata = {
        "algorithm": algorithm,
        "dataset": task.name,
        "data_source": task.data_source,
        "adaptation": how,
        **model_meaning.describe(task),
        "config_hash": config.hash,
    }
    directory.mkdir(parents=True, exist_ok=True)
    metadata.update(other_forms.write(task, model, scope, how, rates, directory, formats))
    save(model, directory, metadata, rates)
    for name, content in task.assets.items():
        write = run_directory.write_text if isinstance(content, str) else run_directory.write_json
        write(directory / name, content)
    return model


def _compile(model: tf.keras.Model, task: Any, learning_rate: float) -> None:
    """Compiles a model to adapt by `model.fit`, if Keras has its loss.

    Whoever takes the model home has only Keras, which opens no model of another loss.
    """
    loss = task.build_loss()
    if not _is_keras(loss):
        return
    model.compile(
        optimizer=tf.keras.optimizers.SGD(learning_rate),
        loss=loss,
        metrics=[metric for metric in task.build_metrics() if _is_keras(metric)],
    )
    model.optimizer.build(model.trainable_variables)  # or loading warns of missing variables


def _is_keras(thing: Any) -> bool:
    return type(thing).__module__.startswith("keras.")


def freeze_all_but(model: tf.keras.Model, moving: Sequence[int]) -> None:
    """Freezes the layers of a Keras model that have none of the trainable variables at `moving`."""
    kept = {id(model.trainable_variables[index]) for index in moving}
    for layer in model.layers:
        if not any(id(variable) in kept for variable in layer.trainable_variables):
            layer.trainable = False
    if {id(variable) for variable in model.trainable_variables} != kept:
        raise RuntimeError("A layer of the model has weights that adapt and others that do not.")


def save(
    keras_model: tf.keras.Model,
    directory: Path,
    metadata: Mapping[str, Any],
    rates: Optional[Sequence[np.ndarray]] = None,
) -> None:
    """Writes `model.keras` and `metadata.json`, replacing what an interrupted run left there.

    Args:
      keras_model: The trained model.
      directory: Where the files go; made if it is not there.
      metadata: What `metadata.json` says.
      rates: Learnt rates of adaptation for `adaptation_rates.npz`, an array for each of
        `keras_model.trainable_variables` in their order, as `LearnedRates.by_variable` has them;
        None: there are none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / "partial.keras"
    with run_directory.writing(directory / "model.keras"):
        keras_model.save(aside)
        _compress(aside)
        opened = tf.keras.models.load_model(aside, compile=False)
    for mine, theirs in zip(keras_model.get_weights(), opened.get_weights()):
        if not np.array_equal(mine, theirs, equal_nan=True):
            raise RuntimeError(f"{aside} does not hold the weights that were saved.")
    os.replace(aside, directory / "model.keras")
    if rates is not None:
        content = io.BytesIO()
        np.savez(content, *rates)
        run_directory.write_bytes(directory / RATES, content.getvalue())
    run_directory.write_json(directory / "metadata.json", metadata)


def _compress(path: Path) -> None:
    """Compresses a Keras archive, in place.

    Keras' SGD keeps a momentum for every weight even where its momentum is 0; stored as they are,
    these zeros would make the file twice as large.
    """
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in parts.items():
            target.writestr(name, content, zipfile.ZIP_DEFLATED, compresslevel=1)
