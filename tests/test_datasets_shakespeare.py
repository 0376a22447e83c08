"""Facts about Shakespeare as a task: roles, sequences, model, stand-in and a whole run."""

import gzip
import json

import numpy as np
import pytest
from loading import load_task, real_data_file
from tff_files import write_clients

import run_experiment
from datasets import shakespeare
from datasets.stand_ins import text as embedded_text
from tff_fedmeta.runtime import local

SPEECHES = ["To be, or not to be", "Words,\nwords.", "é"]
ROLES = [f"HAMLET_{index}" for index in range(6)]


def write(directory, roles):
    """Writes role -> speeches, each role with a test speech that nobody should see."""
    rows = {("train", role): [{"snippets": s} for s in said] for role, said in roles.items()}
    rows |= {("test", role): [{"snippets": "TFF's own test"}] for role in roles}
    write_clients(directory / shakespeare.FILE_NAME, rows)
    return directory


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write(tmp_path_factory.mktemp("cache"), dict.fromkeys(ROLES, SPEECHES))


@pytest.fixture(scope="module")
def task():
    return load_task("shakespeare", data_source="embedded")


def names(task):
    return task.assets["vocabulary.json"]


def read_aloud(task, ids):
    return ["".join(names(task)[i] for i in row) for row in ids]


def all_clients(task):
    return task.train_clients + task.validation_clients + task.test_clients


# --- roles and sequences ----------------------------------------------------------------------


def test_roles_are_split_and_the_split_is_the_same_for_every_seed(cache):
    tasks = [
        load_task("shakespeare", data_source="tff", cache_dir=cache, seed=seed, num_test_clients=2)
        for seed in (0, 1)
    ]
    assert sorted(all_clients(tasks[0])) == ROLES
    assert all_clients(tasks[0]) == all_clients(tasks[1])
    assert len(tasks[0].test_clients) == 2
    with pytest.raises(KeyError):
        tasks[0].read_client("YORICK")


def test_speeches_in_order_become_sequences_with_begin_end_unknown_and_padding(cache):
    task = load_task("shakespeare", data_source="tff", cache_dir=cache, sequence_length=11)
    assert len(names(task)) == 90  # TFF's 86 characters and four more
    x, y = task.read_client(ROLES[0])
    assert (x.dtype, x.shape) == (np.int64, (5, 11))
    assert read_aloud(task, y) == [
        "To be, or n",  # then "o", which the next sequence begins with: it is only read
        "t to be<eos>" + 3 * "<pad>",
        "Words,\nword",
        ".<eos>" + 9 * "<pad>",
        "<oov><oov><eos>" + 8 * "<pad>",  # TFF cuts into bytes, of which é has two
    ]
    assert read_aloud(task, x)[0] == "<bos>To be, or "


def test_the_same_ids_as_tffs_own_pipeline(cache):
    import tensorflow as tf
    import tensorflow_federated as tff

    task = load_task("shakespeare", data_source="tff", cache_dir=cache)
    baselines = tff.simulation.baselines
    preprocess = baselines.shakespeare.char_prediction_preprocessing.create_preprocess_fn(
        baselines.ClientSpec(num_epochs=1, batch_size=99, shuffle_buffer_size=1)
    )
    ((x, y),) = preprocess(tf.data.Dataset.from_tensor_slices({"snippets": SPEECHES}))
    for ours, theirs in zip(task.read_client(ROLES[3]), (x, y)):
        assert ours.shape == (3, 80)
        np.testing.assert_array_equal(ours, theirs)


def test_sequences_with_nothing_to_predict_are_left_out(tmp_path):
    # Begin, nine letters and end are eleven tokens: a sequence of 9 + 1 leaves the end alone.
    write(tmp_path, dict.fromkeys(ROLES, ["abcdefghi"] * 2))
    task = load_task("shakespeare", data_source="tff", cache_dir=tmp_path, sequence_length=9)
    _, y = task.read_client(ROLES[0])
    assert read_aloud(task, y) == ["abcdefghi"] * 2


def test_a_role_is_limited_to_its_first_sequences(cache):
    options = {"data_source": "tff", "cache_dir": cache, "sequence_length": 11}
    everything = load_task("shakespeare", **options).read_client(ROLES[0])
    first = load_task("shakespeare", **options, max_examples=2).read_client(ROLES[0])
    for some, whole in zip(first, everything):
        np.testing.assert_array_equal(some, whole[:2])


# --- model and metric -------------------------------------------------------------------------


def test_network_is_tffs_baseline_and_its_mask_changes_nothing_that_counts(cache):
    import tensorflow_federated as tff

    real = load_task("shakespeare", data_source="tff", cache_dir=cache)
    models = tff.simulation.baselines.shakespeare.char_prediction_models
    theirs = models.create_recurrent_model(90, 80)
    ours = real.build_keras_model()
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    theirs.set_weights(ours.get_weights())
    x, y = real.read_client(ROLES[0])
    difference = np.abs(ours(x).numpy() - theirs(x).numpy())
    assert difference[y != 0].max() < 1e-5
    assert difference[y == 0].max() > 1e-5


def test_accuracy_leaves_out_padding_alone(task):
    rng = np.random.default_rng(0)
    y = rng.integers(1, 90, (3, 5))
    y[1, 2:] = 0
    logits = rng.normal(size=(3, 5, 90))
    logits[0, :2] += 9 * np.eye(90)[y[0, :2]]
    (metric,) = task.build_metrics()
    metric.update_state(y, logits)
    assert float(metric.result()) == pytest.approx((logits.argmax(-1) == y)[y != 0].mean())
    assert float(metric.result()) > 0.1


def test_layers_and_seeds_differ_in_their_weights(task):
    first, second = (shakespeare.build_lstm(seed, 90, 40, 8, 16).get_weights() for seed in (0, 1))
    again = shakespeare.build_lstm(0, 90, 40, 8, 16).get_weights()
    kernels = [weight for weight in first if weight.ndim == 2]
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    others = [weight for weight in second if weight.ndim == 2]
    assert not any(np.array_equal(a, b) for a, b in zip(kernels, others))
    assert not np.allclose(first[2], first[5])  # the recurrent kernels of the two LSTMs


# --- the stand-in -----------------------------------------------------------------------------


def test_embedded_task_has_the_same_structure(task):
    assert [len(g) for g in (task.train_clients, task.validation_clients, task.test_clients)] == [
        180,
        24,
        36,
    ]
    x, y = task.read_client(task.test_clients[0])
    assert x.shape == y.shape == (len(x), 40)
    assert len(x) == 24
    assert "<oov>" not in "".join(read_aloud(task, y))


def test_embedded_roles_have_an_accent_and_say_what_they_would_write():
    lost = set()
    for name in embedded_text.client_ids()[:60]:
        written, speeches = "".join(embedded_text.write(0, name)), embedded_text.speak(0, name)
        assert all(speech[0].isupper() for speech in speeches)
        said = "".join(speeches)
        assert len(said.replace(" ", "")) == len(written.replace(" ", ""))
        replaced = set(written) - set(said)
        assert len(replaced) <= 1
        lost |= replaced
    assert lost == set("stweoir")
    with pytest.raises(KeyError):
        embedded_text.speak(0, "embedded_9999")


# --- whole runs -------------------------------------------------------------------------------


def test_run_on_tffs_file_exports_the_vocabulary_and_a_model_for_plain_keras(
    cache, tmp_path, monkeypatch
):
    import tensorflow as tf

    arguments = [
        "run_experiment.py",
        "--dataset=shakespeare",
        "--data_source=tff",
        f"--cache_dir={cache}",
        f"--output_dir={tmp_path}",
        "--algorithms=fedavg",  # TFF's own; another task's run has one of ours
        "--rounds=1",
        "--clients_per_round=2",
        "--num_test_clients=2",
        "--batch_size=2",
        "--sequence_length=7",
        "--lstm_size=4",
        "--adaptation_steps=1",
        "--adaptation_learning_rates=0.1",
    ]
    monkeypatch.setattr(local, "usable_cores", lambda: 1)  # each prepares graphs for itself
    assert run_experiment.main(arguments) == 0
    home = tmp_path / "fedavg" / "keras_model"
    tokens = json.loads((home / "vocabulary.json").read_text())
    assert len(tokens) == 90
    model = tf.keras.models.load_model(home / "model.keras")
    x = np.array([[tokens.index(character) for character in "To be, "]])
    assert model.predict(x, verbose=0).shape == (1, 7, 90)
    result = json.loads((tmp_path / "fedavg" / "adaptation_test.json").read_text())
    assert len(result["clients"]) == 2
    assert [c["num_support"] + c["num_query"] for c in result["clients"]] == [6, 6]


def test_real_speeches_load_and_read_back(tmp_path):
    with gzip.open(real_data_file("shakespeare_roles.json.gz"), "rt") as file:
        roles = dict(list(json.load(file).items())[:20])
    task = load_task("shakespeare", data_source="tff", cache_dir=write(tmp_path, roles))
    role = task.test_clients[0]
    x, y = task.read_client(role)
    assert len(x) <= 128
    first = roles[role][0]
    assert read_aloud(task, y[:1])[0].startswith(first[:80])
    assert "<oov>" not in "".join(read_aloud(task, y))
