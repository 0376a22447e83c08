"""How predictions for a table are judged beside the metric, and against which simple guesses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from datasets.tables import metrics
from datasets.task import Measures

_Predict = Callable[[np.ndarray], np.ndarray]
_Figures = dict[str, dict[str, float]]

_CLASSES_IN_WORDS = (
    "*balanced accuracy* is the mean over the classes of a client's query of how many of each are "
    "found; *macro F1* the mean of their F1; *AUC* the area under the ROC curve (two classes). "
    "*majority*: always the class that training clients have most of; *own majority*: the class "
    "that the client's support has most of."
)
_QUANTITIES_IN_WORDS = (
    "*mae* and *rmse* are in the label's units. *mean*: always the mean of training clients; *own "
    "mean*: the mean of the client's support; *own last value*: the last of its support; *last "
    "known value*: in forecasts, the label's value in the last row of each example."
)


def of_classes(majority: int, num_classes: int) -> Measures:
    """Returns the measures of a classification.

    Args:
      majority: The class that training clients have most of.
      num_classes: How many there are.
    """

    def of_client(
        support: Any, query: Any, before: _Predict, after: _Predict, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        del seed
        x, y = query[0], _classes(query[1])
        own = int(np.bincount(_classes(support[1]), minlength=num_classes).argmax())
        figures: _Figures = {
            way: _class_figures(y, logits.argmax(axis=1), _margin(logits))
            for way, logits in (("before", before(x)), ("after", after(x)))
        }
        for way, guess in (("majority", majority), ("own majority", own)):
            figures[way] = _class_figures(y, np.full(len(y), guess), np.zeros(len(y)))
        return figures

    def confusion(query: Any, predict: _Predict) -> np.ndarray:
        from sklearn import metrics as reference

        found = predict(query[0]).argmax(axis=1)
        return reference.confusion_matrix(_classes(query[1]), found, labels=range(num_classes))

    return Measures(of_client, _CLASSES_IN_WORDS, confusion)


def of_quantities(
    scale: float, last_known: Callable[[np.ndarray], np.ndarray] | None = None
) -> Measures:
    """Returns the measures of a regression.

    Args:
      scale: What labels were standardised by.
      last_known: x -> the label as the last row of each example has it, standardised, [n]; None: it
        is not known there.
    """

    def of_client(
        support: Any, query: Any, before: _Predict, after: _Predict, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        del seed
        x, y = query[0], metrics.label_of(query[1])
        own = metrics.label_of(support[1])
        guesses = {
            "before": before(x),
            "after": after(x),
            "mean": 0.0,  # standardised
            "own mean": own.mean(),
            "own last value": own[-1],
        }
        if last_known is not None:
            guesses["last known value"] = last_known(x)
        errors = {
            way: scale * (np.reshape(guess, -1).astype(np.float64) - y.reshape(-1))
            for way, guess in guesses.items()
        }
        return {
            way: {
                "mae": float(np.abs(error).mean()),
                "rmse": float(np.sqrt(np.square(error).mean())),
            }
            for way, error in errors.items()
        }

    return Measures(of_client, _QUANTITIES_IN_WORDS)


def _classes(y: np.ndarray) -> np.ndarray:
    return metrics.label_of(y).astype(int)


def _class_figures(y: np.ndarray, found: np.ndarray, margin: np.ndarray | None) -> dict[str, float]:
    from sklearn import metrics as reference

    classes = np.unique(y)  # classes of the query alone: the others have no rows to find
    figures = {
        "accuracy": float(reference.accuracy_score(y, found)),
        "balanced accuracy": float(
            reference.recall_score(y, found, labels=classes, average="macro", zero_division=0)
        ),
        "macro F1": float(
            reference.f1_score(y, found, labels=classes, average="macro", zero_division=0)
        ),
    }
    if margin is not None and len(classes) == 2 and np.isfinite(margin).all():
        figures["AUC"] = float(reference.roc_auc_score(y, margin))
    return figures


def _margin(logits: np.ndarray) -> np.ndarray | None:
    """Returns how far the second of two classes is ahead, [n]; None where there are others."""
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else None
