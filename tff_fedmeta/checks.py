"""Checks of values that users give, each with the sentence that says what is wrong.

Importing this needs no TensorFlow.
"""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any, Optional

MOST_INTEGER = 2**31 - 1  # what an int32 holds
_FLOAT32 = (1.2e-38, 3.4e38)  # the smallest and largest float32 above 0 in full precision

SPLITS = ("random", "ordered", "same")


def check_choice(what: str, value: Any, choices: Iterable[str]) -> None:
    """Raises ValueError, listing the right ones, unless `value` is one of `choices`."""
    choices = list(choices)
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{what} must be one of: {', '.join(choices)}; got {value!r}.{hint}")


def check_integer(what: str, value: Any) -> None:
    """Raises ValueError unless `value` is a whole number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{what} must be a whole number, but is {value!r}.")


def check_count(what: str, value: Any, low: int, high: float = math.inf) -> None:
    """Raises ValueError, stating the range, unless `value` is a whole number in [low, high]."""
    check_integer(what, value)
    check_number(what, value, low, high)
    if value > MOST_INTEGER:
        raise ValueError(f"{what} must be at most {MOST_INTEGER}, but is {value}.")


def check_limits(
    what: str,
    value: Any,
    *,
    at_least: Optional[float] = None,
    above: Optional[float] = None,
    at_most: Optional[float] = None,
    below: Optional[float] = None,
) -> None:
    """Raises ValueError unless `value` is a finite number within the limits that are given."""
    if above is not None and below is not None:
        if not (_is_number(value) and above < value < below):
            raise ValueError(
                f"{what} must lie between {above:g} and {below:g}, both excluded, but is {value!r}."
            )
        return
    low = -math.inf if at_least is None else at_least
    check_number(what, value, low, math.inf if at_most is None else at_most)
    if above is not None and not value > above:
        raise ValueError(f"{what} must be greater than {above:g}, but is {value}.")
    if below is not None and not value < below:
        raise ValueError(f"{what} must be less than {below:g}, but is {value}.")


def check_number(what: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raises ValueError, stating the range, unless `value` is a finite number in [low, high]."""
    if not (_is_number(value) and (isinstance(value, numbers.Integral) or math.isfinite(value))):
        raise ValueError(f"{what} must be a finite number, but is {value!r}.")
    if isinstance(value, float) and value and not _FLOAT32[0] <= abs(value) <= _FLOAT32[1]:
        there = "0" if abs(value) < 1 else "infinite"
        raise ValueError(f"{what} must fit float32, where {value!r} is {there}.")
    if not low <= value <= high:
        least, most = (f"{n:g}" if isinstance(n, float) else f"{n}" for n in (low, high))
        limits = f">= {least}" if high == math.inf else f"from {least} to {most}"
        limits = f"<= {most}" if low == -math.inf else limits
        raise ValueError(f"{what} must be {limits}, but is {value}.")


def check_split(support_fraction: float, split: str = "random") -> None:
    """Raises ValueError unless `support_query.split_support_query` can use these values."""
    check_choice("split", split, SPLITS)
    check_limits("support_fraction", support_fraction, above=0, below=1)


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


def check_proximal_training(
    proximal_strength: float, inner_epochs: Optional[int], inner_steps: Optional[int]
) -> None:
    """Raises ValueError unless a method whose steps are held to their start can use the values."""
    check_number("proximal_strength", proximal_strength, 0)
    if not proximal_strength:
        raise ValueError(
            "proximal_strength must be > 0, as the method divides by it or moves in proportion to "
            "it; without a pull to the start use Reptile or MAML."
        )
    check_some_training(inner_epochs, inner_steps)


def check_some_training(inner_epochs: Optional[int], inner_steps: Optional[int]) -> None:
    """Raises ValueError unless there is at least one epoch or step, of what is given."""
    for what, value in (("inner_steps", inner_steps), ("inner_epochs", inner_epochs)):
        if value is not None:
            check_count(what, value, 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
