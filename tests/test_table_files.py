"""Facts about reading files alone: every spelling of a table is the table, or one sentence."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from datasets import DataError
from datasets.tables import columns, files, labels
from datasets.tables.times import times

TABLE = pd.DataFrame(
    {
        "home": [f"h{i // 4}" for i in range(12)],
        "x": [20.5, 19.25, -3.0, 0.5, 7.25, 1000.5, 3.5, 2.25, 9.5, 8.0, 6.5, 4.75],
        "y": ["on", "off"] * 6,
    }
)
BIG = 2**53


def r_table(separator):
    """As R's write.table writes it: the header lacks the rows' names."""
    rows = [[i + 1, *row] for i, row in enumerate(TABLE.itertuples(index=False))]
    cells = [TABLE.columns, *rows]
    quoted = lambda v: f'"{v}"' if isinstance(v, str) else str(v)  # noqa: E731
    return "\n".join(separator.join(quoted(cell) for cell in row) for row in cells) + "\n"


def text(**how):
    return TABLE.to_csv(index=False, **how)


SPELLINGS = {
    "row names, spaces": r_table(" "),
    "row names, tabs": r_table("\t"),
    "row names, commas": r_table(","),
    "row names, semicolons": r_table(";"),
    "caret": text(sep="^"),
    "colon": text(sep=":"),
    "marked by Excel": "sep=;\n" + text(sep=";"),
    "comments": "# of a logger\n# 2024\n" + text(),
    "carriage returns": text().replace("\n", "\r"),
    "spaces behind commas": text().replace(",", ", "),
    "aligned": TABLE.to_string(index=False),
    "packed twice": gzip.compress(gzip.compress(text().encode())),
    "JSON by columns": TABLE.to_json(),
    "JSON by rows": TABLE.to_json(orient="index"),
    "JSON of three parts": TABLE.to_json(orient="split"),
    "JSON within a key": json.dumps({"data": TABLE.to_dict("records"), "version": "1"}),
    "JSON of lists": json.dumps(TABLE.to_dict("list")),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_the_table(tmp_path, name):
    content = SPELLINGS[name]
    path = tmp_path / "table"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    frame = files.read(str(path), ["home"])[0]
    pd.testing.assert_frame_equal(frame, TABLE, check_dtype=False)
    assert files.names(str(path))[:3] == list(TABLE.columns)


def test_line_ends_within_cells_separate_nothing(tmp_path):
    wanted = TABLE.assign(note="first; and\nsecond")
    wanted.to_csv(tmp_path / "table.csv", sep=";", index=False)
    frame, said, _ = files.read(str(tmp_path / "table.csv"))
    pd.testing.assert_frame_equal(frame, wanted)
    assert said == ["Cells are separated by a semicolon."]


@pytest.mark.parametrize(
    "content, part",
    [
        (text().encode("utf-16-le"), "--encoding=utf-16-le"),
        (b"[[1, 2], [3, 4]]", "not a table: a list of rows"),
        (TABLE.to_json(orient="records").encode()[:-9], "JSON, but cut off"),
        (b"@relation weather\n@data\n", "ARFF"),
        (b"a,b,c\n1,2\n3,4,5,6\n", "header of 3 columns but rows of 4"),
    ],
)
def test_what_is_not_a_table_is_one_sentence(tmp_path, content, part):
    (tmp_path / "table").write_bytes(content)
    with pytest.raises(DataError, match=part) as error:
        files.read(str(tmp_path / "table"))
    assert "\n" not in str(error.value)


def test_a_name_that_occurs_twice_is_said(tmp_path):
    (tmp_path / "table.csv").write_text("a,b,a\n1,2,3\n4,5,6\n")
    frame, said, _ = files.read(str(tmp_path / "table.csv"))
    assert list(frame.columns) == ["a", "b", "a.1"]
    assert said == ["The name 'a' occurs twice: the second is called 'a.1'."]


@pytest.mark.parametrize("name", ["table.csv", "table.json", "table.parquet"])
def test_whole_numbers_with_gaps_stay_apart_beyond_float64(tmp_path, name):
    path = tmp_path / name
    numbers = pd.array([BIG, BIG + 1, None] * 4, dtype="Int64")
    frame = TABLE.assign(y=numbers, when=numbers, z=pd.array([1, None] * 6, dtype="Int64"))
    if name == "table.csv":
        frame.to_csv(path, index=False)
    elif name == "table.json":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    read = files.read(str(path))[0]
    assert read["y"].dropna().tolist() == [BIG, BIG + 1] * 4
    assert read["z"].dtype == np.float64
    has_label = labels.has_label(read["y"])
    assert has_label.tolist() == [True, True, False] * 4
    label = labels.fit(read["y"][has_label], np.ones(8, bool), "classification")
    assert label["classes"] == [BIG, BIG + 1]
    assert labels.encode(read["y"][has_label], label).tolist() == [0, 1] * 4
    assert times(read["when"][has_label]).tolist() == [BIG, BIG + 1] * 4


@pytest.mark.parametrize(
    "values, wanted",
    [
        (pd.array([10**17 + 1, None, 7] * 4, dtype="Int64"), ["100000000000000001", "-", "7"]),
        ([1.0, np.nan, 7.0] * 4, ["1", "-", "7"]),
    ],
)
def test_ids_are_text_with_and_without_gaps(tmp_path, values, wanted):
    TABLE.assign(home=values).to_parquet(tmp_path / "table.parquet")
    read = files.read(str(tmp_path / "table.parquet"), ["home"])[0]["home"]
    assert read.fillna("-").tolist()[:3] == wanted


def test_an_index_that_says_something_is_a_column(tmp_path):
    TABLE.set_index(["home", "x"]).to_parquet(tmp_path / "named.parquet")
    TABLE.set_index(TABLE["home"].to_numpy()).to_parquet(tmp_path / "unnamed.parquet")
    TABLE.sample(frac=1, random_state=0).to_parquet(tmp_path / "counting.parquet")
    read = lambda name: files.read(str(tmp_path / name))[0]  # noqa: E731
    pd.testing.assert_frame_equal(read("named.parquet"), TABLE)
    assert read("unnamed.parquet")["index"].tolist() == TABLE["home"].tolist()
    assert list(read("counting.parquet").columns) == list(TABLE.columns)


# --- what columns are ---


def fit(values, **options):
    return columns.fit_feature(pd.Series(values, name="a"), np.ones(len(values), bool), **options)


@pytest.mark.parametrize("word", ["?", "-", "missing", "none"])
def test_a_word_beside_many_numbers_is_no_category(word):
    values = [word] * 20 + ["17", "18.5", "19", "21"] * 2
    with pytest.raises(DataError, match=r"--missing_values=.*--categorical_columns=a"):
        fit(values)
    assert len(fit(values, kind="categories")["categories"]) == 5
    assert fit(["1", "2", "A", "B", "C"] * 4)["categories"] == ["1", "2", "A", "B", "C"]


@pytest.mark.parametrize("form", ["{}%", "${}", "{} kWh", "1,0{}.5", "2.0{},5"])
def test_numbers_in_disguise_are_not_categories(form):
    values = [form.format(10 + i) for i in range(6)] * 5
    with pytest.raises(DataError, match="numbers written such as"):
        fit(values)
    assert len(fit(values, kind="categories")["categories"]) == 6
    assert len(fit(["3 rooms", "4 rooms"] * 9)["categories"]) == 2


def test_a_year_in_front_of_two_digit_dates_is_not_taken_for_the_day():
    with pytest.raises(DataError, match="--time_format=%y/%m/%d"):
        times(pd.Series(["15/01/09", "15/01/10", "15/01/11"], name="t"))
    with pytest.raises(DataError, match="'2010-11-04 24:00'"):
        times(pd.Series(["2010-11-04 23:00", "2010-11-04 24:00"], name="t"))
