"""The door of the builders: what they are given is checked here once, before anything is built."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from typing import Any, Callable, TypeVar

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.algorithms import client_work
from tff_fedmeta.client import second_derivatives, tracing
from tff_fedmeta.client.examination import examine
from tff_fedmeta.client.model_checks import ModelError
from tff_fedmeta.runtime import default_context

_Builder = TypeVar("_Builder", bound=Callable[..., Any])

# What TensorFlow says of an operation without a derivative; its type is in a group.
_NO_GRADIENT = re.compile(
    r"registry has no entry for: (\w+)|No gradient defined for operation.*op type: (\w+)"
)


def at_the_door(build: _Builder) -> _Builder:
    """Makes a builder check its arguments, and leave Keras and TensorFlow as they were.

    Raises, when the builder is called:
      TypeError: If an argument is unknown or of the wrong kind.
      ValueError: If the model cannot be trained as it is; see `examination.examine`; or eager
        execution is switched off.
    """
    signature = inspect.signature(build)

    @functools.wraps(build)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            _check_name(build.__name__, name, signature)
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{build.__name__}: {error}.") from None
        for name, value in arguments.items():
            if name in _CHECKS:
                _CHECKS[name](name, value)
        if not tf.compat.v1.executing_eagerly_outside_functions():
            raise ValueError(
                "Eager execution is switched off in this program, but clients and states are eager "
                "values: remove tf.compat.v1.disable_eager_execution() and disable_v2_behavior()."
            )
        default_context.watch()
        second_derivatives.register()
        with tracing.as_found():
            if "model_fn" in arguments:
                examine(arguments["model_fn"])
            try:
                return build(*args, **kwargs)
            except Exception as error:  # TensorFlow's tracing wraps what it meets
                found = _NO_GRADIENT.search(str(error))
                if found is None:
                    raise
                operation = found[1] or found[2]
                raise ModelError(
                    f"{build.__name__} differentiates local steps, but TensorFlow has no second "
                    f"derivative of a layer of the model ({operation}): replace the layer, or "
                    "choose first_order=True."
                ) from error

    return checked  # type: ignore[return-value]


def _check_name(builder: str, name: str, signature: inspect.Signature) -> None:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if name in signature.parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        return
    close = difflib.get_close_matches(name, signature.parameters, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise TypeError(f"{builder} has no argument {name!r}.{hint}")


def _check_optimizer(name: str, value: Any) -> None:
    if value is None or isinstance(value, tff.learning.optimizers.Optimizer):
        return
    if isinstance(value, (tf.keras.optimizers.Optimizer, tf.keras.optimizers.legacy.Optimizer)):
        what = f"Keras' {type(value).__name__}"
    elif callable(value):
        what = "a function; give what it should return"
    else:
        what = repr(value)
    raise TypeError(
        f"{name} must be a tff.learning.optimizers.Optimizer, for example "
        f"tff.learning.optimizers.build_adam(0.001), but is {what}."
    )


def _check_aggregator(name: str, value: Any) -> None:
    kinds = (
        tff.aggregators.WeightedAggregationFactory,
        tff.aggregators.UnweightedAggregationFactory,
    )
    if value is not None and not isinstance(value, kinds):
        raise TypeError(
            f"{name} must be a TFF aggregation factory, for example fm.build_aggregator('median'), "
            f"but is {value!r}."
        )


def _check_metrics_aggregator(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise TypeError(
            f"{name} must be a function, for example tff.learning.metrics.sum_then_finalize, but "
            f"is {value!r}."
        )


def _check_weighting(name: str, value: Any) -> None:
    del name
    client_work.check_weighting(value)


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, but is {value!r}.")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "inner_optimizer": _check_optimizer,
    "server_optimizer": _check_optimizer,
    "model_aggregator": _check_aggregator,
    "metrics_aggregator": _check_metrics_aggregator,
    "client_weighting": _check_weighting,
    **dict.fromkeys(("first_order", "shuffle", "roles"), _check_bool),
}
