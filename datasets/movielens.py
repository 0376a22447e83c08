"""MovieLens: how many stars a user gives a movie, one client per user.

The data are `movielens/100k-ratings` of TensorFlow Datasets (Harper and Konstan, 2015): 100,000
ratings from 1 to 5 by 943 users of 1,682 movies, at least 20 each. A user's ratings are in
the order of time; adaptation learns from the earlier ones and is measured on the later ones.

The network is matrix factorisation (Koren, Bell and Volinsky, 2009): a movie is a vector, a user
another one and a constant, and their product is the rating. No weight belongs to a user: the last
layer is *the* user, and adapting turns the learnt user into the user whose ratings it sees. What
is known of movies, which ones there are and the mean rating, comes from training clients alone.

If MovieLens is unavailable, `stand_ins.ratings` replaces it, always with a warning.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import memory
from datasets import options as schema
from datasets.data_set import FILE, About, DataSet, Request
from datasets.problems import factorisation, recommendation
from datasets.sources import choice, rating_files, tfds_files, tfds_ratings
from datasets.stand_ins import ratings as made_ratings
from datasets.stand_ins.ratings import Ratings
from datasets.tables import files as table_files
from datasets.task import (
    DATA_SEED,
    DataError,
    Meaning,
    Measures,
    Task,
    split_clients,
)

if TYPE_CHECKING:
    pass

NAME = "movielens"
TFDS_NAME = "movielens/100k-ratings"
URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MOVIES_FILE = "movies.json"


# Few clients of a round know a movie, and their mean hardly moves it: Adam gives every movie steps
# of one size.
_SERVER = {
    "server_optimizer": "adam",
    "server_learning_rate": 0.1,
    "server_schedule": "linear",
    "inner_learning_rate": 0.05,
}
_META_GRADIENTS = {**_SERVER, "server_learning_rate": 0.03, "inner_learning_rate": 0.1}

DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedrecon", "fedavg"),
    "rounds": 150,
    "clients_per_round": 20,
    "batch_size": 16,
    "inner_epochs": 2,
    "support_fraction": 0.5,
    "adaptation_steps": 20,
    "adaptation_learning_rates": (0.03, 0.05, 0.1),
    "rounds_per_evaluation": 25,
    "rounds_per_checkpoint": 25,
    "split": "ordered",
    "hyperparameters": {
        **{name: _SERVER for name in ("reptile", "fedavg", "fedprox")},
        "fedrecon": {**_SERVER, "inner_learning_rate": 0.1, "shared_learning_rate": 0.05},
        "fedsgd": {name: value for name, value in _SERVER.items() if name[:6] == "server"},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "meta_sgd", "anil")},
    },
}


@dataclasses.dataclass(frozen=True)
class Options(schema.Options):
    """Options of MovieLens; their `option` says what each means."""

    ratings: str | None = schema.option(
        None,
        "File of ratings: u.data, ratings.dat or ratings.csv of MovieLens, or a table of user, "
        "item, rating and, if there is one, time.",
    )
    ratings_sha256: str | None = schema.option(
        None, "SHA-256 that the file must have; a run notes it and continues on no other."
    )
    taste_size: int = schema.option(
        16, "Numbers that stand for a movie, and for a user's taste.", at_least=1, at_most=10_000
    )


ABOUT = About(
    source="tfds",
    clients="943 users, 20 to 737 ratings each",
    model="matrix factorisation, 16 numbers a movie",
    metric="root mean squared error of the rating, in stars; beside it hit-rate@10",
    download="5 MB",
    licence="MovieLens's own: research and education, no redistribution without permission",
    own_file=True,
    splits_clients=True,
)


def load(request: Request) -> Task:
    """Loads MovieLens, or its synthetic stand-in if requested or if MovieLens is unavailable.

    Returns:
      A `Task` whose `read_client` gives, in the order of time, x int32 [n, 1], the movie's id, and
      y float32 [n, 1], the rating. Ids are places in the list of `movies.json` in `Task.assets`,
      0 for all movies that are not in it.

    Raises:
      DataError: If "tfds" data cannot be had or are damaged, or there are too few users or movies.
    """
    path = request.options.ratings
    if path is not None:
        return _build_task(FILE, *_read_own(request), request)
    if request.data_source == FILE:
        raise DataError("--data_source=file needs a file: give --ratings=FILE.")
    files = tfds_files.TfdsDataset(
        TFDS_NAME, ("train",), tfds_ratings.FEATURES, request.cache_dir, URL
    )
    real = choice.RealData(
        ABOUT, "MovieLens", "synthetic ratings", files.fetch, files.advice, check=files.find
    )
    data_source = choice.resolve_source(request.data_source, real)
    if data_source == choice.EMBEDDED:
        ids = made_ratings.client_ids()
        ratings = {user: made_ratings.rate(DATA_SEED, user) for user in ids}
        titles: Mapping[str, str] = {}
    else:
        ratings, titles = tfds_ratings.read(files)
    return _build_task(data_source, ratings, titles, request)


def complete(options: Options) -> Options:
    """Makes the hash of the file an option, so that no run continues on a changed one."""
    if options.ratings is None or options.ratings_sha256 is not None:
        return options
    return dataclasses.replace(options, ratings_sha256=table_files.sha256(options.ratings))


def _read_own(request: Request) -> tuple[dict[str, Ratings], dict[str, str]]:
    """Reads the user's own file; users with a single rating are left out, as they cannot split."""
    path, sha256 = request.options.ratings, request.options.ratings_sha256
    if request.data_source not in (choice.AUTO, FILE):
        raise DataError(
            f"--ratings names a file, but --data_source={request.data_source} uses none: drop one."
        )
    if sha256 is not None and (found := table_files.sha256(path)) != sha256:
        raise DataError(
            f"{path} is not the file that --ratings_sha256 means (it has {found}): it was changed."
        )
    table = rating_files.read(path)
    everyone = tfds_ratings.by_user(table.users, table.items, table.ratings, table.times)
    ratings = {user: part for user, part in everyone.items() if len(part.stars) > 1}
    single = len(everyone) - len(ratings)
    print(
        f"{len(table.users):,} ratings of {len(set(table.items.tolist())):,} items by "
        f"{len(everyone):,} users, {single:,} of whom rated once and are left out; "
        f"{len(table.titles):,} titles.",
        file=sys.stderr,
    )
    return ratings, table.titles


def _build_task(
    data_source: str, ratings: dict[str, Ratings], titles: Mapping[str, str], request: Request
) -> Task:
    """Puts users, movies, model and measures together."""
    train, validation, test = split_clients(
        ratings, request.split_seed, request.num_test_clients, request.fold
    )
    request.announce(train, np.float32)
    movies = factorisation.list_movies([ratings[user] for user in train])
    taste_size = request.options.taste_size
    memory.check_weights(len(movies.ids) * taste_size, f"--taste_size={taste_size}")
    import tensorflow as tf

    return Task(
        name=NAME,
        data_source=data_source,
        train_clients=train,
        validation_clients=validation,
        test_clients=test,
        read_client=factorisation.build_reader(ratings, movies),
        build_keras_model=functools.partial(
            factorisation.build_model,
            request.seed,
            len(movies.ids),
            request.options.taste_size,
            movies.mean_rating,
        ),
        build_loss=tf.keras.losses.MeanSquaredError,
        build_metrics=lambda: [tf.keras.metrics.RootMeanSquaredError(name="rmse")],
        input_spec=(tf.TensorSpec([None, 1], tf.int32), tf.TensorSpec([None, 1], tf.float32)),
        metric="rmse",
        higher_is_better=False,
        split="ordered",
        assets={
            MOVIES_FILE: {
                "mean_rating": movies.mean_rating,
                "movies": [
                    {"movie_id": movie, "title": titles.get(movie, ""), "num_ratings": int(count)}
                    for movie, count in zip(movies.ids, movies.num_ratings)
                ],
            }
        },
        measures=Measures(
            functools.partial(
                recommendation.measure_client, movies.num_ratings, movies.mean_rating
            ),
            recommendation.EXPLANATION,
        ),
        meaning=Meaning(
            inputs=f'a movie\'s place in the list "movies" of {MOVIES_FILE}, 0 for any not listed',
            target="the user's rating, in stars",
            output="the user's rating, in stars",
            ids_file=MOVIES_FILE,
        ),
    )


DATASET = DataSet(NAME, ABOUT, Options, DEFAULTS, load, complete=complete, has_folds=True)
