"""The calls of the layers in a Keras configuration: do they take outputs, end, and stay few?"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

from tff_fedmeta.keras_files import allowed
from tff_fedmeta.keras_files.errors import Refusal
from tff_fedmeta.keras_files.objects import Object, children, is_layer, kind_of, name_of, show

MAX_CALLS = 5_000
_MAX_PASSES = 100  # over the layers, until all could be called; Keras writes them nearly in order

_CONSTANT = "_CONSTANT_VALUE"  # stands in the place of a layer's name before a constant


def check_graph(config: Object, model: str) -> None:
    """Follows the calls of a functional model's layers as Keras does, which might never end.

    Args:
      config: The model's configuration.
      model: Its name.

    Raises:
      Refusal: If a call takes no layer's output, or one that never comes.
    """
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(is_layer(layer) for layer in layers):
        raise Refusal(f"its model {show(model)} has something else among its layers")
    waiting: dict[str, list[list[tuple[str, int]]]] = {}
    done: dict[str, int] = {}
    for layer in layers:
        name, calls, inner = (layer.get(key) for key in ("name", "inbound_nodes", "config"))
        own = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str) or name != own or name in done or name == _CONSTANT:
            raise Refusal(
                f"its model {show(model)} has a layer without a name of its own: {show(name)}"
            )
        if not isinstance(calls, list):
            raise Refusal(f"its layer {show(name)} does not say what it is called on")
        done[name] = 1 if _starts_at_one(layer) else 0
        waiting[name] = [_inputs(call, name) for call in calls]
    sources = {source for calls in waiting.values() for call in calls for source, _ in call}
    if sources - set(done):
        lacking = min(sources - set(done))
        raise Refusal(
            f"its model {show(model)} takes the output of {show(lacking)}, which is not there"
        )
    entries = {layer["name"] for layer in layers if layer["class_name"] == "InputLayer"}
    left = {name: collections.deque(calls) for name, calls in waiting.items()}
    for _ in range(_MAX_PASSES):
        before = sum(done.values())
        for name, queue in left.items():
            while queue and all(s in entries or index < done[s] for s, index in queue[0]):
                queue.popleft()
                done[name] += 1
        if sum(done.values()) == before:
            break
    stuck = [name for name, queue in left.items() if queue]
    if stuck:
        raise Refusal(
            f"its layer {show(stuck[0])} waits for an output that never comes, or comes too late"
        )


def _starts_at_one(layer: Object) -> bool:
    """Returns whether Keras counts a layer's calls from 1: a model's that knows its inputs."""
    config = layer.get("config")
    if kind_of(layer) not in (allowed.FUNCTIONAL, allowed.SEQUENTIAL):
        return False
    inner = config.get("layers") if isinstance(config, dict) else None
    first = inner[0] if isinstance(inner, list) and inner else None
    return isinstance(first, dict) and first.get("class_name") == "InputLayer"


def _inputs(call: Any, layer: str) -> list[tuple[str, int]]:
    """Returns whose outputs a call takes: layers' names, and of which of their calls."""
    found: list[tuple[str, int]] = []
    for data in _node_data(call):
        if not (isinstance(data, list) and len(data) in (3, 4) and isinstance(data[0], str)):
            raise Refusal(f"its layer {show(layer)} has a call that cannot be understood")
        if data[0] != _CONSTANT:
            found.append((data[0], data[1]))
        found += [(inner[0], inner[1]) for inner in _references(data[3:])]
    if not found:
        raise Refusal(
            f"its layer {show(layer)} is called on constants alone, which would compute while the "
            "file is opened"
        )
    if not all(type(index) is int and 0 <= index < MAX_CALLS for _, index in found):
        raise Refusal(f"its layer {show(layer)} has a call that cannot be understood")
    return found


def _node_data(value: Any) -> Iterator[Any]:
    """Yields the innermost lists of a call: [layer, call, output] or [..., keyword arguments]."""
    if _is_reference(value) or not isinstance(value, (list, dict)):
        yield value
    else:
        for inner in children(value):
            yield from _node_data(inner)


def _references(value: Any) -> Iterator[list[Any]]:
    """Yields what in keyword arguments Keras takes for outputs of layers."""
    if _is_reference(value):
        yield value
    else:
        for inner in children(value):
            yield from _references(inner)


def _is_reference(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str)


def count_calls(config: Object) -> int:
    """Returns how many calls of layers building an object takes.

    Raises:
      Refusal: If they are too many: a model called ten times in one that is called ten times, ...
    """
    inner = config.get("config")
    if kind_of(config) in (allowed.FUNCTIONAL, allowed.SEQUENTIAL) and isinstance(inner, dict):
        layers = [layer for layer in children(inner.get("layers")) if is_layer(layer)]
        calls = sum(_times_called(layer) * count_calls(layer) for layer in layers)
    else:  # a wrapper builds its layer, and Bidirectional a copy of it
        calls = 1 + 2 * sum(count_calls(layer) for layer in _layers_within(inner))
    if calls > MAX_CALLS:
        raise Refusal(
            f"its layer {show(name_of(config))} takes more than {MAX_CALLS:,} calls of layers"
        )
    return calls


def _times_called(layer: Object) -> int:
    calls = layer.get("inbound_nodes")
    return len(calls) if calls and isinstance(calls, list) else 1


def _layers_within(value: Any) -> Iterator[Object]:
    if is_layer(value):
        yield value
    else:
        for inner in children(value):
            yield from _layers_within(inner)
