"""The whole protocol of adaptation on clients of your own, without a configuration."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from tff_fedmeta.client import data as client_data
from tff_fedmeta.client import layers
from tff_fedmeta.client.model import ModelFn
from tff_fedmeta.config.protocol import AdaptationProtocol
from tff_fedmeta.experiment import evaluation
from tff_fedmeta.experiment.scope import Scope


def evaluate_adaptation(
    weights: Any,
    model_fn: ModelFn,
    protocol: AdaptationProtocol,
    validation_clients: Mapping[str, client_data.Arrays],
    test_clients: Mapping[str, client_data.Arrays],
    *,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    learned_rates: Union[bool, str] = False,
    head_layers: Optional[int] = None,
    local_layers: Union[str, Sequence[str]] = (),
    proximal_strength: float = 0.0,
) -> dict[str, Any]:
    """Runs the whole protocol on clients of your own, within a runtime.

        protocol = fm.AdaptationProtocol(steps=5, learning_rates=(0.01, 0.1))
        with fm.local_runtime():
            result = fm.evaluate_adaptation(weights, model_fn, protocol, validation, test)
        result["summary"]["after"]["mean"]

    Args:
      weights: The trained `ModelWeights`, e.g. `process.get_model_weights(state)`.
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      protocol: How clients adapt and are measured.
      validation_clients: Id -> (x [n, ...], y [n, ...]) of the clients that choose rate and steps.
      test_clients: The same for the clients that are measured, once.
      metric: Name of a metric of the model, or "loss".
      higher_is_better: Whether more of it is better.
      learned_rates: Which learnt rates the weights hold, to adapt by (Meta-SGD); see
        `build_adaptation_eval`.
      head_layers: How many layers with weights adapt, counted from the end (ANIL); None means all.
      local_layers: Names of the layers that adapt instead (FedRecon).
      proximal_strength: How strongly adaptation is held to the trained weights (pFedMe), >= 0.

    Returns:
      As `evaluation.choose_and_measure`: {"chosen": {"inner_learning_rate", "steps"}, "clients":
      [...], "summary": {"before": {"mean", "std", "p10", "p50", "p90"}, "after", "share_hurt"},
      ...}.

    Raises:
      ValueError: If the two groups share a client, the model has no such metric, or a group has no
        client that can be measured.
    """
    both = sorted(set(validation_clients) & set(test_clients))
    if both:
        raise ValueError(
            f"Validation and test clients must differ, but both groups have {', '.join(both)}."
        )
    scope = Scope(learned_rates, head_layers, proximal_strength, layers.names_of(local_layers))
    evaluators = evaluation.build_evaluators(protocol, model_fn, scope)
    some = next(iter(evaluators.values())).type_signature.result.member
    names = [name for name in dir(some) if name not in ("num_support", "num_query")]
    if metric not in names:
        raise ValueError(f"metric must be one of: {', '.join(names)}; got {metric!r}.")
    clients = {**validation_clients, **test_clients}
    return evaluation.choose_and_measure(
        protocol,
        evaluators,
        weights,
        clients.__getitem__,
        list(validation_clients),
        list(test_clients),
        metric=metric,
        higher_is_better=higher_is_better,
    )
