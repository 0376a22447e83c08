"""TFF's plain TensorFlow computations, as functions in a graph and as programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.runtime import tff_values
from tff_fedmeta.runtime.programs import Program

_WITHOUT_INPUTS = ("Const", "Placeholder", "VarHandleOp")


class GraphFunction:
    """A computation as a function from flat lists of graph tensors to flat lists of graph tensors.

    Every call places a copy of the computation into the current graph.
    """

    def __init__(self, computation: tff.Computation, name: str):
        """Takes the computation, a `tff.tensorflow.computation`, apart.

        Args:
          computation: Of any parameter; sequences in it are variants of datasets.
          name: Told from the names of other functions, because variables are called by it.
        """
        proto = tff.framework.serialize_computation(computation).tensorflow
        graph = tf.compat.v1.GraphDef()
        proto.graph_def.Unpack(graph)
        self._name = name
        self._parameters = list(_tensor_names(proto.parameter))
        self._results = list(_tensor_names(proto.result))
        first = [proto.initialize_op] if proto.initialize_op else []
        # Tracing leaves operations behind that nothing needs, but that a loop would run.
        needed = _needed_for(graph, self._parameters + self._results + first)
        # Variables are initialized before anything else happens, anew in every call.
        before = _needed_for(graph, first)
        self._graph = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
        for node in graph.node:
            if node.name in needed:
                if node.name not in before and node.op not in _WITHOUT_INPUTS:
                    node.input.extend(f"^{operation}" for operation in first)
                if node.op == "VarHandleOp":
                    node.attr["shared_name"].s = f"{name}/{node.name}".encode()
                node.attr.pop("_class", None)  # places it beside others, which may not be there
                self._graph.node.append(node)

    def add_library(self) -> None:
        """Adds the functions it calls to the current graph: a loop does not bring them along."""
        library = tf.compat.v1.GraphDef(library=self._graph.library, versions=self._graph.versions)
        tf.graph_util.import_graph_def(library, name="")

    def __call__(self, arguments: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the results, in the current graph."""
        if len(arguments) != len(self._parameters):
            raise ValueError(
                f"{self._name} takes {len(self._parameters)} tensors, not {len(arguments)}."
            )
        # Identities bring tensors from around a loop into it.
        inputs = dict(zip(self._parameters, map(tf.identity, arguments)))
        return tf.graph_util.import_graph_def(
            self._graph, input_map=inputs, return_elements=self._results, name=self._name
        )


def _tensor_names(binding: Any) -> Iterator[str]:
    """The names of a binding's tensors, in the order of the leaves of its type."""
    kind = binding.WhichOneof("binding")
    if kind == "tensor":
        yield binding.tensor.tensor_name
    elif kind == "sequence":
        yield binding.sequence.variant_tensor_name
    elif kind == "struct":
        for element in binding.struct.element:
            yield from _tensor_names(element)


def _needed_for(graph: Any, tensors: Sequence[str]) -> set[str]:
    """The names of the nodes that compute these tensors or operations."""
    inputs = {node.name: node.input for node in graph.node}
    needed: set[str] = set()
    found = list(tensors)
    while found:
        name = found.pop().lstrip("^").partition(":")[0]
        if name not in needed:
            needed.add(name)
            found += inputs[name]
    return needed


def program(graph: tf.Graph, feeds: Sequence[tf.Tensor], fetches: Sequence[tf.Tensor]) -> Program:
    """Returns the program that computes tensors of a graph of other ones."""
    return Program(graph, [tensor.name for tensor in feeds], [tensor.name for tensor in fetches])


def program_of(computation: tff.Computation) -> Program:
    """Makes a program of a computation without sequences."""
    function = GraphFunction(computation, "computation")
    with tf.Graph().as_default() as graph:
        feeds = placeholders(computation.type_signature.parameter)
        return program(graph, feeds, function(feeds))


def placeholders(type_spec: tff.Type) -> list[tf.Tensor]:
    """Returns a placeholder in the current graph for each tensor of a type without sequences."""
    return [placeholder(leaf) for leaf in tff_values.leaf_types(type_spec)]


def placeholder(leaf: Any) -> tf.Tensor:
    """Returns a placeholder in the current graph for a tensor type."""
    if not isinstance(leaf, tff.TensorType):
        raise TypeError(f"Only tensors can be fed, not {leaf}.")
    return tf.compat.v1.placeholder(leaf.dtype, leaf.shape)
