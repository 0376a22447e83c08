"""What a model does in training, found in the graph of its forward pass: Keras is hidden there."""

import functools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

_ASSIGNS = re.compile(r"Assign|Resource\w*(Scatter|Apply)")
# The ops of tf.random.Generator; the ops of tf.random.uniform and the like have the attribute.
_DRAWS = re.compile(r"Rng|NonDeterministic|Stateful(?!PartitionedCall)")
_SEED_ATTRIBUTE = "seed2"
# The scopes that tf.nn.dropout and tf.random open within a layer's scope, <model>/.../<layer>.
_INNER_SCOPES = re.compile(
    r"(?<=/)([^/]+)(/dropout(_\d+)?)?/(random|stateful|truncated)_(uniform|normal)(_\d+)?$"
)


# TFF adds these two to every Keras model.
COUNTERS = ("num_examples", "num_batches")


class ModelError(ValueError):
    """The model cannot be trained as it is; the message says why and what to do."""


class _Op(NamedTuple):
    """One op of a trace.

    Attributes:
      node: Its NodeDef.
      scope: The name scopes around it, outermost first.
      states: Which non-trainable weights it takes by reference, by name.
    """

    node: Any
    scope: str
    states: list[str]


def refuse_moving_statistics(
    model_fn: Callable[[], tff.learning.models.VariableModel],
) -> None:
    """Raises ModelError if the forward pass of training changes non-trainable weights.

    Batch normalisation does: its moving averages. Federated learning aggregates trainable weights
    only, so a server's model would keep the averages it began with and be wrong in inference.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
    """
    states = {
        name for op in _trace_training(model_fn) if _ASSIGNS.match(op.node.op) for name in op.states
    }
    layers = {posixpath.dirname(name) or name for name in states}
    if layers:
        raise ModelError(
            "Training must leave a model's non-trainable weights alone, as only trainable ones are "
            "learned federatedly, but it changes moving statistics or other state of "
            f"{_listed(layers)}: use a normalisation without them (tf.keras.layers."
            "GroupNormalization or LayerNormalization), or freeze the layer with trainable=False, "
            "so that it uses the statistics it has (pretrained)."
        )


def refuse_stochastic_layers(
    model_fn: Callable[[], tff.learning.models.VariableModel],
) -> None:
    """Raises ModelError if the forward pass of training draws random numbers, such as dropout's.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
    """
    layers = {
        _INNER_SCOPES.sub(r"\1", op.scope) or op.node.name
        for op in _trace_training(model_fn)
        if _SEED_ATTRIBUTE in op.node.attr or _DRAWS.match(op.node.op)
    }
    if layers:
        raise ModelError(
            "Second-order gradients replay each inner step and need it to repeat exactly, but the "
            f"forward pass draws random numbers in {_listed(layers)}: take the layer out (or set "
            "its rate to 0), or use a first-order method, which replays nothing (first_order=True "
            "where there is such an argument, or Reptile)."
        )


@functools.lru_cache(maxsize=1)  # it takes a second, and all computations of a run have one model
def refuse_uneven_metrics(
    model_fn: Callable[[], tff.learning.models.VariableModel],
) -> None:
    """Raises ModelError if a metric counts passes over examples instead of the examples.

    Examples are measured in passes of different sizes, and clients' metrics are added up: what a
    metric keeps must be the same for three examples in one pass as in passes of one and of two.
    Keras' mean metrics do otherwise where labels are [n] and the model gives [n, 1]: they reduce
    each pass to one number. So does a maximum.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
    """
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        model = model_fn()
        specs = tf.nest.flatten(model.input_spec)
        if any(size is None for spec in specs for size in spec.shape[1:]):
            return  # examples of which shape it takes is not known

        @tf.function
        def measure_passes() -> list[Any]:
            kept = []
            for count in range(4):
                model.reset_metrics()
                if count:
                    blank = [tf.zeros([count, *spec.shape[1:]], spec.dtype) for spec in specs]
                    batch = tf.nest.pack_sequence_as(model.input_spec, blank)
                    model.forward_pass(batch, training=False)
                unfinalized = model.report_local_unfinalized_metrics()
                kept.append(tf.nest.map_structure(tf.identity, unfinalized))
            return kept

        measured = measure_passes()
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            nothing, one, two, three = session.run(measured)
    uneven = [
        name
        for name in three
        if name not in COUNTERS
        and not all(
            np.allclose(a + b - zero, c, rtol=1e-3, equal_nan=True)
            for zero, a, b, c in zip(
                *(tf.nest.flatten(kept[name]) for kept in (nothing, one, two, three))
            )
        )
    ]
    if uneven:
        raise ModelError(
            f"The metric {_listed(uneven)} counts passes over the data instead of examples, so its "
            "value would depend on how the examples are cut into batches. If the labels are [n] "
            "and the model gives [n, 1], make them agree: give the labels the shape [n, 1] in the "
            "data and in input_spec. Otherwise use a metric that adds up over examples, such as "
            "metrics of tf.keras.metrics."
        )


def _trace_training(model_fn: Callable[[], tff.learning.models.VariableModel]) -> list[_Op]:
    """Returns all ops that a forward pass in training can reach, those in functions included."""
    with tf.Graph().as_default():  # keeps this model's variables out of the caller's graph
        model = model_fn()
        names = {v.handle.ref(): v.name for v in model.non_trainable_variables}

        @tf.function
        def forward_pass(batch: Any) -> Any:
            return model.forward_pass(batch, training=True)

        graph = forward_pass.get_concrete_function(model.input_spec).graph
        graph_def = graph.as_graph_def()
        states = {
            inner.op.name: names[outer.ref()]
            for outer, inner in graph.captures
            if outer.ref() in names
        }
    functions = {function.signature.name: function for function in graph_def.library.function}
    return list(_reachable(graph_def.node, "", states, functions))


def _reachable(
    nodes: Iterable[Any], scope: str, states: Mapping[str, str], functions: Mapping[str, Any]
) -> Iterator[_Op]:
    """Yields nodes, also of the functions they call; `states` names the inputs that are weights."""
    for node in nodes:
        node_scope = posixpath.join(scope, posixpath.dirname(node.name)).rstrip("/")
        inputs = [states.get(name.split(":")[0]) for name in node.input if name[0] != "^"]
        yield _Op(node, node_scope, [state for state in inputs if state])
        for attr in node.attr.values():
            for called in [attr.func, *attr.list.func]:
                if called.name in functions:
                    function = functions[called.name]
                    # Aligned at the end: a branch's arguments follow the predicate.
                    names = [arg.name for arg in function.signature.input_arg]
                    passed = {a: s for a, s in zip(names[::-1], inputs[::-1]) if s}
                    yield from _reachable(function.node_def, node_scope, passed, functions)


def _listed(layers: Iterable[str]) -> str:
    return ", ".join(sorted(layers))
