"""Values of TFF's types as flat lists of leaves, and back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.types import type_conversions


def leaf_types(type_spec: Any) -> list[Any]:
    """Returns the tensor and sequence types that a type consists of; none of None."""
    if type_spec is None:
        return []
    if isinstance(type_spec, tff.FederatedType):
        return leaf_types(type_spec.member)
    if isinstance(type_spec, tff.StructType):
        fields = tff.structure.iter_elements(type_spec)
        return [leaf for _, field in fields for leaf in leaf_types(field)]
    return [type_spec]


def flatten(value: Any, type_spec: Any) -> list[Any]:
    """Returns a value's leaves: an array for each tensor, a `tf.data.Dataset` for each sequence.

    Raises:
      TypeError: If the value is not of the type.
    """
    if isinstance(type_spec, tff.FederatedType):
        return flatten(value, type_spec.member)
    if isinstance(type_spec, tff.StructType):
        names = [name for name, _ in tff.structure.iter_elements(type_spec)]
        return [
            leaf
            for field, (_, field_type) in zip(
                _fields(value, names, type_spec), tff.structure.iter_elements(type_spec)
            )
            for leaf in flatten(field, field_type)
        ]
    if isinstance(type_spec, tff.TensorType):
        return [_as_array(value, type_spec)]
    return [_as_dataset(value)]


def _fields(value: Any, names: Sequence[Any], type_spec: Any) -> list[Any]:
    """The fields of a structure, in the type's order."""
    if isinstance(value, Mapping):
        if set(value) == set(names):
            return [value[name] for name in names]
    elif isinstance(value, tff.structure.Struct) or not isinstance(value, (np.ndarray, tf.Tensor)):
        fields = tff.structure.to_elements(tff.structure.from_container(value))
        if len(fields) == len(names) and all(
            mine in (None, name) for (mine, _), name in zip(fields, names)
        ):
            return [field for _, field in fields]
    raise TypeError(f"Expected a value of type {type_spec}, but got {value!r:.200}.")


def _as_array(value: Any, type_spec: tff.TensorType) -> np.ndarray:
    array = value.numpy() if isinstance(value, (tf.Tensor, tf.Variable)) else value
    is_text = type_spec.dtype.type is np.str_
    if not isinstance(array, (np.ndarray, np.generic)):
        array = np.asarray(array, None if is_text else type_spec.dtype)  # a Python number or list
    fits = is_text or array.dtype == type_spec.dtype
    if not fits or not tf.TensorShape(type_spec.shape).is_compatible_with(array.shape):
        raise TypeError(
            f"Expected a tensor of type {type_spec}, but got {array.dtype} of shape {array.shape}."
        )
    return array


def _as_dataset(value: Any) -> tf.data.Dataset:
    """TFF takes lists of elements for datasets."""
    if isinstance(value, tf.data.Dataset):
        return value
    if isinstance(value, list) and value:
        dataset = tf.data.Dataset.from_tensors(value[0])
        for element in value[1:]:
            dataset = dataset.concatenate(tf.data.Dataset.from_tensors(element))
        return dataset
    raise TypeError(f"Expected a tf.data.Dataset for a client, but got {value!r:.200}.")


def pack(leaves: Sequence[Any], type_spec: Any) -> Any:
    """Returns the value of a type whose leaves these are, in the type's Python containers."""
    return type_conversions.type_to_py_container(_struct(iter(leaves), type_spec), type_spec)


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
