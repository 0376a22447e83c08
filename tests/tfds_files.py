"""Writes small data sets in TFDS's own format, for tests of what is loaded through TFDS."""

import numpy as np


def write(data_dir, name, version, features, splits, config=None):
    """Writes a data set as TFDS itself would have prepared it.

    Args:
      data_dir: TFDS's `data_dir`, what `--cache_dir` names.
      name: What TFDS calls the data set, without its configuration.
      version: The version that TFDS's own code for it has.
      features: A `tfds.features.FeaturesDict`.
      splits: For each split a list of examples, dictionaries.
      config: Its configuration, if it has any.

    Returns:
      The directory of the data set.
    """
    import tensorflow_datasets as tfds

    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=features,
        split_datasets={split: list(enumerate(rows)) for split, rows in splits.items()},
        config=config,
        data_dir=data_dir,
        disable_shuffling=True,
    )
    return builder.data_path


def write_movielens(data_dir, ratings, leave_out=()):
    """Writes `movielens/100k-ratings`: of (user, movie, rating, timestamp), without some features.

    A movie's genres are the last digit of its number, and its title is "Céleste NUMBER (1990)".
    """
    import tensorflow_datasets as tfds

    features = {
        "bucketized_user_age": np.float32,
        "movie_genres": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=21)),
        "movie_id": tfds.features.Text(),
        "movie_title": tfds.features.Text(),
        "raw_user_age": np.float32,
        "timestamp": np.int64,
        "user_gender": np.bool_,
        "user_id": tfds.features.Text(),
        "user_occupation_label": tfds.features.ClassLabel(num_classes=22),
        "user_occupation_text": tfds.features.Text(),
        "user_rating": np.float32,
        "user_zip_code": tfds.features.Text(),
    }
    rows = [
        {
            "bucketized_user_age": 25.0,
            "movie_genres": [int(movie) % 10],
            "movie_id": str(movie),
            "movie_title": f"Céleste {movie} (1990)",
            "raw_user_age": 30.0,
            "timestamp": time,
            "user_gender": True,
            "user_id": str(user),
            "user_occupation_label": 1,
            "user_occupation_text": "artist",
            "user_rating": rating,
            "user_zip_code": "12345",
        }
        for user, movie, rating, time in ratings
    ]
    for name in leave_out:
        del features[name]
        for row in rows:
            del row[name]
    return write(
        data_dir,
        "movielens",
        "0.1.1",
        tfds.features.FeaturesDict(features),
        {"train": rows},
        "100k-ratings",
    )
