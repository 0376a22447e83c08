"""LEAF's examples as arrays: characters' images, characters of plays, words of tweets.

What there is to know of characters and words comes from training users alone. Place 0 in a
vocabulary is for what training users do not have, and pads.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from datasets.task import DataError

SIDE = 28  # pixels
WORDS_OF_TWEET = 25
_TEXT = 4  # where a tweet's text is in LEAF's x: id, date, query, user, text
_WORD = re.compile(r"\w+|[^\w\s]")

Arrays = tuple[np.ndarray, np.ndarray]


def images(user: str, examples: Mapping[str, Sequence[Any]], num_classes: int) -> Arrays:
    """Returns x float32 [n, 28, 28] in [0, 1], 1 = paper, and y int32 [n].

    Raises:
      DataError: If a pixel or a label is out of its range.
    """
    try:
        x = np.asarray(examples["x"], np.float32).reshape(-1, SIDE, SIDE)
        y = np.asarray(examples["y"], np.int32)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"LEAF's user {user!r} has images that are not {SIDE} x {SIDE} numbers: {error}."
        ) from error
    if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
        raise DataError(
            f"LEAF's user {user!r} has pixels from {x.min():g} to {x.max():g}, but 0 to 1 is "
            "expected."
        )
    if y.min() < 0 or y.max() >= num_classes:
        raise DataError(
            f"LEAF's user {user!r} has labels from {y.min()} to {y.max()}, but 0 to "
            f"{num_classes - 1} is expected."
        )
    return x, y


def characters(examples: Iterable[Mapping[str, Sequence[str]]]) -> list[str]:
    """Returns the characters of texts, sorted: what place 1 and up stand for."""
    found: set[str] = set()
    for of_user in examples:
        for text in (*of_user["x"], *of_user["y"]):
            found.update(text)
    return sorted(found)


def sequences(
    examples: Mapping[str, Sequence[str]], place_of: Mapping[str, int], length: int
) -> Arrays:
    """Returns x int64 [n, length], the last characters of a text, and y int32 [n], what follows."""
    x = np.zeros((len(examples["x"]), length), np.int64)
    for row, text in zip(x, examples["x"]):
        places = [place_of.get(character, 0) for character in text[-length:]]
        row[length - len(places) :] = places
    return x, np.array([place_of.get(text[:1], 0) for text in examples["y"]], np.int32)


def words(tweet: Sequence[str]) -> list[str]:
    """Returns the words and marks of one of LEAF's tweets, in small letters."""
    return _WORD.findall(tweet[_TEXT].lower())


def frequent_words(examples: Iterable[Mapping[str, Sequence[Any]]], most: int) -> list[str]:
    """Returns the most frequent words of tweets, the first one first."""
    counts: collections.Counter[str] = collections.Counter()
    for of_user in examples:
        for tweet in of_user["x"]:
            counts.update(words(tweet))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]]


def tweets(examples: Mapping[str, Sequence[Any]], place_of: Mapping[str, int], bag: bool) -> Arrays:
    """Returns tweets and their feeling, y int32 [n]: 0 is bad and 1 is good.

    Args:
      examples: A user's.
      place_of: Word -> its place, from 1.
      bag: x is float32 [n, words + 1], how often each word occurs; otherwise int64 [n, 25], the
        places of the first words.
    """
    number = len(examples["x"])
    y = np.asarray(examples["y"], np.int32)
    places = [[place_of.get(word, 0) for word in words(tweet)] for tweet in examples["x"]]
    if bag:
        x = np.zeros((number, len(place_of) + 1), np.float32)
        for row, of_tweet in zip(x, places):
            np.add.at(row, of_tweet, 1)
        return x, y
    ids = np.zeros((number, WORDS_OF_TWEET), np.int64)
    for row, of_tweet in zip(ids, places):
        first = of_tweet[:WORDS_OF_TWEET]
        row[: len(first)] = first
    return ids, y
