"""Embedded synthetic smart homes: a stand-in for a table of one's own that needs no file.

Every household has a row for each quarter of an hour of some days: what its sensors read, and what
its people were doing. These are **not** measurements, and figures on them compare with each other
only. They go the way of any table: strings, missing values and time included.

What makes a household worth adapting to are habits that are consistent within it and ambiguous
across households: which motion sensor hangs in which room, where its people eat, work and relax,
when they sleep, and what their appliances draw.

    python -m datasets.household homes.csv    # the table as a file, to try the options with
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

NUM_HOUSEHOLDS = 60
ACTIVITIES = ("away", "cook", "relax", "sleep", "work")

# The columns' part in the task, and windows of two hours that begin every hour.
OPTIONS = {
    "client_column": "household",
    "label_column": "activity",
    "time_column": "time",
    "window": 8,
    "window_stride": 4,
}

_SLOTS = 96  # quarters of an hour in a day
_DAYS = 10
_SENSORS = 5  # of motion
_START = "2024-01-01"


def table(seed: int = 0, num_households: int = NUM_HOUSEHOLDS) -> pd.DataFrame:
    """Returns 960 rows for each household: household, time, nine sensors and the activity.

    Args:
      seed: >= 0; fixes every household.
      num_households: >= 1; the first n of more are the same households.
    """
    import pandas as pd

    return pd.concat(
        [_household(seed, index) for index in range(num_households)], ignore_index=True
    )


def _household(seed: int, index: int) -> pd.DataFrame:
    import pandas as pd

    rng = np.random.default_rng([seed, index])
    rise, bed = rng.normal(6.5, 1.2), rng.normal(22.8, 1.0)
    activity = _days(rng, rise, bed)
    num = len(activity)
    slot = np.arange(num)
    hour = (slot % _SLOTS) / 4
    # Which sensor sees an activity is the household's own; the last two may share a room.
    sensor = rng.permutation(_SENSORS)[[0, 1, 2, 3, rng.choice([2, 3, 4])]]
    motion_of = np.array([0.0, 4.0, 3.0, 0.7, 2.5]) * rng.uniform(0.6, 1.6, 5)
    power_of = np.array([0.0, 600.0, 150.0, 10.0, 150.0]) * rng.lognormal(0, 0.7, 5)
    rates = np.full((num, _SENSORS), rng.uniform(0.1, 0.3))  # pets, draughts, passing through
    rates[slot, sensor[activity]] += motion_of[activity]
    motion = rng.poisson(rates)
    power = rng.uniform(80, 300) + power_of[activity] * rng.gamma(4, 0.25, num)
    heated = (hour > rise - 1) & (hour < bed - 1)
    temperature = rng.uniform(19, 23) - 2.5 * _lagging(~heated) + rng.normal(0, 0.2, num)
    temperature[rng.random(num) < 0.02] = np.nan  # a radio sensor that drops out
    return pd.DataFrame(
        {
            "household": f"home_{index:03d}",
            "time": pd.Timestamp(_START) + pd.to_timedelta(15 * slot, unit="min"),
            **{f"motion_{s + 1}": motion[:, s] for s in range(_SENSORS)},
            "power": power.round(1),
            "temperature": temperature.round(2),
            "heating": np.where(heated, "comfort", "eco"),
            "hour": hour,
            "activity": np.array(ACTIVITIES)[activity],
        }
    )


def _days(rng: np.random.Generator, rise: float, bed: float) -> np.ndarray:
    """Draws what is done in each quarter of an hour: indices of activities, [960].

    Args:
      rng: The household's generator.
      rise: The hour of getting up.
      bed: The hour of going to bed.
    """
    away, cook, relax, sleep, work = range(5)
    dinner = rng.normal(18.5, 1.0)
    daytime = [away, work] if rng.random() < 0.6 else [work, away]
    usually, evening_work = rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.5)
    days = []
    for day in range(_DAYS):
        hour = np.arange(_SLOTS) / 4 + rng.normal(0, 0.3)
        dice = rng.random(_SLOTS // 8).repeat(8)  # plans change every two hours
        activity = np.full(_SLOTS, relax)
        busy = (hour > rise + 1.5) & (hour < dinner - 1)
        first, second = (relax, away) if day % 7 >= 5 else daytime
        activity[busy] = np.where(dice < usually, first, second)[busy]
        activity[(hour > dinner + 1) & (dice < evening_work)] = work
        activity[(hour > dinner - 0.75) & (hour < dinner + 0.5)] = cook
        activity[(hour > rise) & (hour < rise + 0.75)] = cook
        activity[(hour < rise) | (hour > bed)] = sleep
        days.append(activity)
    return np.concatenate(days)


def _lagging(signal: np.ndarray) -> np.ndarray:
    """Follows a signal [n] of 0 and 1 as a house cools: an eighth of the way in each step."""
    followed, level = np.empty(len(signal)), 0.0
    for index, value in enumerate(signal):
        level += (value - level) / 8
        followed[index] = level
    return followed


if __name__ == "__main__":
    table().to_csv(sys.argv[1], index=False)
