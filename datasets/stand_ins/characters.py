"""Embedded synthetic characters: a stand-in for Omniglot that needs no download.

This is **not** Omniglot, and figures on it compare with each other only. A character is one to
three pen strokes, each a smooth curve through a few points; everybody who draws it moves the points
a little, and leans, stretches and shifts the whole. White is paper, as in Omniglot.
"""

from __future__ import annotations

import numpy as np

NUM_CLASSES = {"train": 300, "validation": 40, "test": 80}
IMAGES_PER_CLASS = 20

_FINE = 4  # pixels of the drawing per pixel of the image


def draw(image_size: int, channels: int) -> dict[str, list[np.ndarray]]:
    """Draws all characters: for each group its classes, uint8 [20, size, size, channels]."""
    return {
        group: [
            draw_class(np.random.default_rng([index, kind]), image_size, channels)
            for kind in range(num_classes)
        ]
        for index, (group, num_classes) in enumerate(NUM_CLASSES.items())
    }


def draw_class(rng: np.random.Generator, image_size: int, channels: int) -> np.ndarray:
    """Draws one character as 20 people do: uint8 [20, size, size, channels], 255 = paper."""
    strokes = [rng.uniform(-1, 1, [rng.integers(2, 6), 2]) for _ in range(rng.integers(1, 4))]
    images = [_draw_once(rng, strokes, image_size) for _ in range(IMAGES_PER_CLASS)]
    return np.repeat(np.stack(images)[..., np.newaxis], channels, axis=-1)


def _draw_once(rng: np.random.Generator, strokes: list[np.ndarray], image_size: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    side = _FINE * image_size
    lean = np.eye(2) + rng.normal(0, 0.12, [2, 2])
    shift = rng.normal(0, 0.06, 2)
    image = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        points = (stroke + rng.normal(0, 0.08, stroke.shape)) @ lean + shift
        curve = (0.5 + 0.34 * _smooth(points)) * side
        pen.line([tuple(point) for point in curve.tolist()], fill=0, width=round(side / 18))
    return np.asarray(image.reduce(_FINE))


def _smooth(points: np.ndarray) -> np.ndarray:
    """Returns a smooth curve through points [n, 2], n >= 2: Catmull and Rom's, [16 (n - 1), 2]."""
    ends = 2 * points[0] - points[1], 2 * points[-1] - points[-2]
    p = np.concatenate([ends[:1], points, ends[1:]])
    p0, p1, p2, p3 = (p[i : len(p) - 3 + i, np.newaxis] for i in range(4))
    t = np.linspace(0, 1, 16)[:, np.newaxis]
    curve = (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    ) / 2
    return curve.reshape(-1, 2)
