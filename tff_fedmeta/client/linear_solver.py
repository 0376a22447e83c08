"""Conjugate gradient on lists of tensors, with a matrix that is known by its products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

# The residual's length, in lengths of the right-hand side, below which float32 has no more to give.
_TOLERANCE = 1e-6


def conjugate_gradient(
    multiply: Callable[[Sequence[tf.Tensor]], list[tf.Tensor]],
    scale: float,
    right: Sequence[tf.Tensor],
    num_steps: int,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Solves (I + scale * M) x = right from x = 0 (Hestenes and Stiefel, 1952).

    It ends early where the residual vanishes, and where the matrix is not positive: x is then what
    it was, or `right` itself in the first step, as in Newton's method with conjugate gradient
    (Nocedal and Wright, "Numerical Optimization", Algorithm 7.1).

    Half of its time is the memory that vectors as long as a network take: each line below passes
    over them as seldom as it can.

    Args:
      multiply: Multiplies M, which is symmetric, with a list of tensors of the shapes of `right`.
      scale: What M is multiplied with.
      right: The right-hand side. Where it is not finite, it is the result.
      num_steps: The most steps, >= 1, a product each.

    Returns:
      x, and the number of products, int32 scalar.
    """
    right = list(right)
    square = _square(right)
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
        product = multiply(direction)
        curvature = _square(direction) + scale * _dot(direction, product)
        positive = tf.logical_not(curvature <= 0)  # true of NaN, which has to be seen

        def forward() -> Any:
            rate = -length / curvature
            back = [rate * d for d in direction]
            moved = [x - b for x, b in zip(solution, back)]

            def onward() -> Any:
                left = [
                    tf.add_n([r, b, rate * scale * p]) for r, b, p in zip(residual, back, product)
                ]
                new_length = _square(left)
                turn = new_length / length
                return left, [r + turn * d for r, d in zip(left, direction)], new_length

            last = tf.equal(step + 1, num_steps)
            return moved, *tf.cond(last, lambda: (residual, direction, length), onward)

        def stay() -> Any:
            # Not step == 0, which is no comparison in the graphs that TFF makes.
            begun = tf.cond(tf.equal(step, 0), lambda: right, lambda: solution)
            return begun, residual, direction, length

        return (step + 1, positive, *tf.cond(positive, forward, stay))

    step, _, solution, *_ = tf.while_loop(
        going,
        advance,
        (tf.constant(0), tf.constant(True), zeros, right, right, square),
        parallel_iterations=1,
    )
    return tf.cond(tf.equal(step, 0), lambda: right, lambda: solution), step


def _dot(one: Sequence[tf.Tensor], other: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(one, other)])


def _square(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the sum of all squares, without a copy of them."""
    return 2 * tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors])
