"""One client before and after adapting, for a picture of it."""

from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow as tf

from tff_fedmeta import client_data, client_model, inner_loop, minibatches, support_query
from tff_fedmeta.config import ExperimentConfig

Predict = Callable[[Any], np.ndarray]  # inputs [n, ...] -> the model's outputs [n, ...]


class ExampleClient(NamedTuple):
    """A client as `datasets.Task.plot_client` takes it.

    Attributes:
      support: The examples that were adapted on, (x, y).
      before: Predicts with the trained weights.
      after: Predicts with the weights adapted on `support`.
    """

    support: tuple[Any, Any]
    before: Predict
    after: Predict


def adapt(
    config: ExperimentConfig,
    task: Any,
    weights: Any,
    examples: client_data.Arrays,
    client_id: str,
    chosen: dict[str, Any],
) -> ExampleClient:
    """Adapts to a client as the evaluation does, with the same split and the same steps.

    Args:
      config: The experiment's configuration.
      task: The `datasets.Task`.
      weights: The trained `ModelWeights`, with the learnt rates behind them if there are.
      examples: The client's `(x, y)`, large enough to split.
      client_id: Its id.
      chosen: {"inner_learning_rate", "steps"} of adaptation; the rate None stands for learnt ones.
    """
    seed = tf.constant(client_data.stream_seed(config.seed, "adaptation", client_id), tf.int64)
    sides = support_query.split_support_query(
        examples, seed, support_fraction=config.support_fraction, split=task.split
    )
    plan = minibatches.plan_minibatches(
        sides.num_support,
        seed,
        batch_size=config.adaptation_batch_size,
        inner_steps=config.adaptation_steps,  # not those chosen: orders depend on their number
    )

    def predict_after(steps: int) -> Predict:
        model = task.model_fn()
        rates = client_model.assign_weights(model, weights)
        rule = inner_loop.SGD(rates or float(chosen["inner_learning_rate"]))
        state = rule.initialize(model.trainable_variables)
        support = client_model.as_batch(model, *sides.support)
        inner_loop.train(model, support, plan, rule, state, 0, steps)
        return lambda x: np.asarray(model.predict_on_batch(x, training=False))

    support = tf.nest.map_structure(np.asarray, sides.support)
    return ExampleClient(support, predict_after(0), predict_after(chosen["steps"]))
