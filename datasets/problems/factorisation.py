"""Matrix factorisation with one user a model: movies are vectors, and so is the last layer.

What is known of movies, which ones there are and the mean rating, comes from training clients.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np

from datasets.stand_ins.ratings import Ratings
from datasets.task import DataError, initializer_seeds

if TYPE_CHECKING:
    import tensorflow as tf

# Movies with fewer ratings by training clients share the id of unknown ones: nothing can be learnt
# of them, and an id that is never trained would predict noise for movies that are new.
MIN_RATINGS = 3
_UNKNOWN = 0


class Movies(NamedTuple):
    """The movies that have an id of their own, from 1, in the order of popularity.

    Attributes:
      ids: MovieLens's id of each movie; the first, of all unknown ones, is "".
      num_ratings: How often training clients rated it, int64; 0 for the first.
      mean_rating: Mean of all ratings by training clients.
    """

    ids: tuple[str, ...]
    num_ratings: np.ndarray
    mean_rating: float


def list_movies(ratings: Sequence[Ratings]) -> Movies:
    """Lists the movies that training clients rated often enough, and what they think of movies.

    Raises:
      DataError: If no movie was rated by `MIN_RATINGS` of them.
    """
    counts = collections.Counter(np.concatenate([part.movies for part in ratings]).tolist())
    known = sorted((-count, movie) for movie, count in counts.items() if count >= MIN_RATINGS)
    if not known:
        raise DataError(
            f"Movies that {MIN_RATINGS} training users rated are needed to learn anything, but "
            f"there are none among the {len(counts)} of {len(ratings)} users: use more ratings."
        )
    stars = np.concatenate([part.stars for part in ratings])
    return Movies(
        ("", *(movie for _, movie in known)),
        np.array([0, *(-count for count, _ in known)], np.int64),
        float(np.mean(stars, dtype=np.float64)),
    )


def build_reader(
    ratings: Mapping[str, Ratings], movies: Movies
) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """Returns what reads a user: x int32 [n, 1], places of movies, and y float32 [n, 1]."""
    places = {movie: place for place, movie in enumerate(movies.ids)}

    def read_client(client_id: str) -> tuple[np.ndarray, np.ndarray]:
        of_user = ratings[client_id]
        x = [places.get(movie, _UNKNOWN) for movie in of_user.movies.tolist()]
        return np.array(x, np.int32)[:, np.newaxis], of_user.stars[:, np.newaxis]

    return read_client


def build_model(seed: int, num_movies: int, taste_size: int, mean_rating: float) -> tf.keras.Model:
    """Builds the network: the movie's vector times the user's, plus the user's constant.

    Args:
      seed: >= 0; fixes the initial weights, each layer's with a seed of its own.
      num_movies: Number of movies, including the one row for all unknown movies.
      taste_size: Numbers in a vector.
      mean_rating: What the user's constant starts from.

    Returns:
      An uncompiled model from int32 [n, 1] to float32 [n, 1].
    """
    import tensorflow as tf

    layers, initializers = tf.keras.layers, tf.keras.initializers
    seeds = initializer_seeds(seed, 2)
    return tf.keras.Sequential(
        [
            tf.keras.Input([1], dtype=tf.int32),
            layers.Embedding(
                num_movies,
                taste_size,
                initializers.RandomNormal(stddev=0.1, seed=seeds[0]),
            ),
            layers.Flatten(),
            layers.Dense(
                1,
                kernel_initializer=initializers.GlorotUniform(seeds[1]),
                bias_initializer=initializers.Constant(mean_rating),
            ),
        ]
    )
