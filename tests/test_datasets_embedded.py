"""Facts about the embedded handwriting."""

import numpy as np
import pytest

from datasets.stand_ins import handwriting


@pytest.fixture(scope="module")
def writers():
    ids, read_client = handwriting.load()
    return [read_client(client_id) for client_id in ids[:40]]


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b))


def test_ids_are_unique_and_300():
    ids, _ = handwriting.load()
    assert len(set(ids)) == 300
    assert ids[0] == "embedded_0000"


def test_unknown_writer_is_a_key_error():
    with pytest.raises(KeyError):
        handwriting.load()[1]("embedded_9999")


def test_structure_is_that_of_emnist(writers):
    for x, y in writers:
        assert x.dtype == np.float32
        assert y.dtype == np.int32
        assert x.shape == (len(y), 28, 28)
        assert 60 <= len(y) <= 160
        assert x.min() >= 0.0
        assert x.max() <= 1.0


def test_paper_is_one_and_ink_is_zero(writers):
    for x, _ in writers:
        assert x.mean() > 0.8
        assert np.median(x) == 1.0
        assert x.min() < 0.1


def test_every_image_has_ink_and_a_clean_corner(writers):
    x = np.concatenate([x for x, _ in writers])
    assert (x.min(axis=(1, 2)) < 0.8).all()
    assert x[:, :2, :2].mean() > 0.99


def test_all_62_classes_appear_and_half_are_digits(writers):
    labels = np.concatenate([y for _, y in writers])
    assert set(labels) == set(range(62))
    assert 0.45 < (labels < 10).mean() < 0.55


def test_writer_is_the_same_in_any_reading_order():
    _, read = handwriting.load()
    first = read("embedded_0007")
    read("embedded_0001")
    _, read_again = handwriting.load(num_writers=8)
    assert same(first, read("embedded_0007"))
    assert same(first, read_again("embedded_0007"))


def test_other_seed_gives_another_writer():
    assert not same(handwriting.write(0, 3), handwriting.write(1, 3))


def test_writers_differ_more_from_each_other_than_from_themselves(writers):
    def mean_digits(x, y, part):
        return np.stack([x[y == digit][part::2].mean(axis=0) for digit in (2, 3, 7)])

    usable = [(x, y) for x, y in writers if min((y == d).sum() for d in (2, 3, 7)) >= 4]
    even = [mean_digits(x, y, 0) for x, y in usable]
    odd = [mean_digits(x, y, 1) for x, y in usable]
    own = np.mean([np.abs(a - b).mean() for a, b in zip(even, odd)])
    others = np.mean([np.abs(a - b).mean() for a, b in zip(even, odd[1:])])
    assert len(usable) > 5
    assert others > 1.3 * own


def test_only_digits_keeps_the_digits_of_the_same_writers(writers):
    _, read = handwriting.load(only_digits=True)
    x, y = writers[5]
    assert same(read("embedded_0005"), (x[y < 10], y[y < 10]))


def test_zero_and_one_are_drawn_as_such(writers):
    """A zero is wider than a one on average: labels and shapes belong together."""
    x = np.concatenate([x for x, _ in writers])
    y = np.concatenate([y for _, y in writers])
    width = ((x < 0.5).any(axis=1)).sum(axis=1)
    assert width[y == 0].mean() > 1.2 * width[y == 1].mean()
    assert width[y == 58].mean() > 1.2 * width[y == 47].mean()  # w and l
