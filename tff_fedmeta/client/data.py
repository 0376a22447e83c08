"""One client is one dataset element: making it, reading clients once, and the seeds of a run.

TFF's usual client is a `tf.data` pipeline of small batches, and most of a round goes into
interpreting it. Here a client's whole data is a single element and the local update slices its own
batches (`minibatches.py`).
"""

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedmeta import checks

Arrays = tuple[Any, Any]  # (x, y): arrays [n, ...] or structures of them


def client_dataset(
    x: Any,
    y: Any,
    seed: Sequence[int] = (0, 0),
    role: Optional[Sequence[float]] = None,
    support_size: Optional[int] = None,
    *,
    weight: Optional[float] = None,
    input_spec: Any = None,
) -> tf.data.Dataset:
    """Makes the dataset that stands for one client: a single element with all of its examples.

    Args:
      x: Inputs, an array or list [n, ...], or a dict or tuple of such arrays, n >= 0.
      y: Targets, in the same forms.
      seed: Two integers from which the client's shuffling and support/query split derive. Give a
        client another seed in another round (`stream_seed`), or every epoch order repeats.
      role: A `failures.Role`, for processes built with `roles=True` alone, which need one.
      support_size: How many support examples, the first, are adapted on, >= 1, for evaluations
        built with `sized_support=True` alone, which need it.
      weight: How much the client counts in the mean, finite and >= 0, for processes built with
        `client_weighting="given"` alone, which need it.
      input_spec: The model's, `(x, y)` or `{"x": x, "y": y}` of `tf.TensorSpec`: arrays then become
        of its dtypes, where that changes no number but for the digits of a float.

    Returns:
      A dataset of one element `OrderedDict(x=[n, ...], y=[n, ...], seed=int64 [2])`. Without an
      `input_spec`, arrays of float64, NumPy's default, become `tf.keras.backend.floatx()`, which is
      float32 unless it was set. All other dtypes stay, and must be those of the model's
      `input_spec`: TFF converts nothing. A role follows as float32 [3], a size of
      support as an int32 scalar, a weight as a float32 scalar.

    Raises:
      ValueError: If x and y differ in their number of examples or do not fit `input_spec`, `seed`
        is not two integers, or `weight` is out of its range.
    """
    x, y = (_stack(data) if isinstance(data, list) else data for data in (x, y))
    arrays = [_as_array(data) for data in tf.nest.flatten((x, y))]
    if input_spec is not None:
        arrays = _converted(arrays, (x, y), input_spec)
    else:
        arrays = [_plain_float(array) for array in arrays]
    if any(array.ndim == 0 for array in arrays):
        raise ValueError("x and y need a leading dimension of examples, but got a scalar.")
    lengths = sorted({len(array) for array in arrays})
    if len(lengths) != 1:
        raise ValueError(f"x and y must hold equally many examples, but got lengths {lengths}.")
    seeds = np.asarray(seed, np.int64)
    if seeds.shape != (2,):
        raise ValueError(f"seed must be two integers, but got shape {seeds.shape}.")
    x, y = tf.nest.pack_sequence_as((x, y), arrays)
    element = collections.OrderedDict(x=x, y=y, seed=seeds)
    if role is not None:
        element["role"] = np.asarray(role, np.float32)
    if support_size is not None:
        element["support_size"] = np.asarray(support_size, np.int32)
    if weight is not None:
        checks.check_number("weight", weight, 0)
        element["weight"] = np.asarray(weight, np.float32)
    return _one_element_dataset(element)


def _stack(values: list[Any]) -> np.ndarray:
    """Returns a list of examples as one array."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(
            "A list is taken for the examples, but its parts have different shapes: give several "
            "inputs as a tuple or a dict of arrays [n, ...], and pad examples to one length."
        ) from None


def _as_array(values: Any) -> np.ndarray:
    if values is None or isinstance(values, (tf.RaggedTensor, tf.SparseTensor)):
        raise ValueError(
            "x and y must be arrays [n, ...], or dicts or tuples of them, but got "
            f"{'None' if values is None else type(values).__name__}: give labels, and dense arrays "
            "(RaggedTensor.to_tensor() pads, tf.sparse.to_dense fills)."
        )
    array = np.asarray(values)
    if array.dtype == object and not all(isinstance(v, (str, bytes)) for v in array.flat):
        if not all(isinstance(v, (bool, int, float, np.number, np.bool_)) for v in array.flat):
            raise ValueError(
                "The columns of a table must all be numbers or all be text, but they are mixed: "
                "give the model several inputs, as a dict of arrays, or make numbers of the text."
            )
        return array.astype(np.float64)  # numbers and truth values
    return array


def _converted(arrays: list[np.ndarray], structure: Any, input_spec: Any) -> list[np.ndarray]:
    """Returns the arrays in the dtypes of a model's `input_spec`."""
    specs = _x_and_y(input_spec)
    try:
        tf.nest.assert_same_structure(structure, specs, check_types=False)
    except (TypeError, ValueError):
        raise ValueError(
            f"x and y must have the structure of input_spec, {specs}, but have another."
        ) from None
    found = []
    for array, spec in zip(arrays, tf.nest.flatten(specs)):
        wanted = spec.dtype.as_numpy_dtype
        converted = (
            array if array.dtype == wanted or array.dtype == object else array.astype(wanted)
        )
        is_float = np.issubdtype(converted.dtype, np.floating)
        if converted is not array and not is_float and not (converted == array).all():
            raise ValueError(
                f"input_spec wants {spec.dtype.name}, but an array of {array.dtype} has numbers "
                "that this type does not."
            )
        found.append(converted)
    return found


def _plain_float(array: np.ndarray) -> np.ndarray:
    return array.astype(tf.keras.backend.floatx()) if array.dtype == np.float64 else array


def _one_element_dataset(element: Any) -> tf.data.Dataset:
    """Does what `tf.data.Dataset.from_tensors` does, in less than half of the time.

    A round of small clients spends as long on making datasets as on training.
    """
    tensors = [tf.constant(array) for array in tf.nest.flatten(element)]
    specs = [tf.TensorSpec.from_tensor(tensor) for tensor in tensors]
    return tf.data.experimental.from_variant(
        tf.raw_ops.TensorDataset(components=tensors, output_shapes=[t.shape for t in tensors]),
        tf.nest.pack_sequence_as(element, specs),
    )


def client_dataset_from(
    client_data: Any,
    client_id: str,
    seed: Sequence[int] = (0, 0),
    *,
    x: Optional[str] = None,
    y: Optional[str] = None,
) -> tf.data.Dataset:
    """Makes the one-element dataset of a client of TFF's `ClientData`.

    Args:
      client_data: A `tff.simulation.datasets.ClientData`, whose datasets have single examples.
      client_id: One of its `client_ids`.
      seed: As in `client_dataset`.
      x: The feature that is the input, where examples are mappings of more than "x" and "y" (or
        one feature and "label").
      y: The feature that is the target.

    Returns:
      As `client_dataset`.

    Raises:
      ValueError: If there is no such client, or it cannot be told which feature is which.
    """
    if client_id not in client_data.client_ids:
        near = ", ".join(list(client_data.client_ids)[:3])
        raise ValueError(f"There is no client {client_id!r}; the first ones are {near}.")
    dataset = client_data.create_tf_dataset_for_client(client_id)
    spec = dataset.element_spec
    examples = list(dataset.as_numpy_iterator())
    columns = tf.nest.map_structure(lambda *values: np.stack(values), *examples)
    if isinstance(spec, (tuple, list)) and len(spec) == 2:
        return client_dataset(columns[0], columns[1], seed)
    names = list(spec) if isinstance(spec, collections.abc.Mapping) else []
    if x is None and y is None:
        targets = [name for name in names if name in ("y", "label")]
        if len(names) == 2 and len(targets) == 1:
            (y,) = targets
            (x,) = (name for name in names if name != y)
    if x not in names or y not in names:
        raise ValueError(
            f"Say which features are input and target, x=... and y=..., of: {', '.join(names)}; "
            f"got x={x!r} and y={y!r}."
        )
    return client_dataset(columns[x], columns[y], seed)


def element_spec(
    input_spec: Any, roles: bool = False, sized_support: bool = False, weights: bool = False
) -> "collections.OrderedDict[str, Any]":
    """Returns the spec of one client's element for a model's batched `input_spec`.

    Args:
      input_spec: A model's `input_spec`: a mapping with `x` and `y`, or a pair (x, y), of
        `tf.TensorSpec` whose batch dimension is None.
      roles: Whether the client has a role.
      sized_support: Whether the client says how large its support is.
      weights: Whether the client says how much it counts.

    Raises:
      ValueError: If `input_spec` is of another form or fixes the batch dimension.
    """
    x, y = _x_and_y(input_spec)
    for spec in tf.nest.flatten((x, y)):
        if spec.shape.rank is None or spec.shape.rank < 1 or spec.shape[0] is not None:
            raise ValueError(
                "The model's input_spec must leave its batch dimension None, because clients "
                f"differ in size, but it has {spec}."
            )
    spec = collections.OrderedDict(x=x, y=y, seed=tf.TensorSpec([2], tf.int64))
    if roles:
        spec["role"] = tf.TensorSpec([3], tf.float32)
    if sized_support:
        spec["support_size"] = tf.TensorSpec([], tf.int32)
    if weights:
        spec["weight"] = tf.TensorSpec([], tf.float32)
    return spec


def _x_and_y(input_spec: Any) -> tuple[Any, Any]:
    if isinstance(input_spec, collections.abc.Mapping) and set(input_spec) == {"x", "y"}:
        return input_spec["x"], input_spec["y"]
    if isinstance(input_spec, (tuple, list)) and len(input_spec) == 2:
        return input_spec[0], input_spec[1]
    raise ValueError(
        f"The model's input_spec must be a mapping with x and y or a pair, but it is {input_spec}."
    )


def cached_reader(
    read_client: Callable[[str], Arrays], max_clients: Optional[int] = 1000
) -> Callable[[str], Arrays]:
    """Returns `read_client` with the most recently used `max_clients` clients kept in memory."""
    return functools.lru_cache(maxsize=max_clients)(read_client)
