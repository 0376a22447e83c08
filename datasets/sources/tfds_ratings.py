"""Ratings of movies in TensorFlow Datasets' form, such as movielens/100k-ratings."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from datasets.sources import tfds_files
from datasets.stand_ins.ratings import Ratings
from datasets.task import DataError

FEATURES = ("user_id", "movie_id", "user_rating", "timestamp")
TITLE = "movie_title"  # for people only: files without it do
_MOST_STARS = 5
_BATCH = 10_000  # ratings read at once


def read(files: tfds_files.TfdsDataset) -> tuple[dict[str, Ratings], dict[str, str]]:
    """Reads every user's ratings through TFDS, in the order of time, and the movies' titles.

    Raises:
      DataError: If a file is damaged, or a rating is not a finite number.
    """
    import tensorflow_datasets as tfds

    if TITLE in files.find().info.features:
        files = dataclasses.replace(files, features=(*FEATURES, TITLE))
    with files.reading():
        batches = list(tfds.as_numpy(files.examples("train").batch(_BATCH)))
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in files.features}
    users, movies, titles = (
        np.array([_text(value) for value in columns.get(name, columns["movie_id"])])
        for name in ("user_id", "movie_id", TITLE)
    )
    try:
        stars = columns["user_rating"].astype(np.float32)
    except ValueError:
        stars = np.array([np.nan])
    if not np.isfinite(stars).all():
        raise DataError(f"Every user_rating of {files.name} must be a finite number: not all are.")
    if (stars < 0).any() or (stars > _MOST_STARS).any():
        worst = int(np.argmax(np.abs(stars - _MOST_STARS / 2)))
        raise DataError(
            f"Every user_rating of {files.name} must lie between 0 and {_MOST_STARS}, but user "
            f"{users[worst]!r} has one of {stars[worst]:g}."
        )
    return by_user(users, movies, stars, columns["timestamp"]), dict(
        zip(movies.tolist(), titles.tolist())
    )


def by_user(
    users: np.ndarray, movies: np.ndarray, stars: np.ndarray, times: np.ndarray
) -> dict[str, Ratings]:
    """Returns every user's ratings in the order of time."""
    # Ratings of the same second have no order of their own; any will do, if it is always the same.
    order = np.lexsort((movies, times, users))
    table = Ratings(movies[order], stars[order], times[order])
    names, first = np.unique(users[order], return_index=True)
    parts = [np.split(column, first[1:]) for column in table]
    return {str(name): Ratings(*part) for name, *part in zip(names, *parts)}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
