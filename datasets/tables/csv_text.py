"""Text with separated cells: what separates them is found out from the first lines.

An empty cell (or NA, N/A, null, None) is a missing value; `nan` and `inf` are what a broken
computation left, and an error, unless the user says that they are missing too.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import pathlib
import re
from typing import TYPE_CHECKING, Any

from datasets.tables import exact
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None")

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", " ": "spaces"}
_RARE_SEPARATORS = ("^", "~", ":")  # only where nothing else separates anything
_SNIFFED = 200  # rows
_HEAD = 200_000  # characters
_MOST_ROWS = 0.9  # share of rows that a separator cuts into equally many cells


@dataclasses.dataclass(frozen=True)
class Format:
    """How a text file is written; what is None is found out from its first lines.

    Attributes:
      separator: What stands between the cells of a row; " " is any number of spaces.
      decimal: "." or ",", what stands before the fraction of a number.
      encoding: Such as "utf-8" or "latin-1".
      header: Whether the first row names the columns.
      column_names: The names, instead of those in the file.
      missing_values: More spellings of a missing value, beside `MISSING`.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: bool = True
    column_names: tuple[str, ...] = ()
    missing_values: tuple[str, ...] = ()


def separator_named(name: str | None) -> str | None:
    """Returns the character that a flag means: tab and space cannot be typed everywhere."""
    return {"tab": "\t", "space": " "}.get(name or "", name)


def pandas_arguments(form: Format) -> dict[str, Any]:
    """Returns what pandas' readers are told of missing values and of the header."""
    missing = {"keep_default_na": False, "na_values": [*MISSING, *form.missing_values]}
    names = {"names": list(form.column_names)} if form.column_names else {}
    return {**missing, "header": 0 if form.header else None, **names}


def read(
    file: pathlib.Path, content: bytes, text_columns: list[str], form: Format
) -> tuple[pd.DataFrame, list[str], Format]:
    """Reads text.

    Args:
      file: Its name, for errors.
      content: Its bytes.
      text_columns: Columns that stay text, such as ids.
      form: How it is written, as far as the user says.

    Returns:
      The table, what was found out in sentences, and the format with it.

    Raises:
      DataError: If the encoding or the number of cells is wrong; ValueError: pandas' own.
    """
    import pandas as pd

    decoded, encoding = _decode(file, content, form)
    said: list[str] = []
    marked = re.match(r"\"?sep=(.)\"?\r?\n", decoded)  # what Excel writes to tell itself
    if marked:
        decoded = decoded[marked.end() :]
        form = dataclasses.replace(form, separator=form.separator or marked[1])
    if form.separator is not None and len(form.separator) > 1:  # pandas' fast reader takes one
        decoded = decoded.replace(form.separator, "\t")
        form = dataclasses.replace(form, separator="\t")
    separator = form.separator or _separator(decoded[:_HEAD])
    comments = _comments(decoded[:_HEAD], separator)
    if comments:
        said.append(f"{comments} lines of comment before the header are left out.")
        decoded = decoded.split("\n", comments)[comments]
    rows = _rows(decoded[:_HEAD], separator)
    decimal = form.decimal or _decimal(rows, separator)
    if separator != ",":
        said.append(f"Cells are separated by {_SEPARATORS.get(separator, repr(separator))}.")
    if decimal != ".":
        said.append("Numbers have a decimal comma.")
    index_col: Any = False
    if form.header and not form.column_names and len(rows) > 1:
        if _has_row_names(file, rows):
            index_col = None  # pandas then takes the first column for the rows' names
            said.append(
                f"The header names {len(rows[0])} columns but the rows have {len(rows[0]) + 1}: "
                "the first is taken for the rows' names and left out."
            )
        said += _twice(rows[0])
    arguments = dict(
        sep=r"\s+" if separator == " " else separator,
        decimal=decimal,
        low_memory=False,  # or a column's type could change within it
        index_col=index_col,
        float_precision="round_trip",
        skipinitialspace=True,
        **pandas_arguments(form),
    )
    frame = pd.read_csv(io.StringIO(decoded), dtype=dict.fromkeys(text_columns, str), **arguments)

    def as_text(name: Any) -> pd.Series:
        return pd.read_csv(io.StringIO(decoded), dtype=str, **arguments)[name]

    frame = exact.whole_numbers(frame, as_text).reset_index(drop=True)
    frame.columns = [str(name).strip() for name in frame.columns]
    found = dataclasses.replace(form, separator=separator, decimal=decimal, encoding=encoding)
    return frame, said, found


def _decode(file: pathlib.Path, content: bytes, form: Format) -> tuple[str, str]:
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    utf_16 = wide and content[2:].count(0) > len(content) // 4
    encoding = form.encoding or ("utf-16" if utf_16 else "utf-8-sig")
    try:
        decoded = content.decode(encoding)
    except LookupError:
        raise DataError(f"--encoding: Python knows no encoding called {encoding!r}.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not a CSV (UTF-8) or Parquet file: {error.reason} at byte {error.start}. "
            "If it is text in another encoding, name it, such as --encoding=latin-1."
        ) from error
    if "\0" in decoded:
        raise DataError(
            f"{file} has bytes of 0 among its text: it is damaged, or in an encoding of two bytes "
            "a character (--encoding=utf-16-le)."
        )
    return decoded, encoding


def _rows(head: str, separator: str) -> list[list[str]]:
    """Returns the cells of the first rows that are not empty; a cell may hold line ends."""
    if separator == " ":
        found = [line.split() for line in head.splitlines()[:_SNIFFED]]
    else:
        head = head.replace("\r\n", "\n").replace("\r", "\n")
        reader = csv.reader(io.StringIO(head), delimiter=separator, skipinitialspace=True)
        found = []
        try:
            for row in reader:
                found.append([cell.strip() for cell in row])
                if len(found) == _SNIFFED:
                    break
        except csv.Error:  # such as a cell that never ends
            pass
    if len(head) == _HEAD and len(found) > 2:
        found = found[:-1]  # which may be cut off
    return [row for row in found if any(row)]


def _separator(head: str) -> str:
    """Returns what cuts the rows into equally many cells, the most of them; else a comma."""
    best, most = ",", 1
    for separator in (*_SEPARATORS, *_RARE_SEPARATORS):
        sizes = [len(row) for row in _rows(head, separator)]
        if most > 1 and separator not in (",", ";", "\t", "|"):
            break
        if len(sizes) > 1 and sizes[0] == sizes[1] - 1:  # rows with names that the header lacks
            sizes[0] += 1
        if not sizes:
            continue
        usual, count = collections.Counter(sizes).most_common(1)[0]
        if usual > most and count >= _MOST_ROWS * len(sizes):
            best, most = separator, usual
    return best


def _comments(head: str, separator: str) -> int:
    """Returns how many lines before the header are comments: they begin by # or %."""
    lines = head.splitlines()[:_SNIFFED]
    sizes = [len(row) for row in _rows(head, separator)]
    usual = collections.Counter(sizes).most_common(1)[0][0] if sizes else 0
    count = 0
    for line in lines:
        cells = _rows(line, separator)
        if not (line.startswith(("#", "%")) and cells and len(cells[0]) != usual):
            break
        count += 1
    return count if count < len(lines) else 0


def _has_row_names(file: pathlib.Path, rows: list[list[str]]) -> bool:
    """Returns whether each row has one cell more than the header, as R writes names of rows."""
    sizes = {len(row) for row in rows[1:]}
    trailing = all(row[-1] == "" for row in rows[1:])
    if sizes == {len(rows[0]) + 1} and not trailing:
        return True
    if max(sizes) > len(rows[0]) and not trailing:
        raise DataError(
            f"{file} has a header of {len(rows[0])} columns but rows of {max(sizes)}: correct "
            "it, or name the columns by --no_header and --column_names."
        )
    return False


def _twice(header: list[str]) -> list[str]:
    twice = [name for name, n in collections.Counter(header).items() if n > 1 and name]
    if not twice:
        return []
    return [f"The name {twice[0]!r} occurs twice: the second is called {twice[0] + '.1'!r}."]


def _decimal(rows: list[list[str]], separator: str) -> str:
    if separator == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    commas = sum(bool(re.fullmatch(r"[+-]?\d+,\d+", cell)) for cell in cells)
    points = sum(bool(re.fullmatch(r"[+-]?\d+\.\d+", cell)) for cell in cells)
    return "," if commas and not points else "."
