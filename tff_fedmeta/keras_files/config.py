"""Checks the configuration of a Keras model before Keras builds anything from it.

Keras builds whatever class a configuration names, and calls each layer on what the configuration
gives it, constants included: opening a model computes. So every object must be in the table
`allowed`, every call must take the output of another layer, and their number is bounded.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from tff_fedmeta.keras_files import allowed, calls
from tff_fedmeta.keras_files.errors import Refusal
from tff_fedmeta.keras_files.objects import (
    Object,
    children,
    is_object,
    kind_of,
    name_of,
    show,
)

MAX_DEPTH = 64
MAX_VALUES = 300_000  # so that these checks take seconds at most
MAX_NUMBERS = 2**28  # in a tensor of one example: 1 GB of float32
_MAX_PARTS = 1_000  # of a tensor, each of which is a Python object
# By key: what takes time or memory in proportion.
_MAX_COUNTS = {
    "num_or_size_splits": _MAX_PARTS,
    "num_tokens": 100_000,
    "num_bins": 100_000,
}

_COMPOSITE = "_COMPOSITE_TYPE"  # stands before a sparse or ragged constant, which Keras decodes


def check(config: Any) -> None:
    """Checks the content of a Keras file's `config.json`, without its training configuration.

    Raises:
      Refusal: If it is not a Sequential or functional model of allowed objects; names the layer.
    """
    if not isinstance(config, dict) or kind_of(config) not in (
        allowed.FUNCTIONAL,
        allowed.SEQUENTIAL,
    ):
        found = config.get("class_name") if isinstance(config, dict) else None
        raise Refusal(f"it holds {show(found)}, not a Sequential or functional model of Keras")
    calls.count_calls(config)
    _check_value(config, "", "")


# Keys of objects that opening does without: optimizers, losses and metrics; and the shapes to build
# a layer by before it is called, as it is anyway.
_NOT_NEEDED = ("compile_config", "build_config")


def only_needed(config: Any) -> Any:
    """Returns a configuration without optimizers, losses and metrics, of nested models too.

    Raises:
      Refusal: If it is nested too deep.
    """
    _check_depth(config)
    return _strip(config)


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strip(inner) for key, inner in value.items() if key not in _NOT_NEEDED}
    if isinstance(value, list):
        return [_strip(inner) for inner in value]
    return value


def _check_depth(config: Any) -> None:
    level, number = [config], 0
    for _ in range(MAX_DEPTH):
        number += len(level)
        if number > MAX_VALUES:
            raise Refusal(f"its configuration has more than {MAX_VALUES:,} values")
        following = (inner for value in level for inner in children(value))
        level = list(itertools.islice(following, MAX_VALUES))
        if not level:
            return
    raise Refusal(f"its configuration is nested more than {MAX_DEPTH} deep")


def _check_value(value: Any, key: str, layer: str) -> None:
    """Checks a value of the configuration that stands under `key` in the layer of that name."""
    if is_object(value):
        _check_object(value, key, layer)
    elif isinstance(value, dict):
        for inner_key, inner in value.items():
            _check_value(inner, inner_key, layer)
    elif isinstance(value, list):
        if key.endswith("shape"):
            _check_shape(value, layer)
        if key == "num_or_size_splits" and len(value) > _MAX_PARTS:
            raise _refusal(layer, f"makes more than {_MAX_PARTS:,} tensors of one")
        for inner in value:
            _check_value(inner, key, layer)
    else:
        _check_scalar(value, key, layer)


def _check_scalar(value: Any, key: str, layer: str) -> None:
    if value == _COMPOSITE:
        raise _refusal(layer, "takes a sparse or ragged constant")
    if "activation" in key and value is not None and value not in allowed.ACTIVATIONS:
        raise _refusal(layer, f"has the activation {show(value)}, not one of Keras'")
    if key == "optimize" and value not in (None, "greedy"):
        raise _refusal(layer, f"plans its sums by {show(value)}, which can take for ever")
    most = _MAX_COUNTS.get(key)
    if most is not None and isinstance(value, int) and value > most:
        raise _refusal(layer, f"has a {key} of more than {most:,}")


def _check_object(value: Object, key: str, layer: str) -> None:
    module, class_name = kind_of(value)
    config, registered_name = value.get("config"), value.get("registered_name")
    if not isinstance(class_name, str):
        raise _refusal(layer, "holds something without a class")
    if class_name in ("__numpy__", "__tensor__"):
        if not isinstance(config, dict) or str(config.get("dtype")) not in allowed.DTYPES:
            raise _refusal(layer, "holds an array that is not of numbers")
        _check_value(config.get("value"), key, layer)
        return
    if class_name == "function":
        if (
            str(module) not in allowed.FUNCTION_MODULES
            or str(config) not in allowed.ACTIVATIONS
            or registered_name not in (None, "function", config)
        ):
            raise _refusal(
                layer,
                f"names the function {show(config)} of {show(module)}, not an activation of Keras",
            )
        return
    layer = name_of(value, layer)
    if class_name not in allowed.CLASSES.get(str(module), ()):
        raise _refusal(
            layer,
            f"needs {show(class_name)} of {show(module)}, which is not among what computes numbers "
            "alone",
        )
    if registered_name not in (None, class_name):
        raise _refusal(
            layer, f"is the custom object {show(registered_name)}, and only Keras' own are opened"
        )
    if not isinstance(config, dict):
        raise _refusal(layer, "has no configuration")
    if (module, class_name) == allowed.SEQUENTIAL and not isinstance(config.get("layers"), list):
        raise _refusal(layer, "has no list of layers")
    _check_class(class_name, config, layer)
    for inner_key, inner in value.items():
        _check_value(inner, inner_key, layer)
    if (module, class_name) == allowed.FUNCTIONAL:
        calls.check_graph(config, layer)


def _check_class(class_name: str, config: Object, layer: str) -> None:
    """Checks what only layers of some classes can get wrong."""
    function = config.get("function")
    if class_name in allowed.OPERATION_LAYERS and str(function) not in allowed.OPERATIONS:
        raise _refusal(
            layer,
            f"calls the TensorFlow operation {show(function)}, which is not among the mathematical "
            "ones that are opened",
        )
    if config.get("unroll"):
        raise _refusal(
            layer,
            "unrolls its loop, which can take for ever to build: save it with unroll=False, the "
            "weights are the same",
        )
    if config.get("synchronized"):
        raise _refusal(layer, "talks to other processes (synchronized=True)")


def _check_shape(shape: list[Any], layer: str) -> None:
    sizes = [abs(size) for size in shape if isinstance(size, int) and size]
    if math.prod(sizes) > MAX_NUMBERS:
        raise _refusal(layer, f"takes tensors of more than {MAX_NUMBERS:,} numbers")


def _refusal(layer: str, why: str) -> Refusal:
    return Refusal(f"its layer {show(layer)} {why}")
