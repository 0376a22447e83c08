"""Confusion matrices: which classes are taken for which, over all test clients, after adapting.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tff_fedmeta.experiment.results import Results

FILE = "confusion.json"
PLOT = "confusion.png"
_COLUMNS = 3
_MOST_WRITTEN = 12  # classes: of more, the numbers would not be legible


def counts(found: Results) -> dict[str, Any] | None:
    """Returns {"classes": names, "algorithms": {name: {"before" | "after": counts}}}.

    Counts are [class, predicted class], of all query examples of all test clients. None: the task
    has no classes to confuse.
    """
    confused = {
        name: measured["confusion"]
        for name, measured in found.measured.items()
        if "confusion" in measured
    }
    if not confused:
        return None
    some = next(iter(confused.values()))
    return {
        "classes": some["classes"] or [str(number) for number in range(len(some["after"]))],
        "algorithms": {
            name: {way: ways[way] for way in ("before", "after")} for name, ways in confused.items()
        },
    }


def plot(confused: Mapping[str, Any]) -> Figure:
    """Draws a matrix for each algorithm; a row adds up to 1, in it stand the counts."""
    names, algorithms = confused["classes"], confused["algorithms"]
    columns = min(_COLUMNS, len(algorithms))
    rows = -(-len(algorithms) // columns)
    figure = Figure(figsize=(6 * columns, 5.5 * rows), layout="constrained")
    figure.suptitle("Test clients after adapting: examples of each class, by predicted class")
    every = figure.subplots(rows, columns, squeeze=False).flat
    for (name, ways), axes in zip(algorithms.items(), every):
        matrix = np.array(ways["after"])
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(names))
        axes.set(title=name, xlabel="predicted", ylabel="class")
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
        for (row, column), count in np.ndenumerate(matrix):
            if len(names) <= _MOST_WRITTEN:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    for axes in every:
        axes.axis("off")
    return figure
