"""Embedded synthetic text: a stand-in for federated text that needs no download.

This is **not** Stack Overflow or Shakespeare, and figures on it compare with each other only. All
authors write the same language: invented words, and sentences cut from the same few patterns. What
makes an author worth adapting to are habits: a few favourite nouns, verbs and adjectives among
many, favourite patterns, an opening of their own, and, in speech, an accent.

Every author is a pure function of (seed, index): no files, no order, a few milliseconds each.
"""

from __future__ import annotations

import functools

import numpy as np

NUM_AUTHORS = 240

# Every letter stands for a word of that class, everything else for itself.
_PATTERNS = (
    "the A N V the N .",
    "the N V in the A N .",
    "we V the N with the N .",
    "to V the N , we V the A N .",
    "how to V the A N with the N ?",
    "if the N is A , we V the N .",
    "the N of the N is A .",
    "it is A that we V the N .",
    "why is the N in the N so A ?",
    "when we V the N , the N is A .",
)
_SIZES = {"N": 48, "V": 24, "A": 24, "O": 12}  # how many words of a class there are: O opens
_FAVOURITES = {"N": 3, "V": 2, "A": 2, "O": 1}  # how many of them an author likes
_LOYALTY = 0.85  # share of the words that are favourites
_OPENINGS = 0.4  # share of the sentences that have one
_ACCENTS = ("", "s>z", "t>d", "w>v", "e>a", "o>u", "i>y", "r>l")


@functools.cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """Returns the words of each class, the same for everybody."""
    rng = np.random.default_rng(0)
    onsets, vowels = list("bcdfghklmnprstvw"), list("aeiou")
    words: list[str] = []
    while len(words) < sum(_SIZES.values()):
        word = "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.integers(2, 4)))
        if word not in words:
            words.append(word)
    rest = iter(words)
    return {kind: tuple(next(rest) for _ in range(size)) for kind, size in _SIZES.items()}


def client_ids() -> tuple[str, ...]:
    """Returns the authors' ids: "embedded_0000" and so on."""
    return tuple(f"embedded_{index:04d}" for index in range(NUM_AUTHORS))


def write(seed: int, client_id: str) -> list[str]:
    """Returns an author's 40 to 80 sentences, words and marks separated by spaces.

    Raises:
      KeyError: If there is no such author.
    """
    rng = _author(seed, client_id)
    words = lexicon()
    liked = {
        kind: rng.choice(words[kind], size=count, replace=False)
        for kind, count in _FAVOURITES.items()
    }
    habits = rng.dirichlet(np.full(len(_PATTERNS), 0.5))

    def word(kind: str) -> str:
        return rng.choice(liked[kind] if rng.random() < _LOYALTY else words[kind])

    def sentence() -> str:
        pattern = rng.choice(_PATTERNS, p=habits)
        opening = [word("O"), ","] if rng.random() < _OPENINGS else []
        return " ".join(
            opening + [word(part) if part in words else part for part in pattern.split()]
        )

    return [sentence() for _ in range(rng.integers(40, 81))]


def speak(seed: int, client_id: str) -> list[str]:
    """Returns what an author says, one speech of one or two sentences after the other.

    As `write`, but punctuated as in print and with the author's accent, which replaces one letter
    by another throughout.
    """
    sentences = [
        text.capitalize().replace(" ,", ",").replace(" .", ".").replace(" ?", "?")
        for text in write(seed, client_id)
    ]
    rng = _author(seed + 1, client_id)  # drawn apart from what is said
    letter, _, other = rng.choice(_ACCENTS).partition(">")
    if letter:
        sentences = [text.replace(letter, other) for text in sentences]
    starts = np.flatnonzero(rng.random(len(sentences)) < 0.7)
    return [" ".join(part) for part in np.split(np.array(sentences), starts) if len(part)]


def _author(seed: int, client_id: str) -> np.random.Generator:
    if client_id not in client_ids():
        raise KeyError(client_id)
    return np.random.default_rng([seed, int(client_id.rpartition("_")[2])])
