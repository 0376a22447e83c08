"""Embedded synthetic ratings: a stand-in for rated movies that needs no download.

This is **not** MovieLens, and figures on it compare with each other only. A movie has a quality and
a place in a space of tastes, a user a mood and a taste: the rating is the mean, plus the movie's
quality, the user's mood and how well the two tastes agree, plus noise, rounded to 1 to 5. A few
movies are seen by many (Zipf's law), and users see what they will like a little more often. Mood
and taste are what makes a user worth adapting to.

Everything is a pure function of the seed; every user, of the seed and an index.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

NUM_USERS = 400
NUM_MOVIES = 400
NUM_RATINGS = (20, 160)  # the fewest and the most that a user gives

_MEAN = 3.4
_NUM_TASTES = 4
_QUALITY, _MOOD, _AGREEMENT, _NOISE = 0.4, 0.5, 0.7, 0.6  # standard deviations, in stars
_CURIOSITY = 0.5  # how much more often a movie is seen for each star that it will get
_START = 874_724_710  # of the first rating, in seconds since 1970
_BETWEEN = 3_600  # seconds between a user's ratings, on average


class Ratings(NamedTuple):
    """Ratings in the order in which they were given.

    Attributes:
      movies: Ids of the movies, strings [n], each at most once.
      stars: float32 [n], from 1 to 5.
      times: int64 [n], seconds since 1970, ascending.
    """

    movies: np.ndarray
    stars: np.ndarray
    times: np.ndarray


def client_ids() -> tuple[str, ...]:
    """Returns the users' ids: "embedded_0000" and so on."""
    return tuple(f"embedded_{index:04d}" for index in range(NUM_USERS))


def rate(seed: int, client_id: str) -> Ratings:
    """Returns a user's 20 to 160 ratings.

    Args:
      seed: >= 0.
      client_id: One of `client_ids`.

    Raises:
      KeyError: If there is no such user.
    """
    if client_id not in client_ids():
        raise KeyError(client_id)
    movies = _movies(seed)
    rng = np.random.default_rng([seed, 1, int(client_id.rpartition("_")[2])])
    agreement = movies.tastes @ rng.normal(size=_NUM_TASTES) / np.sqrt(_NUM_TASTES)
    liking = movies.quality + rng.normal(0, _MOOD) + _AGREEMENT * agreement
    fewest, most = NUM_RATINGS
    count = round(np.exp(rng.uniform(np.log(fewest), np.log(most))))  # most users give few
    # The largest sums with Gumbel noise are a draw without replacement, in its order.
    chances = movies.log_popularity + _CURIOSITY * liking
    seen = np.argsort(-(chances + rng.gumbel(size=NUM_MOVIES)))[:count]
    rng.shuffle(seen)
    stars = np.clip(np.round(_MEAN + liking[seen] + rng.normal(0, _NOISE, count)), 1, 5)
    times = _START + np.cumsum(rng.exponential(_BETWEEN, count)).astype(np.int64)
    return Ratings(np.array([f"m{movie:04d}" for movie in seen]), stars.astype(np.float32), times)


class _Movies(NamedTuple):
    """All movies: each attribute is float64 [NUM_MOVIES, ...]."""

    quality: np.ndarray
    tastes: np.ndarray
    log_popularity: np.ndarray


@functools.cache
def _movies(seed: int) -> _Movies:
    rng = np.random.default_rng([seed, 0])
    return _Movies(
        rng.normal(0, _QUALITY, NUM_MOVIES),
        rng.normal(size=[NUM_MOVIES, _NUM_TASTES]),
        -np.log(1.0 + rng.permutation(NUM_MOVIES)),
    )
