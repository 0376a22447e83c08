"""Second derivatives that TensorFlow lacks: those of images that are made larger, as U-Nets do.

Resizing is linear. The derivative of its gradient is therefore resizing itself.
"""

import contextlib
from typing import Any

import tensorflow as tf


def _resized(resize: Any) -> Any:
    def derivative(op: tf.Operation, upstream: tf.Tensor) -> list[Any]:
        resized = resize(
            images=upstream,
            size=tf.shape(op.inputs[0])[1:3],
            align_corners=op.get_attr("align_corners"),
            half_pixel_centers=op.get_attr("half_pixel_centers"),
        )
        return [tf.cast(resized, upstream.dtype), None]

    return derivative


def register() -> None:
    """Gives TensorFlow these derivatives, unless it has them by now."""
    for name, resize in (
        ("ResizeNearestNeighborGrad", tf.raw_ops.ResizeNearestNeighbor),
        ("ResizeBilinearGrad", tf.raw_ops.ResizeBilinear),
    ):
        with contextlib.suppress(KeyError):  # registered before
            tf.RegisterGradient(name)(_resized(resize))
