"""The model on a client: its types, the server's weights in it, and the examples it takes."""

import collections
import functools
from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.client import data as client_data
from tff_fedmeta.client import minibatches, model_checks
from tff_fedmeta.client.learned_rates import LearnedRates

ModelFn = Callable[[], tff.learning.models.VariableModel]


class Types(NamedTuple):
    """What a model's computations take.

    Attributes:
      weights: `ModelWeights`, with learnt rates behind the trainable weights if there are.
      client: A sequence of one whole-client element.
    """

    weights: Any
    client: tff.SequenceType


def client_types(
    model_fn: ModelFn,
    learned_rates: Optional[LearnedRates] = None,
    roles: bool = False,
    sized_support: bool = False,
    given_weights: bool = False,
) -> Types:
    """Returns the TFF types of a model's weights and of a client.

    A client may have a role, and may say how large its support is and how much it counts.

    Raises:
      ValueError: If training moves statistics of the model, which are not aggregated and so would
        stay as they began (batch normalisation), or a metric does not add up over examples.
    """
    model_checks.refuse_moving_statistics(model_fn)
    model_checks.refuse_uneven_metrics(model_fn)
    with tf.Graph().as_default():
        model = model_fn()
        weights = tff.learning.models.weights_type_from_model(model)
        spec = client_data.element_spec(model.input_spec, roles, sized_support, given_weights)
        rates = [] if learned_rates is None else learned_rates.specs(model)
    if rates:
        behind = [tff.TensorType(r.dtype.as_numpy_dtype, r.shape) for r in rates]
        trainable = [*weights.trainable, *behind]
        weights = tff.StructWithPythonType(
            [("trainable", trainable), ("non_trainable", weights.non_trainable)],
            tff.learning.models.ModelWeights,
        )
    return Types(weights, tff.SequenceType(tff.types.tensorflow_to_type(spec)))


def assign_weights(model: tff.learning.models.VariableModel, weights: Any) -> list[tf.Tensor]:
    """Gives the model the server's weights, and returns the learnt rates behind them, if any."""
    num_weights = len(model.trainable_variables)
    trainable = list(weights.trainable)
    values = [*trainable[:num_weights], *weights.non_trainable]
    for variable, value in zip(
        [*model.trainable_variables, *model.non_trainable_variables], values
    ):
        variable.assign(value)
    return trainable[num_weights:]


def build_client_model(
    model_fn: ModelFn,
) -> tff.learning.models.VariableModel:
    """Returns a fresh model whose trainable weights begin with zeros.

    The server's weights replace them at once: drawing random ones for every client would be waste.
    Variables that are not weights, such as another model's in a loss, keep their initial values.
    """
    created: list[tf.Variable] = []

    def record(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        created.append(next_creator(**options))
        return created[-1]

    with tf.Graph().as_default(), tf.variable_creator_scope(record):
        model = model_fn()
        weights = {id(v) for v in tff.learning.models.ModelWeights.from_model(model).trainable}
        are_weights = [(id(v) in weights, v.shape, v.dtype) for v in created]
    remaining = iter(are_weights)

    def create(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        is_weight, shape, dtype = next(remaining, (False, None, None))
        if is_weight and (options.get("shape"), options.get("dtype")) == (shape, dtype):
            options["initial_value"] = functools.partial(tf.zeros, shape, dtype)
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        return model_fn()


def as_batch(model: tff.learning.models.VariableModel, x: Any, y: Any) -> Any:
    """Returns (x, y) in the form the model's `forward_pass` takes."""
    if isinstance(model.input_spec, collections.abc.Mapping):
        parts = {"x": x, "y": y}
        return collections.OrderedDict((name, parts[name]) for name in model.input_spec)
    return (x, y)


def nothing_unless_finite(examples: Any) -> Any:
    """Returns the examples [n, ...], or none of them if there is a NaN or an infinity."""
    kept = tf.where(all_finite(examples), minibatches.count_examples(examples), 0)
    return tf.nest.map_structure(lambda tensor: tensor[:kept], examples)


def all_finite(tensors: Any) -> tf.Tensor:
    """Returns whether a structure of tensors has neither NaN nor infinity: bool scalar."""
    floating = [t for t in tf.nest.flatten(tensors) if t.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(t)) for t in floating])
