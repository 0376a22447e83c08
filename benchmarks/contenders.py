"""The same round of training in three ways: stock TFF, ours, and a bare loop without federation.

Each is an object that lives in a process of its own (`processes.py`) and is told what to do there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from benchmarks.workloads import BATCH_SIZE, WORKLOADS, Client, Workload, build_loss

Weights = list[np.ndarray]


def stock(name: str, num_clients: int | None = None, num_examples: int | None = None) -> Federated:
    """TFF's own federated averaging, in TFF's default context."""
    return build_stock(WORKLOADS[name].resized(num_clients, num_examples))


def ours(name: str, num_clients: int | None = None, num_examples: int | None = None) -> Federated:
    """Reptile with server step 1, which is federated averaging, in our runtime."""
    import tff_fedmeta as fm

    # The runtime lasts as long as this process.
    stack = contextlib.ExitStack()
    stack.enter_context(fm.local_runtime())
    federated = build_ours(WORKLOADS[name].resized(num_clients, num_examples))
    federated.keep_alive(stack)
    return federated


def ray(
    name: str, num_clients: int | None = None, num_examples: int | None = None, **how: Any
) -> Any:
    """As `ours`, but in `fm.ray_runtime(**how)`."""
    from benchmarks import cluster_contenders

    return cluster_contenders.OnRay(name, (num_clients, num_examples), how)


def costs(name: str, num_examples: int) -> Any:
    """What a cluster's rounds consist of, each measured by itself."""
    from benchmarks import cluster_contenders

    return cluster_contenders.Costs(name, num_examples)


def build_stock(workload: Workload) -> Federated:
    """TFF's own federated averaging on pipelines of batches, in the current context."""
    import tensorflow_federated as tff

    process = tff.learning.algorithms.build_weighted_fed_avg(
        _model_fn(workload), tff.learning.optimizers.build_sgdm(workload.learning_rate)
    )

    def hand_over(client: Client, seed: Sequence[int]) -> tf.data.Dataset:
        del seed
        return tf.data.Dataset.from_tensor_slices(client).batch(BATCH_SIZE)

    return Federated(process, hand_over, workload.clients())


def build_ours(workload: Workload) -> Federated:
    """Reptile with server step 1 on one-element clients, in the current context."""
    import tff_fedmeta as fm

    process = fm.build_reptile(
        _model_fn(workload),
        inner_learning_rate=workload.learning_rate,
        inner_epochs=1,
        batch_size=BATCH_SIZE,
        shuffle=False,
    )
    return Federated(
        process, lambda client, seed: fm.client_dataset(*client, seed), workload.clients()
    )


def _model_fn(workload: Workload) -> Callable[[], Any]:
    import tensorflow_federated as tff

    return lambda: tff.learning.models.from_keras_model(
        workload.build_keras_model(), loss=build_loss(), input_spec=workload.input_spec()
    )


class Federated:
    """A learning process and its clients' arrays."""

    def __init__(
        self,
        process: Any,
        hand_over: Callable[[Client, Sequence[int]], tf.data.Dataset],
        clients: Sequence[Client],
    ):
        self._process = process
        self._hand_over = hand_over
        self._clients = clients
        self._state = process.initialize()
        self._rounds = 0

    def keep_alive(self, resource: Any) -> None:
        """Holds on to what the learning process needs."""
        self._resource = resource

    def round(self, cohort: Sequence[int] | None = None) -> float:
        """Trains for a round with these clients, by default all, and returns its seconds."""
        start = time.perf_counter()
        # Made anew, as in any real loop: who takes part changes from round to round.
        datasets = [
            self._hand_over(self._clients[index], (self._rounds, index))
            for index in (range(len(self._clients)) if cohort is None else cohort)
        ]
        self._state, _ = self._process.next(self._state, datasets)
        self._rounds += 1
        return time.perf_counter() - start

    def close(self) -> None:
        """Ends what was kept alive."""
        self._resource.close()

    def weights(self) -> Weights:
        """Returns the model's trainable weights."""
        return [np.asarray(w) for w in self._process.get_model_weights(self._state).trainable]


class Bare:
    """A share of the round's clients, trained one after another as fast as TensorFlow can.

    One call of one `tf.function` for each client: its batches are slices, taken in a loop inside
    the graph, and the weights never leave their variables. Nothing is checked or measured.

    Args:
      name: Of the workload.
      num_clients: As in `stock`.
      num_examples: As in `stock`.
      share: Which clients are trained here, by index; all if None.
      num_threads: Threads an operation may use; None is TensorFlow's default.
      batch_size: Examples in a step.
    """

    def __init__(
        self,
        name: str,
        num_clients: int | None = None,
        num_examples: int | None = None,
        share: Sequence[int] | None = None,
        num_threads: int | None = None,
        batch_size: int = BATCH_SIZE,
    ):
        if num_threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        workload = WORKLOADS[name].resized(num_clients, num_examples)
        clients = workload.clients()
        self._clients = [
            tuple(map(tf.constant, clients[index]))
            for index in (range(len(clients)) if share is None else share)
        ]
        self._model = workload.build_keras_model()
        self._start = [tf.Variable(v) for v in self._model.trainable_variables]
        self._sums = [tf.Variable(tf.zeros_like(v)) for v in self._start]
        self._train = tf.function(
            self._build_training(build_loss(), workload.learning_rate, batch_size),
            input_signature=workload.input_spec(),
        )

    def _build_training(self, loss_fn: Any, rate: float, batch_size: int) -> Callable[..., None]:
        model, variables = self._model, self._model.trainable_variables

        def train(x: tf.Tensor, y: tf.Tensor) -> None:
            num_examples = tf.shape(y)[0]

            def step(first: tf.Tensor) -> tf.Tensor:
                last = first + batch_size
                with tf.GradientTape() as tape:
                    loss = loss_fn(y[first:last], model(x[first:last], training=True))
                for variable, gradient in zip(variables, tape.gradient(loss, variables)):
                    _add_to(variable, -rate, gradient)
                return last

            for variable, start in zip(variables, self._start):
                variable.assign(start)
            tf.while_loop(lambda first: first < num_examples, step, [0], parallel_iterations=1)
            for total, variable in zip(self._sums, variables):
                _add_to(total, tf.cast(num_examples, total.dtype), variable)

        return train

    def round(self) -> tuple[float, Weights, int]:
        """Trains every client from the same weights.

        Returns:
          The seconds, the sum of the clients' weights after training, each times its number of
          examples, and the number of examples.
        """
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        start = time.perf_counter()
        for client in self._clients:
            self._train(*client)
        seconds = time.perf_counter() - start
        return (
            seconds,
            [total.numpy() for total in self._sums],
            sum(len(y) for _, y in self._clients),
        )

    def weights(self) -> Weights:
        """Returns the weights that the next round starts from."""
        return [variable.numpy() for variable in self._start]

    def set_weights(self, weights: Weights) -> None:
        """Sets the weights that the next round starts from."""
        for variable, value in zip(self._start, weights):
            variable.assign(value)


def _add_to(variable: tf.Variable, factor: Any, value: Any) -> None:
    """Adds factor * value in place, in one pass over the memory; only the rows that are given."""
    if isinstance(value, tf.IndexedSlices):
        variable.scatter_add(tf.IndexedSlices(factor * value.values, value.indices))
    else:
        tf.raw_ops.ResourceApplyGradientDescent(
            var=variable.handle, alpha=-factor, delta=tf.convert_to_tensor(value)
        )
