"""Data sets of TFDS: what is found, what is asked for, and what damage is reported."""

import numpy as np
import pytest
import tfds_files as files

from datasets import DataError
from datasets.sources import tff_files
from datasets.sources.tfds_files import TfdsDataset, _prepare

NAME = "movielens/100k-ratings"
FEATURES = ("user_id", "user_rating")
RATINGS = [(user, movie, float(movie), 100 - movie) for user in (1, 2) for movie in (3, 4, 5)]


def of(directory, **other):
    return TfdsDataset(
        **{
            "name": NAME,
            "splits": ("train",),
            "features": FEATURES,
            "cache_dir": directory,
            "url": "https://example.org/data.zip",
            **other,
        }
    )


def examples(directory):
    import tensorflow_datasets as tfds

    with of(directory).reading():
        return list(tfds.as_numpy(of(directory).examples("train")))


@pytest.fixture
def written(tmp_path):
    return tmp_path, files.write_movielens(tmp_path, RATINGS)


@pytest.fixture
def asked(monkeypatch):
    """Which addresses are asked for; none of them answers."""
    urls = []

    def probe(url, seconds):
        urls.append(url)
        raise OSError("no network")

    monkeypatch.setattr(tff_files, "probe", probe)
    return urls


def test_what_is_there_is_read_without_asking_anybody(written, asked):
    directory, _ = written
    of(directory).fetch()
    found = examples(directory)
    assert [set(example) for example in found] == [set(FEATURES)] * 6
    assert [(int(e["user_id"]), float(e["user_rating"])) for e in found] == [
        (user, rating) for user, _, rating, _ in RATINGS
    ]
    assert not asked


def test_nothing_there_and_no_network_fails_before_tfds_tries(tmp_path, asked):
    wanted = of(tmp_path)
    with pytest.raises(DataError, match=r"example.org/data.zip cannot be reached .no network"):
        wanted.fetch()
    assert asked == ["https://example.org/data.zip"]
    assert str(tmp_path / NAME) in wanted.advice() and "copy" in wanted.advice()


def test_without_an_address_of_ours_tfds_own_is_asked_for(tmp_path, asked):
    with pytest.raises(DataError, match=r"files.grouplens.org"):
        of(tmp_path, url=None).fetch()
    assert len(asked) == 1


def test_what_a_killed_preparation_left_is_not_taken_for_data(tmp_path, asked):
    (tmp_path / NAME / "incomplete.ABCDEF_0.1.1").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot be reached"):
        of(tmp_path).fetch()
    assert "copy" in of(tmp_path).advice()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "movielenz"}, "no data set 'movielenz'"),
        ({"name": "movielens/100x"}, "cannot open 'movielens/100x'.*100x not found"),
        (
            {"features": ("user_id", "stars")},
            "must have the features user_id, stars,.*lacks stars",
        ),
    ],
)
def test_what_tfds_does_not_have_is_said_without_a_network(tmp_path, asked, change, sentence):
    with pytest.raises(DataError, match=sentence):
        of(tmp_path, **change).fetch()
    assert not asked


def test_features_are_those_of_the_files_not_of_tfds_code(tmp_path):
    files.write_movielens(tmp_path, RATINGS, leave_out=["user_rating"])
    with pytest.raises(DataError, match=r"lacks user_rating; it has .*timestamp"):
        of(tmp_path).fetch()


def test_missing_split_is_named(written):
    with pytest.raises(DataError, match=r"must have the splits train, test, but it lacks test"):
        of(written[0], splits=("train", "test")).fetch()


@pytest.mark.parametrize("kept", [b"", b"{"], ids=["empty", "cut off"])
def test_incomplete_directory_is_refused_and_left_alone(written, asked, kept):
    directory, home = written
    (home / "dataset_info.json").write_bytes(kept)
    with pytest.raises(DataError, match=r"cannot open"):
        of(directory).fetch()
    assert f"delete {home} " in of(directory).advice()
    assert (home / "dataset_info.json").read_bytes() == kept and not asked


def test_lost_file_is_named(written):
    directory, home = written
    (record,) = home.glob("*.tfrecord*")
    record.unlink()
    with pytest.raises(DataError, match=f"{record.name} is missing"):
        of(directory).fetch()


def test_cut_off_file_is_an_error_when_it_is_read(written):
    directory, home = written
    (record,) = home.glob("*.tfrecord*")
    record.write_bytes(record.read_bytes()[:-20])
    of(directory).fetch()
    with pytest.raises(DataError, match=r"damaged or incomplete, delete .*truncated record"):
        examples(directory)


def test_tfds_messages_stay_out_of_the_results(tmp_path, capsys):
    import tensorflow_datasets as tfds

    builder = tfds.dataset_builders.AdhocBuilder(
        name="two_numbers",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"number": np.int64}),
        split_datasets={"train": [(i, {"number": i}) for i in range(2)]},
        data_dir=tmp_path,
    )
    _prepare(builder, None)
    said = capsys.readouterr()
    assert said.out == "" and "Downloading and preparing" in said.err
    assert (tmp_path / "two_numbers" / "1.0.0" / "dataset_info.json").exists()


def test_failed_preparation_is_one_sentence(tmp_path):
    import tensorflow_datasets as tfds

    def fail():
        yield 0, {"number": 1}
        raise OSError("the disk is full")

    builder = tfds.dataset_builders.AdhocBuilder(
        name="broken",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"number": np.int64}),
        split_datasets={"train": fail()},
        data_dir=tmp_path,
    )
    with pytest.raises(DataError, match=r"Preparing broken/1\.0\.0 in .* failed: .*disk is full"):
        _prepare(builder, None)
    assert not (tmp_path / "broken" / "1.0.0").exists()
