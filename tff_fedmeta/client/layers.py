"""Which of a model's trainable variables belong to its last layers, or to layers by name."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

from tff_fedmeta import checks
from tff_fedmeta.client import tracing
from tff_fedmeta.client.model_checks import ModelError


@tf.autograph.experimental.do_not_convert  # it warns of what is only called while tracing
def layers_of(model: Any) -> dict[str, list[int]]:
    """Returns name of a layer -> indices into `model.trainable_variables`, in their order.

    Layers are told apart by the names of variables: `lstm/lstm_cell/kernel:0` is of layer `lstm`,
    and a model nested in another is one layer if its name is in its variables' names.

    Args:
      model: A `tff.learning.models.VariableModel` or a Keras model.
    """
    paths = [tuple(v.name.split("/")[:-1]) for v in model.trainable_variables]
    # A subclassed model's own name is in front of all; of a single layer nothing is in front.
    shared = len(posixpath.commonprefix(paths)) if len(set(paths)) > 1 else 0
    layers: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        layers.setdefault("".join(path[shared : shared + 1] or path[-1:]), []).append(index)
    return layers


def head_variables(model: Any, head_layers: int) -> list[int]:
    """Returns which of `model.trainable_variables` the last layers with such weights have.

    The last layer is the one whose weights were created last; see `layers_of`.

    Args:
      model: The model.
      head_layers: How many layers, counted from the last.

    Returns:
      Ascending indices into `model.trainable_variables`.

    Raises:
      ModelError: If the model has fewer layers, or `head_layers` is not an integer >= 1.
    """
    layers = layers_of(model)
    is_int = isinstance(head_layers, int) and not isinstance(head_layers, bool)
    if not (is_int and 1 <= head_layers <= len(layers)):
        raise ModelError(
            f"head_layers must lie between 1 and {len(layers)}, the layers that have weights "
            f"({', '.join(layers)}), but is {head_layers!r}."
        )
    return sorted(itertools.chain(*list(layers.values())[-head_layers:]))


def local_variables(model: Any, head_layers: int, local_layers: Sequence[str] = ()) -> list[int]:
    """Returns which of `model.trainable_variables` the named layers have, or else the head.

    Args:
      model: The model.
      head_layers: How many layers the head has; it counts only without `local_layers`.
      local_layers: Names of layers.

    Returns:
      Ascending indices into `model.trainable_variables`.

    Raises:
      ModelError: If there is no such layer, or as `head_variables` does.
    """
    if not local_layers:
        return head_variables(model, head_layers)
    layers = layers_of(model)
    for name in local_layers:
        checks.check_choice("A layer of local_layers", name, layers)
    return sorted(itertools.chain(*(layers[name] for name in set(local_layers))))


def shared_variables(model: Any, head_layers: int, local_layers: Sequence[str] = ()) -> list[int]:
    """Returns which of `model.trainable_variables` are not local; see `local_variables`.

    Raises:
      ModelError: If there are none, as the local part is the whole model, or as `local_variables`
        does.
    """
    local = set(local_variables(model, head_layers, local_layers))
    shared = [index for index in range(len(model.trainable_variables)) if index not in local]
    if not shared and local_layers:
        raise ModelError(
            f"local_layers names {', '.join(local_layers)}, so that the local part is the whole "
            "model and nothing is left to train: name fewer."
        )
    if not shared:
        raise ModelError(
            f"head_layers is {head_layers}, so that the head is the whole model and nothing is "
            "left to train: give fewer."
        )
    return shared


def moving_variables(
    model_fn: Callable[[], Any], head_layers: int | None, local_layers: Sequence[str] = ()
) -> list[int]:
    """Returns which trainable variables adapt: all, those of the last layers, or of named ones.

    Keras numbers the names of layers on, but begins anew in a graph: the names are those that the
    model has in one.

    Raises:
      ModelError: As `local_variables` does.
    """
    with tracing.as_found(), tf.Graph().as_default():
        model = model_fn()
    if head_layers is None and not local_layers:
        return list(range(len(model.trainable_variables)))
    return local_variables(model, head_layers or 1, local_layers)


def names_of(local_layers: str | Sequence[str]) -> tuple[str, ...]:
    """Returns names of layers, given as a sequence or separated by commas in one text."""
    if isinstance(local_layers, str):
        local_layers = local_layers.split(",")
    return tuple(name for name in (name.strip() for name in local_layers) if name)
