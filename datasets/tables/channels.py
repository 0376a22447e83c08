"""What the numbers are that an encoded row consists of: their names, mean and scale."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.tables.columns import Fitted


def names(features: Sequence[Fitted]) -> list[str]:
    """Names what `encode` gives for each row, e.g. "power", "power is missing", "mode=eco"."""
    names = []
    for feature in features:
        column = feature["column"]
        if "clock" in feature:
            names += _clock_names(feature)
        elif "ids" in feature:
            names.append(f"place of {column} among the ids")
        elif "categories" in feature:
            names += [
                f"{column} is missing" if category is None else f"{column}={category}"
                for category in feature["categories"]
            ]
        else:
            names += [column, f"{column} is missing"] if feature["indicator"] else [column]
    return names


def place_of(features: Sequence[Fitted], column: str) -> int | None:
    """Returns which number of a row is a column's value; None: it is not a number there."""
    place = 0
    for feature in features:
        if feature["column"] == column and "mean" in feature:
            return place
        place += len(names([feature]))
    return None


def normalisation(features: Sequence[Fitted]) -> tuple[list[float], list[float]]:
    """Returns mean and scale of each number that `encode` gives; 0 and 1 for flags."""
    mean: list[float] = []
    scale: list[float] = []
    for feature in features:
        if "clock" in feature:
            others = len(_clock_names(feature))
        elif "ids" in feature:
            others = 1
        elif "categories" in feature:
            others = len(feature["categories"])
        else:
            mean.append(feature["mean"] - feature["offset"])
            scale.append(feature["scale"])
            others = int(feature["indicator"])
        mean += [0.0] * others
        scale += [1.0] * others
    return mean, scale


def _clock_names(feature: Fitted) -> list[str]:
    from datasets.tables import prepare

    if feature["clock"] == "weekday":
        return list(prepare.WEEKDAYS)
    return ["time of day, sine", "time of day, cosine"]
