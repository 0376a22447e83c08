"""Single clients before and after adapting, for pictures of them and measures of the task's own."""

from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow as tf

from tff_fedmeta import seeds
from tff_fedmeta.client import data as client_data
from tff_fedmeta.client import inner_loop, minibatches, support_query
from tff_fedmeta.client import model as client_model
from tff_fedmeta.config import ExperimentConfig

Predict = Callable[[Any], np.ndarray]  # inputs [n, ...] -> the model's outputs [n, ...]


class ExampleClient(NamedTuple):
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
    config: ExperimentConfig,
    task: Any,
    weights: Any,
    read: Callable[[str], client_data.Arrays],
    chosen: dict[str, Any],
) -> Callable[[str], ExampleClient]:
    """Returns what adapts to a client as the evaluation does, with the same split and steps.

    Args:
      config: The experiment's configuration.
      task: The `datasets.Task`.
      weights: The trained `ModelWeights`, with the learnt rates behind them if there are.
      read: Reads a client's `(x, y)`.
      chosen: {"inner_learning_rate", "steps"} of adaptation; the rate None stands for learnt ones.

    Returns:
      A function of the id of a client that is large enough to split. All clients share one model,
      into which a prediction puts the weights that it is made with: for one thread only.
    """
    model = task.model_fn()
    rates = client_model.assign_weights(model, weights)
    rule = inner_loop.SGD(rates or float(chosen["inner_learning_rate"]))
    trained = [tf.identity(variable) for variable in model.trainable_variables]
    x_spec, y_spec = task.input_spec

    # Both are traced once for all clients.
    @tf.function(input_signature=[x_spec])
    def forward(x: tf.Tensor) -> tf.Tensor:
        return model.predict_on_batch(x, training=False)

    @tf.function(input_signature=[x_spec, y_spec, tf.TensorSpec([2], tf.int64)])
    def adapt(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> Any:
        sides = support_query.split_support_query(
            (x, y), seed, support_fraction=config.support_fraction, split=task.split
        )
        plan = minibatches.plan_minibatches(
            sides.num_support,
            seed,
            batch_size=config.adaptation_batch_size,
            inner_steps=config.adaptation_steps,  # not those chosen: orders depend on their number
        )
        for variable, value in zip(model.trainable_variables, trained):
            variable.assign(value)
        state = rule.initialize(model.trainable_variables)
        support = client_model.as_batch(model, *sides.support)
        inner_loop.train(model, support, plan, rule, state, tf.constant(0), chosen["steps"])
        return sides.support, sides.query, [v.read_value() for v in model.trainable_variables]

    def predict_with(values: list[tf.Tensor]) -> Predict:
        def predict(x: Any) -> np.ndarray:
            for variable, value in zip(model.trainable_variables, values):
                variable.assign(value)
            return np.asarray(forward(x))

        return predict

    def adapt_to(client_id: str) -> ExampleClient:
        seed = seeds.stream_seed(config.seed, "adaptation", client_id)
        support, query, adapted = adapt(*read(client_id), tf.constant(seed, tf.int64))
        support, query = tf.nest.map_structure(np.asarray, (support, query))
        return ExampleClient(support, query, predict_with(trained), predict_with(adapted))

    return adapt_to
