"""Adapt a model to clients it has never seen, and measure it before, during and after."""

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.algorithms.door import at_the_door
from tff_fedmeta.client import inner_loop, layers, minibatches, model_checks, support_query
from tff_fedmeta.client import model as client_model
from tff_fedmeta.client.learned_rates import learned_rates_of
from tff_fedmeta.client.meta_gradient import split_and_plan
from tff_fedmeta.client.proximal import ProximalSGD
from tff_fedmeta.client.rules import Rule, build_rule


@at_the_door
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
    learned_rates: Union[bool, str] = False,
    head_layers: Optional[int] = None,
    local_layers: Union[str, Sequence[str]] = (),
    proximal_strength: float = 0.0,
    measured_every: int = 1,
    sized_support: bool = False,
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
      learned_rates: Which learnt rates `trainable` holds behind the n weights, to adapt with
        instead of `inner_learning_rate` (Meta-SGD): True or "per_weight" for n tensors of the same
        shapes, "per_layer" or "per_step_and_layer" for a table [steps, layers].
      head_layers: How many layers that have weights adapt, counted from the end (ANIL's head); None
        means all.
      local_layers: Names of the layers that adapt instead, in a list or separated by commas.
      proximal_strength: How strongly adaptation is held to the weights that it starts from, >= 0;
        see `proximal.ProximalSGD`.
      measured_every: How many inner steps (or epochs) lie between two measurements, >= 1; the last
        one is measured too.
      sized_support: Whether clients say how many of their support examples, the first, they adapt
        on: `client_dataset(support_size=...)`. Their query is the same for every size.

    Returns:
      A computation (ModelWeights@SERVER, clients@CLIENTS) -> list, in the order of the clients, of
      `OrderedDict(num_support=int32, num_query=int32, loss=float32 [K+1], <metric>=[K+1], ...)`.
      Entry 0 is before adapting. With `measured_every` m there are 1 + ceil(K / m) entries, and
      entry k is after min(k m, K). A client with too few examples to split, or with a NaN or an
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
    checks.check_count("measured_every", measured_every, 1)
    num_points = 1 + -(-next(iter(budget.values())) // measured_every)
    checks.check_split(support_fraction, split)
    if learned_rates and inner_optimizer is not None:
        raise ValueError("learned_rates adapts by SGD with those rates; give no inner_optimizer.")
    checks.check_number("proximal_strength", proximal_strength, 0)
    if proximal_strength and (learned_rates or inner_optimizer is not None):
        raise ValueError(
            "proximal_strength adapts by proximal SGD; give no learned_rates or inner_optimizer."
        )
    learned = learned_rates_of(learned_rates)
    types = client_model.client_types(model_fn, learned, sized_support=sized_support)
    fixed_rule = (
        ProximalSGD(inner_learning_rate, proximal_strength)
        if proximal_strength
        else build_rule(inner_optimizer, inner_learning_rate)
    )
    moving = layers.moving_variables(model_fn, head_layers, layers.names_of(local_layers))
    plan = functools.partial(
        minibatches.plan_minibatches, batch_size=batch_size, shuffle=shuffle, **budget
    )

    def split_client(
        client: Mapping[str, Any], examples: Any, seed: tf.Tensor
    ) -> support_query.SupportQuery:
        sides = support_query.split_support_query(
            examples, seed, support_fraction=support_fraction, split=split
        )
        return support_query.take_first(sides, client["support_size"]) if sized_support else sides

    def adapt_and_measure(
        model: Any, weights: Any, client: Mapping[str, Any]
    ) -> Mapping[str, tf.Tensor]:
        rates = client_model.assign_weights(model, weights)
        examples = client_model.as_batch(model, client["x"], client["y"])
        sides, steps = split_and_plan(
            client_model.nothing_unless_finite(examples),
            client["seed"],
            functools.partial(split_client, client),
            plan,
        )
        curves = _measured_training(
            model,
            sides,
            steps,
            learned.rule(model, rates) if learned else fixed_rule,
            [model.trainable_variables[index] for index in moving],
            num_points,
            measured_every * (1 if inner_epochs is None else steps.steps_per_epoch),
        )
        return collections.OrderedDict(
            num_support=sides.num_support, num_query=sides.num_query, **curves
        )

    @tff.tensorflow.computation(types.weights, types.client)
    def evaluate_client(weights: Any, dataset: tf.data.Dataset) -> Any:
        model = client_model.build_client_model(model_fn)
        run = tf.function(lambda weights, client: adapt_and_measure(model, weights, client))
        return run(weights, dataset.get_single_element())

    @tff.federated_computation(
        tff.FederatedType(types.weights, tff.SERVER), tff.FederatedType(types.client, tff.CLIENTS)
    )
    def evaluate(weights: Any, clients: Any) -> Any:
        return tff.federated_map(evaluate_client, (tff.federated_broadcast(weights), clients))

    return evaluate


def _measured_training(
    model: Any,
    sides: support_query.SupportQuery,
    plan: minibatches.MinibatchPlan,
    rule: Rule,
    moving: Sequence[tf.Variable],
    num_points: int,
    steps_between: Any,
) -> dict[str, tf.Tensor]:
    """Trains on support and returns each metric on query as [num_points], point 0 untrained."""
    finalizers = model.metric_finalizers()
    names = [name for name in finalizers if name not in model_checks.COUNTERS]  # as num_query says

    def advance(point: tf.Tensor, state: Any, curves: dict[str, tf.TensorArray]) -> Any:
        # Point 0 runs the steps from 0 to 0: none.
        first = tf.minimum(tf.maximum(point - 1, 0) * steps_between, plan.num_steps)
        last = tf.minimum(point * steps_between, plan.num_steps)
        state, _ = inner_loop.train(
            model, sides.support, plan, rule, state, first, last, moving=moving
        )
        values = _measure(model, sides.query, sides.num_query)
        curves = {
            name: curves[name].write(point, tf.cast(finalizers[name](values[name]), tf.float32))
            for name in names
        }
        return point + 1, state, curves

    curves = {name: tf.TensorArray(tf.float32, num_points) for name in names}
    state = rule.initialize(moving)
    _, _, curves = tf.while_loop(
        lambda point, *_: point < num_points,
        advance,
        (tf.constant(0), state, curves),
        parallel_iterations=1,
    )
    return {name: curve.stack() for name, curve in curves.items()}


def _measure(model: Any, examples: Any, num_examples: tf.Tensor) -> Any:
    """Returns the model's unfinalized metrics on all examples, in passes of `minibatches.PASS`."""
    model.reset_metrics()

    def forward(start: tf.Tensor) -> tuple[tf.Tensor]:
        stop = tf.minimum(start + minibatches.PASS, num_examples)
        batch = minibatches.gather_examples(examples, tf.range(start, stop))
        model.forward_pass(batch, training=False)
        return (stop,)

    tf.while_loop(
        lambda start: start < num_examples, forward, (tf.constant(0),), parallel_iterations=1
    )
    return model.report_local_unfinalized_metrics()
