"""What recommendations are measured by beside the error: are liked movies found among others?

Hit-rate@10, after He et al., 2017 (arXiv:1708.05031, section 4.1): each movie that a user liked is
ranked among 100 that the user has not rated, and found if it is among the first ten.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

LIKED = 4.0  # stars, and more
NUM_OTHERS = 100
NUM_SHOWN = 10

EXPLANATION = (
    f"*hit-rate@{NUM_SHOWN}*: the share of the movies a client liked ({LIKED:g} stars or more in "
    f"its query) that are among the first {NUM_SHOWN} when ranked by predicted rating with "
    f"{NUM_OTHERS} movies, drawn from those the client has not rated; of equals the others come "
    "first. *global mean* predicts the mean of the training clients' ratings, *user mean* the "
    "mean of the client's support; *most popular* ranks by the number of training clients' ratings."
)

Examples = tuple[np.ndarray, np.ndarray]
Predict = Callable[[np.ndarray], np.ndarray]


def measure_client(
    num_ratings: np.ndarray,
    mean_rating: float,
    support: Examples,
    query: Examples,
    before: Predict,
    after: Predict,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Measures one client, as `task.Measures` does.

    Args:
      num_ratings: How often training clients rated each movie, [number of movies]; movie 0 stands
        for all unknown ones and is never among those that a liked movie is ranked with.
      mean_rating: The mean of training clients' ratings.
      support: The examples adapted on: movies [n, 1] and stars [n, 1].
      query: Those measured on, in the same form.
      before: Predicts stars [n, 1] of movies [n, 1] with the trained model.
      after: The same with the adapted one.
      seed: >= 0; fixes which movies liked ones are ranked with.

    Returns:
      For each way to predict its "rmse" and "hit-rate@10", as far as it has them. There is no
      hit-rate where the query has no liked movie, or fewer than 100 others are left.
    """
    (x, y), support_mean = query, np.mean(support[1], dtype=np.float64)
    rated = np.union1d(support[0], x)
    others = np.setdiff1d(np.arange(1, len(num_ratings)), rated)
    liked = x[y >= LIKED]

    def rmse(predicted: Any) -> dict[str, float]:
        return {"rmse": float(np.sqrt(np.mean(np.square(predicted - y, dtype=np.float64))))}

    def hit_rate(scores: np.ndarray) -> dict[str, float]:
        if not liked.size or others.size < NUM_OTHERS:
            return {}
        rng = np.random.default_rng(seed)  # the same draws for every way to predict
        return {f"hit-rate@{NUM_SHOWN}": float(np.mean(find(scores, liked, others, rng)))}

    everything = np.arange(len(num_ratings), dtype=x.dtype)[:, np.newaxis]
    return {
        **{
            when: {**rmse(predict(x)), **hit_rate(predict(everything)[:, 0])}
            for when, predict in (("before", before), ("after", after))
        },
        "global mean": rmse(mean_rating),
        "user mean": rmse(support_mean),
        "most popular": hit_rate(num_ratings),
    }


def find(
    scores: np.ndarray, liked: np.ndarray, others: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns whether each liked movie is found, bool [number of liked movies].

    Args:
      scores: A score for every movie, the higher the better, [number of movies].
      liked: Ids of liked movies.
      others: Ids of at least `NUM_OTHERS` movies to draw from, anew for each liked one.
      rng: Draws them.
    """
    drawn = np.array([rng.choice(others, NUM_OTHERS, replace=False) for _ in liked])
    # Equals and NaN come first: a model that tells nothing apart finds nothing.
    rank = np.sum(~(scores[drawn] < scores[liked][:, np.newaxis]), axis=1)
    return rank < NUM_SHOWN
