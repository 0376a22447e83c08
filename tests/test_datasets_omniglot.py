"""Few-shot tasks: how clients are drawn, which classes they see, and what is reported of them."""

import functools
import json

import numpy as np
import pytest
import tfds_files as files
from loading import load_task

import datasets
import run_experiment
from datasets import DataError
from datasets.problems import few_shot
from datasets.stand_ins import characters

SIDE, SIZE = 32, 16  # of the images in the files, and of those that clients have
PER_CLASS = 4
TRAIN, TEST = range(30), range(40, 46)  # labels
SMALL = dict(image_size=SIZE, ways=3, shots=1, train_shots=3)


def picture(label, index):
    """An image [32, 32] that tells its class and its index: 2 x 2 blocks, averaged to one pixel."""
    coarse = np.random.default_rng([label, index]).integers(0, 250, [SIZE, SIZE])
    return coarse.repeat(2, axis=0).repeat(2, axis=1)


def write(directory, splits, channels=3, leave_out=(), name="omniglot"):
    import tensorflow_datasets as tfds

    features = {
        "alphabet": tfds.features.ClassLabel(num_classes=50),
        "alphabet_char_id": np.int64,
        "image": tfds.features.Image(shape=(SIDE, SIDE, channels), dtype=np.uint8),
        "label": tfds.features.ClassLabel(num_classes=1623),
    }
    rows = {
        split: [
            {
                "alphabet": label // 10,
                "alphabet_char_id": label % 10,
                "image": np.repeat(picture(label, index)[..., np.newaxis], channels, -1).astype(
                    np.uint8
                ),
                "label": label,
            }
            for label in labels
            for index in indices
        ]
        for split, (labels, indices) in splits.items()
    }
    for feature in leave_out:
        del features[feature]
        for split in rows.values():
            for row in split:
                del row[feature]
    return files.write(directory, name, "3.0.0", tfds.features.FeaturesDict(features), rows)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    write(path, {"train": (TRAIN, range(PER_CLASS)), "test": (TEST, range(PER_CLASS))})
    return path


def load(directory, **options):
    values = {**SMALL, "image_size": SIZE, **options}
    return load_task("omniglot", data_source="tfds", cache_dir=directory, **values)


@functools.cache
def pictures():
    """Bytes of every picture as clients have it -> its label, and the quarters it is turned by."""
    return {
        np.rot90(picture(label, index)[::2, ::2], turn).tobytes(): (label, turn)
        for label in [*TRAIN, *TEST]
        for index in range(2 * PER_CLASS)
        for turn in range(4)
    }


def found(x):
    """The label and the turn of each image of a client."""
    images = np.rint(255 - 255 * x[..., 0]).astype(picture(0, 0).dtype)
    return [pictures()[np.ascontiguousarray(image).tobytes()] for image in images]


def labels_of(x):
    return [label for label, _ in found(x)]


def test_classes_of_the_groups_are_disjoint_and_those_of_the_test_split_are_the_test_classes(
    directory,
):
    task = load(directory)
    seen = {}
    for group in ("train", "validation", "test"):
        clients = getattr(task, f"{group}_clients")[:60]
        seen[group] = {label for c in clients for label in labels_of(task.read_client(c)[0])}
    assert seen["test"] == set(TEST)
    assert seen["train"] | seen["validation"] <= set(TRAIN)
    assert not seen["train"] & seen["validation"]
    assert len(seen["train"]) == 24 and len(seen["validation"]) == 6


def test_a_client_has_so_many_images_of_each_class_in_turn(directory):
    task = load(directory, ways=4, shots=2)
    for client, per_class in [("train_000007", 3), ("validation_000007", 3), ("test_000007", 3)]:
        x, y = task.read_client(client)
        assert (x.shape, x.dtype, y.dtype) == ((12, SIZE, SIZE, 1), np.float32, np.int32)
        assert y.tolist() == [0, 1, 2, 3] * per_class
        labels = np.array(labels_of(x)).reshape(per_class, 4)
        assert (labels == labels[0]).all() and len(set(labels[0])) == 4
        assert len({image.tobytes() for image in x}) == len(x)
        again, _ = load(directory, ways=4, shots=2).read_client(client)
        np.testing.assert_array_equal(x, again)
    with pytest.raises(KeyError):
        task.read_client("train_1")


def test_which_class_is_called_0_is_the_clients_own(directory):
    task = load(directory)
    first = {labels_of(task.read_client(client)[0])[0] for client in task.test_clients[:60]}
    assert first == set(TEST)


def test_rotations_are_training_classes_alone(directory):
    def turns(task, group):
        clients = getattr(task, f"{group}_clients")[:40]
        return np.array([[turn for _, turn in found(task.read_client(c)[0])] for c in clients])

    task = load(directory)
    turned = turns(task, "train").reshape(40, 3, 3)
    assert (turned == turned[:, :1]).all()  # a class is turned as a whole
    assert (np.bincount(turned[:, 0].ravel(), minlength=4) > 15).all()
    assert (turns(task, "validation") == 0).all() and (turns(task, "test") == 0).all()
    assert (turns(load(directory, rotations=False), "train") == 0).all()


def test_where_the_splits_share_classes_the_classes_are_divided(tmp_path):
    half = {"train": (TRAIN, range(4)), "test": (TRAIN, range(4, 8))}
    write(tmp_path, half, name="letters")
    task = load(
        tmp_path, train_shots=8, rotations=False, tfds_name="letters"
    )  # images of both splits
    seen = {
        group: {
            label
            for client in getattr(task, f"{group}_clients")[:80]
            for label in labels_of(task.read_client(client)[0])
        }
        for group in ("train", "validation", "test")
    }
    assert [len(seen[group]) for group in ("train", "validation", "test")] == [19, 5, 6]
    assert set.union(*seen.values()) == set(TRAIN)


def test_omniglots_splits_are_of_characters_whatever_their_labels(tmp_path):
    write(tmp_path, {"train": (TRAIN, range(4)), "test": (TRAIN[:6], range(4, 8))})
    task = load(tmp_path)
    x, _ = task.read_client("test_000000")
    pixels = {image.tobytes() for image in np.rint(255 - 255 * x[..., 0])}
    of_test = {
        np.float32(picture(c, i)[::2, ::2]).tobytes() for c in TRAIN[:6] for i in range(4, 8)
    }
    assert pixels <= of_test


def test_colour_is_kept_or_made_grey(tmp_path):
    write(tmp_path, {"train": (TRAIN, range(PER_CLASS))}, channels=1)
    x, _ = load(tmp_path, color=True).read_client("test_000000")
    assert x.shape[-1] == 3
    np.testing.assert_array_equal(x[..., 0], x[..., 2])


def test_the_network_is_the_papers():
    """Convolution, batch normalisation by the batch at hand with scale and offset, and ReLU."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    model = few_shot.build_cnn(5, 28, 1, seed=0)
    weights = [rng.normal(0, 0.3, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(weights)
    x = y = rng.uniform(size=[10, 28, 28, 1]).astype(np.float32)
    for kernel, scale, offset in zip(weights[0:12:3], weights[1:12:3], weights[2:12:3]):
        y = tf.nn.conv2d(y, kernel, 2, "SAME")
        norm = tf.compat.v1.nn.fused_batch_norm
        y, _, _ = norm(y, scale.reshape(-1), offset, epsilon=0.001, is_training=True)
        y = tf.nn.relu(y)
    expected = tf.reshape(y, [10, -1]) @ weights[12] + weights[13]
    np.testing.assert_allclose(model(x), expected, rtol=1e-3, atol=1e-3)
    assert np.abs(model(x)[:1] - model(x[:1])).max() > 0.1  # the batch matters
    assert model.count_params() == 112_965 and not model.non_trainable_variables


def test_settings_are_those_published_for_so_many_ways():
    data_set = datasets.DATASETS["omniglot"]

    def defaults_for(**said):
        return data_set.defaults_for(data_set.make_options(said))

    def settings(**said):
        defaults = defaults_for(**said)
        names = ("batch_size", "inner_steps", "adaptation_batch_size", "adaptation_steps")
        return [defaults[name] for name in names]

    assert settings() == settings(shots=1) == [10, 5, 5, 50]
    assert settings(ways=20) == settings(ways=20, shots=1) == [20, 10, 10, 50]
    defaults = defaults_for(shots=1)
    assert defaults["support_fraction"] == 0.5 and defaults["clients_per_round"] == 5
    assert defaults["training_support_fraction"] == 0.1
    options = data_set.make_options()
    assert options.train_shots == 10 and options.rotations


def test_not_transductive_is_one_query_image_beside_the_support():
    support = np.zeros([3, 2]), np.array([0, 1, 2])
    query = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), np.array([0, 1, 2])

    def after(x):
        # Right as long as there is one query image; its rank among several is off by one.
        shift = 0 if x[:, 1].sum() == 1 else 1
        return np.eye(4)[(x[:, 0].astype(int) + shift)]

    figures = few_shot.measure_client(support, query, lambda x: np.eye(4)[[1] * len(x)], after, 0)
    assert figures["after"] == {"transductive": 0.0, "non-transductive": 1.0}
    assert figures["before"] == pytest.approx({"transductive": 1 / 3, "non-transductive": 1 / 3})


def test_the_stand_in_has_the_structure_of_the_real_images():
    task = load_task("omniglot", data_source="embedded")
    x, y = task.read_client("test_000000")
    assert (x.shape, y.tolist()) == ((30, 28, 28, 1), [0, 1, 2, 3, 4] * 6)
    assert x.min() == 0.0 and x.max() > 0.8 and 0.01 < x.mean() < 0.3  # white paper, some ink
    drawn = characters.draw_class(np.random.default_rng(5), 28, 1)
    again = characters.draw_class(np.random.default_rng(5), 28, 1)
    np.testing.assert_array_equal(drawn, again)
    assert (drawn.shape, drawn.dtype) == ((20, 28, 28, 1), np.uint8)
    assert len({image.tobytes() for image in drawn}) == 20


def test_training_clients_have_more_shots_than_adaptation_learns_from(capsys):
    flags = ["--shots=5", "--train_shots=5"]
    assert run_experiment.main(["", "--dataset=omniglot", *flags]) == 2
    assert capsys.readouterr().err == (
        "Error: train_shots must be a whole number >= 6, more than shots, but is 5.\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(ways=7), "images of each of 7 classes, but there are 6 validation classes"),
        (dict(train_shots=5), "A train client takes 5 images .* the smallest with 4 images"),
        (dict(shots=4, train_shots=5), "A train client takes 5 images"),
        (dict(tfds_name="no_such_set"), "no data set 'no_such_set'"),
    ],
)
def test_tasks_that_the_images_cannot_give_are_said(directory, options, said):
    with pytest.raises(DataError, match=said):
        load(directory, **options)


def test_a_set_without_class_labels_is_said(tmp_path):
    write(tmp_path, {"train": (TRAIN, range(1))}, leave_out=["label"])
    with pytest.raises(DataError, match=r"^The data set omniglot must .* it lacks label; it has "):
        load(tmp_path)


def test_a_run_reports_both_accuracies(directory, tmp_path, capsys):
    flags = ["--dataset=omniglot", "--data_source=tfds", f"--cache_dir={directory}"]
    flags += ["--ways=3", "--shots=1", "--train_shots=3", f"--image_size={SIZE}", "--rounds=2"]
    flags += ["--algorithms=reptile", "--adaptation_steps=2", "--num_test_clients=4"]
    flags += ["--adaptation_learning_rates=0.1", "--clients_per_round=2"]
    assert run_experiment.main(["", *flags, f"--output_dir={tmp_path}"]) == 0
    table = capsys.readouterr().out
    assert "transductive" in table and "non-transductive" in table
    adapted = json.loads((tmp_path / "reptile" / "adaptation_test.json").read_text())
    measured = json.loads((tmp_path / "reptile" / "measures_test.json").read_text())
    assert [row["num_support"] for row in adapted["clients"]] == [3] * 4
    for when in ("before", "after"):
        expected = adapted["summary"][when]["mean"]
        figure = measured["summary"][when]["transductive"]["mean"]
        assert figure == pytest.approx(expected, abs=1e-6)
