"""How the values of clients, datasets above all, get into a graph.

Nothing here imports TensorFlow Federated: a process that only works on clients need not, either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class Fed(tuple):
    """The arrays that a client is fed as, made already: by the process that has its data."""


class ClientFeeds:
    """The tensors that a client of a type is fed as.

    A dataset of one element is fed as that element. Others are fed as their serialized graphs,
    which are made anew and interpreted for every client, as in TFF's worker.

    Attributes:
      specs: What a client is fed as: a `tf.TensorSpec` for each tensor.
    """

    def __init__(self, leaves: Sequence[Any], one_element: bool):
        """Takes the specs of a client's leaves, and whether all of its datasets have one element.

        Args:
          leaves: `tf.TensorSpec` and `tf.data.DatasetSpec` (`tff_values.leaf_specs`).
          one_element: Whether all datasets of all clients have exactly one element.
        """
        self._one_element = one_element
        self._leaves = list(leaves)
        self._tensors = [self._tensors_of(leaf) for leaf in self._leaves]
        self.specs = [spec for specs in self._tensors for spec in specs]

    def _tensors_of(self, leaf: Any) -> list[tf.TensorSpec]:
        if isinstance(leaf, tf.data.DatasetSpec):
            if self._one_element:
                return tf.nest.flatten(leaf.element_spec)
            return [tf.TensorSpec([], tf.string)]
        return [leaf]

    def feed(self, client: Sequence[Any]) -> Sequence[np.ndarray]:
        """Returns the arrays that a client with these leaves is fed as.

        Raises:
          TypeError: If they are not of the type.
        """
        if isinstance(client, Fed):
            return client
        arrays = []
        for value, leaf, specs in zip(client, self._leaves, self._tensors):
            if not isinstance(leaf, tf.data.DatasetSpec):
                arrays.append(value)
                continue
            _check_elements(value.element_spec, leaf.element_spec)
            variant = tf.data.experimental.to_variant(value)
            if self._one_element:
                # Not get_single_element(), which takes three times as long.
                tensors = tf.raw_ops.DatasetToSingleElement(
                    dataset=variant,
                    output_types=[spec.dtype for spec in specs],
                    output_shapes=[spec.shape for spec in specs],
                )
                arrays += map(np.asarray, tensors)
            else:
                graph = tf.raw_ops.DatasetToGraphV2(input_dataset=variant)
                arrays.append(np.asarray(graph.numpy(), object))
        return arrays

    def empty(self) -> list[np.ndarray]:
        """Returns what is fed where there is no client."""
        return [
            np.full(
                [size or 0 for size in spec.shape],
                b"" if spec.dtype == tf.string else 0,
                spec.dtype.as_numpy_dtype,
            )
            for spec in self.specs
        ]

    def arguments(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns a computation's arguments in the graph: a variant for each dataset."""
        remaining = iter(tensors)
        arguments = []
        for leaf, specs in zip(self._leaves, self._tensors):
            fed = [next(remaining) for _ in specs]
            if not isinstance(leaf, tf.data.DatasetSpec):
                arguments += fed
            elif self._one_element:
                shapes = [spec.shape for spec in specs]
                arguments.append(tf.raw_ops.TensorDataset(components=fed, output_shapes=shapes))
            else:
                arguments.append(tf.raw_ops.DatasetFromGraph(graph_def=fed[0]))
        return arguments


def have_one_element(clients: Sequence[list[Any]]) -> bool:
    """Returns whether all datasets among the leaves of the clients have exactly one element.

    Those of references do, without being asked.
    """
    return all(
        dataset.cardinality().numpy() == 1 for client in clients for dataset in _datasets(client)
    )


def largest_first(clients: Sequence[Any]) -> list[int]:
    """Returns the indices of clients, or of tasks of several, so that no large one comes last.

    Datasets that do not tell how large their elements are, and references, keep their order.
    """
    sizes = [_size(client) for client in clients]
    return sorted(range(len(clients)), key=lambda index: -sizes[index])


def _size(value: Any) -> int:
    """Returns how many numbers the datasets have, among leaves or lists of leaves."""
    if isinstance(value, list):
        return sum(map(_size, value))
    if not isinstance(value, tf.data.Dataset):
        return 0
    return sum(spec.shape.num_elements() or 0 for spec in tf.nest.flatten(value.element_spec))


def _datasets(leaves: Sequence[Any]) -> list[tf.data.Dataset]:
    return [leaf for leaf in leaves if isinstance(leaf, tf.data.Dataset)]


def _check_elements(actual: Any, expected: Any) -> None:
    try:
        tf.nest.assert_same_structure(actual, expected, check_types=False)
        fits = all(
            one.dtype == other.dtype and one.shape.is_compatible_with(other.shape)
            for one, other in zip(tf.nest.flatten(actual), tf.nest.flatten(expected))
        )
    except ValueError:
        fits = False
    if not fits:
        raise TypeError(
            f"A client's dataset has elements {_in_words(actual)}, but the model takes "
            f"{_in_words(expected)}: make it by fm.client_dataset(x, y), whose input_spec "
            "converts types, or of TFF's own clients by fm.client_dataset_from."
        )


def _in_words(spec: Any) -> str:
    """Returns a structure of tensors' specs as people write it: {x: float32 [n, 6], ...}."""
    if isinstance(spec, Mapping):
        return "{" + ", ".join(f"{name}: {_in_words(part)}" for name, part in spec.items()) + "}"
    if isinstance(spec, (tuple, list)):
        return "(" + ", ".join(map(_in_words, spec)) + ")"
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None:
        return str(spec)
    sizes = ", ".join("n" if size is None else str(size) for size in spec.shape)
    return f"{spec.dtype.name} [{sizes}]"
