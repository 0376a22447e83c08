"""The gradient of a client's query loss through its steps on support: what MAML's family shares.

Every function takes a model whose variables hold the weights sent by the server, and works on those
variables through `assign`, so any Keras model will do. An update is always a *descent direction*,
which the server subtracts: start minus end for methods that train, a gradient for methods that
differentiate.
"""

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf

from tff_fedmeta.client import inner_loop, minibatches, support_query
from tff_fedmeta.client.rules import Rule

# What one Hessian-vector product counts for in gradient evaluations: the gradient of the step once
# more, and the derivative of it.
HESSIAN_PRODUCT = 2


class LocalUpdate(NamedTuple):
    """What a client sends, and what it took.

    Attributes:
      update: The descent direction: a tensor for each trainable weight, then one for each learnt
        rate if the algorithm has them.
      metrics: The model's unfinalized metrics: of all local steps for methods that train, on the
        query at the adapted weights for methods that differentiate.
      examples: int32 scalar, the examples walked, by the inner steps and on the query.
      gradient_evaluations: int32 scalar, the batches that gradients were taken of; a query counts
        as the batches it is worth, a Hessian-vector product as two.
    """

    update: list[tf.Tensor]
    metrics: Any
    examples: tf.Tensor
    gradient_evaluations: tf.Tensor


def split_and_plan(
    examples: Any,
    seed: tf.Tensor,
    split: support_query.Split,
    plan: minibatches.PlanMinibatches,
) -> tuple[support_query.SupportQuery, minibatches.MinibatchPlan]:
    """Splits a client and plans the inner steps on its support: for training and for evaluation.

    Support is never empty but has a blank example where the client cannot be split: it computes all
    the same and its result is thrown away, and a batch without examples is more than some layers
    can take.

    Args:
      examples: The client's examples, a structure of [n, ...] tensors.
      seed: int64 [2], decides the split and the order of the examples.
      split: (examples, seed) -> `SupportQuery`.
      plan: (number of support examples, seed) -> `MinibatchPlan`.
    """
    sides = split(examples, seed)
    missing = tf.maximum(1 - sides.num_support, 0)
    support = tf.nest.map_structure(
        lambda tensor: tf.pad(tensor, [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1)),
        sides.support,
    )
    return sides._replace(support=support), plan(minibatches.count_examples(support), seed)


def meta_gradient(
    model: Any,
    support: Any,
    plan: minibatches.MinibatchPlan,
    first: Any,
    last: Any,
    query: Any,
    *,
    rule: Rule,
    first_order: bool,
    moving: Optional[Sequence[int]] = None,
    num_steps: Optional[int] = None,
) -> LocalUpdate:
    """Returns the gradient of the query loss after steps `first` to `last` - 1 on support.

    Args:
      model: A `tff.learning.models.VariableModel` that holds the weights before the steps. They are
        not put back.
      support: The examples of the steps, a structure of [s, ...] tensors.
      plan: Which support examples each step sees.
      first: int32 scalar, the first step.
      last: int32 scalar, one past the last step.
      query: The examples of the loss, a structure of [q, ...] tensors.
      rule: What a step does with a gradient.
      first_order: Whether the gradient at the adapted weights is the result (FOMAML).
      moving: Which of the model's trainable variables the steps move; None means all.
      num_steps: `last` - `first` as a Python int, if known while the graph is built.

    Returns:
      The `LocalUpdate`, with the gradient by the rule's learnable tensors behind the weights'.
    """
    variables = model.trainable_variables
    moves = variables if moving is None else [variables[index] for index in moving]

    _, steps = inner_loop.train(
        model,
        support,
        plan,
        rule,
        rule.initialize(moves),
        first,
        last,
        moving=moves,
        keep=not first_order,
        num_steps=num_steps,
    )
    model.reset_metrics()  # every forward pass adds to them, also those that only differentiate
    gradient = mean_gradient(model, query)
    metrics = model.report_local_unfinalized_metrics()
    num_query = minibatches.count_examples(query)
    evaluations = last - first + minibatches.batches_per_epoch(num_query, plan.batch_size)
    if not first_order:
        gradient, of_rates = inner_loop.differentiate(
            model, support, plan, rule, steps, gradient, moving=moves
        )
        gradient += of_rates
        evaluations += HESSIAN_PRODUCT * (last - first)
    return LocalUpdate(gradient, metrics, plan.count_examples(first, last) + num_query, evaluations)


def mean_gradient(model: Any, examples: Any) -> list[tf.Tensor]:
    """Returns the gradient of the mean loss on all examples; zeros if there are none."""
    variables = model.trainable_variables
    num_examples = minibatches.count_examples(examples)

    def add_pass(start: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        stop = tf.minimum(start + minibatches.PASS, num_examples)
        batch = minibatches.gather_examples(examples, tf.range(start, stop))
        with tf.GradientTape() as tape:
            loss = model.forward_pass(batch, training=True).loss
        gradients = tape.gradient(
            loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        share = (stop - start) / num_examples
        return stop, [
            s + tf.cast(share, s.dtype) * tf.ensure_shape(tf.convert_to_tensor(g), s.shape)
            for s, g in zip(sums, gradients)
        ]

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    _, mean = tf.while_loop(
        lambda start, _: start < num_examples,
        add_pass,
        (tf.constant(0), zeros),
        parallel_iterations=1,
    )
    return mean


def hessian(model: Any, examples: Any) -> Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]:
    """Returns what multiplies H, the Hessian of the mean loss on all examples, by a vector.

    It is exact: the derivative of grad L * v (Pearlmutter, 1994), in passes of `minibatches.PASS`.
    The gradient of the first pass is computed here, once for all products; it is kept, activations
    included. The gradients of further passes are computed again for each product.

    Args:
      model: A `tff.learning.models.VariableModel` that holds the weights, as long as the result is
        used.
      examples: A structure of [n, ...] tensors, n >= 1.

    Returns:
      (a tensor for each trainable variable) -> the same of the product.
    """
    num_examples = minibatches.count_examples(examples)
    first = tf.minimum(minibatches.PASS, num_examples)
    of_first_pass = _kept_gradient(model, examples, tf.constant(0), first)

    def multiply(vector: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        def add_pass(start: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            stop = tf.minimum(start + minibatches.PASS, num_examples)
            more = _kept_gradient(model, examples, start, stop)(vector)
            return stop, [s + m for s, m in zip(sums, more)]

        _, product = tf.while_loop(
            lambda start, _: start < num_examples,
            add_pass,
            (first, of_first_pass(vector)),
            parallel_iterations=1,
        )
        return product

    return multiply


def _kept_gradient(
    model: Any, examples: Any, start: tf.Tensor, stop: tf.Tensor
) -> Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]:
    """Computes what examples `start` to `stop` - 1 add to the gradient of the mean loss.

    Returns:
      What multiplies the derivative of this part by a vector.
    """
    variables = model.trainable_variables
    batch = minibatches.gather_examples(examples, tf.range(start, stop))
    share = (stop - start) / minibatches.count_examples(examples)
    with tf.GradientTape(persistent=True) as tape:
        with tf.GradientTape() as inner_tape:
            loss = model.forward_pass(batch, training=True).loss
            loss *= tf.cast(share, loss.dtype)
        gradients = [
            # A tensor of its own for each, as one may be the gradient of two weights.
            None if gradient is None else tf.identity(tf.convert_to_tensor(gradient))
            for gradient in inner_tape.gradient(loss, variables)
        ]

    def multiply(vector: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        products = tape.gradient(
            [gradient for gradient in gradients if gradient is not None],
            variables,
            output_gradients=[v for v, g in zip(vector, gradients) if g is not None],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [
            tf.ensure_shape(tf.convert_to_tensor(product), variable.shape)
            for product, variable in zip(products, variables)
        ]

    return multiply


def read_values(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Returns copies of what the variables hold now."""
    return [tf.identity(variable) for variable in variables]


def difference(start: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Returns how far the variables moved, as a descent direction: start minus end."""
    return [before - after for before, after in zip(start, variables)]
