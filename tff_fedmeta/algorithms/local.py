"""What a client reaches alone: nothing is trained together, and nothing is sent."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.client.model import ModelFn


def untrained_weights(model_fn: ModelFn) -> tff.learning.models.ModelWeights:
    """Returns the weights that training starts from, as arrays.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
    """
    weights = tff.learning.models.ModelWeights.from_model(model_fn())
    return tf.nest.map_structure(np.asarray, weights)
