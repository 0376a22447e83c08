"""Trained weights back into Keras."""

from typing import Any

import tensorflow as tf


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
