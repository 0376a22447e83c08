"""Trained weights back into Keras."""

from typing import Any, Union

import tensorflow as tf


def to_keras(
    keras_model: tf.keras.Model, model_weights: Any, learned_rates: Union[bool, str] = False
) -> tf.keras.Model:
    """Puts the weights of a learning process into a Keras model.

    Unlike `ModelWeights.assign_weights_to`, which fills a model that does not match as far as it
    goes, this sets all weights or none.

    Args:
      keras_model: A built Keras model of the same architecture; its weights are replaced.
      model_weights: A `tff.learning.models.ModelWeights`, e.g. from `process.get_model_weights`.
      learned_rates: Which learnt rates `trainable` holds behind the n weights (Meta-SGD): True or
        "per_weight" for n tensors, "per_layer" or "per_step_and_layer" for one. The weights are
        taken, the rates are not.

    Returns:
      `keras_model`.

    Raises:
      TypeError: If `model_weights` are not such weights.
      ValueError: If the model has other weights: another number, shape or dtype.
    """
    if not hasattr(model_weights, "trainable"):
        is_state = hasattr(model_weights, "global_model_weights")
        what = "the state of a process" if is_state else f"{model_weights!r:.80}"
        raise TypeError(
            f"model_weights must be what process.get_model_weights(state) returns, but is {what}."
        )
    trainable = list(model_weights.trainable)
    non_trainable = list(model_weights.non_trainable)
    variables = keras_model.trainable_variables
    per_weight = learned_rates in (True, "per_weight")
    expected = len(variables) * (2 if per_weight else 1) + bool(learned_rates and not per_weight)
    if len(trainable) != expected:
        rates = " with the learnt rates" if learned_rates else ""
        if per_weight:
            rates = " and as many learnt rates"
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
