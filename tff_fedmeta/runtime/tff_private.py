"""All that is used of TFF without being public there, and why.

The lock pins TFF, so none of it changes by itself. Read this file before moving the pin. Of
TensorFlow there is one call, in `programs.py`, which must not import TFF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.types import type_conversions
from tensorflow_federated.python.learning.algorithms import fed_sgd


def to_python_containers(value: Any, type_spec: tff.Type) -> Any:
    """Returns a `tff.structure.Struct` in the Python containers that its type names.

    TFF's own contexts do this with every result; nothing public does it alone.
    """
    return type_conversions.type_to_py_container(value, type_spec)


def fed_sgd_client_work(
    model_fn: Callable[[], tff.learning.models.VariableModel], metrics_aggregator: Any, loop: Any
) -> tff.learning.templates.ClientWorkProcess:
    """Returns the client work of TFF's FedSGD; public is only the whole process.

    Args:
      model_fn: Makes the model.
      metrics_aggregator: As in `tff.learning.algorithms.build_fed_sgd`.
      loop: `tff.learning.LoopImplementation`.
    """
    return fed_sgd._build_fed_sgd_client_work(
        model_fn, metrics_aggregator, loop_implementation=loop
    )
