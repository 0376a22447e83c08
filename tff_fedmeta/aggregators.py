"""How the clients' updates are combined: TFF aggregation factories by name.

All are given weights. A client that was left out has weight 0 and an update of zeros; if all have,
the result is NaN, which TFF's finalizer rejects: model and optimizer stay as they were.
"""

from typing import Any, Callable

import tensorflow_federated as tff

from tff_fedmeta import aggregator_options


def build_aggregator(name: str, **options: Any) -> Any:
    """Returns the aggregation factory of a name, the `model_aggregator` of every `build_*`.

    Args:
      name: One of `config.AGGREGATORS`.
      **options: Its options (`aggregator_options.py`); what is not given has its default.

    Returns:
      A `tff.aggregators.WeightedAggregationFactory`, or an unweighted one, for which all clients
      count the same.

    Raises:
      ValueError: If there is no such aggregator, it has no such option or a value is wrong.
    """
    return _BUILDERS[name](**aggregator_options.resolve(name, options))


# name -> builder, called with all of the aggregator's options.
_BUILDERS: dict[str, Callable[..., Any]] = {
    "mean": tff.aggregators.MeanFactory,
    "robust": tff.learning.robust_aggregator,
}
