"""Of TFF's Stack Overflow: who trains, validates and tests, and which words are told apart."""

from __future__ import annotations

import collections
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Callable

import numpy as np

from datasets.sources import tff_files
from datasets.task import DATA_SEED, DataError, Sides

WORD_COUNTS_URL = (
    "https://storage.googleapis.com/tff-datasets-public/stackoverflow.word_count.tar.bz2"
)
NUM_VALIDATION_CLIENTS = 30
NUM_TEST_CLIENTS = 100

# Training clients whose words are counted where TFF's own counts cannot be had, and how many
# sentences of each: some thousand sentences more change few of the words that matter.
_COUNTED_CLIENTS = 500
_COUNTED_SENTENCES = 1000


def choose_clients(
    train: Iterable[str],
    heldout: Iterable[str],
    test: Iterable[str],
    num_test_clients: int | None = None,
) -> Sides:
    """Chooses who trains, validates and tests, from the ids of TFF's splits.

    Returns:
      `(train, validation, test)`, disjoint: all of `train`; at most 30 users of `heldout`, and at
      most half of them; and users of `test` who are in none of the others, then further ones of
      `heldout`.

    Raises:
      DataError: If there are no such validation clients, or fewer test clients than asked for.
    """
    training = set(train)
    rng = np.random.default_rng(DATA_SEED)
    held = _shuffled(set(heldout) - training, rng)
    num_validation = min(NUM_VALIDATION_CLIENTS, -(-len(held) // 2))
    unseen = _shuffled(set(test) - training - set(held), rng) + held[num_validation:]
    if not (held and unseen):
        raise DataError(
            "Users who are not in split 'train' are needed to validate and to test, but "
            f"'heldout' has {len(held)} and 'test' {len(unseen) - len(held[num_validation:])}: use "
            "a file with more of them."
        )
    if num_test_clients is None:
        num_test_clients = min(NUM_TEST_CLIENTS, len(unseen))
    if not 1 <= num_test_clients <= len(unseen):
        raise DataError(
            f"The number of test clients must lie between 1 and {len(unseen)}, the users whom "
            f"training and validation do not see, but it is {num_test_clients}: change "
            "num_test_clients."
        )
    return tuple(sorted(training)), tuple(held[:num_validation]), tuple(unseen[:num_test_clients])


def _shuffled(ids: Iterable[str], rng: np.random.Generator) -> list[str]:
    ordered = sorted(ids)
    return [ordered[index] for index in rng.permutation(len(ordered))]


def published_words(directory: pathlib.Path, size: int) -> list[str] | None:
    """Returns the most frequent words by TFF's counts, or None, saying so, if they cannot be had.

    TFF checks the file against a hash and downloads it anew if it does not match.
    """
    import tensorflow_federated as tff

    try:
        if not (directory / "datasets" / pathlib.PurePosixPath(WORD_COUNTS_URL).name).exists():
            tff_files.check_reachable(WORD_COUNTS_URL)
        with tff_files.socket_timeout():
            counts = tff.simulation.datasets.stackoverflow.load_word_counts(
                cache_dir=str(directory), vocab_size=size
            )
    except Exception as error:  # urllib, tarfile and Keras all have their own
        print(
            "The vocabulary is counted from training clients, because TFF's word counts cannot be "
            f"had: {error}",
            file=sys.stderr,
            flush=True,
        )
        return None
    return list(counts)


def count_words(
    client_ids: Sequence[str], read_sentences: Callable[[str], np.ndarray], size: int
) -> list[str]:
    """Returns the most frequent words of a bounded, fixed sample of clients, as TFF counts them.

    That is by the users who use a word; then by how often they do, because the sample is small.
    """
    rng = np.random.default_rng(DATA_SEED)
    users: collections.Counter[bytes] = collections.Counter()
    uses: collections.Counter[bytes] = collections.Counter()
    for client_id in _shuffled(client_ids, rng)[:_COUNTED_CLIENTS]:
        words = b" ".join(read_sentences(client_id)[:_COUNTED_SENTENCES]).split()
        uses.update(words)
        users.update(set(words))
    ranked = sorted(users, key=lambda word: (-users[word], -uses[word], word))
    return [word.decode(errors="replace") for word in ranked[:size]]
