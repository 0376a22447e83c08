"""Single clients before and after adapting, for pictures and for a task's own measures."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow as tf

from tff_fedmeta import seeds
from tff_fedmeta.client import data as client_data
from tff_fedmeta.client import inner_loop, minibatches, support_query
from tff_fedmeta.client import model as client_model
from tff_fedmeta.client.learned_rates import learned_rates_of
from tff_fedmeta.client.meta_gradient import split_and_plan
from tff_fedmeta.client.proximal import ProximalSGD
from tff_fedmeta.client.rules import SGD, Rule
from tff_fedmeta.config.protocol import AdaptationProtocol

Predict = Callable[[Any], np.ndarray]  # inputs [n, ...] -> the model's outputs [n, ...]


class AdaptedClient(NamedTuple):
    """A client as `datasets.Task.plot_client` and `datasets.task.Measures.of_client` take it.

    Attributes:
      support: The examples that were adapted on, (x, y).
      query: The other ones, (x, y).
      before: Predicts with the trained weights.
      after: Predicts with the weights adapted on `support`.
    """

    support: tuple[Any, Any]
    query: tuple[Any, Any]
    before: Predict
    after: Predict


def build_adapter(
    protocol: AdaptationProtocol,
    task: Any,
    weights: Any,
    read: Callable[[str], client_data.Arrays],
    chosen: Mapping[str, Any],
    moving: Sequence[int] | None = None,
    proximal_strength: float = 0.0,
    learned_rates: bool | str = False,
) -> Callable[[str], AdaptedClient]:
    """Returns what adapts to a client as the evaluation does, with the same split and steps.

    Args:
      protocol: How clients adapt.
      task: The `datasets.Task`.
      weights: The trained `ModelWeights`, with the learnt rates behind them if there are.
      read: Reads a client's `(x, y)`.
      chosen: {"inner_learning_rate", "steps"} of adaptation; the rate None stands for learnt ones.
      moving: Which of the model's trainable variables adapt; None means all.
      proximal_strength: How strongly the weights are held to the trained ones; 0: they are not.
      learned_rates: Which learnt rates are behind the weights; see `build_adaptation_eval`.

    Returns:
      A function of the id of a client that is large enough to split. All clients share one model,
      into which a prediction puts the weights that it is made with: for one thread only.
    """
    model = task.model_fn()
    rates = client_model.assign_weights(model, weights)
    learned = learned_rates_of(learned_rates)
    rule: Rule
    if learned is not None:
        rule = learned.rule(model, rates)
    elif proximal_strength:
        rule = ProximalSGD(chosen["inner_learning_rate"], proximal_strength)
    else:
        rule = SGD(float(chosen["inner_learning_rate"]))
    variables = model.trainable_variables
    moves = variables if moving is None else [variables[index] for index in moving]
    trained = [tf.identity(variable) for variable in variables]
    x_spec, y_spec = task.input_spec
    split = functools.partial(
        support_query.split_support_query,
        support_fraction=protocol.support_fraction,
        split=protocol.split,
    )
    plan = functools.partial(
        minibatches.plan_minibatches,
        batch_size=protocol.batch_size,
        inner_steps=protocol.steps,  # not those chosen: orders depend on their number
    )

    # Both are traced once for all clients.
    @tf.function(input_signature=[x_spec])
    def forward(x: Any) -> tf.Tensor:
        return model.predict_on_batch(x, training=False)

    @tf.function(input_signature=[x_spec, y_spec, tf.TensorSpec([2], tf.int64)])
    def adapt(x: Any, y: Any, seed: tf.Tensor) -> Any:
        sides, steps = split_and_plan((x, y), seed, split, plan)
        for variable, value in zip(variables, trained):
            variable.assign(value)
        state = rule.initialize(moves)
        support = client_model.as_batch(model, *sides.support)
        inner_loop.train(
            model, support, steps, rule, state, tf.constant(0), chosen["steps"], moving=moves
        )
        return sides.support, sides.query, [v.read_value() for v in variables]

    def predict_with(values: list[tf.Tensor]) -> Predict:
        def predict(x: Any) -> np.ndarray:
            for variable, value in zip(variables, values):
                variable.assign(value)
            return np.asarray(forward(x))

        return predict

    def adapt_to(client_id: str) -> AdaptedClient:
        seed = seeds.stream_seed(protocol.seed, "adaptation", client_id)
        support, query, adapted = adapt(*read(client_id), tf.constant(seed, tf.int64))
        support, query = tf.nest.map_structure(np.asarray, (support, query))
        return AdaptedClient(support, query, predict_with(trained), predict_with(adapted))

    return adapt_to
