"""Values of TFF's types as flat lists of leaves, and back."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.runtime import tff_private
from tff_fedmeta.runtime.references import is_reference


def leaf_types(type_spec: Any) -> list[Any]:
    """Returns the tensor and sequence types that a type consists of; none of None."""
    if type_spec is None:
        return []
    if isinstance(type_spec, tff.FederatedType):
        return leaf_types(type_spec.member)
    if isinstance(type_spec, tff.StructType):
        members = tff.structure.iter_elements(type_spec)
        return [leaf for _, member in members for leaf in leaf_types(member)]
    return [type_spec]


def leaf_specs(type_spec: Any) -> list[Any]:
    """Returns a `tf.TensorSpec` or `tf.data.DatasetSpec` for each leaf of a type."""
    return [_leaf_spec(leaf) for leaf in leaf_types(type_spec)]


def _leaf_spec(leaf: Any) -> Any:
    if isinstance(leaf, tff.SequenceType):
        return tf.data.DatasetSpec(_element_spec(leaf.element))
    return tf.TensorSpec(leaf.shape, leaf.dtype)


def _element_spec(type_spec: Any) -> Any:
    """The structure of a dataset's elements; tf.data orders the tensors of a mapping by name."""
    if not isinstance(type_spec, tff.StructType):
        return tf.TensorSpec(type_spec.shape, type_spec.dtype)
    fields = [
        (name, _element_spec(field)) for name, field in tff.structure.iter_elements(type_spec)
    ]
    container = type_spec.python_container or collections.OrderedDict
    if fields and fields[0][0] is not None and issubclass(container, Mapping):
        return collections.OrderedDict(fields)
    return tuple(field for _, field in fields)


def flatten(value: Any, type_spec: Any) -> list[Any]:
    """Returns a value's leaves: an array for each tensor, a `tf.data.Dataset` for each sequence.

    A reference (`references.py`) stays what it is.

    Raises:
      TypeError: If the value is not of the type.
    """
    if isinstance(type_spec, tff.FederatedType):
        return flatten(value, type_spec.member)
    if isinstance(type_spec, tff.StructType):
        return [
            leaf
            for field, (_, field_type) in zip(
                fields(value, type_spec), tff.structure.iter_elements(type_spec)
            )
            for leaf in flatten(field, field_type)
        ]
    if isinstance(type_spec, tff.TensorType):
        return [_as_array(value, type_spec)]
    return [_as_dataset(value)]


def fields(value: Any, type_spec: tff.StructType) -> list[Any]:
    """Returns the fields of a structure, in the type's order.

    Raises:
      TypeError: If the structure has others.
    """
    names = [name for name, _ in tff.structure.iter_elements(type_spec)]
    if isinstance(value, Mapping):
        if set(value) == set(names):
            return [value[name] for name in names]
    elif isinstance(value, tff.structure.Struct) or _is_container(value):
        found = tff.structure.to_elements(tff.structure.from_container(value))
        if len(found) == len(names) and all(
            mine in (None, name) for (mine, _), name in zip(found, names)
        ):
            return [field for _, field in found]
    raise TypeError(f"Expected {_shortened(type_spec)}, but got {_shortened(repr(value))}.")


def _is_container(value: Any) -> bool:
    return value is not None and not isinstance(value, (np.ndarray, tf.Tensor, str, int, float))


def _shortened(text: Any) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= 120 else f"{words[:120]}..."


def _as_array(value: Any, type_spec: tff.TensorType) -> np.ndarray:
    array = value.numpy() if isinstance(value, (tf.Tensor, tf.Variable)) else value
    if type_spec.dtype.type is np.str_:
        array = np.asarray(array, object)  # NumPy's own text types drop zeros at the end
        fits = True
    else:
        if not isinstance(array, (np.ndarray, np.generic)):
            array = _from_python(array, type_spec.dtype)
        fits = array.dtype == type_spec.dtype
    if not fits or not tf.TensorShape(type_spec.shape).is_compatible_with(array.shape):
        raise TypeError(
            f"Expected a tensor of type {type_spec}, but got {array.dtype} of shape {array.shape}."
        )
    return array


def _from_python(value: Any, dtype: np.dtype) -> np.ndarray:
    """Returns Python numbers as an array of `dtype`, if they can be, or of NumPy's own choice."""
    array = np.asarray(value)
    kinds = {"b": "b", "i": "iuf", "u": "iuf", "f": "f"}.get(array.dtype.kind, "")
    if dtype.kind not in kinds:
        return array
    converted = array.astype(dtype)
    return converted if dtype.kind == "f" or (converted == array).all() else array


def _as_dataset(value: Any) -> tf.data.Dataset:
    """TFF takes lists of elements for datasets."""
    if isinstance(value, tf.data.Dataset) or is_reference(value):
        return value
    if isinstance(value, list) and value:
        dataset = tf.data.Dataset.from_tensors(value[0])
        for element in value[1:]:
            dataset = dataset.concatenate(tf.data.Dataset.from_tensors(element))
        return dataset
    raise TypeError(
        "A client must be a tf.data.Dataset, as fm.client_dataset(x, y) makes it, but is "
        f"{_shortened(repr(value))}."
    )


def pack(leaves: Sequence[Any], type_spec: Any) -> Any:
    """Returns the value of a type whose leaves these are, in the type's Python containers."""
    return tff_private.to_python_containers(_struct(iter(leaves), type_spec), type_spec)


def _struct(leaves: Iterator[Any], type_spec: Any) -> Any:
    if isinstance(type_spec, tff.FederatedType):
        return _struct(leaves, type_spec.member)
    if isinstance(type_spec, tff.StructType):
        return tff.structure.Struct(
            [
                (name, _struct(leaves, field))
                for name, field in tff.structure.iter_elements(type_spec)
            ]
        )
    return next(leaves)
