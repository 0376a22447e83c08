"""Trained weights back into Keras."""

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedmeta.experiment import run_directory


def to_keras(
    keras_model: tf.keras.Model, model_weights: Any, learned_rates: bool = False
) -> tf.keras.Model:
    """Puts the weights of a learning process into a Keras model.

    Unlike `ModelWeights.assign_weights_to`, which fills a model that does not match as far as it
    goes, this sets all weights or none.

    Args:
      keras_model: A built Keras model of the same architecture; its weights are replaced.
      model_weights: A `tff.learning.models.ModelWeights`, e.g. from `process.get_model_weights`.
      learned_rates: Whether `trainable` holds n learnt rates behind the n weights (Meta-SGD). The
        weights are taken, the rates are not.

    Returns:
      `keras_model`.

    Raises:
      ValueError: If the model has other weights: another number, shape or dtype.
    """
    trainable = list(model_weights.trainable)
    non_trainable = list(model_weights.non_trainable)
    variables = keras_model.trainable_variables
    expected = len(variables) * (2 if learned_rates else 1)
    if len(trainable) != expected:
        rates = " and as many learnt rates" if learned_rates else ""
        twice = len(trainable) == 2 * len(variables)
        hint = " If half of them are learnt rates, give learned_rates=True." if twice else ""
        raise ValueError(
            f"The Keras model has {len(variables)} trainable weights, so {expected} tensors{rates} "
            f"are expected, but got {len(trainable)}.{hint}"
        )
    trainable = trainable[: len(variables)]
    if len(non_trainable) != len(keras_model.non_trainable_variables):
        raise ValueError(
            f"The Keras model has {len(keras_model.non_trainable_variables)} non-trainable "
            f"weights, but got {len(non_trainable)}."
        )
    pairs = [
        *zip(variables, trainable),
        *zip(keras_model.non_trainable_variables, non_trainable),
    ]
    for variable, value in pairs:
        value_spec = tf.TensorSpec.from_tensor(tf.convert_to_tensor(value))
        if value_spec.shape != variable.shape or value_spec.dtype != variable.dtype:
            raise ValueError(
                f"The Keras weight {variable.name} has shape {variable.shape} and dtype "
                f"{variable.dtype.name}, but the trained one has {value_spec.shape} and "
                f"{value_spec.dtype.name}."
            )
    for variable, value in pairs:
        variable.assign(value)
    return keras_model


RATES = "adaptation_rates.npz"


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
      rates: Learnt rates of adaptation, one array for each of `keras_model.trainable_variables`
        and of its shape, for `adaptation_rates.npz`, in that order; None: there are none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / "partial.keras"
    with run_directory.writing(directory / "model.keras"):
        keras_model.save(aside)
        os.replace(aside, directory / "model.keras")
    if rates is not None:
        content = io.BytesIO()
        np.savez(content, *rates)
        run_directory.write_bytes(directory / RATES, content.getvalue())
    run_directory.write_json(directory / "metadata.json", metadata)


# Runs with nothing of ours imported: whoever takes the model home has only Keras.
_RELOAD = """
import sys
import numpy as np
import tensorflow as tf
x = np.load(sys.argv[1], allow_pickle=False)
models = [tf.keras.models.load_model(path) for path in sys.argv[3:]]
np.savez(sys.argv[2], *[model.predict(x, verbose=0) for model in models])
"""


def verify(expected: Mapping[Path, np.ndarray], x: np.ndarray) -> None:
    """Checks that exported models predict in a fresh process what they should.

    Args:
      expected: For each directory that `save` wrote to, the predictions of the model that was
        saved.
      x: The inputs they are of, [n, ...].

    Raises:
      RuntimeError: If a model does not open there, or predicts something else.
    """
    paths = [str(directory / "model.keras") for directory in expected]
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = f"{scratch}/x.npy", f"{scratch}/y.npz"
        np.save(inputs, x)
        reload = subprocess.run(
            [sys.executable, "-c", _RELOAD, inputs, outputs, *map(os.path.abspath, paths)],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        if reload.returncode:
            raise RuntimeError(f"An exported model does not open: {reload.stderr[-2000:]}")
        with np.load(outputs, allow_pickle=False) as there:
            for path, here, name in zip(paths, expected.values(), there.files):
                if not np.allclose(here, there[name], rtol=1e-4, atol=1e-5, equal_nan=True):
                    raise RuntimeError(f"{path} predicts something else in a fresh process.")
