"""Losses whose value and gradient TensorFlow Lite computes with its built-in operators.

Keras' own losses lead to operators that only TensorFlow has, such as
`SparseSoftmaxCrossEntropyWithLogits`. Where the head of a model alone is adapted, these are the
only such operators, and the losses here take their place.
"""

from __future__ import annotations

from typing import Any, Callable

import tensorflow as tf

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (y, output) -> scalar, the mean of a batch

_MEAN = ("auto", "sum_over_batch_size")


def with_builtin_gradient(loss: Any) -> Loss:
    """Returns the same loss with a gradient of built-in operators, or `loss` if none is known.

    Args:
      loss: A Keras loss. Known are `SparseCategoricalCrossentropy(from_logits=True)`, with or
        without `ignore_class`, and `MeanSquaredError`, with the default reduction.
    """
    config = loss.get_config() if isinstance(loss, tf.keras.losses.Loss) else {}
    if config.get("reduction") not in _MEAN:
        return loss
    if type(loss) is tf.keras.losses.MeanSquaredError:
        return mean_squared_error
    if type(loss) is tf.keras.losses.SparseCategoricalCrossentropy and config["from_logits"]:
        return sparse_cross_entropy(config["ignore_class"])
    return loss


def sparse_cross_entropy(ignore_class: int | None = None) -> Loss:
    """Returns the softmax cross-entropy of integer classes.

    The gradient by the logits of one example is softmax(logits) - one_hot(y), divided by the number
    of examples that count.

    Args:
      ignore_class: Positions of this class do not count; None: all count.

    Returns:
      A function of y, integers [n, ...], and logits [n, ..., classes].
    """

    @tf.custom_gradient
    def loss(y: tf.Tensor, logits: tf.Tensor) -> Any:
        hot = tf.one_hot(tf.cast(y, tf.int32), logits.shape[-1], dtype=logits.dtype)
        if ignore_class is not None:
            counts = tf.cast(tf.not_equal(y, ignore_class), logits.dtype)
        else:
            counts = tf.reduce_sum(hot, axis=-1)
        share = (counts / tf.reduce_sum(counts))[..., tf.newaxis]

        def gradient(upstream: tf.Tensor) -> Any:
            return None, upstream * share * (tf.nn.softmax(logits) - hot)

        return -tf.reduce_sum(share * hot * tf.nn.log_softmax(logits)), gradient

    return loss


@tf.custom_gradient
def mean_squared_error(y: tf.Tensor, output: tf.Tensor) -> Any:
    """Returns the mean of (output - y)^2; y is [n, ...] or, for one quantity, [n]."""
    error = output - tf.reshape(tf.cast(y, output.dtype), tf.shape(output))
    count = tf.cast(tf.reduce_prod(tf.shape(output)), output.dtype)

    def gradient(upstream: tf.Tensor) -> Any:
        return None, upstream * 2.0 * error / count

    return tf.reduce_sum(error * error) / count, gradient
