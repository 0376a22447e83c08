"""Facts about a user's own table as a task: what it becomes, what is refused, what is exported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from loading import graph_weights, load_task, real_data_file

import datasets
import run_experiment
from datasets import DataError
from datasets.stand_ins import households
from datasets.tables import channels, columns, examples, files, labels, times
from tff_fedmeta import keras_files
from tff_fedmeta.experiment import model_meaning, own_model

COLUMNS = {"client_column": "who", "label_column": "y"}


def make_frame(num_clients=8, num_rows=12, seed=0):
    """Two numbers, a category and a class label that every client reads its own way."""
    rng = np.random.default_rng(seed)
    n = num_clients * num_rows
    who = np.repeat([f"c{i}" for i in range(num_clients)], num_rows)
    frame = pd.DataFrame(
        {
            "who": who,
            "t": np.tile(np.arange(num_rows), num_clients),
            "a": rng.normal(100, 5, n).round(3),
            "b": rng.normal(size=n).round(3),
            "mode": rng.choice(["eco", "off", "on"], n),
        }
    )
    sign = np.where(np.char.str_len(who.astype(str)) % 2, 1, -1)
    frame["y"] = np.where(sign * frame["b"] > 0, "high", "low")
    return frame


@pytest.fixture
def save(tmp_path):
    def save(frame, name="table.csv"):
        path = tmp_path / name
        if name.endswith(".csv"):
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return str(path)

    return save


def all_clients(task):
    return task.train_clients + task.validation_clients + task.test_clients


def held_out(**options):
    """The frame of `make_frame` has these clients in no training group."""
    frame = make_frame()
    groups = examples.groups(frame, "who", options.get("split_column"))
    train, validation, test = datasets.task.split_clients(groups, datasets.task.DATA_SEED)
    return train, validation + test


# --- columns to numbers ----------------------------------------------------------------------


def test_numbers_texts_and_missing_values_become_what_is_documented():
    frame = pd.DataFrame(
        {
            "n": [1.0, 3.0, np.nan, 100.0],
            "c": ["x", None, "y", "z"],
            "flag": [True, False, True, True],
            "same": [7, 7, 7, 8],
        }
    )
    training = np.array([True, True, True, False])
    features = [columns.fit_feature(frame[column], training) for column in frame]
    assert features == [
        {"column": "n", "mean": 2.0, "scale": 1.0, "indicator": True, "offset": 0.0,
         "limits": [-8.0, 12.0]},
        {"column": "c", "categories": ["x", "y", None]},
        {"column": "flag", "mean": pytest.approx(2 / 3), "scale": pytest.approx(np.sqrt(2) / 3),
         "indicator": False, "offset": 0.0, "limits": pytest.approx([-4.0474, 5.3807], abs=1e-4)},
        {"column": "same", "mean": 7.0, "scale": 1.0, "indicator": False, "offset": 0.0,
         "limits": [-3.0, 17.0]},
    ]  # fmt: skip
    want = [[1, 0, 1, 0, 0, 1, 7], [3, 0, 0, 0, 1, 0, 7], [2, 1, 0, 1, 0, 1, 7]]
    encoded = columns.encode(frame, features)
    assert encoded.dtype == np.float32
    np.testing.assert_array_equal(encoded, [*want, [12, 0, 0, 0, 0, 1, 8]])
    assert channels.names(features) == [
        *("n", "n is missing", "c=x", "c=y", "c is missing", "flag", "same"),
    ]
    mean, scale = channels.normalisation(features)
    assert mean == pytest.approx([2, 0, 0, 0, 0, 2 / 3, 7])
    assert scale == pytest.approx([1, 1, 1, 1, 1, np.sqrt(2) / 3, 1])


def test_what_is_learnt_comes_from_training_clients_alone(save):
    frame = make_frame()
    _, others = held_out()
    before = load_task("csv", csv=save(frame), **COLUMNS)
    assert set(before.validation_clients + before.test_clients) == set(others)
    changed = frame["who"].isin(others)
    frame.loc[changed, "a"] = 1e6
    frame.loc[changed, "mode"] = "never seen"
    frame.loc[changed & (frame["t"] == 0), "b"] = np.nan
    after = load_task("csv", csv=save(frame), **COLUMNS)
    assert after.assets["preprocessing.json"] == before.assets["preprocessing.json"]
    assert after.assets["data_report.json"]["values_brought_to_limits"]["a"] == changed.sum()
    x, _ = after.read_client(others[0])
    channels = after.assets["preprocessing.json"]["channels"]
    modes = [channels.index(f"mode={mode}") for mode in ("eco", "off", "on")]
    assert not x[:, modes].any()  # a category of no training client
    features = {f["column"]: f for f in after.assets["preprocessing.json"]["features"]}
    assert x[0, channels.index("b")] == pytest.approx(features["b"]["mean"])


def test_exported_preprocessing_is_enough_for_pandas_alone(save):
    """The loop of the README: a row as the model takes it, without this repository."""
    frame = make_frame()
    frame.loc[::5, "b"] = np.nan
    frame.loc[::7, "mode"] = None
    task = load_task("csv", csv=save(frame), **COLUMNS, feature_columns="a,b,mode")
    how = json.loads(json.dumps(task.assets["preprocessing.json"], allow_nan=False))
    rows = frame[frame["who"] == task.test_clients[0]]
    channels = []
    for feature in how["features"]:
        column = rows[feature["column"]]
        if "categories" in feature:
            channels += [column.isna() if c is None else column == c for c in feature["categories"]]
        else:
            channels.append(column.fillna(feature["mean"]))
            if feature["indicator"]:
                channels.append(column.isna())
    x, y = task.read_client(task.test_clients[0])
    np.testing.assert_allclose(np.stack(channels, axis=-1).astype(np.float32), x)
    assert [how["label"]["classes"][index] for index in y] == rows["y"].tolist()
    assert len(how["channels"]) == x.shape[1] == len(channels) == 7


def test_label_kind_follows_the_values_unless_it_is_said():
    everything = np.ones(60, bool)

    def fit(values, kind=None):
        return labels.fit(pd.Series(values, name="y"), everything, kind)

    assert fit([3, 1, 1] * 20)["classes"] == [1, 3]
    assert fit([3.0, 1.0, 1.0] * 20)["classes"] == [1, 3]
    assert fit(["1", "b", "b"] * 20)["classes"] == ["1", "b"]
    assert fit([True, False, True] * 20)["classes"] == [False, True]
    assert "classes" not in fit([0.5, 1.0, 2.0] * 20)
    assert "classes" not in fit(list(range(60)))
    assert fit([1, 3] * 30, "regression") == {"column": "y", "mean": 2.0, "scale": 1.0}
    assert fit([0.5, 1.5] * 30, "classification")["classes"] == [0.5, 1.5]
    with pytest.raises(DataError, match="label_kind must be"):
        fit([1, 3] * 30, "cluster")


# --- clients, series and windows ---------------------------------------------------------------


def test_windows_are_those_of_each_series_in_time_order():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "who": rng.choice(["a", "b"], 200),
            "series": rng.choice(["p", "q"], 200),
            "t": rng.integers(0, 60, 200),
        }
    )
    found = examples.examples(
        frame, "who", series_columns=["series"], times=frame["t"].to_numpy(), window=7, stride=3
    ).rows
    for who in "ab":
        want = []
        for series in "pq":
            part = frame[(frame["who"] == who) & (frame["series"] == series)]
            rows = part.sort_values("t", kind="stable").index.to_numpy()
            want += [tuple(rows[i : i + 7]) for i in range(0, len(rows) - 6, 3)]
        assert {tuple(rows) for rows in found[who]} == set(want)
        assert len(found[who]) == len(want) > 20
        ends = frame["t"].to_numpy()[found[who][:, -1]]
        assert (np.diff(ends) >= 0).all() and ends[0] < ends[-1]


def test_rows_without_time_stay_in_the_files_order_and_with_it_are_sorted():
    frame = pd.DataFrame(
        {"who": list("abab"), "t": ["2024-01-02", "2024-03-01", "2024-01-01", "2024-02-01"]}
    )
    assert [rows.tolist() for rows in examples.examples(frame, "who").rows.values()] == [
        [0, 2],
        [1, 3],
    ]
    sorted_rows = examples.examples(frame, "who", times=times.times(frame["t"])).rows
    assert [rows.tolist() for rows in sorted_rows.values()] == [[2, 0], [3, 1]]


def test_a_window_is_labelled_by_its_last_row_and_none_overlap_unless_asked(save):
    frame = make_frame()
    options = dict(COLUMNS, time_column="t", window=4, feature_columns="a,b")
    path = save(frame.sample(frac=1, random_state=0))
    task = load_task("csv", csv=path, **options)
    x, y = task.read_client("c3")
    mine = frame[frame["who"] == "c3"]
    np.testing.assert_array_equal(x, mine[["a", "b"]].to_numpy(np.float32).reshape(3, 4, 2))
    classes = task.assets["preprocessing.json"]["label"]["classes"]
    assert [classes[i] for i in y] == mine["y"].iloc[[3, 7, 11]].tolist()
    assert len(load_task("csv", csv=path, **options, window_stride=2).read_client("c3")[1]) == 5


def test_clients_that_share_a_value_of_the_split_column_stay_together(save):
    frame = make_frame(num_clients=24)
    frame["person"] = "p" + (frame["who"].str[1:].astype(int) // 3).astype(str)
    task = load_task(
        "csv",
        csv=save(frame),
        **COLUMNS,
        feature_columns="a,b",
        split_column="person",
        num_test_clients=2,
    )
    person = dict(zip(frame["who"], frame["person"]))
    sides = [
        {person[client] for client in clients}
        for clients in (task.train_clients, task.validation_clients, task.test_clients)
    ]
    assert [len(side) for side in sides] == [5, 1, 2]
    assert len(set.union(*sides)) == 8
    assert sorted(all_clients(task)) == sorted(person)


def test_clients_are_joined_through_each_other():
    frame = pd.DataFrame(
        {"who": list("aabbcdef"), "device": ["1", "2", "2", "3", "3", "4", "5", "6"]}
    )
    groups = examples.groups(frame, "who", "device")
    assert sorted(groups.values()) == [("a", "b", "c"), ("d",), ("e",), ("f",)]
    frame["device"] = "all"
    with pytest.raises(DataError, match=r"makes 1 group .*--series_column"):
        examples.groups(frame, "who", "device")


def test_ids_that_look_like_numbers_stay_as_they_are_written(save):
    frame = make_frame()
    frame["who"] = "00" + frame["who"].str[1:]
    task = load_task("csv", csv=save(frame), **COLUMNS)
    assert sorted(all_clients(task))[:2] == ["000", "001"]
    with pytest.raises(KeyError):
        task.read_client("0")


def test_whoever_has_the_model_alone_is_told_what_its_numbers_mean(save):
    frame = make_frame()
    asked = {**COLUMNS, "label_column": "b", "feature_columns": "a,mode"}
    said = model_meaning.describe(load_task("csv", csv=save(frame), **asked))
    assert said["input"]["shape"] == [None, 4] and said["target"]["shape"] == [None]
    assert said["input"]["channels"] == ["a", "mode=eco", "mode=off", "mode=on"]
    assert said["output"]["mean"] == pytest.approx(frame["b"].mean(), abs=0.5)
    assert said["output"]["scale"] == said["target"]["scale"] != 1
    asked["label_column"], asked["feature_columns"] = "mode", "a,b"
    said = model_meaning.describe(load_task("csv", csv=save(frame), **asked))
    assert said["output"]["classes"] == ["eco", "off", "on"] and "mean" not in said["target"]
    assert json.loads(json.dumps(said, allow_nan=False)) == said


# --- the file and its stand-in -----------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    return load_task("csv", data_source="embedded")


@pytest.mark.parametrize("name", ["homes.csv", "homes.parquet"])
def test_the_stand_in_written_to_a_file_is_the_same_task(save, embedded, name):
    task = load_task("csv", csv=save(households.table(), name), **households.OPTIONS)
    assert (task.data_source, embedded.data_source) == ("file", "embedded")
    for field in ("train_clients", "test_clients", "input_spec", "split", "metric"):
        assert getattr(task, field) == getattr(embedded, field)
    for client in (task.train_clients[0], task.test_clients[-1]):
        for mine, theirs in zip(task.read_client(client), embedded.read_client(client)):
            np.testing.assert_array_equal(mine, theirs)
    assert embedded.split == "ordered"


def test_households_differ_in_a_way_that_can_be_learnt(embedded):
    """A linear classifier fitted to the earlier half of a home knows its later half better."""

    def design(x):
        return np.c_[x.reshape(len(x), -1), np.ones(len(x))]

    def fit(x, y):
        x = design(x)
        return np.linalg.solve(x.T @ x + 1e-2 * len(x) * np.eye(x.shape[1]), x.T @ np.eye(5)[y])

    mean, scale = (
        np.array(embedded.assets["preprocessing.json"]["normalisation"][name])
        for name in ("mean", "scale")
    )
    read = {}
    for client in embedded.train_clients + embedded.test_clients:
        x, y = embedded.read_client(client)
        read[client] = (x - mean) / scale, y
    pooled = fit(
        *(np.concatenate(parts) for parts in zip(*(read[c] for c in embedded.train_clients)))
    )
    gains = []
    for client in embedded.test_clients:
        x, y = read[client]
        half = len(x) // 2
        own = fit(x[:half], y[:half])
        own, theirs = ((design(x[half:]) @ w).argmax(1) == y[half:] for w in (own, pooled))
        gains.append(own.mean() - theirs.mean())
    assert np.mean(gains) > 0.05


def test_households_are_pure_functions_of_seed_and_index():
    few, more, other = households.table(3, 2), households.table(3, 4), households.table(4, 2)
    pd.testing.assert_frame_equal(few, more[: len(few)])
    assert len(few) == 2 * 960
    assert not few.equals(other)
    assert set(few["activity"]) <= set(households.ACTIVITIES)
    assert 0 < few["temperature"].isna().mean() < 0.05


def test_auto_without_a_file_runs_on_the_stand_in_and_says_so(capsys):
    assert load_task("csv").data_source == "embedded"
    banner = " ".join(capsys.readouterr().err.replace("#", " ").split())
    assert "EMBEDDED smart homes" in banner
    assert "--csv=FILE" in banner
    assert "--cache_dir" not in banner


def test_importing_imports_neither_pandas_nor_tensorflow():
    code = "import sys, datasets; sys.exit(bool({'pandas', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what is refused -----------------------------------------------------------------------------


def change(row, column, value):
    def spoil(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value
        return frame

    return spoil


def unseen_label(frame):
    _, others = held_out()
    frame.loc[frame["who"].isin(others), "y"] = "medium"
    return frame


BAD_FILES = {
    "nan": (change(17, "a", "nan"), {}, ["'a'", "row 18", "'nan'"]),
    "infinite": (change(17, "a", "inf"), {}, ["'a'", "row 18", "inf"]),
    "too_large": (change(17, "a", 1e300), {}, ["'a'", "row 18", "1e+300"]),
    "word_among_numbers": (change(5, "b", "oops"), {}, ["'b'", "row 6", "'oops'"]),
    "free_text": (
        lambda f: f.assign(note=[f"n{i}" for i in f.index]), {}, ["'note'", "72 different texts"],
    ),
    "empty_column": (
        lambda f: f.assign(nothing=np.nan),
        {"feature_columns": "a,nothing"},
        ["'nothing'", "no values"],
    ),
    "infinite_label": (
        lambda f: change(3, "y", np.inf)(f.assign(y=f["b"])), {}, ["'y'", "row 4", "inf"],
    ),
    "unseen_label": (unseen_label, {}, ["'medium'", "'y'"]),
    "one_label": (lambda f: f.assign(y="same"), {}, ["'same'", "'y'"]),
    "label_is_text": (lambda f: f, {"label_kind": "regression"}, ["'y'", "finite numbers"]),
    "one_client": (lambda f: f.assign(who="me"), {}, ["'who' has 1 client,", "at least 3"]),
    "window_too_long": (lambda f: f, {"window": 7}, ["8 of 8", "2 windows of 7", "--window"]),
    "window_zero": (lambda f: f, {"window": 0}, ["window must be a whole number >= 1"]),
    "stride_alone": (lambda f: f, {"window_stride": 2}, ["--window_stride needs a --window"]),
    "no_time": (change(2, "t", "noon"), {"time_column": "t"}, ["'t'", "'noon'", "row 3"]),
    "unknown_client_column": (lambda f: f, {"client_column": "woh"}, ["--client_column", "'who'"]),
    "unknown_feature": (
        lambda f: f, {"feature_columns": "a,modes"}, ["--feature_columns", "'mode'"],
    ),
    "label_is_feature": (lambda f: f, {"feature_columns": "a,y"}, ["'y'", "feature"]),
    "label_is_client": (lambda f: f, {"label_column": "who"}, ["--client_column", "both be 'who'"]),
    "no_feature_left": (lambda f: f[["who", "y"]], {}, ["No column is left"]),
    "no_label_column": (lambda f: f, {"label_column": None}, ["--label_column"]),
    "conv1d_without_window": (lambda f: f, {"model": "conv1d"}, ["--window"]),
    "embedded_too": (lambda f: f, {"data_source": "embedded"}, ["--csv", "embedded"]),
    "too_few_rows_at_all": (lambda f: f[:0], {}, ["no rows"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_table_is_refused_in_one_sentence_that_names_the_place(save, name):
    spoil, options, parts = BAD_FILES[name]
    path = save(spoil(make_frame()))
    with pytest.raises(DataError) as error:
        load_task("csv", csv=path, **{**COLUMNS, **options})
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_categories_are_at_most_fifty_texts(save):
    frame = make_frame(num_clients=20)
    frame["room"] = [f"r{i % 50}" for i in range(len(frame))]
    task = load_task("csv", csv=save(frame), **COLUMNS, feature_columns="room")
    assert task.input_spec[0].shape.as_list() == [None, 50]
    frame["room"] = [f"r{i % 51}" for i in range(len(frame))]
    with pytest.raises(DataError, match="51 different texts"):
        load_task("csv", csv=save(frame), **COLUMNS, feature_columns="room")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "not a CSV"),
        (b"PAR1 and nothing more", "not a CSV"),
        (b'who,y\n"a,1\n', "not a CSV"),
        (b"who,y\n\xff\xfe,1\n", "not a CSV"),
    ],
)
def test_unreadable_file_is_named(tmp_path, content, reason):
    path = tmp_path / "broken.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as error:
        load_task("csv", csv=str(path), **COLUMNS)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


# --- the models ----------------------------------------------------------------------------------


def test_quantities_are_standardised_and_the_error_is_in_their_units(save):
    frame = make_frame().assign(y=lambda f: 3000 + 200 * f["b"])
    task = load_task("csv", csv=save(frame), **COLUMNS, feature_columns="a,b")
    assert (task.metric, task.higher_is_better) == ("mae", False)
    label = task.assets["preprocessing.json"]["label"]
    train = frame[frame["who"].isin(task.train_clients)]["y"]
    assert label["mean"] == pytest.approx(train.mean())
    assert label["scale"] == pytest.approx(train.std(ddof=0))
    x, y = task.read_client("c2")
    mine = frame[frame["who"] == "c2"]["y"]
    np.testing.assert_allclose(y * label["scale"] + label["mean"], mine, rtol=1e-5)
    model = task.model_fn()
    output = model.forward_pass({"x": x, "y": y}, training=False)
    predictions = task.build_keras_model()(x).numpy()[:, 0]
    assert float(output.loss) == pytest.approx(np.mean((predictions - y) ** 2), rel=1e-5)
    metric, _ = task.build_metrics()
    metric = type(metric).from_config(metric.get_config())  # as TFF makes it
    metric.update_state(y, predictions[:, None])
    in_units = predictions * label["scale"] + label["mean"]
    assert float(metric.result()) == pytest.approx(np.abs(in_units - mine).mean(), rel=1e-4)


@pytest.mark.parametrize(("model", "window"), [("mlp", None), ("mlp", 3), ("conv1d", 3)])
def test_exported_model_takes_the_files_units_in_plain_keras(save, tmp_path, model, window):
    import tensorflow as tf

    options = dict(csv=save(make_frame()), **COLUMNS, model=model, window=window)
    task, raw = load_task("csv", **options), load_task("csv", **options, normalize=False)
    how = task.assets["preprocessing.json"]["normalisation"]
    x, _ = task.read_client("c1")
    inside = task.build_keras_model()
    outside = raw.build_keras_model()((x - how["mean"]) / how["scale"])
    np.testing.assert_allclose(inside(x), outside, rtol=1e-3, atol=1e-5)
    assert how["in_model"] and len(inside.weights) == len(inside.trainable_weights)
    inside.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        tf.keras.models.load_model(tmp_path / "model.keras")(x), inside(x)
    )


@pytest.fixture
def save_model(tmp_path):
    def save_model(*layers, name="mine.keras"):
        import tensorflow as tf

        path = str(tmp_path / name)
        tf.keras.Sequential(layers).save(path)
        return path

    return save_model


def keras_layers():
    import tensorflow as tf

    return tf.keras.layers, tf.keras.Input


def test_a_keras_file_starts_from_its_weights_also_in_a_graph(save, tmp_path):
    import tensorflow as tf

    layers, entry = keras_layers()
    inputs = entry([5])
    hidden = layers.Dropout(0.5)(layers.LayerNormalization()(layers.Dense(7, "relu")(inputs)))
    outputs = layers.Dense(2)(layers.concatenate([inputs, hidden]))
    saved = tf.keras.Model(inputs, outputs)
    saved.save(tmp_path / "mine.keras")
    task = load_task(
        "csv",
        csv=save(make_frame()),
        **COLUMNS,
        feature_columns="a,b,mode",
    )
    task = own_model.replace_network(task, keras_files.open_model(tmp_path / "mine.keras"))
    x, _ = task.read_client("c0")
    how = task.assets["preprocessing.json"]["normalisation"]
    want, logits = saved.get_weights(), saved((x - how["mean"]) / how["scale"])
    for weights in (task.build_keras_model().get_weights(), graph_weights(task)):
        assert [w.shape for w in weights] == [w.shape for w in want]
        for mine, theirs in zip(weights, want):
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(task.build_keras_model()(x), logits, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", ["mlp", "conv1d"])
def test_builds_of_one_seed_are_the_same_and_of_another_are_not(save, model):
    options = dict(csv=save(make_frame()), **COLUMNS, window=3, model=model)
    task, other = load_task("csv", **options), load_task("csv", **options, seed=1)
    eager = task.build_keras_model().get_weights()
    for mine, theirs in zip(eager, graph_weights(task)):
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(eager[0], other.build_keras_model().get_weights()[0])


def test_a_keras_model_that_does_not_fit_is_refused(save):
    import tensorflow as tf

    layers, entry = keras_layers()
    path = save(make_frame())

    task = load_task("csv", csv=path, **COLUMNS, feature_columns="a,b,mode")

    def refused(model, *parts):
        with pytest.raises(ValueError) as error:
            own_model.replace_network(task, model)
        for part in parts:
            assert part in str(error.value)
        assert "\n" not in str(error.value)

    sequential = tf.keras.Sequential
    refused(sequential([entry([4]), layers.Dense(2)]), "[n, 4]", "[n, 5]")
    refused(sequential([entry([5]), layers.Dense(3)]), "[n, 3]", "[n, 2]")
    refused(sequential([entry([5]), layers.Dense(2, "softmax")]), "probabilities", "logits")
    with pytest.raises(DataError, match=r"model must be one of.*'mine.keras'"):
        load_task("csv", csv=path, **COLUMNS, model="mine.keras")


# --- the command line ----------------------------------------------------------------------------

SMALL = [
    "run_experiment.py",
    "--dataset=csv",
    "--client_column=who",
    "--label_column=y",
    "--time_column=t",
    "--rounds=2",
    "--clients_per_round=3",
    "--batch_size=4",
    "--adaptation_steps=3",
    "--adaptation_learning_rates=0.05",
    "--rounds_per_evaluation=2",
]


def test_algorithms_split_in_time_order_where_evaluation_does():
    data_set = datasets.DATASETS["csv"]

    def split(**options):
        return data_set.defaults_for(data_set.make_options(options))["split"]

    file = dict(csv=str(Path(__file__)))
    assert split() == "ordered"  # the stand-in has times
    assert split(**file) == "random"
    assert split(**file, time_column="t") == "ordered"
    assert split(**file, window=4, window_stride=4) == "random"
    assert split(**file, window=4, window_stride=2) == "ordered"


def test_from_file_to_export_and_no_further_on_a_changed_file(save, tmp_path, capsys):
    import tensorflow as tf

    frame = make_frame()
    frame.loc[::5, "b"] = np.nan
    path, output_dir = save(frame), tmp_path / "run"
    command = [*SMALL, f"--csv={path}", f"--output_dir={output_dir}", "--algorithms=reptile"]
    assert run_experiment.main(command) == 0
    config = json.loads((output_dir / "config.json").read_text())
    assert config["data_source"] == "file"
    assert config["task_options"]["csv_sha256"] == files.sha256(path)

    home = output_dir / "reptile" / "keras_model"
    how = json.loads((home / "preprocessing.json").read_text())
    result = json.loads((output_dir / "reptile" / "adaptation_test.json").read_text())
    model = tf.keras.models.load_model(home / "model.keras")
    for client in result["clients"]:
        rows = frame[frame["who"] == client["client_id"]].sort_values("t")
        later = rows[client["num_support"] :]
        x = columns.encode(later, how["features"])
        right = np.array(how["label"]["classes"])[model(x).numpy().argmax(1)] == later["y"]
        assert client["accuracy"][0] == pytest.approx(right.mean())
        assert client["num_support"] + client["num_query"] == 12

    (output_dir / "comparison.md").unlink()  # as if it had been interrupted
    frame.loc[3, "a"] += 1
    frame.to_csv(path, index=False)
    assert run_experiment.main(command) == 2
    assert "holds a run of another configuration: task_options" in capsys.readouterr().err


def test_command_line_errors_are_one_sentence_and_status_two(save, save_model, capsys):
    layers, entry = keras_layers()
    path = save(make_frame())
    code = save_model(entry([5]), layers.Lambda(lambda x: x[:, :2], name="code"), name="code.keras")
    moving = save_model(entry([5]), layers.BatchNormalization(), layers.Dense(2))
    for arguments, part in [
        (["--csv=/nowhere/at_all.csv"], "/nowhere/at_all.csv cannot be read"),
        (["--data_source=file"], "there is no --csv"),
        ([f"--csv={path}", "--label_column=z"], "no column 'z'"),
        ([f"--csv={path}", f"--model={moving}.keras"], "cannot be read: No such file"),
        ([f"--csv={path}", f"--model={code}"], "its layer 'code' needs 'Lambda'"),
        ([f"--csv={path}", f"--model={moving}", "--rounds=1"], "batch_normalization"),
    ]:
        capsys.readouterr()
        assert run_experiment.main([*SMALL, *arguments, f"--output_dir={path}.run"]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "Error: " in line]
        assert len(errors) == 1 and part in errors[0]


def test_phone_and_watch_motion_is_read_window_for_window(save):
    with np.load(real_data_file("har_windows.npz")) as file:
        kept = np.isin(file["client"], ["s01_sp", "s01_sw", "s03_sp", "s08_sp"])
        x, y, client = (file[name][kept] for name in ("x", "y", "client"))
    axes = [f"axis_{i}" for i in range(6)]
    frame = pd.DataFrame(x.reshape(-1, 6).astype(np.float32), columns=axes)
    frame["device"] = np.repeat(client, 100)
    frame["person"] = frame["device"].str[:3]
    frame["activity"] = np.repeat(y, 100)
    task = load_task(
        "csv",
        csv=save(frame, "motion.parquet"),
        client_column="person",
        label_column="activity",
        series_column="device",
        window=100,
    )
    read_x, read_y = task.read_client("s01")
    mine = np.char.startswith(client, "s01")
    np.testing.assert_array_equal(read_x, x[mine].astype(np.float32))
    np.testing.assert_array_equal(read_y, y[mine])
    assert task.split == "random"


def test_a_regression_error_is_over_all_query_rows_of_as_many_clients_as_there_are(
    save, tmp_path, capsys
):
    """Clients of 131 query rows, which are measured in passes of 128 and of 3; six clients."""
    import tensorflow as tf

    frame = make_frame(num_clients=6, num_rows=262).assign(y=lambda f: 50 + 9 * f["b"])
    frame.loc[frame["t"] >= 259, "y"] += 100  # the last pass has another error
    output_dir = tmp_path / "run"
    command = [
        *("run", "--dataset=csv", f"--csv={save(frame)}", "--client_column=who"),
        *("--label_column=y", "--time_column=t", "--rounds=1", "--algorithms=fedavg"),
        *("--adaptation_steps=1", "--adaptation_learning_rates=0.01"),
        f"--output_dir={output_dir}",
    ]
    assert run_experiment.main(command) == 0
    assert "all 4 training clients" in capsys.readouterr().err
    home = output_dir / "fedavg" / "keras_model"
    how = json.loads((home / "preprocessing.json").read_text())
    result = json.loads((output_dir / "fedavg" / "adaptation_test.json").read_text())
    measured = json.loads((output_dir / "fedavg" / "measures_test.json").read_text())
    model = tf.keras.models.load_model(home / "model.keras")
    (client,), (figures,) = result["clients"], measured["clients"]
    query = frame[frame["who"] == client["client_id"]].iloc[131:]
    output = model(columns.encode(query, how["features"])).numpy()[:, 0]
    errors = output * how["label"]["scale"] + how["label"]["mean"] - query["y"]
    assert client["num_query"] == 131
    assert client["mae"][0] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert client["rmse"][0] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-5)
    for way, step in (("before", 0), ("after", -1)):
        assert figures["figures"][way]["mae"] == pytest.approx(client["mae"][step], rel=1e-5)
    (output_dir / "comparison.md").unlink()  # as if it had been interrupted
    assert run_experiment.main(command) == 0  # its cohorts of four fit those not asked for


def test_each_client_is_tested_in_a_fold_also_with_ids_clocks_and_weights(save, tmp_path, capsys):
    import tensorflow as tf

    frame = make_frame(num_clients=5, num_rows=8).assign(weight=lambda f: 1 + f["t"] % 2)
    frame["at"] = pd.Timestamp("2024-05-31 05:00") + pd.to_timedelta(7 * frame["t"], unit="h")
    output_dir = tmp_path / "run"
    command = [
        *("run", "--dataset=csv", f"--csv={save(frame)}", "--client_column=who"),
        *("--label_column=y", "--time_column=at", "--time_features=hour,weekday"),
        *("--embedding_columns=mode", "--weight_column=weight", "--class_weights=balanced"),
        *("--rounds=1", "--algorithms=fedavg", "--adaptation_steps=1"),
        *("--adaptation_learning_rates=0.01", "--folds=2", f"--output_dir={output_dir}"),
    ]
    assert run_experiment.main(command) == 0
    text = capsys.readouterr().out
    assert "Each of 5 clients was tested once, in 2 folds" in text
    compared = json.loads((output_dir / "comparison.json").read_text())
    assert (compared["folds"], compared["repetitions"], compared["num_clients"]) == (2, 1, 5)
    values, right, counted = {}, 0, 0
    for number in range(2):
        home = output_dir / f"fold_{number}" / "fedavg"
        for client in json.loads((home / "adaptation_test.json").read_text())["clients"]:
            assert client["client_id"] not in values
            values[client["client_id"]] = client["accuracy"][0]
            right += client["num_query"] * client["accuracy"][0]
            counted += client["num_query"]
        # What is exported needs Keras alone, and gives the measured accuracy of weighted rows.
        model = tf.keras.models.load_model(home / "keras_model" / "model.keras")
        how = json.loads((home / "keras_model" / "preprocessing.json").read_text())
        query = frame[frame["who"] == client["client_id"]].iloc[client["num_support"] :]
        found = model(columns.encode(query, how["features"])).numpy().argmax(axis=1)
        found = np.array(how["label"]["classes"])[found]
        assert np.mean(found == query["y"]) == pytest.approx(client["accuracy"][0])
    assert len(values) == 5
    row = compared["algorithms"]["fedavg"]
    assert row["before"]["mean"] == pytest.approx(np.mean(list(values.values())))
    confused = json.loads((output_dir / "confusion.json").read_text())
    before = np.array(confused["algorithms"]["fedavg"]["before"])
    assert confused["classes"] == ["high", "low"]
    assert before.sum() == counted and np.trace(before) == pytest.approx(right)
    assert (output_dir / "confusion.png").stat().st_size > 1000
    assert run_experiment.main([*command, "--num_test_clients=1"]) == 2
    assert "folds decide how many clients are tested" in capsys.readouterr().err
    assert run_experiment.main(["run", "--dataset=sinusoid", "--folds=2"]) == 2
    assert (
        "--folds is for --dataset=movielens or csv or leaf, not for sinusoid"
        in capsys.readouterr().err
    )
