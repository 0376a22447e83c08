"""The local steps of a client, and the derivative of where they end by where they began.

They work on the variables of any Keras model through `assign`, which cuts TensorFlow's tape: a tape
around these steps would silently see a constant. `differentiate` therefore walks them backwards
itself, one step at a time, from the weights kept at each.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from tff_fedmeta.client import minibatches
from tff_fedmeta.client.rules import Rule

# Of up to so many steps `train` keeps what `differentiate` needs, not the weights alone: a step's
# forward and backward pass are then not computed a second time. It costs their activations.
MOST_UNROLLED = 5


class _Step(NamedTuple):
    """What is known of one step: the tape of its gradient, and what the rule was given."""

    tape: tf.GradientTape
    gradients: list[Optional[tf.Tensor]]
    start: list[tf.Tensor]
    state: Any


class Steps(NamedTuple):
    """Local steps that were taken, as `differentiate` needs them.

    Attributes:
      first: int32 scalar, the number of the first step in its plan.
      last: int32 scalar, one past the last step.
      unrolled: The steps themselves, if they were to be kept and few.
      history: Otherwise, a `tf.TensorArray` for each moving variable and each tensor of the rule's
        state, entry k as it was before step first + k; empty unless they were to be kept.
    """

    first: Any
    last: Any
    unrolled: list[_Step]
    history: list[tf.TensorArray]


def train(
    model: Any,
    examples: Any,
    plan: minibatches.MinibatchPlan,
    rule: Rule,
    state: Any,
    first: Any,
    last: Any,
    *,
    moving: Optional[Sequence[tf.Variable]] = None,
    keep: bool = False,
    num_steps: Optional[int] = None,
) -> tuple[Any, Steps]:
    """Runs steps `first` to `last` - 1 of a plan on the model's variables.

    Args:
      model: A `tff.learning.models.VariableModel`.
      examples: A structure of [n, ...] tensors the model takes as a batch.
      plan: Which examples each step sees.
      rule: What a step does with a gradient.
      state: The rule's state, from `rule.initialize(moving)` or an earlier call.
      first: int32 scalar, the first step.
      last: int32 scalar, one past the last step.
      moving: The variables that the steps move; None stands for all trainable ones.
      keep: Whether `differentiate` will be called on the steps.
      num_steps: `last` - `first` if it is known while the graph is built, and not 0 when it runs.

    Returns:
      The rule's state after the last step, and the steps.
    """
    moving = model.trainable_variables if moving is None else moving
    if keep and num_steps is not None and 0 < num_steps <= MOST_UNROLLED:
        unrolled = []
        for number in range(num_steps):
            unrolled.append(_take(model, examples, plan, first + number, moving, state))
            state = rule.step(state, moving, unrolled[-1].gradients)
        return state, Steps(first, last, unrolled, [])

    kept = [*moving, *tf.nest.flatten(state)] if keep else []
    history = [
        tf.TensorArray(value.dtype, tf.maximum(last - first, 0), element_shape=value.shape)
        for value in kept
    ]

    def step(done: tf.Tensor, state: Any, history: list[tf.TensorArray]) -> Any:
        if keep:
            now = [*(v.read_value() for v in moving), *tf.nest.flatten(state)]
            history = [array.write(done - first, value) for array, value in zip(history, now)]
        gradients = _gradients(model, examples, plan, done, moving)
        return done + 1, rule.step(state, moving, gradients), history

    _, state, history = tf.while_loop(
        lambda done, *_: done < last, step, (first, state, history), parallel_iterations=1
    )
    return state, Steps(first, last, [], history)


def differentiate(
    model: Any,
    examples: Any,
    plan: minibatches.MinibatchPlan,
    rule: Rule,
    steps: Steps,
    gradient: Sequence[tf.Tensor],
    *,
    moving: Optional[Sequence[tf.Variable]] = None,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Carries the gradient at the end of local steps back to where they began.

    With theta_{k+1} = U_k(theta_k), g_k = (dU_k / d theta_k)^T g_{k+1}. For plain SGD that is
    g_k = g_{k+1} - alpha H_k g_{k+1}, with H_k the Hessian of step k's loss at theta_k: one
    Hessian-vector product a step (Finn, Abbeel and Levine, arXiv:1703.03400, section 2.2). Other
    rules are differentiated through their state as well. It is exact. The moving variables do not
    keep their values.

    Args:
      model: The model that was trained.
      examples: What it was trained on.
      plan: The plan of its steps.
      rule: The rule of its steps.
      steps: The steps, kept by `train`.
      gradient: d L / d theta_K for each trainable variable of the model.
      moving: The variables that moved; None stands for all trainable ones.

    Returns:
      d L / d theta_0 for each trainable variable of the model, and d L / d rate for each of the
      rule's learnable tensors.
    """
    weights = model.trainable_variables
    moving = weights if moving is None else moving
    template = rule.initialize(moving)
    adjoints = _Adjoints(
        list(gradient),
        [tf.zeros_like(tensor) for tensor in _floating(template)],
        [tf.zeros_like(rate) for rate in rule.learnable],
    )
    for step in reversed(steps.unrolled):
        adjoints = _pull_back(weights, moving, rule, step, adjoints)

    def step_back(done: tf.Tensor, adjoints: _Adjoints) -> Any:
        now = [array.read(done - 1 - steps.first) for array in steps.history]
        for variable, value in zip(moving, now):
            variable.assign(value)
        state = tf.nest.pack_sequence_as(template, now[len(moving) :])
        step = _take(model, examples, plan, done - 1, moving, state)
        return done - 1, _pull_back(weights, moving, rule, step, adjoints)

    if not steps.unrolled:
        _, adjoints = tf.while_loop(
            lambda done, _: done > steps.first,
            step_back,
            (steps.last, adjoints),
            parallel_iterations=1,
        )
    of_start = list(adjoints.weights)
    for place, more in zip(_places(weights, moving), rule.start_gradient(adjoints.state)):
        of_start[place] += more
    return of_start, adjoints.rates


class _Adjoints(NamedTuple):
    """The derivatives of the loss by what a step begins with: d L / d theta_k, ..."""

    weights: list[tf.Tensor]
    state: list[tf.Tensor]
    rates: list[tf.Tensor]


def _take(model: Any, examples: Any, plan: Any, step: Any, moving: Any, state: Any) -> _Step:
    """Computes the gradient of one step such that it can be differentiated once more."""
    with tf.GradientTape() as tape:
        gradients = [
            # A tensor of its own for each: where one is the gradient of two weights, the products
            # would count it twice.
            None if gradient is None else tf.identity(tf.convert_to_tensor(gradient))
            for gradient in _gradients(model, examples, plan, step, moving)
        ]
    return _Step(tape, gradients, [v.read_value() for v in moving], state)


def _pull_back(weights: Any, moving: Any, rule: Any, step: _Step, adjoints: _Adjoints) -> _Adjoints:
    """Carries derivatives from the end of one step to its beginning."""
    used = [gradient for gradient in step.gradients if gradient is not None]
    sources = [*step.start, *used, *_floating(step.state), *rule.learnable]
    with tf.GradientTape() as rule_tape:
        rule_tape.watch(sources)
        new_state, new_weights = rule.next(step.state, step.start, step.gradients)
    places = _places(weights, moving)
    found = rule_tape.gradient(
        [*new_weights, *_floating(new_state)],
        sources,
        output_gradients=[*(adjoints.weights[place] for place in places), *adjoints.state],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    of_start, of_used, of_state, of_rates = _cut(
        found, len(step.start), len(used), len(adjoints.state), len(adjoints.rates)
    )
    if rule.zero_where_undefined:
        of_used, of_state = (
            [tf.where(tf.math.is_finite(g), g, tf.zeros_like(g)) for g in some]
            for some in (of_used, of_state)
        )
    hessian_products = step.tape.gradient(
        used,
        weights,
        output_gradients=of_used,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    through_rule = {**dict(enumerate(adjoints.weights)), **dict(zip(places, of_start))}
    return _Adjoints(
        [
            # Slices of rows, from embeddings, become tensors; their shape is lost on the way.
            through_rule[place] + tf.ensure_shape(tf.convert_to_tensor(product), weight.shape)
            for place, (weight, product) in enumerate(zip(weights, hessian_products))
        ],
        of_state,
        [old + more for old, more in zip(adjoints.rates, of_rates)],
    )


def _gradients(model: Any, examples: Any, plan: Any, step: Any, variables: Any) -> list[Any]:
    """Returns the gradients of one step's loss, None where there is none."""
    batch = minibatches.gather_examples(examples, plan.indices(step))
    with tf.GradientTape() as tape:
        loss = model.forward_pass(batch, training=True).loss
    return tape.gradient(loss, variables)


def _places(weights: Sequence[Any], moving: Sequence[Any]) -> list[int]:
    """Returns which of the weights move."""
    return [index for index, w in enumerate(weights) if any(w is m for m in moving)]


def _floating(state: Any) -> list[tf.Tensor]:
    return [tensor for tensor in tf.nest.flatten(state) if tensor.dtype.is_floating]


def _cut(values: list[Any], *lengths: int) -> list[list[Any]]:
    """Cuts a list into consecutive ones of these lengths."""
    rest = iter(values)
    return [list(itertools.islice(rest, length)) for length in lengths]
