"""TFF's own algorithms over the same one-element clients, to compare with."""

from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import algorithms, client_work, minibatches


def build_fedavg(
    model_fn: algorithms.ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
) -> tff.learning.templates.LearningProcess:
    """Builds `tff.learning.algorithms.build_weighted_fed_avg`, untouched, for one-element clients.

    Only the data is adapted: each client cuts its one element into the batches that
    `algorithms.build_reptile` would train on with the same arguments, in the same order.

    Args:
      model_fn: As in `algorithms.build_reptile`, and so are the other arguments.
      inner_learning_rate: The rate of the clients' SGD steps, >= 0.
      batch_size: Examples in a local step, >= 1.
      inner_epochs: Local epochs (1 if neither this nor `inner_steps` is given), or
      inner_steps: local steps.
      shuffle: Whether examples are shuffled, by each client's own seed.
      server_optimizer: Applies the mean update; None is SGD with rate 1.
      client_weighting: How much a client counts in the mean. TFF's NUM_EXAMPLES counts what a
        client trained on: with `inner_steps` that is not its size, as it is in Reptile.
      model_aggregator: A TFF aggregation factory for updates; None is the weighted mean.
      metrics_aggregator: As in `tff.learning.algorithms`.

    Returns:
      A `tff.learning.templates.LearningProcess`.

    Raises:
      ValueError: If a value is out of its range or both epochs and steps are given.
    """
    budget = algorithms.check_local_training(
        inner_learning_rate, batch_size, inner_epochs, inner_steps
    )
    with tf.Graph().as_default():
        model = model_fn()
        data_type = client_work.client_type(model)

    @tff.tensorflow.computation(data_type)
    def cut_into_batches(dataset):
        client = dataset.get_single_element()
        examples = client_work.as_batch(model, client["x"], client["y"])
        plan = minibatches.plan_minibatches(
            minibatches.count_examples(examples),
            client["seed"],
            batch_size=batch_size,
            shuffle=shuffle,
            **budget,
        )
        steps = tf.data.Dataset.range(tf.cast(plan.num_steps, tf.int64))
        return steps.map(lambda step: minibatches.gather_examples(examples, plan.indices(step)))

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(inner_learning_rate),
        server_optimizer_fn=server_optimizer,
        client_weighting=client_weighting,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
    )
    return tff.simulation.compose_dataset_computation_with_learning_process(
        cut_into_batches, process
    )


# name -> builder, called as those of `algorithms.ALGORITHMS` are.
BASELINES: dict[str, Callable[..., tff.learning.templates.LearningProcess]] = {
    "fedavg": build_fedavg,
}
