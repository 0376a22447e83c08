"""Tables as people really have them: each becomes the right numbers, or one sentence."""

import gzip
import importlib.util
import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

import datasets
from datasets import DataError, table_info
from datasets.tables import (
    channels,
    columns,
    examples,
    files,
    judging,
    labels,
    metrics,
    prepare,
    selection,
)
from datasets.tables.times import times
from tff_fedmeta.client import model_checks

CLIENTS = {"client_column": "home", "label_column": "y"}
EVERYTHING = np.ones(1000, bool)


def load(path, **options):
    request = datasets.Request(options={"csv": str(path), **CLIENTS, **options})
    return datasets.load("csv", request)


def homes(num_clients=6, num_rows=10, seed=0):
    rng = np.random.default_rng(seed)
    n = num_clients * num_rows
    frame = pd.DataFrame(
        {
            "home": np.repeat([f"h{i}" for i in range(num_clients)], num_rows),
            "x": rng.normal(20, 3, n).round(2),
            "z": rng.normal(0, 1, n).round(2),
        }
    )
    frame["y"] = np.where(frame["z"] + rng.normal(0, 0.3, n) > 0, "on", "off")
    return frame


def by_client(task):
    clients = task.train_clients + task.validation_clients + task.test_clients
    return {client: task.read_client(client) for client in sorted(clients)}


def assert_same_task(task, other):
    for (client, (x, y)), (other_client, (other_x, other_y)) in zip(
        by_client(task).items(), by_client(other).items()
    ):
        assert client == other_client
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.csv"
    homes().to_csv(path, index=False)
    return load(path)


# --- files ---

WRITERS = {
    "semicolon.csv": lambda f, p: f.to_csv(p, sep=";", decimal=",", index=False),
    "tab.tsv": lambda f, p: f.to_csv(p, sep="\t", index=False),
    "bar.txt": lambda f, p: f.to_csv(p, sep="|", index=False),
    "spaces.txt": lambda f, p: f.to_csv(p, sep=" ", index=False),
    "row_names.csv": lambda f, p: p.write_text(
        "home,x,z,y\n" + f.to_csv(header=False, index_label=False)
    ),
    "trailing.csv": lambda f, p: p.write_text(
        "home,x,z,y\n" + f.to_csv(header=False, index=False).replace("\n", ",\n")
    ),
    "windows.csv": lambda f, p: f.to_csv(p, index=False, lineterminator="\r\n"),
    "marked.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-8-sig"),
    "wide.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-16"),
    "packed.csv": lambda f, p: f.to_csv(p, index=False, compression="gzip"),
    "packed.bz2": lambda f, p: f.to_csv(p, index=False),
    "packed.xz": lambda f, p: f.to_csv(p, index=False),
    "packed.zip": lambda f, p: f.to_csv(p, index=False),
    "sheet.csv": lambda f, p: p.write_bytes(as_sheet(f)),
    "lines.csv": lambda f, p: f.to_json(p, orient="records", lines=True),
    "array.json": lambda f, p: f.to_json(p, orient="records"),
    "index.parquet": lambda f, p: f.set_index("home").to_parquet(p),
    "nullable.parquet": lambda f, p: f.convert_dtypes().to_parquet(p),
    "category.parquet": lambda f, p: f.astype({"y": "category"}).to_parquet(p),
    "blank_lines.csv": lambda f, p: p.write_text(
        f.to_csv(index=False).replace("\n", "\n\n", 3) + ",,,\n"
    ),
}


def as_sheet(frame):
    content = io.BytesIO()
    frame.to_excel(content, index=False)
    return content.getvalue()


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_the_same_task_however_it_is_written(tmp_path, plain, name):
    path = tmp_path / name
    WRITERS[name](homes(), path)
    assert_same_task(load(path), plain)


def test_a_header_of_its_own(tmp_path, plain):
    path = tmp_path / "bare.csv"
    homes().to_csv(path, header=False, index=False)
    assert_same_task(load(path, no_header=True, column_names="home,x,z,y"), plain)


def test_a_file_for_each_client(tmp_path, plain):
    folder = tmp_path / "homes"
    folder.mkdir()
    for home, rows in homes().groupby("home"):
        rows.drop(columns="home").to_csv(folder / f"{home}.csv", index=False)
    for path in (folder, folder / "*.csv"):
        assert_same_task(load(path, client_column="@file"), plain)


def test_partitions_of_parquet(tmp_path, plain):
    for home, rows in homes().groupby("home"):
        part = tmp_path / "table" / f"home={home}"
        part.mkdir(parents=True)
        rows.drop(columns="home").to_parquet(part / "part-0.parquet")
    task = load(tmp_path / "table", exclude_columns="@file")
    assert_same_task(task, plain)


def test_spellings_of_missing_values_are_those_said_and_the_documented_ones(tmp_path):
    frame = homes().astype({"x": object})
    frame.loc[[1, 12, 25], "x"] = ["?", "-200", None]
    frame.to_csv(tmp_path / "spelled.csv", index=False)
    frame.loc[[1, 12], "x"] = None
    frame.to_csv(tmp_path / "empty.csv", index=False)
    spelled = load(tmp_path / "spelled.csv", missing_values="?,-200")
    assert_same_task(spelled, load(tmp_path / "empty.csv"))


@pytest.mark.parametrize(
    "content, part",
    [
        (gzip.compress(homes().to_csv().encode(), mtime=0)[:60], "packed by gzip, but cut off"),
        (b"<!DOCTYPE html><html><body>404", "a web page"),
        (b"%PDF-1.4 and so on", "a PDF"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (b"\xd0\xcf\x11\xe0 old", "old Excel"),
        (b"PK\x03\x04 and nothing", "a zip, but cut off"),
        ("home,x,y\nh\xe4,1,2\n".encode("latin-1"), "--encoding=latin-1"),
        (b"home,x\nh,1,2,3\nh,1,2,3\n", "a header of 2 columns but rows of 4"),
    ],
)
def test_what_is_not_a_table_is_named(tmp_path, content, part):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=part) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_zip_of_several_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(DataError, match="a zip of 2 files"):
        load(tmp_path / "two.zip")


# --- times ---


@pytest.mark.parametrize(
    "written",
    [
        ["31/01/2015", "06/02/2015"],
        ["31.01.2015 00:00", "06.02.2015 00:00:00"],
        ["01/31/2015", "02/06/2015"],
        ["2015-01-31", "2015-02-06T00:00:00.000000"],
        ["2015-01-31T02:00:00+02:00", "2015-02-06 00:00:00Z"],
        ["31 Jan 2015", "6 February 2015"],
    ],
)
def test_dates_are_read_by_the_whole_column(written):
    found = times(pd.Series(written, name="t"))
    expected = np.array(["2015-01-31", "2015-02-06"], "datetime64[ns]")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "written, part",
    [
        (["06/01/2015", "07/02/2015"], r"--time_format=%d/%m/%Y .* --time_format=%m/%d/%Y"),
        (["13/01/2015", "01/13/2015"], "with the day first, such as '13/01/2015'"),
        (["2015-01-31", "noon"], "'noon' in row 2"),
    ],
)
def test_dates_that_say_two_things_are_refused(written, part):
    with pytest.raises(DataError, match=part):
        times(pd.Series(written, name="t"))


def test_a_format_decides():
    (found,) = times(pd.Series(["06/01/2015"], name="t"), "%d/%m/%Y")
    assert found == np.datetime64("2015-01-06")


def test_whole_numbers_beyond_float64_stay_apart():
    found = times(pd.Series([2**53 + 1, 2**53]))
    assert np.argsort(found).tolist() == [1, 0]
    label = pd.Series([2**53, 2**53 + 1] * 10, name="y")
    fitted = labels.fit(label, np.ones(20, bool), "classification")
    assert fitted["classes"] == [2**53, 2**53 + 1]
    assert labels.encode(label, fitted)[:2].tolist() == [0, 1]


# --- columns ---


def fit(values, **options):
    column = pd.Series(values, name="a")
    return column, columns.fit_feature(column, np.ones(len(column), bool), **options)


def standardised(column, feature):
    mean, scale = channels.normalisation([feature])
    encoded = columns.encode(column.to_frame(), [feature])
    return (encoded.astype(np.float64) - mean) / scale


def test_large_offsets_keep_what_tells_values_apart():
    stamps = 1_700_000_000_000.0 + np.arange(73)
    column, feature = fit(stamps)
    found = standardised(column, feature)[:, 0]
    assert len(np.unique(found)) == 73
    np.testing.assert_allclose(found, (stamps - stamps.mean()) / stamps.std(), atol=1e-6)


def test_a_constant_with_noise_of_rounding_has_scale_one():
    _, feature = fit([14.62, 14.62 + 2e-15, 14.62 - 2e-15] * 10)
    assert feature["scale"] == 1.0
    new = pd.Series([14.65], name="a")
    assert standardised(new, feature)[0, 0] == pytest.approx(0.03, abs=1e-5)


def test_far_values_have_no_part_in_mean_and_scale_and_count_as_the_limit():
    rng = np.random.default_rng(0)
    usual = rng.normal(5, 2, 500)
    column, feature = fit([*usual, 1e12])
    assert feature["mean"] == pytest.approx(usual.mean())
    assert feature["scale"] == pytest.approx(usual.std())
    assert standardised(column, feature)[-1, 0] == pytest.approx(10, rel=1e-5)


def test_numbers_that_are_mostly_missing_are_numbers():
    values = ["NaN"] * 15 + ["99", "101"] * 2
    with pytest.raises(DataError, match=r"'NaN' in row 1 .*--missing_values"):
        fit(values)
    _, feature = fit([None] * 15 + ["99", "101"] * 2)
    assert feature["mean"] == 100 and feature["indicator"]


def test_codes_are_the_same_however_pandas_has_them():
    _, feature = fit(["0", "a", "b"] * 10)
    for values in (["0"], [0], [0.0], [" 0 "]):
        column = pd.Series(values, name="a")
        np.testing.assert_array_equal(columns.encode(column.to_frame(), [feature]), [[1, 0, 0]])
    unseen = columns.encode(pd.DataFrame({"a": ["c"]}), [feature])
    np.testing.assert_array_equal(unseen, [[0, 0, 0]])


def test_what_a_column_is_can_be_said():
    _, feature = fit([1, 2, 3] * 10, kind="categories")
    assert feature["categories"] == ["1", "2", "3"]
    with pytest.raises(DataError, match="finite numbers"):
        fit(["a", "b"] * 10, kind="numbers")


# --- what is left out, and said ---


def test_rows_and_clients_that_cannot_be_used_are_left_out_and_counted(tmp_path, capsys):
    frame = homes()
    frame.loc[3, "home"] = None
    frame.loc[[15, 16], "y"] = None
    extra = pd.DataFrame({"home": ["lone", None], "x": [1.0, None], "z": [2.0, None], "y": "on"})
    extra.loc[1, "y"] = None
    frame = pd.concat([frame, extra], ignore_index=True)
    frame.to_csv(tmp_path / "table.csv", index=False)
    task = load(tmp_path / "table.csv")
    report = task.assets["data_report.json"]
    assert (report["rows"], report["rows_without_home"], report["rows_without_label"]) == (62, 1, 2)
    assert report["clients_with_too_few_examples"] == {"lone": 1}
    read = by_client(task)
    assert "lone" not in read
    assert [len(read[f"h{i}"][1]) for i in range(3)] == [9, 8, 10]
    assert "lone: 1" in capsys.readouterr().err
    many = load(tmp_path / "table.csv", min_rows=9)
    assert "h1" not in by_client(many)


def test_a_class_of_no_training_client_is_left_out_and_told(tmp_path):
    frame = homes(num_clients=8)
    frame.to_csv(tmp_path / "table.csv", index=False)
    tested = load(tmp_path / "table.csv").test_clients[0]
    frame.loc[frame.index[frame["home"] == tested][0], "y"] = "broken"
    frame.to_csv(tmp_path / "table.csv", index=False)
    task = load(tmp_path / "table.csv")
    assert task.assets["data_report.json"]["classes_of_no_training_client"] == {"broken": 1}
    assert len(task.read_client(tested)[1]) == 9
    assert task.assets["preprocessing.json"]["label"]["classes"] == ["off", "on"]


def test_all_that_is_wrong_with_columns_is_said_at_once(tmp_path):
    frame = homes().assign(note=[f"text {i}" for i in range(60)], name=list("ab0") * 20)
    frame["name"] += frame.index.astype(str)
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(DataError, match=r"'note'.*'name'"):
        load(tmp_path / "table.csv")
    with pytest.raises(DataError, match=r"no column 'hom'.*'home'.*no column 'why'"):
        load(tmp_path / "table.csv", client_column="hom", label_column="why")
    assert load(tmp_path / "table.csv", exclude_columns="n*").input_spec[0].shape[1] == 2


def test_an_empty_column_is_left_out_and_told(tmp_path):
    homes().assign(note=None).to_csv(tmp_path / "table.csv", index=False)
    task = load(tmp_path / "table.csv")
    assert task.assets["preprocessing.json"]["channels"] == ["x", "z"]
    assert task.assets["data_report.json"]["empty_columns"] == {"note": 60}


def test_names_are_checked_before_tensorflow_is_imported(tmp_path):
    homes().to_csv(tmp_path / "table.csv", index=False)
    code = (
        "import sys, run_experiment\n"
        "status = run_experiment.main(['run', '--dataset=csv', f'--csv={sys.argv[1]}',"
        "'--client_column=hone', '--label_column=y', f'--output_dir={sys.argv[1]}.run'])\n"
        "sys.exit(10 * status + ('tensorflow' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "table.csv")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 20, done.stderr
    assert "'home'" in done.stderr


@pytest.mark.parametrize("added", ["row number", "twin"])
def test_features_that_give_the_label_away_are_warned_of(tmp_path, capsys, added):
    frame = homes()
    twin = frame["y"].map({"on": "yes", "off": "no"})
    frame["added"] = np.arange(60) if added == "row number" else twin
    frame.to_csv(tmp_path / "table.csv", index=False)
    load(tmp_path / "table.csv")
    assert "WARNING: column 'added'" in capsys.readouterr().err


# --- examples ---


def test_names_with_commas_and_patterns():
    names = ["sensor_1", "sensor_2", "power, total", "y"]
    assert selection.matching(names, 'sensor_*,"power, total"') == names[:3]


def test_windows_do_not_cross_gaps():
    frame = pd.DataFrame({"who": np.repeat(["a", "b", "c"], 10)})
    when = np.tile([0, 1, 2, 3, 4, 100, 101, 102, 103, 104], 3)
    found = examples.examples(frame, "who", times=when, window=3, stride=1)
    assert found.max_gap == 10
    assert found.rows["a"].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8],
                                        [7, 8, 9]]  # fmt: skip
    everything = examples.examples(
        frame, "who", times=when, window=3, stride=1, max_gap=float("inf")
    )
    assert len(everything.rows["a"]) == 8


def test_a_horizon_labels_by_a_later_row_and_lets_the_past_be_a_feature(tmp_path):
    frame = homes().assign(t=np.tile(np.arange(10), 6))
    frame["y"] = frame["z"] * 2
    frame.to_csv(tmp_path / "table.csv", index=False)
    task = load(
        tmp_path / "table.csv", time_column="t", window=3, window_stride=1, horizon=2,
        feature_columns="x,y", feature_range=0.0,
    )  # fmt: skip
    x, y = task.read_client("h2")
    mine = frame[frame["home"] == "h2"]
    assert len(x) == len(y) == 6
    np.testing.assert_allclose(x[1], mine[["x", "y"]].to_numpy(np.float32)[1:4])
    label = task.assets["preprocessing.json"]["label"]
    np.testing.assert_allclose(
        y * label["scale"] + label["mean"], mine["y"].to_numpy()[4:], atol=1e-5
    )


def test_test_clients_by_name(tmp_path):
    homes().to_csv(tmp_path / "table.csv", index=False)
    task = load(tmp_path / "table.csv", test_clients="h1,h4")
    assert sorted(task.test_clients) == ["h1", "h4"]
    assert len(task.train_clients) == 3 and len(task.validation_clients) == 1
    with pytest.raises(DataError, match="no client 'h9'"):
        load(tmp_path / "table.csv", test_clients="h9")


# --- home again ---


def test_the_exported_module_makes_the_bits_of_training(tmp_path):
    frame = homes().assign(t=np.tile(np.arange(10), 6), code=["0", "a", "b"] * 20)
    frame["stamp"] = 1_700_000_000_000 + np.arange(60) * 7
    frame.loc[::7, "x"] = np.nan
    frame.loc[5, "z"] = 1e9
    frame.to_csv(tmp_path / "table.csv", index=False, sep=";", decimal=",")
    task = load(tmp_path / "table.csv", time_column="t", window=2)
    home = tmp_path / "keras_model"
    home.mkdir()
    (home / "prepare.py").write_text(task.assets["prepare.py"])
    (home / "preprocessing.json").write_text(json.dumps(task.assets["preprocessing.json"]))
    spec = importlib.util.spec_from_file_location("prepare_of_a_run", home / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for client, (x, y) in by_client(task).items():
        rows = frame[frame["home"] == client]
        as_text = pd.read_csv(tmp_path / "table.csv", sep=";", dtype=str)[frame["home"] == client]
        for given in (rows, rows.convert_dtypes(), as_text):
            np.testing.assert_array_equal(module.prepare(given), x)
        logits = np.eye(2)[y]
        assert module.labels(logits).tolist() == rows["y"].iloc[1::2].tolist()
    with pytest.raises(ValueError, match="no column 'code'"):
        module.prepare(frame.drop(columns="code"))


def test_the_exported_module_needs_numpy_and_pandas_alone():
    source = files.pathlib.Path(prepare.__file__).read_text()
    imported = {line.split()[1].split(".")[0] for line in source.splitlines()
                if line.startswith(("import ", "from "))}  # fmt: skip
    assert imported == {"__future__", "json", "pathlib", "re", "collections", "typing", "numpy",
                        "pandas"}  # fmt: skip


# --- judging ---


def test_figures_of_classes_and_the_guesses_beside_them():
    y = np.array([0, 0, 0, 1])
    logits = np.array([[2, 1], [1, 2], [3, 0], [0, 1]], np.float32)
    measures = judging.of_classes(majority=1, num_classes=2)
    support = (np.zeros((3, 1)), np.array([0, 0, 1]))
    figures = measures.of_client(support, (y, y), lambda x: logits, lambda x: -logits, 0)
    assert figures["before"]["accuracy"] == 0.75
    assert figures["before"]["balanced accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["before"]["macro F1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert figures["before"]["AUC"] == pytest.approx(2.5 / 3)  # one tie
    assert figures["majority"]["accuracy"] == 0.25 and figures["majority"]["AUC"] == 0.5
    assert figures["own majority"]["accuracy"] == 0.75


def test_figures_of_quantities_and_the_guesses_beside_them():
    y = np.array([1.0, 3.0])
    measures = judging.of_quantities(scale=10.0)
    support = (np.zeros((2, 1)), np.array([0.0, 4.0]))
    figures = measures.of_client(support, (y, y), lambda x: y[:, None], lambda x: y + 1, 0)
    assert figures["before"]["mae"] == 0 and figures["after"]["mae"] == 10
    assert figures["mean"]["mae"] == 20 and figures["mean"]["rmse"] == pytest.approx(500**0.5)
    assert figures["own mean"]["mae"] == 10 and figures["own last value"]["mae"] == 20


# --- what is understood, printed ---


def test_what_is_understood_is_printed_with_a_command(tmp_path, capsys):
    frame = homes().assign(at=pd.date_range("2024-01-01", periods=60, freq="h").astype(str))
    frame.loc[:5, "z"] = np.nan
    path = tmp_path / "table.csv"
    frame.to_csv(path, sep=";", index=False)
    assert table_info.main(["table_info", str(path)]) == 0
    text = capsys.readouterr().out
    assert "60 rows, 5 columns" in text and "Separator ';'" in text
    assert "numbers   10% missing" in text
    assert f"--csv={path} --client_column=home --label_column=y --time_column=at" in text
    assert table_info.main(["table_info", str(path) + "x"]) == 2
    assert table_info.main(["table_info"]) == 2


def test_metrics_of_classes_are_those_of_scikit_learn_over_all_passes():
    from sklearn import metrics as reference

    rng = np.random.default_rng(0)
    y, logits = rng.choice([0, 0, 0, 1, 3], 300), rng.normal(size=(300, 4)).astype(np.float32)
    found = {}
    for metric in metrics.of_classes(4):
        metric = type(metric).from_config(metric.get_config())  # as TFF makes it
        for start, stop in ((0, 128), (128, 256), (256, 300)):
            metric.update_state(y[start:stop], logits[start:stop])
        found[metric.name] = float(metric.result())
    said = logits.argmax(axis=1)
    there = dict(labels=[0, 1, 3], average="macro")
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, said))
    assert found["balanced_accuracy"] == pytest.approx(reference.recall_score(y, said, **there))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(y, said, **there))


def test_errors_of_quantities_are_over_all_passes_in_the_labels_units():
    rng = np.random.default_rng(0)
    y, predicted = rng.normal(size=300).astype(np.float32), rng.normal(size=(300, 1))
    for metric in metrics.of_quantities(7.0):
        for start, stop in ((0, 128), (128, 256), (256, 300)):
            metric.update_state(y[start:stop], predicted[start:stop])
        error = 7 * (predicted[:, 0] - y)
        expected = {"mae": np.abs(error).mean(), "rmse": np.sqrt(np.square(error).mean())}
        assert float(metric.result()) == pytest.approx(expected[metric.name], rel=1e-5)


def test_the_metric_that_decides_is_one_of_the_labels_kind(tmp_path):
    homes().to_csv(tmp_path / "table.csv", index=False)
    classes = load(tmp_path / "table.csv", metric="macro_f1")
    assert classes.metric == "macro_f1"
    model_checks.refuse_uneven_metrics(classes.model_fn)
    with pytest.raises(DataError, match="--metric must be one of accuracy"):
        load(tmp_path / "table.csv", metric="rmse")
    quantity = load(tmp_path / "table.csv", label_column="z", feature_columns="x", metric="rmse")
    assert quantity.metric == "rmse" and not quantity.higher_is_better
    model_checks.refuse_uneven_metrics(quantity.model_fn)
