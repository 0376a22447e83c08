"""Facts about what a table's columns may be: clocks, ids, weights; and about who is tested."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest

import datasets
from datasets import DataError
from datasets.tables import clients, columns, metrics, models, prepare, times
from datasets.task import Fold, split_clients
from tff_fedmeta.client import model_checks

WHEN = ["2024-02-29 06:00:00", "2024-03-01 18:30:00", "2024-03-03 00:00:00"]


def table(num_clients=6, num_rows=12, seed=0):
    rng = np.random.default_rng(seed)
    n = num_clients * num_rows
    frame = pd.DataFrame(
        {
            "home": np.repeat([f"h{i}" for i in range(num_clients)], num_rows),
            "at": np.tile(
                pd.date_range("2024-02-28 21:00", periods=num_rows, freq="7h"), num_clients
            ),
            "x": rng.normal(20, 3, n).round(2),
            "item": [f"i{i}" for i in rng.integers(0, 9, n)],
        }
    )  # fmt: skip
    frame["y"] = np.where(rng.random(n) < 0.2, "rare", "usual")
    return frame


def load(path, fold=None, **options):
    options = {"csv": str(path), "client_column": "home", "label_column": "y", **options}
    return datasets.load("csv", datasets.Request(options=options, fold=fold))


def saved(tmp_path, frame):
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def module_of(task, home):
    """The exported `prepare.py`, imported from where a user finds it."""
    home.mkdir()
    (home / "prepare.py").write_text(task.assets["prepare.py"])
    (home / "preprocessing.json").write_text(json.dumps(task.assets["preprocessing.json"]))
    spec = importlib.util.spec_from_file_location("prepare_of_features", home / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- clocks ---


@pytest.mark.parametrize(
    "form", ["%Y-%m-%dT%H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d %b %Y %H:%M:%S",
             "%Y-%m-%d %H:%M:%S+09:00"]
)  # fmt: skip
def test_hour_and_weekday_are_those_of_the_clock_as_it_is_written(form):
    written = pd.Series(pd.to_datetime(WHEN).strftime(form), name="at")
    feature = {"clock": "hour", "columns": ["at"], "reading": times.reading(written)}
    encoded = prepare.encode(written.to_frame(), [feature, {**feature, "clock": "weekday"}])
    angle = 2 * np.pi * np.array([6, 18.5, 0]) / 24
    np.testing.assert_allclose(encoded[:, 0], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(encoded[:, 1], np.cos(angle), atol=1e-6)
    assert encoded[:, 2:].argmax(axis=1).tolist() == [3, 4, 6]  # Thursday, Friday, Sunday
    assert encoded[:, 2:].sum() == 3


def test_times_are_features_on_request_and_in_the_exported_module(tmp_path):
    frame = table().assign(date=lambda f: f["at"].dt.strftime("%d.%m.%Y"))
    frame["clock"] = frame["at"].dt.strftime("%H:%M")
    path = saved(tmp_path, frame.drop(columns="at"))
    options = dict(time_column="date,clock", exclude_columns="item", feature_range=0.0)
    task = load(path, **options, time_features="hour,weekday", window=3, window_stride=2)
    names = task.assets["preprocessing.json"]["channels"]
    assert names[:4] == ["x", "time of day, sine", "time of day, cosine", "Monday"]
    module = module_of(task, tmp_path / "home")
    for client in (*task.train_clients, *task.test_clients):
        rows = frame[frame["home"] == client]
        x, _ = task.read_client(client)
        assert x.shape == (5, 3, 10)
        np.testing.assert_array_equal(module.prepare(rows), x)
        days = rows["at"].dt.dayofweek.to_numpy()
        np.testing.assert_array_equal(x[1][:, 3:].argmax(axis=1), days[2:5])
    with pytest.raises(ValueError, match="no column 'clock'"):
        module.prepare(frame.drop(columns="clock"))


@pytest.mark.parametrize(
    "options, part",
    [
        ({"time_features": "hour"}, "--time_features needs a --time_column"),
        ({"time_features": "month", "time_column": "at"}, "must be of hour, weekday"),
        ({"time_features": "hour", "time_column": "x"}, "needs dates, but column 'x' has numbers"),
        ({"embedding_columns": "x", "numeric_columns": "x"}, "both name 'x'"),
        ({"weight_column": "x", "exclude_columns": "item"}, "weights must be >= 0"),
        ({"class_weights": "balanced", "label_column": "x"}, "--class_weights is for classes"),
        ({"test_clients": "h1", "validation_clients": "h1"}, "both have 'h1'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, options, part):
    frame = table()
    if "weight_column" in options:
        frame.loc[3, "x"] = -1.0
    with pytest.raises(DataError, match=part) as error:
        load(saved(tmp_path, frame), **{"exclude_columns": "at", **options})
    assert "\n" not in str(error.value)


# --- ids ---


def test_ids_are_places_and_rare_ones_are_unknown():
    column = pd.Series(["b", "a", "b", "a", "rare", None, "new"], name="id")
    feature = columns.fit_ids(column, np.array([True] * 6 + [False]))
    assert feature["ids"] == ["a", "b"]
    assert columns.encode(column.to_frame(), [feature])[:, 0].tolist() == [2, 1, 2, 1, 0, 0, 0]
    whole = columns.fit_ids(pd.Series([7, 7, 9, 9]), np.ones(4, bool))
    assert whole["ids"] == ["7", "9"]
    with pytest.raises(DataError, match="in one row alone"):
        columns.fit_ids(pd.Series(["a", "b"], name="id"), np.ones(2, bool))


@pytest.mark.parametrize("window", [None, 3])
def test_an_embedded_column_is_its_vector_beside_the_standardised_numbers(tmp_path, window):
    frame = table().assign(item=lambda f: f["item"].where(f.index % 7 > 0))
    path = saved(tmp_path, frame)
    task = load(path, embedding_columns="item", time_column="at", window=window)
    how = task.assets["preprocessing.json"]
    assert how["channels"] == ["x", "place of item among the ids"]
    x, _ = task.read_client(task.test_clients[0])
    front, *_ = task.build_keras_model().layers
    (embedding,) = front.trainable_weights
    vectors = embedding.numpy()
    assert vectors.shape == (len(how["features"][1]["ids"]) + 1, models.EMBEDDING_SIZE)
    mean, scale = how["normalisation"]["mean"][0], how["normalisation"]["scale"][0]
    expected = np.concatenate(
        [(x[..., :1] - mean) / scale, vectors[x[..., 1].astype(int)]], axis=-1
    )
    np.testing.assert_allclose(front(x), expected, atol=1e-5)
    np.testing.assert_array_equal(module_of(task, tmp_path / "home").prepare(
        frame[frame["home"] == task.test_clients[0]]), x)  # fmt: skip
    again = load(path, embedding_columns="item", time_column="at", window=window)
    np.testing.assert_array_equal(again.build_keras_model().get_weights()[0], vectors)


# --- weights ---


def test_balanced_classes_count_the_same_in_the_loss(tmp_path):
    from sklearn.utils import class_weight

    frame = table()
    task = load(saved(tmp_path, frame), class_weights="balanced", exclude_columns="at,item")
    train = frame[frame["home"].isin(task.train_clients)]["y"]
    balanced = class_weight.compute_class_weight(
        "balanced", classes=np.array(["rare", "usual"]), y=train
    )
    y, logits = np.array([0, 1, 1], np.int32), np.array([[1, 2], [0, 1], [3, 0]], np.float32)
    costs = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), y]
    loss = task.build_loss()(y, logits)
    assert float(loss) == pytest.approx(np.mean(balanced[y] * costs), rel=1e-6)
    model_checks.refuse_uneven_metrics(task.model_fn)


@pytest.mark.parametrize("label", ["y", "x"])
def test_a_row_counts_its_weight_in_the_loss_alone(tmp_path, label):
    frame = table().assign(weight=lambda f: f.index % 3 + 1.0)
    task = load(saved(tmp_path, frame), weight_column="weight", label_column=label,
                feature_columns="item")  # fmt: skip
    plain = load(tmp_path / "table.csv", label_column=label, feature_columns="item")
    client = task.train_clients[0]
    (x, y), (_, plain_y) = task.read_client(client), plain.read_client(client)
    weights = frame[frame["home"] == client]["weight"].to_numpy()
    mean = frame[frame["home"].isin(task.train_clients)]["weight"].mean()
    np.testing.assert_allclose(y[:, 0], plain_y, rtol=1e-6)
    np.testing.assert_allclose(y[:, 1], weights / mean, rtol=1e-6)
    outputs = task.build_keras_model()(x)
    each = [float(plain.build_loss()(plain_y[i : i + 1], outputs[i : i + 1])) for i in range(12)]
    loss = task.build_loss()(y, outputs)
    assert float(loss) == pytest.approx(np.mean(each * weights / mean), rel=1e-5)
    for metric, other in zip(task.build_metrics(), plain.build_metrics()):
        metric.update_state(y, outputs)
        other.update_state(plain_y, outputs)
        assert float(metric.result()) == pytest.approx(float(other.result()), rel=1e-6)
    model_checks.refuse_uneven_metrics(task.model_fn)
    predict = lambda x: task.build_keras_model()(x).numpy()  # noqa: E731
    judged = [t.measures.of_client(s, s, predict, predict, 0) for t, s in
              [(task, (x, y)), (plain, (x, plain_y))]]  # fmt: skip
    for way, figures in judged[0].items():
        assert figures == pytest.approx(judged[1][way])


def test_labels_are_the_first_column_where_weights_are_the_second():
    assert metrics.label_of(np.array([[3.0, 0.5]])).tolist() == [3.0]
    assert metrics.label_of(np.array([3, 4])).tolist() == [3, 4]


def test_confusion_counts_the_query_by_class_and_prediction(tmp_path):
    task = load(saved(tmp_path, table()), exclude_columns="at,item")
    y, logits = np.array([0, 0, 1, 1]), np.array([[2, 1], [1, 2], [0, 3], [0, 1]])
    counts = task.measures.confusion((np.zeros(4), y), lambda x: logits)
    assert counts.tolist() == [[1, 1], [0, 2]]


# --- who is tested ---


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_each_client_is_tested_in_one_fold(parts):
    names = [f"h{i}" for i in range(12)]
    folds = [split_clients(names, 0, fold=Fold(number, parts)) for number in range(parts)]
    assert sorted(name for _, _, test in folds for name in test) == sorted(names)
    for sides in folds:
        assert sorted(name for side in sides for name in side) == sorted(names)
        assert all(sides)
    assert len({sides[1] for sides in folds}) == parts  # others validate too
    for wrong in (1, 13):
        with pytest.raises(DataError, match="--folds must lie between 2 and 12"):
            split_clients(names, 0, fold=Fold(0, wrong))


def test_what_is_learnt_of_columns_is_learnt_anew_in_every_fold(tmp_path):
    frame = table()
    path = saved(tmp_path, frame)
    for number in range(3):
        task = load(path, fold=Fold(number, 3), exclude_columns="at,item")
        train = frame[frame["home"].isin(task.train_clients)]["x"]
        assert task.assets["preprocessing.json"]["features"][0]["mean"] == train.mean()
    with pytest.raises(DataError, match="--folds tests every client once"):
        load(path, fold=Fold(0, 3), test_clients="h1")


def test_sides_by_name_keep_groups_together():
    groups = {"a": ("a1", "a2"), "b": ("b",), "c": ("c",), "d": ("d",)}
    named = {"test": ["a2"], "validation": ["c"]}
    train, *others = clients.split_named(groups, named, None)
    assert sorted(train) == ["b", "d"] and others == [("c",), ("a",)]
    train, validation, test = clients.split_named(groups, {**named, "test": []}, 2)
    assert validation == ("c",) and len(test) == 2 and len(train) == 1
    with pytest.raises(DataError, match="leave too few"):
        clients.split_named(groups, {"test": ["a1", "b", "d"], "validation": ["c"]}, None)


def test_a_forecast_is_compared_with_the_last_known_value(tmp_path):
    frame = table().assign(level=lambda f: 1e6 + f["x"].cumsum())
    forecast = dict(time_column="at", window=3, window_stride=1, horizon=2, feature_range=0.0)
    forecast.update(label_column="level", feature_columns="x,level")
    task = load(saved(tmp_path, frame), **forecast)
    client = task.test_clients[0]
    query = task.read_client(client)
    outputs = lambda x: np.zeros([len(x), 1], np.float32)  # noqa: E731
    figures = task.measures.of_client(query, query, outputs, outputs, 0)
    level = frame[frame["home"] == client]["level"].to_numpy()
    errors = level[2:-2] - level[4:]  # the last row of a window, and two rows later
    assert len(query[1]) == len(errors) == 8
    assert figures["last known value"]["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-3)
    plain = load(tmp_path / "table.csv", label_column="level", feature_columns="x")
    assert "last known value" not in plain.measures.of_client(
        *[plain.read_client(client)] * 2, outputs, outputs, 0
    )
