"""Embedded synthetic handwriting: a stand-in for federated EMNIST that needs no download.

This is **not** EMNIST, and figures on it compare with each other only. It has the structure of
TFF's EMNIST: 28x28 float32 images with 1.0 = paper and 0.0 = ink, int32 labels of 62 classes in
the order digits, upper case, lower case, about half of them digits, and one client per writer.

A writer starts from the typefaces that matplotlib ships and bends them: slant, rotation, pen
thickness, size, proportions and a smooth deformation of every character. What makes a writer
worth adapting to are habits that are consistent within a writer and ambiguous across writers:
how large lower case is beside upper case, which typeface draws which character, whether 0, 7
and z are crossed, and which look-alikes are swapped (1 l I, 0 O o, 5 S s, 2 Z z, 9 g q, ...).

Every writer is a pure function of (seed, index): no files, no order, some 25 milliseconds each.
"""

from __future__ import annotations

import functools
import importlib
import pathlib
import string
from typing import TYPE_CHECKING, Callable

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFont

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
NUM_WRITERS = 300

_IMAGE = 28  # pixels of an image's side
_CANVAS = 48  # pixels of a glyph's side
_CAP_HEIGHT = 24  # pixels of a capital on the canvas

# Typefaces whose every letter and digit is the right glyph. Bold ones are left out, because the
# thickness of a stroke belongs to the writer's pen. True: hairlines that need a broader pen.
_TYPEFACES = {
    "DejaVuSans": False,
    "DejaVuSans-Oblique": False,
    "DejaVuSansMono": False,
    "DejaVuSansMono-Oblique": False,
    "STIXGeneralItalic": True,
    "cmmi10": True,
    "cmr10": True,
    "cmss10": False,
    "cmtt10": False,
}

# Shapes a writer may borrow for a character; the more often one stands here, the likelier.
_LOOKALIKES = {
    "0": "OOo", "O": "0", "o": "0",
    "1": "lllI", "I": "l1", "l": "I1",
    "2": "Zz", "Z": "2", "z": "2",
    "5": "Ss", "S": "5", "s": "5",
    "6": "bG", "b": "6", "G": "6",
    "9": "qg", "g": "9q", "q": "9g",
    "4": "y", "y": "4", "7": "T", "8": "B", "B": "8",
    "D": "O", "J": "j", "U": "V", "V": "U", "u": "v", "v": "u",
    "n": "h", "h": "n", "r": "v", "a": "u", "e": "c", "f": "t", "t": "f",
}  # fmt: skip
_CROSSED = {"0": ((15, 33), (33, 15)), "7": ((17, 25), (31, 23)), "Z": ((17, 25), (31, 24))}
_CROSSED["z"] = _CROSSED["Z"]


def load(
    *, seed: int = 0, only_digits: bool = False, num_writers: int = NUM_WRITERS
) -> tuple[tuple[str, ...], Callable[[str], tuple[np.ndarray, np.ndarray]]]:
    """Returns the writers' ids and a function that makes one writer's examples.

    Args:
      seed: >= 0; fixes every writer.
      only_digits: Keep a writer's digits only (10 classes instead of 62).
      num_writers: >= 1; the first n of a larger population are the same writers.

    Returns:
      The ids ("embedded_0000", ...), and `read_client(id)` giving `(x, y)`: float32
      [n, 28, 28] in [0, 1] with 1.0 = paper, and int32 [n]. It raises KeyError for other ids.
    """
    index_of = {f"embedded_{index:04d}": index for index in range(num_writers)}

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        x, y = write(seed, index_of[client_id])
        return (x[y < 10], y[y < 10]) if only_digits else (x, y)

    return tuple(index_of), read_client


def write(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Writes all examples of writer `index`: x float32 [60..160, 28, 28], y int32 [60..160]."""
    rng = np.random.default_rng([seed, index])
    size, to_glyph, bend = _hand(rng)
    alphabet = _alphabet(rng, size)
    labels = _labels(rng)
    x = _trace(alphabet[labels], *_jitter(rng, to_glyph[labels], bend[labels]))
    return x, labels.astype(np.int32)


def _labels(rng: np.random.Generator) -> np.ndarray:
    """Draws 60 to 160 class indices, about half of them digits, in a random order."""
    weights = rng.gamma(3.0, size=len(CHARACTERS))
    weights[:10] /= weights[:10].sum()
    weights[10:] /= weights[10:].sum()
    return rng.choice(len(CHARACTERS), size=rng.integers(60, 161), p=weights / 2)


def _alphabet(rng: np.random.Generator, size: np.ndarray) -> np.ndarray:
    """Chooses the writer's shape for every class; ink in [0, 1], float32 [62, 48, 48].

    Args:
      rng: The writer's generator.
      size: Image pixels per canvas pixel of every class, [62]. One pen draws them all, so the
        more a glyph is enlarged, the thinner it must be.
    """
    typefaces = list(_TYPEFACES)
    main = rng.choice(typefaces)
    edge = rng.uniform(0.3, 0.65) + 0.5 * np.log(2 * size)  # where a blurred stroke ends
    edge = np.clip(edge, 0.2, 0.7)[:, None, None]
    shapes = []
    for character in CHARACTERS:
        shape, typeface, cross = character, main, rng.random() < 0.3
        if rng.random() < 0.3:
            typeface = rng.choice(typefaces)
        if rng.random() < 0.15 and character in _LOOKALIKES:
            shape = rng.choice(list(_LOOKALIKES[character]))
        shapes.append(_glyph(str(shape), str(typeface), bool(cross and character in _CROSSED)))
    return np.clip((np.stack(shapes) - edge) * 4 + 0.5, 0, 1).astype(np.float32)


def _hand(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws the writer's geometry of every class.

    Returns:
      The size in image pixels per canvas pixel, float [62]; the map from image to canvas
      coordinates, float [62, 2, 2] (y before x); and the smooth deformation at 4x4 control
      points in canvas pixels, float [62, 2, 4, 4].
    """
    num = len(CHARACTERS)
    cap, digit, small = rng.uniform(10, 16), rng.uniform(0.75, 1.1), rng.uniform(0.9, 1.8)
    size = np.full(num, cap / _CAP_HEIGHT)
    size[:10] *= digit
    size[36:] *= np.where([c in "bdfhijklt" for c in CHARACTERS[36:]], small**0.3, small)
    size *= np.exp(rng.normal(0, 0.08, num))
    width = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.1, num))
    slant = rng.normal(0.12, 0.25) + rng.normal(0, 0.06, num)
    angle = rng.normal(0, 0.1) + rng.normal(0, 0.05, num)
    bend = rng.normal(0, 0.8, (1, 2, 4, 4)) + rng.normal(0, 1.1, (num, 2, 4, 4))
    return size, _inverse_affine(size, size * width, slant, angle), bend


def _inverse_affine(
    height: np.ndarray, width: np.ndarray, slant: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Returns [n, 2, 2]: undo a rotation, then a slant, then the scales of y and x."""
    cos, sin, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 1 + 0 * angle
    rotate = np.array([[cos, sin], [-sin, cos]])
    lean = np.array([[one, zero], [slant, one]])
    scale = np.array([[1 / height, zero], [zero, 1 / width]])
    return np.einsum("ijn,jkn,kln->nil", scale, lean, rotate)


def _jitter(
    rng: np.random.Generator, to_glyph: np.ndarray, bend: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Varies the writer's geometry a little for each of n examples and adds shifts [n, 2]."""
    n = len(to_glyph)
    wobble = _inverse_affine(
        np.exp(rng.normal(0, 0.06, n)),
        np.exp(rng.normal(0, 0.06, n)),
        rng.normal(0, 0.06, n),
        rng.normal(0, 0.06, n),
    )
    return to_glyph @ wobble, bend + rng.normal(0, 0.7, bend.shape), rng.normal(0, 0.7, (n, 2))


def _trace(
    glyphs: np.ndarray, to_glyph: np.ndarray, bend: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Samples glyphs [n, 48, 48] through their geometry into images [n, 28, 28]; 1.0 = paper."""
    n, fine = len(glyphs), 2 * _IMAGE  # twice as fine, then averaged: smooth edges
    axis = (np.arange(fine) + 0.5) / 2 - _IMAGE / 2
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij")).reshape(2, -1)
    source = to_glyph @ (grid[None] - shift[:, :, None])
    smooth = np.exp(-0.5 * ((axis[:, None] - np.array([-6, -2, 2, 6])) / 2.5) ** 2)
    smooth /= smooth.sum(axis=1, keepdims=True)
    source += (smooth @ bend @ smooth.T).reshape(n, 2, -1)
    ink = _bilinear(glyphs, source.astype(np.float32) + (_CANVAS - 1) / 2)
    ink = ink.reshape(n, _IMAGE, 2, _IMAGE, 2).mean(axis=(2, 4))
    return (1.0 - ink).astype(np.float32)


def _bilinear(images: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolates images [n, h, w], empty at their rim, at points [n, 2, m]; gives [n, m]."""
    n, height, width = images.shape
    y = np.clip(at[:, 0], 0, height - 1.001)
    x = np.clip(at[:, 1], 0, width - 1.001)
    row, column = y.astype(np.int32), x.astype(np.int32)
    y, x = y - row, x - column
    flat = images.reshape(-1)
    first = (np.arange(n, dtype=np.int32)[:, None] * height + row) * width + column
    above = flat[first] * (1 - x) + flat[first + 1] * x
    below = flat[first + width] * (1 - x) + flat[first + width + 1] * x
    return above * (1 - y) + below * y


@functools.cache
def _glyph(character: str, typeface: str, cross: bool) -> np.ndarray:
    """Draws a character, its ink centred on the canvas and slightly blurred; [48, 48] in [0, 1]."""
    from PIL import Image, ImageDraw, ImageFilter

    font = _font(typeface)
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    centre = (_CANVAS - left - right) / 2, (_CANVAS - top - bottom) / 2
    image = Image.new("L", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(image)
    draw.text(centre, character, font=font, fill=255, anchor="ls")
    if _TYPEFACES[typeface]:
        image = image.filter(ImageFilter.MaxFilter(3))
    if cross:
        ImageDraw.Draw(image).line(_CROSSED["z" if character in "zZ2" else "7"], fill=255, width=3)
    image = image.filter(ImageFilter.GaussianBlur(1.0))
    return np.asarray(image, np.float32) / 255.0


@functools.cache
def _font(typeface: str) -> ImageFont.FreeTypeFont:
    """Opens a typeface at the size that makes its capitals as high as they should be."""
    from PIL import ImageFont

    # Imported by name to keep mypy out of it: newer releases use syntax that Python 3.9 lacks.
    matplotlib = importlib.import_module("matplotlib")
    path = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{typeface}.ttf"
    _, top, _, bottom = ImageFont.truetype(str(path), 100).getbbox("H", anchor="ls")
    return ImageFont.truetype(str(path), round(100 * _CAP_HEIGHT / (bottom - top)))
