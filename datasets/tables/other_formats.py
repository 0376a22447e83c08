"""Tables that are not text with separated cells: Parquet, spreadsheets and JSON."""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datasets.tables import csv_text, exact
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

INDEX = "index"  # what pandas calls an index without a name
_PLAIN = (str, int, float, bool, type(None))


def parquet(content: bytes) -> tuple[pd.DataFrame, list[str]]:
    """Reads Parquet; indices that say something become columns.

    Returns:
      The table, and what was decided, in sentences.
    """
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet as pq

    table = pq.read_table(io.BytesIO(content))
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    named = [name for name in frame.index.names if name is not None]
    frame = exact.narrowed(frame.reset_index(level=named) if named else frame)
    if not named and frame.index.dtype.kind not in "iu":  # whole numbers only count the rows
        frame.insert(0, INDEX, frame.index)
        said = [f"The rows' names, which have none, are the column {INDEX!r}."]
        return frame.reset_index(drop=True), said
    return frame.reset_index(drop=True), []


def spreadsheet(
    file: pathlib.Path, content: bytes, text_columns: list[str], form: csv_text.Format
) -> tuple[pd.DataFrame, list[str]]:
    """Reads the first sheet of an .xlsx file; returns as `parquet`."""
    import pandas as pd

    with pd.ExcelFile(io.BytesIO(content)) as book:
        frame = book.parse(
            dtype=dict.fromkeys(text_columns, str), **csv_text.pandas_arguments(form)
        )
        others = book.sheet_names[1:]
    said = [f"{file} is a spreadsheet."]
    if others:
        said.append(f"Its first sheet is read; it has {len(others)} more.")
    return frame, said


def json_rows(file: pathlib.Path, content: bytes) -> tuple[pd.DataFrame, list[str]]:
    """Reads JSON: a line for each row, a list of rows, or what pandas' `to_json` writes.

    Returns as `parquet`.

    Raises:
      DataError: If it is cut off or not a table; ValueError: if it is not text.
    """
    import pandas as pd

    decoded = content.decode("utf-8-sig").strip()
    try:
        value = json.loads(decoded)
    except ValueError as whole:
        try:
            value = [json.loads(line) for line in decoded.splitlines() if line.strip()]
        except ValueError as error:
            error = error if len(decoded.splitlines()) > 1 else whole
            raise DataError(f"{file} is JSON, but cut off or damaged: {error}.") from error
    rows = _rows(file, value)
    frame = pd.json_normalize(rows)

    def as_written(name: Any) -> pd.Series:
        return pd.Series([row.get(name) for row in rows], frame.index, dtype=object)

    return exact.whole_numbers(frame, as_written), [f"{file} is JSON."]


def _rows(file: pathlib.Path, value: Any) -> list[dict[str, Any]]:
    """Returns a table's rows, name -> value, of what JSON holds."""
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return [dict(row) for row in value]
    if isinstance(value, Mapping) and {"columns", "data"} <= set(value):
        return [dict(zip(value["columns"], row)) for row in value["data"]]
    if isinstance(value, Mapping) and value:
        parts = list(value.values())
        tables = [
            part for part in parts if isinstance(part, list) and part and isinstance(part[0], dict)
        ]
        if len(tables) == 1:  # such as {"data": [...]}
            return _rows(file, tables[0])
        if all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts):
            return [dict(zip(value, row)) for row in zip(*parts)]
        if all(isinstance(part, Mapping) for part in parts):  # pandas: by columns, or by rows
            if len(value) > len(parts[0]):
                return [dict(part) for part in parts]
            return [{name: value[name].get(row) for name in value} for row in parts[0]]
        if all(isinstance(part, _PLAIN) for part in parts):  # a file of one line
            return [dict(value)]
    raise DataError(
        f"{file} is JSON, but not a table: a list of rows such as "
        '[{"home": "a", "power": 3}, ...] is expected, or a line for each row.'
    )
