"""Checks of values that users give, each with the sentence that says what is wrong.

Importing this needs no TensorFlow.
"""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any, Optional

SPLITS = ("random", "ordered", "same")


def check_choice(what: str, value: Any, choices: Iterable[str]) -> None:
    """Raises ValueError, listing the right ones, unless `value` is one of `choices`."""
    choices = list(choices)
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{what} must be one of: {', '.join(choices)}; got {value!r}.{hint}")


def check_count(what: str, value: Any, low: int, high: float = math.inf) -> None:
    """Raises ValueError, stating the range, unless `value` is a whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{what} must be a whole number, but is {value!r}.")
    check_number(what, value, low, high)


def check_number(what: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raises ValueError, stating the range, unless `value` is a finite number in [low, high]."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value)):
        raise ValueError(f"{what} must be a finite number, but is {value!r}.")
    if not low <= value <= high:
        limits = f">= {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{what} must be {limits}, but is {value}.")


def check_split(support_fraction: float, split: str = "random") -> None:
    """Raises ValueError unless `support_query.split_support_query` can use these values."""
    check_choice("split", split, SPLITS)
    if not (isinstance(support_fraction, numbers.Real) and 0 < support_fraction < 1):
        raise ValueError(
            f"support_fraction must lie between 0 and 1, both excluded, but is "
            f"{support_fraction!r}."
        )


def check_local_training(
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int],
    inner_steps: Optional[int],
) -> dict[str, int]:
    """Returns the one of `inner_epochs` and `inner_steps` that holds, 1 epoch if neither is given.

    Raises:
      ValueError: If a value is out of its range or both are given.
    """
    check_number("inner_learning_rate", inner_learning_rate, 0)
    check_count("batch_size", batch_size, 1)
    if inner_epochs is not None and inner_steps is not None:
        raise ValueError(
            "inner_epochs and inner_steps exclude each other, but both are given: "
            f"{inner_epochs} and {inner_steps}."
        )
    if inner_steps is not None:
        check_count("inner_steps", inner_steps, 0)
        return {"inner_steps": inner_steps}
    epochs = 1 if inner_epochs is None else inner_epochs
    check_count("inner_epochs", epochs, 0)
    return {"inner_epochs": epochs}
