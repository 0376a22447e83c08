"""Conjugate gradient on lists of tensors, with a matrix that is known by its products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

# The residual's length, in lengths of the right-hand side, below which float32 has no more to give.
_TOLERANCE = 1e-6


def conjugate_gradient(
    matrix: Callable[[Sequence[tf.Tensor]], list[tf.Tensor]],
    right: Sequence[tf.Tensor],
    num_steps: int,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Solves matrix(x) = right from x = 0 (Hestenes and Stiefel, 1952).

    It ends early where the residual vanishes, and where the matrix is not positive: x is then what
    it was, or `right` itself in the first step, as in Newton's method with conjugate gradient
    (Nocedal and Wright, "Numerical Optimization", Algorithm 7.1).

    Args:
      matrix: Multiplies a symmetric matrix with a list of tensors of the shapes of `right`.
      right: The right-hand side. Where it is not finite, it is the result.
      num_steps: The most steps, >= 1, a product each.

    Returns:
      x, and the number of products, int32 scalar.
    """
    right = list(right)
    square = _dot(right, right)
    zeros = [tf.zeros_like(tensor) for tensor in right]

    def going(
        step: Any, positive: Any, solution: Any, residual: Any, direction: Any, length: Any
    ) -> Any:
        del solution, residual, direction
        return (step < num_steps) & positive & (length > _TOLERANCE**2 * square)

    def advance(
        step: Any, positive: Any, solution: Any, residual: Any, direction: Any, length: Any
    ) -> Any:
        del positive
        product = matrix(direction)
        curvature = _dot(direction, product)
        positive = tf.logical_not(curvature <= 0)  # true of NaN, which has to be seen

        def forward() -> Any:
            rate = length / curvature
            moved = [x + rate * d for x, d in zip(solution, direction)]
            left = [r - rate * p for r, p in zip(residual, product)]
            new_length = _dot(left, left)
            turned = [r + new_length / length * d for r, d in zip(left, direction)]
            return moved, left, turned, new_length

        def stay() -> Any:
            kept = [tf.where(step == 0, b, x) for b, x in zip(right, solution)]
            return kept, residual, direction, length

        return (step + 1, positive, *tf.cond(positive, forward, stay))

    step, _, solution, *_ = tf.while_loop(
        going,
        advance,
        (tf.constant(0), tf.constant(True), zeros, right, right, square),
        parallel_iterations=1,
    )
    return [tf.where(step == 0, b, x) for b, x in zip(right, solution)], step


def _dot(one: Sequence[tf.Tensor], other: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(one, other)])
