"""Dropout that repeats: its mask derives from the batch and not from a generator with a state."""

from typing import Any, Optional

import tensorflow as tf

from tff_fedmeta import checks


@tf.keras.saving.register_keras_serializable("tff_fedmeta")
class RepeatableDropout(tf.keras.layers.Layer):
    """Drops inputs with probability `rate` in training, the same ones whenever the run is repeated.

    Keras' own dropout draws from a generator that lives as long as the program: what a client draws
    then depends on the clients before it and on the threads. Here the seed of a mask is computed
    from the bits of what is masked. It is another for every batch and after every step, because
    these bits are, and the same in every run, on any number of threads. A step that is computed a
    second time, as for its second derivative, has the same mask, so MAML takes the layer.

    Args:
      rate: The probability of each input to be dropped, in [0, 1); others are scaled to keep the
        expected sum.
      seed: Tells layers apart that mask the same input.
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        checks.check_limits("rate", rate, at_least=0, below=1)
        checks.check_count("seed", seed, 0)
        self.rate = rate
        self.seed = seed

    def call(self, inputs: tf.Tensor, training: Optional[bool] = None) -> tf.Tensor:
        """Returns the inputs, some of them 0 if it is training."""
        if not training or not self.rate:
            return inputs
        bits = tf.bitcast(tf.cast(tf.stop_gradient(inputs), tf.float32), tf.int32)
        # Sums of whole numbers do not depend on their order; two, so that few batches share a seed.
        first, second = tf.reduce_sum(bits), tf.reduce_sum(tf.bitwise.right_shift(bits, 3))
        seed = tf.stack([first + self.seed, second])
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=seed)

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the same layer."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
