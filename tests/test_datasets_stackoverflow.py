"""Facts about Stack Overflow as a task: users, sentences, vocabulary, model and a whole run."""

import collections
import json
import time

import numpy as np
import pytest
from loading import load_task, real_data_file
from tff_files import post, write_clients

import run_experiment
from datasets import DataError, stackoverflow
from datasets.sources import stackoverflow_parts, tff_files
from datasets.stand_ins import text as embedded_text
from tff_fedmeta.runtime import local

SENTENCES = ["the cat sat", "a cat ran .", "the dog sat", "zebra"]


def users(count, sentences, **kwargs):
    return {name: [post(tokens, **kwargs) for tokens in sentences] for name in count}


def write(directory, **splits):
    """Writes split -> user -> posts."""
    write_clients(
        directory / stackoverflow.FILE_NAME,
        {(split, user): posts for split, them in splits.items() for user, posts in them.items()},
    )
    return directory


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(url, seconds):
        raise OSError("no network in this test")

    monkeypatch.setattr(tff_files, "probe", refuse)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A file in which 'both' is in train and test, as most users are."""
    return write(
        tmp_path_factory.mktemp("cache"),
        train=users(["t1", "t2", "both"], SENTENCES),
        heldout=users(["h1", "h2", "h3"], SENTENCES[:2]),
        test=users(["both", "new"], SENTENCES[2:]),
    )


def load(cache, **options):
    sizes = {"embedding_size": 3, "lstm_size": 4, **options}
    return load_task("stackoverflow", data_source="tff", cache_dir=cache, **sizes)


def vocabulary(task):
    return task.assets["vocabulary.json"]


def words(task, ids):
    return [" ".join(vocabulary(task)[i] for i in row) for row in ids]


# --- who takes part ---------------------------------------------------------------------------


def test_users_of_train_are_in_no_other_group(cache):
    task = load(cache)
    assert task.train_clients == ("both", "t1", "t2")
    assert len(task.validation_clients) == 2
    assert set(task.validation_clients) | set(task.test_clients) == {"h1", "h2", "h3", "new"}
    assert task.test_clients[0] == "new"  # those of `test` come first


def test_real_sizes_give_a_bounded_sample_of_unseen_users():
    train = {str(i) for i in range(10_000)}
    heldout = {str(i) for i in range(9_990, 11_000)}  # ten too many
    test = {str(i) for i in range(500, 12_000)}
    groups = stackoverflow_parts.choose_clients(train, heldout, test)
    assert [len(group) for group in groups] == [10_000, 30, 100]
    assert set(groups[1]) <= heldout - train
    assert set(groups[2]) <= test - train - heldout
    assert groups == stackoverflow_parts.choose_clients(
        sorted(train), sorted(heldout), sorted(test)
    )
    more = stackoverflow_parts.choose_clients(train, heldout, test, 1_200)
    assert more[1] == groups[1]
    assert more[2][:100] == groups[2]
    assert len(set(more[2]) & heldout) == 200
    assert not set(more[2]) & (train | set(more[1]))


@pytest.mark.parametrize(
    ("groups", "number", "said"),
    [
        ((["a"], ["a"], ["b"]), None, "'heldout' has 0 and 'test' 1"),
        ((["a"], ["h"], ["a"]), None, "'heldout' has 1 and 'test' 0"),
        ((["a"], ["h"], ["b"]), 2, "between 1 and 1"),
    ],
)
def test_too_few_unseen_users_are_an_error(groups, number, said):
    with pytest.raises(DataError, match=said):
        stackoverflow_parts.choose_clients(*groups, num_test_clients=number)


def test_unknown_user_is_a_key_error(cache):
    with pytest.raises(KeyError):
        load(cache).read_client("nobody")


# --- sentences --------------------------------------------------------------------------------


def test_sentences_are_ids_in_tffs_order_with_unknown_words_padding_begin_and_end(cache):
    task = load(cache, vocabulary_size=4, sequence_length=3)
    assert vocabulary(task) == ["<pad>", "cat", "sat", "the", ".", "<oov>", "<bos>", "<eos>"]
    x, y = task.read_client("t1")
    assert (x.dtype, y.dtype) == (np.int64, np.int64)
    assert words(task, x) == [
        "<bos> the cat",
        "<bos> <oov> cat",
        "<bos> the <oov>",
        "<bos> <oov> <eos>",
    ]
    assert words(task, y) == [
        "the cat sat",
        "<oov> cat <oov>",
        "the <oov> sat",
        "<oov> <eos> <pad>",
    ]


def test_the_same_ids_as_tffs_own_pipeline(cache):
    import tensorflow as tf
    import tensorflow_federated as tff

    task = load(cache, vocabulary_size=5, sequence_length=6)
    baselines = tff.simulation.baselines
    preprocess = baselines.stackoverflow.word_prediction_preprocessing.create_preprocess_fn(
        baselines.ClientSpec(num_epochs=1, batch_size=99, shuffle_buffer_size=1),
        vocabulary(task)[1:6],
        sequence_length=6,
    )
    data = tf.data.Dataset.from_tensor_slices({"tokens": SENTENCES})
    ((x, y),) = preprocess(data)
    for ours, theirs in zip(task.read_client("both"), (x, y)):
        np.testing.assert_array_equal(ours, theirs)


def test_posts_are_in_time_order_and_limited_to_the_first(tmp_path):
    dates = {  # TFF's dates have as many digits of a second as they need
        "third": "2010-01-01 00:00:44.823 UTC",
        "first": "2009-12-31 23:59:59 UTC",
        "fourth": "2010-01-01 00:00:45 UTC",
        "second": "2010-01-01 00:00:44 UTC",
        "fifth": "2010-01-01 00:00:45 UTC",  # at the same time as another: in the file's order
    }
    someone = [post(word, date) for word, date in dates.items()]
    everybody = {"a": someone}
    write(
        tmp_path,
        train=everybody,
        heldout=users(["h1", "h2"], SENTENCES),
        test=users(["n"], SENTENCES),
    )
    task = load(tmp_path, max_examples=4, sequence_length=1)
    _, y = task.read_client("a")
    assert words(task, y) == ["first", "second", "third", "fourth"]


# --- vocabulary -------------------------------------------------------------------------------


def test_words_are_ranked_by_users_then_uses(tmp_path, capsys):
    write(
        tmp_path,
        train={
            "a": [post("often often often often"), post("shared rare")],
            "b": [post("shared both both")],
            "c": [post("both")],
        },
        heldout=users(["h1", "h2"], ["heldout heldout"] * 9),
        test=users(["n"], ["tested tested"] * 9),
    )
    task = load(tmp_path)
    assert vocabulary(task)[1:-3] == ["both", "shared", "often", "rare"]
    assert "no network in this test" in capsys.readouterr().err


def test_published_word_counts_are_used_where_they_can_be_had(cache, monkeypatch):
    import tensorflow_federated as tff

    def counts(cache_dir, vocab_size):
        assert cache_dir == str(cache)
        return collections.OrderedDict([("published", 9), ("words", 8)][:vocab_size])

    monkeypatch.setattr(tff_files, "probe", lambda url, seconds: None)
    monkeypatch.setattr(tff.simulation.datasets.stackoverflow, "load_word_counts", counts)
    assert vocabulary(load(cache))[1:-3] == ["published", "words"]
    assert vocabulary(load(cache, vocabulary_size=1))[1:-3] == ["published"]


def test_word_counts_that_do_not_answer_cost_seconds_only(cache, monkeypatch, capsys):
    monkeypatch.setattr(tff_files, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(tff_files, "probe", lambda url, seconds: time.sleep(30))
    start = time.monotonic()
    assert "cat" in vocabulary(load(cache))
    assert time.monotonic() - start < 10
    assert "does not answer" in capsys.readouterr().err


def test_damaged_word_counts_are_not_used(cache, tmp_path, capsys):
    (tmp_path / stackoverflow.FILE_NAME).write_bytes((cache / stackoverflow.FILE_NAME).read_bytes())
    (tmp_path / "datasets").mkdir()
    name = stackoverflow_parts.WORD_COUNTS_URL.rpartition("/")[2]
    (tmp_path / "datasets" / name).write_bytes(b"half a file")
    assert "cat" in vocabulary(load(tmp_path))
    assert "counted from training clients" in capsys.readouterr().err


# --- model, loss and metric -------------------------------------------------------------------


@pytest.fixture(scope="module")
def task():
    return load_task("stackoverflow", data_source="embedded")


def some_batch(num_tokens, seed=0):
    """Targets of which half are padding, as many in a row as not, and logits."""
    rng = np.random.default_rng(seed)
    y = rng.integers(1, num_tokens, (4, 6))
    for row, length in enumerate((6, 1, 3, 2)):
        y[row, length:] = 0
    return y, rng.normal(size=(4, 6, num_tokens)).astype(np.float32)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_loss_is_the_mean_over_what_is_no_padding_and_so_is_its_gradient(task):
    import tensorflow as tf

    y, logits = some_batch(7)
    counted = y != 0
    log_p = log_softmax(logits)
    expected = -np.take_along_axis(log_p, y[..., None], axis=-1)[..., 0][counted].mean()
    slope = (np.exp(log_p) - np.eye(7)[y]) * counted[..., None] / counted.sum()
    variable = tf.Variable(logits)

    @tf.function
    def differentiate():
        with tf.GradientTape() as tape:
            value = task.build_loss()(y, variable)
        return value, tape.gradient(value, variable)

    value, gradient = differentiate()
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_accuracy_leaves_out_padding_unknown_words_and_ends(task):
    tokens = vocabulary(task)
    y, logits = some_batch(len(tokens), seed=1)
    y[0, :3] = [tokens.index(name) for name in ("<oov>", "<eos>", "the")]
    logits[0, :3] = 0
    for place in range(3):
        logits[0, place, y[0, place]] = 1  # all three right, but one of them counts
    counted = (y != 0) & (y < len(tokens) - 3)
    expected = (logits.argmax(axis=-1) == y)[counted].mean()
    assert expected > 0
    (metric,) = task.build_metrics()
    metric.update_state(y, logits)
    assert metric.name == task.metric == "accuracy"
    assert float(metric.result()) == pytest.approx(expected)


def test_network_is_tffs_baseline_and_its_mask_changes_nothing_that_counts(cache):
    import tensorflow_federated as tff

    real = load_task("stackoverflow", data_source="tff", cache_dir=cache)
    assert real.input_spec[0].shape.as_list() == [None, 20]
    num_tokens = len(vocabulary(real))
    models = tff.simulation.baselines.stackoverflow.word_prediction_models
    theirs = models.create_recurrent_model(num_tokens)
    ours = real.build_keras_model()
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    theirs.set_weights(ours.get_weights())
    x, y = real.read_client("t1")
    assert (y == 0).any()
    difference = np.abs(ours(x).numpy() - theirs(x).numpy())
    assert difference[y != 0].max() < 1e-5
    assert difference[y == 0].max() > 1e-5


# --- the stand-in -----------------------------------------------------------------------------


def test_embedded_task_has_the_same_structure(task):
    groups = task.train_clients, task.validation_clients, task.test_clients
    assert [len(group) for group in groups] == [180, 24, 36]
    assert len(set().union(*groups)) == 240
    x, y = task.read_client(task.test_clients[0])
    assert x.shape == y.shape == (len(x), 12)
    assert 40 <= len(x) <= 80
    np.testing.assert_array_equal(x[:, 1:], np.where(x[:, 1:] != 0, y[:, :-1], 0))


def test_embedded_authors_have_favourites_of_their_own():
    nouns = set(embedded_text.lexicon()["N"])
    favourites = []
    for name in embedded_text.client_ids()[:40]:
        used = [w for line in embedded_text.write(0, name) for w in line.split() if w in nouns]
        counts = collections.Counter(used).most_common(3)
        favourites.append(frozenset(word for word, _ in counts))
        assert sum(count for _, count in counts) > 0.6 * len(used)  # three of 48
    assert len(set(favourites)) > 35


def test_stand_in_takes_sizes_that_are_given():
    small = load_task("stackoverflow", data_source="embedded", vocabulary_size=10, max_examples=5)
    assert len(vocabulary(small)) == 14
    assert len(small.read_client(small.train_clients[0])[0]) == 5


# --- whole runs -------------------------------------------------------------------------------


def test_run_on_tffs_file_writes_the_vocabulary_and_a_model_for_plain_keras(
    cache, tmp_path, monkeypatch, capsys
):
    import tensorflow as tf

    arguments = [
        "run_experiment.py",
        "--dataset=stackoverflow",
        "--data_source=tff",
        f"--cache_dir={cache}",
        f"--output_dir={tmp_path}",
        "--algorithms=reptile",
        "--rounds=1",
        "--clients_per_round=2",
        "--batch_size=2",
        "--sequence_length=4",
        "--embedding_size=3",
        "--lstm_size=4",
        "--adaptation_steps=1",
        "--adaptation_learning_rates=0.1",
    ]
    monkeypatch.setattr(local, "usable_cores", lambda: 1)  # each prepares graphs for itself
    assert run_experiment.main(arguments) == 0
    home = tmp_path / "reptile" / "keras_model"
    names = json.loads((home / "vocabulary.json").read_text())
    assert names == json.loads((tmp_path / "vocabulary.json").read_text())
    assert names[-3:] == ["<oov>", "<bos>", "<eos>"]
    model = tf.keras.models.load_model(home / "model.keras")
    x = np.array([[names.index(word) for word in ("<bos>", "the", "cat", "sat")]])
    assert model.predict(x, verbose=0).shape == (1, 4, len(names))
    assert np.isfinite(model.evaluate(x, x, verbose=0))
    result = json.loads((tmp_path / "reptile" / "adaptation_test.json").read_text())
    assert result["clients"][0]["client_id"] == "new"

    # Continued where the vocabulary would be another one, the ids would mean other words.
    (tmp_path / "comparison.md").unlink()
    (tmp_path / "vocabulary.json").write_text(json.dumps(names[::-1]))
    assert run_experiment.main(arguments) == 2
    assert "vocabulary.json is not what the data give now" in capsys.readouterr().err


def test_options_are_for_the_data_sets_that_have_them(capsys):
    assert run_experiment.main(["run_experiment.py", "--vocabulary_size=5"]) == 2
    assert "--vocabulary_size is for --dataset=stackoverflow" in capsys.readouterr().err


def test_real_posts_load_and_read_back(tmp_path):
    import gzip

    rows = collections.defaultdict(list)
    with gzip.open(real_data_file("stackoverflow_posts.jsonl.gz"), "rt") as file:
        for line in file:
            row = json.loads(line)
            rows[row.pop("split"), row.pop("client_id")].append(row)
    write_clients(tmp_path / stackoverflow.FILE_NAME, rows)
    task = load_task("stackoverflow", data_source="tff", cache_dir=tmp_path)
    assert set(task.train_clients) == {user for split, user in rows if split == "train"}
    assert len(vocabulary(task)) > 5_000
    user = task.validation_clients[0]
    _, y = task.read_client(user)
    posts = sorted(rows["heldout", user], key=lambda row: row["creation_date"])[:128]
    for row, ids in zip(posts, words(task, y)):
        said = ids.replace(" <pad>", "").replace(" <eos>", "").split()
        there = row["tokens"].split(" ")[:20]
        assert len(said) == len(there)
        assert all(ours in (theirs, "<oov>") for ours, theirs in zip(said, there))
