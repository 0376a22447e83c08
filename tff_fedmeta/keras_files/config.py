"""Checks the configuration of a Keras model before Keras builds anything from it.

Keras builds whatever class a configuration names, and calls each layer on what the configuration
gives it, constants included: opening a model computes. So every object must be in the table
`allowed`, every call must take the output of another layer, and their number is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tff_fedmeta.keras_files import allowed
from tff_fedmeta.keras_files.errors import Refusal

MAX_DEPTH = 64
MAX_CALLS = 5_000  # of layers; the largest network in `tf.keras.applications` has 1,041 layers
MAX_NUMBERS = 2**28  # in a tensor of one example: 1 GB of float32
_MAX_CLASSES = 100_000  # of `CategoryEncoding` and its like

_CONSTANT = "_CONSTANT_VALUE"  # stands in the place of a layer's name before a constant
_COMPOSITE = "_COMPOSITE_TYPE"  # before a sparse or ragged one, which Keras decodes
_Object = Mapping[str, Any]


def check(config: Any) -> None:
    """Checks the content of a Keras file's `config.json`, without its training configuration.

    Raises:
      Refusal: If it is not a Sequential or functional model of allowed objects; names the layer.
    """
    _check_depth(config)
    if not isinstance(config, dict) or _kind(config) not in (
        allowed.FUNCTIONAL,
        allowed.SEQUENTIAL,
    ):
        found = config.get("class_name") if isinstance(config, dict) else None
        raise Refusal(
            f"it holds a {found or 'thing without a class'}, not a Sequential or functional model"
        )
    _check_value(config, "", "")
    _count_calls(config)


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
    level = [config]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _children(value)]
        if not level:
            return
    raise Refusal(f"its configuration is nested more than {MAX_DEPTH} deep")


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _kind(config: _Object) -> tuple[Any, Any]:
    return config.get("module"), config.get("class_name")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value


def _is_layer(value: Any) -> bool:
    return _is_object(value) and _kind(value)[0] in (
        allowed.FUNCTIONAL[0],
        allowed.SEQUENTIAL[0],
        allowed.OPERATIONS_MODULE,
        "keras.layers",
    )


def _name(config: _Object, around: str = "") -> str:
    """Returns a layer's name; for what has none, such as an initializer, that of its layer."""
    inner = config.get("config")
    own = inner.get("name") if isinstance(inner, dict) else None
    return str(config.get("name") or own or around or config.get("class_name"))


def _check_value(value: Any, key: str, layer: str) -> None:
    """Checks a value of the configuration that stands under `key` in the layer of that name."""
    if _is_object(value):
        _check_object(value, key, layer)
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_value(inner, name, layer)
    elif isinstance(value, list):
        if key.endswith("shape"):
            _check_shape(value, layer)
        for inner in value:
            _check_value(inner, key, layer)
    elif isinstance(value, str):
        if value == _COMPOSITE:
            raise Refusal(f"its layer {layer!r} takes a sparse or ragged constant")
        if "activation" in key and value not in allowed.ACTIVATIONS:
            raise Refusal(f"its layer {layer!r} has the activation {value!r}, not one of Keras'")


def _check_object(value: _Object, key: str, layer: str) -> None:
    module, class_name = _kind(value)
    if class_name in ("__numpy__", "__tensor__"):
        inner = value.get("config")
        if not isinstance(inner, dict) or inner.get("dtype") not in allowed.DTYPES:
            raise Refusal(f"its layer {layer!r} holds an array that is not of numbers")
        _check_value(inner.get("value"), key, layer)
        return
    if class_name == "function":
        if (
            module not in allowed.FUNCTION_MODULES
            or value.get("config") not in allowed.ACTIVATIONS
            or value.get("registered_name") not in (None, "function", value.get("config"))
        ):
            raise Refusal(
                f"its layer {layer!r} names the function {value.get('config')!r} of {module!r}, "
                "not an activation of Keras"
            )
        return
    layer = _name(value, layer)
    if not isinstance(module, str) or class_name not in allowed.CLASSES.get(module, ()):
        raise Refusal(
            f"its layer {layer!r} needs {class_name!r} of {module!r}, which is not among the "
            "layers that compute numbers alone"
        )
    if value.get("registered_name") not in (None, class_name):
        raise Refusal(
            f"its layer {layer!r} is the custom object {value['registered_name']!r}, and only "
            "Keras' own are opened"
        )
    config = value.get("config")
    if not isinstance(config, dict):
        raise Refusal(f"its layer {layer!r} has no configuration")
    _check_class(class_name, config, layer)
    for name, inner in value.items():
        _check_value(inner, name, layer)
    if (module, class_name) == allowed.FUNCTIONAL:
        _check_graph(config, layer)


def _check_class(class_name: str, config: _Object, layer: str) -> None:
    """Checks what only layers of some classes can get wrong."""
    if class_name in allowed.OPERATION_LAYERS and config.get("function") not in allowed.OPERATIONS:
        raise Refusal(
            f"its layer {layer!r} calls the TensorFlow operation {config.get('function')!r}, "
            "which is not among the mathematical ones that are opened"
        )
    if config.get("unroll"):
        raise Refusal(
            f"its layer {layer!r} unrolls its loop, which can take for ever to build: save it "
            "with unroll=False, the weights are the same"
        )
    if config.get("synchronized"):
        raise Refusal(f"its layer {layer!r} talks to other processes (synchronized=True)")
    for name in ("num_tokens", "num_bins"):
        if isinstance(config.get(name), int) and config[name] > _MAX_CLASSES:
            raise Refusal(f"its layer {layer!r} has {name}={config[name]:,}")


def _check_shape(shape: list[Any], layer: str) -> None:
    sizes = [abs(size) for size in shape if isinstance(size, int) and size]
    if math.prod(sizes) > MAX_NUMBERS:
        raise Refusal(f"its layer {layer!r} takes tensors of {math.prod(sizes):,} numbers")


def _check_graph(config: _Object, model: str) -> None:
    """Follows the calls of a functional model's layers as Keras does, which might never end.

    Raises:
      Refusal: If a call takes no layer's output, or one that never comes.
    """
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(_is_layer(layer) for layer in layers):
        raise Refusal(f"its model {model!r} has something else among its layers")
    waiting: dict[str, list[list[tuple[str, int]]]] = {}
    done: dict[str, int] = {}
    for layer in layers:
        name, calls = layer.get("name"), layer.get("inbound_nodes")
        inner = layer.get("config")
        own = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str) or name != own or name in done or name == _CONSTANT:
            raise Refusal(f"its model {model!r} has a layer without a name of its own: {name!r}")
        if not isinstance(calls, list):
            raise Refusal(f"its layer {name!r} does not say what it is called on")
        done[name] = 1 if _starts_at_one(layer) else 0
        waiting[name] = [_inputs(call, name) for call in calls]
    inputs = {layer["name"] for layer in layers if layer["class_name"] == "InputLayer"}
    unknown = {source for calls in waiting.values() for call in calls for source, _ in call} - set(
        done
    )
    if unknown:
        raise Refusal(
            f"its model {model!r} takes the output of {min(unknown)!r}, which is not there"
        )
    progress = True
    while progress:
        progress = False
        for name, calls in waiting.items():
            while calls and all(s in inputs or index < done[s] for s, index in calls[0]):
                calls.pop(0)
                done[name] += 1
                progress = True
    stuck = [name for name, calls in waiting.items() if calls]
    if stuck:
        raise Refusal(f"its layer {stuck[0]!r} waits for an output that never comes")


def _starts_at_one(layer: _Object) -> bool:
    """Returns whether Keras counts a layer's calls from 1: a model's that knows its inputs."""
    kind, config = _kind(layer), layer.get("config")
    if kind not in (allowed.FUNCTIONAL, allowed.SEQUENTIAL) or not isinstance(config, dict):
        return False
    inner = config.get("layers") or [{}]
    first = inner[0] if isinstance(inner, list) else {}
    return isinstance(first, dict) and first.get("class_name") == "InputLayer"


def _inputs(call: Any, layer: str) -> list[tuple[str, int]]:
    """Returns whose outputs a call takes: layers' names, and of which of their calls."""
    found: list[tuple[str, int]] = []
    for data in _node_data(call):
        if not (isinstance(data, list) and len(data) in (3, 4) and isinstance(data[0], str)):
            raise Refusal(f"its layer {layer!r} has a call that cannot be understood")
        if data[0] != _CONSTANT:
            found.append((data[0], data[1]))
        found += [(inner[0], inner[1]) for inner in _references(data[3:])]
    if not found:
        raise Refusal(
            f"its layer {layer!r} is called on constants alone, which would compute while the file "
            "is opened"
        )
    if not all(type(index) is int and 0 <= index < MAX_CALLS for _, index in found):
        raise Refusal(f"its layer {layer!r} has a call that cannot be understood")
    return found


def _node_data(value: Any) -> Iterator[Any]:
    """Yields the innermost lists of a call: [layer, call, output] or [..., keyword arguments]."""
    if _is_reference(value) or not isinstance(value, (list, dict)):
        yield value
    else:
        for inner in _children(value):
            yield from _node_data(inner)


def _references(value: Any) -> Iterator[list[Any]]:
    """Yields what in keyword arguments Keras takes for outputs of layers."""
    if _is_reference(value):
        yield value
    else:
        for inner in _children(value):
            yield from _references(inner)


def _is_reference(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str)


def _count_calls(config: _Object) -> int:
    """Returns how many calls of layers building an object takes.

    Raises:
      Refusal: If they are too many: a model called ten times in one that is called ten times, ...
    """
    inner = config.get("config")
    if _kind(config) in (allowed.FUNCTIONAL, allowed.SEQUENTIAL) and isinstance(inner, dict):
        layers = [layer for layer in inner.get("layers", []) if _is_layer(layer)]
        calls = sum(
            max(1, len(layer.get("inbound_nodes") or [])) * _count_calls(layer) for layer in layers
        )
    else:  # a wrapper builds its layer, and Bidirectional a copy of it
        calls = 1 + 2 * sum(_count_calls(layer) for layer in _layers_within(inner))
    if calls > MAX_CALLS:
        raise Refusal(f"its layer {_name(config)!r} takes more than {MAX_CALLS:,} calls of layers")
    return calls


def _layers_within(value: Any) -> Iterator[_Object]:
    if _is_layer(value):
        yield value
    else:
        for inner in _children(value):
            yield from _layers_within(inner)
