"""Adapt a model to clients it has never seen, and measure it before, during and after."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.client import inner_loop, minibatches, support_query
from tff_fedmeta.client import model as client_model

# TFF adds these two to every Keras model; `num_query` already says it.
_COUNTERS = ("num_examples", "num_batches")


def build_adaptation_eval(
    model_fn: client_model.ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_steps: Optional[int] = None,
    inner_epochs: Optional[int] = None,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    learned_rates: bool = False,
) -> tff.Computation:
    """Builds the evaluation of an initialisation on clients it was not trained on.

    Each client splits its data, adapts on support alone, and is measured on query alone: before
    adapting and after every inner step (or epoch, if `inner_epochs` is given).

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      inner_learning_rate: The rate of adaptation, >= 0. Unused with `learned_rates`.
      batch_size: Support examples in an inner step, >= 1.
      inner_steps: K >= 0 inner steps, measured after each, or
      inner_epochs: K >= 0 passes over support, measured after each; exactly one of them.
      support_fraction: The share of support, in (0, 1).
      split: "random", "ordered" or "same"; see `support_query.split_support_query`.
      shuffle: Whether the order of support examples is shuffled in every epoch.
      inner_optimizer: The rule of adaptation, fresh at every client; None is plain SGD.
      learned_rates: Whether `trainable` holds, behind the n weights, n tensors of learnt rates of
        the same shapes, to adapt with instead of `inner_learning_rate` (Meta-SGD).

    Returns:
      A computation (ModelWeights@SERVER, clients@CLIENTS) -> list, in the order of the clients, of
      `OrderedDict(num_support=int32, num_query=int32, loss=float32 [K+1], <metric>=[K+1], ...)`.
      Entry 0 is before adapting. A client with too few examples to split, or with a NaN or an
      infinity in its data, has num_support and num_query 0 and zeros for figures. TFF's
      worker refuses an empty list of clients.

    Raises:
      ValueError: If a value is out of its range, not exactly one of steps and epochs is given, or
        the model has moving statistics (batch normalisation that is not frozen).
    """
    if (inner_steps is None) == (inner_epochs is None):
        raise ValueError(
            "Exactly one of inner_steps and inner_epochs is needed, "
            f"but got {inner_steps} and {inner_epochs}."
        )
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    num_points = 1 + next(iter(budget.values()))
    checks.check_split(support_fraction, split)
    if learned_rates and inner_optimizer is not None:
        raise ValueError("learned_rates adapts by SGD with those rates; give no inner_optimizer.")
    types = client_model.client_types(model_fn, learned_rates)
    fixed_rule = inner_loop.build_rule(inner_optimizer, inner_learning_rate)

    def adapt_and_measure(model, weights, client):
        rates = client_model.assign_weights(model, weights)
        rule = inner_loop.SGD(rates) if learned_rates else fixed_rule
        examples = client_model.as_batch(model, client["x"], client["y"])
        sides = support_query.split_support_query(
            client_model.nothing_unless_finite(examples),
            client["seed"],
            support_fraction=support_fraction,
            split=split,
        )
        plan = minibatches.plan_minibatches(
            sides.num_support,
            client["seed"],
            batch_size=batch_size,
            shuffle=shuffle,
            **budget,
        )
        steps_between = 1 if inner_epochs is None else plan.steps_per_epoch
        curves = _measured_training(model, sides, plan, rule, num_points, steps_between)
        return collections.OrderedDict(
            num_support=sides.num_support, num_query=sides.num_query, **curves
        )

    @tff.tensorflow.computation(types.weights, types.client)
    def evaluate_client(weights, dataset):
        model = client_model.build_client_model(model_fn)
        run = tf.function(lambda weights, client: adapt_and_measure(model, weights, client))
        return run(weights, dataset.get_single_element())

    @tff.federated_computation(
        tff.FederatedType(types.weights, tff.SERVER), tff.FederatedType(types.client, tff.CLIENTS)
    )
    def evaluate(weights, clients):
        return tff.federated_map(evaluate_client, (tff.federated_broadcast(weights), clients))

    return evaluate


def _measured_training(model, sides, plan, rule, num_points, steps_between):
    """Trains on support and returns each metric on query as [num_points], point 0 untrained."""
    finalizers = model.metric_finalizers()
    names = [name for name in finalizers if name not in _COUNTERS]

    def advance(point, state, curves):
        # Point 0 runs the steps from 0 to 0: none.
        first = tf.minimum(tf.maximum(point - 1, 0) * steps_between, plan.num_steps)
        last = tf.minimum(point * steps_between, plan.num_steps)
        state, _ = inner_loop.train(model, sides.support, plan, rule, state, first, last)
        values = _measure(model, sides.query, sides.num_query)
        curves = {
            name: curves[name].write(point, tf.cast(finalizers[name](values[name]), tf.float32))
            for name in names
        }
        return point + 1, state, curves

    curves = {name: tf.TensorArray(tf.float32, num_points) for name in names}
    state = rule.initialize(model.trainable_variables)
    _, _, curves = tf.while_loop(
        lambda point, *_: point < num_points,
        advance,
        (tf.constant(0), state, curves),
        parallel_iterations=1,
    )
    return {name: curve.stack() for name, curve in curves.items()}


def _measure(model, examples, num_examples):
    """Returns the model's unfinalized metrics on all examples, in passes of `minibatches.PASS`."""
    model.reset_metrics()

    def forward(start):
        stop = tf.minimum(start + minibatches.PASS, num_examples)
        batch = minibatches.gather_examples(examples, tf.range(start, stop))
        model.forward_pass(batch, training=False)
        return (stop,)

    tf.while_loop(
        lambda start: start < num_examples, forward, (tf.constant(0),), parallel_iterations=1
    )
    return model.report_local_unfinalized_metrics()


class NothingToMeasureError(ValueError):
    """There is no figure to go by; the message says why and what to do."""


def choose_adaptation(
    curves: Mapping[Optional[float], Sequence[Mapping[str, Any]]],
    metric: str,
    higher_is_better: bool = True,
) -> tuple[Optional[float], int]:
    """Chooses how to adapt from what validation clients showed.

    Args:
      curves: For each learning rate tried, the clients' results of `build_adaptation_eval`. The
        rate None stands for learnt rates.
      metric: The metric whose mean over clients decides.
      higher_is_better: Whether more of it is better.

    Returns:
      (learning rate, steps), steps 0 where no adaptation did better. Ties go to fewer steps,
      then to the smaller rate.

    Raises:
      NothingToMeasureError: If no client has a query to measure on, or no setting a finite mean.
    """
    best, best_rate = None, None
    for rate in sorted(curves, key=_as_number):
        means = np.mean([client[metric] for client in measurable(curves[rate])], axis=0)
        for steps, mean in enumerate(means.tolist()):
            score = mean if higher_is_better else -mean
            candidate = (score, -steps, -_as_number(rate))
            if math.isfinite(score) and (best is None or candidate > best):
                best, best_rate = candidate, rate
    if best is None:
        raise NothingToMeasureError(
            f"No setting gave a finite {metric} on the validation clients; use a smaller "
            "inner_learning_rate for training."
        )
    return best_rate, -best[1]


def _as_number(rate: Optional[float]) -> float:
    return 0.0 if rate is None else rate


def measurable(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the results of the clients that were measured: large enough to split, and finite.

    Raises:
      NothingToMeasureError: If there is none.
    """
    kept = [result for result in results if result["num_query"] > 0]
    if not kept:
        raise NothingToMeasureError(
            f"None of the {len(results)} clients has the two examples, all finite, that a split "
            "into support and query needs."
        )
    return kept


def summarize(
    results: Sequence[Mapping[str, Any]], metric: str, steps: int, higher_is_better: bool = True
) -> dict[str, Any]:
    """Summarizes clients before and after adapting for `steps`.

    Args:
      results: The clients' results of `build_adaptation_eval`, each with a query.
      metric: The metric to summarize.
      steps: The entry of the curves that counts as "after".
      higher_is_better: Whether more of it is better.

    Returns:
      {"before": {"mean", "std", "p10", "p50", "p90"}, "after": the same, "share_hurt": the share of
      clients, in [0, 1], whom adapting left worse off}. Every client counts the same. One whose
      metric is not finite, where adapting diverged, counts as hurt, and nowhere else.

    Raises:
      NothingToMeasureError: If no client's metric is finite.
    """
    curves = np.array([result[metric] for result in results], np.float64)  # None becomes NaN
    before, after = curves[:, 0], curves[:, steps]
    finite = np.isfinite(before) & np.isfinite(after)
    if not finite.any():
        raise NothingToMeasureError(
            f"No client has a finite {metric} after adapting; use a smaller inner_learning_rate "
            "for training, or smaller adaptation_learning_rates."
        )
    hurt = ~finite | (after < before if higher_is_better else after > before)
    return {
        "before": _distribution(before[finite]),
        "after": _distribution(after[finite]),
        "share_hurt": float(np.mean(hurt)),
    }


def _distribution(values: np.ndarray) -> dict[str, float]:
    p10, p50, p90 = np.percentile(values, [10, 50, 90])
    summary = dict(mean=np.mean(values), std=np.std(values), p10=p10, p50=p50, p90=p90)
    return {name: float(value) for name, value in summary.items()}
