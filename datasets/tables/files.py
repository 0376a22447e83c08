"""Reads a user's file as it is: separators, encodings, archives, spreadsheets, folders.

In a CSV, an empty cell (or NA, N/A, null, None) is a missing value; `nan` and `inf` are what a
broken computation left, and an error, unless `missing_values` has them. Parquet does not tell NaN
from missing.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import glob
import gzip
import hashlib
import io
import json
import lzma
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None")
FILE_COLUMN = "@file"  # the name, without folder and ending, of the file that a row is from

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", " ": "spaces"}
_SNIFFED = 200  # lines
_UNREADABLE = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls): save it as .xlsx or CSV",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file: write it as CSV or Parquet",
    b"SQLite format 3": "an SQLite database: write a table of it as CSV or Parquet",
    b"\x89PNG": "an image",
    b"\x93NUMPY": "a NumPy file: write it as CSV or Parquet",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it, or pack it as .gz",
    b"7z\xbc\xaf": "a 7-zip archive: unpack it, or pack it as .zip",
}
_ARCHIVES: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ": ("xz", lzma.decompress),
}
# What is read to the end, whatever is wanted of it.
_BINARY_FILES = (b"PAR1", b"PK\x03\x04", b"[", b"{", b"\xff\xfe", b"\xfe\xff", *_ARCHIVES)
_BEGINNING = 200_000  # bytes


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


def paths_of(path: str) -> list[pathlib.Path]:
    """Returns the files of a path: itself, all in a folder, or those that a pattern matches.

    Raises:
      DataError: If there is none, or one is not an ordinary file.
    """
    here = pathlib.Path(path).expanduser()
    if here.is_dir():
        found = sorted(p for p in here.rglob("*") if p.is_file() and p.name[0] not in "._")
    elif not here.exists() and glob.has_magic(path):
        found = sorted(map(pathlib.Path, glob.glob(str(here), recursive=True)))
    else:
        found = [here]
    if not found:
        raise DataError(f"{path} has no files.")
    for file in found:  # a pipe would be waited for, and could not be read twice
        if file.exists() and not file.is_file():
            raise DataError(f"{file} cannot be read: it is not an ordinary file.")
    return found


def sha256(path: str) -> str:
    """Returns the SHA-256 of a file's content, or of names and contents of several, in hexadecimal.

    Raises:
      DataError: If a file cannot be read.
    """
    files = paths_of(path)
    digests = []
    for file in files:
        digest = hashlib.sha256()
        try:
            with file.open("rb") as opened:
                while chunk := opened.read(2**20):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from error
        digests.append(digest.hexdigest())
    if len(files) == 1:
        return digests[0]
    both = "\n".join(f"{file.name} {digest}" for file, digest in zip(files, digests))
    return hashlib.sha256(both.encode()).hexdigest()


def read(
    path: str, text_columns: Iterable[str] = (), form: Format | None = None
) -> tuple[pd.DataFrame, list[str], Format]:
    """Reads a table: CSV, Parquet, JSON lines or .xlsx, also packed by gzip, bzip2, xz or zip.

    What a file is, its first bytes say and not its name.

    Args:
      path: The file, a folder of files, or a pattern such as "homes/*.csv".
      text_columns: Columns that stay text, such as ids ("007" is not 7).
      form: How text is written.

    Returns:
      The table, its index counting the rows from 0 and, of several files, with a column "@file";
      what was decided from the content, in sentences; and the format with what was found out.

    Raises:
      DataError: If a file cannot be read, is something else, or there are no rows.
    """
    import pandas as pd

    form = form or Format()
    files = paths_of(path)
    text = list(text_columns)
    frames, said = [], []
    for file in files:
        frame, notes, form = _read_one(file, text, form)
        if len(files) > 1 or FILE_COLUMN in text:
            frame[FILE_COLUMN] = file.name.split(".")[0]
            for part in file.parts[:-1]:  # a partition such as home=3, as Hive writes folders
                name, equals, value = part.partition("=")
                if equals and name not in frame.columns:
                    frame[name] = value
        frames.append(frame)
        said += [note for note in notes if note not in said]
    names = [set(frame.columns) for frame in frames]
    for file, columns in zip(files, names):
        if columns != names[0]:
            odd = ", ".join(sorted(map(repr, columns ^ names[0])))
            raise DataError(f"{file} has other columns than {files[0]}: {odd} in one alone.")
    table = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    if len(files) > 1:
        said.insert(0, f"{len(files):,} files were read.")
    if not len(table):
        raise DataError(f"{path} has a header but no rows.")
    return table, said, form


def first_line(path: pathlib.Path) -> str:
    """Returns the first line of a text file, packed or not, as far as it can be read.

    Raises:
      DataError: If the file cannot be read.
    """
    try:
        content = _unpack(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return content[:10_000].decode("utf-8-sig", "replace").split("\n")[0].strip()


def names(path: str, form: Format | None = None) -> list[str]:
    """Returns the columns of a table, in a fraction of the time that reading all of it takes.

    Raises:
      DataError: As `read`.
    """
    files = paths_of(path)
    frame, _, _ = _read_one(files[0], [], form or Format(), _BEGINNING)
    partitions = [part.partition("=")[0] for part in files[0].parts[:-1] if "=" in part]
    return [*map(str, frame.columns), *partitions, FILE_COLUMN]


def _read_one(
    file: pathlib.Path, text: list[str], form: Format, most: int | None = None
) -> tuple[pd.DataFrame, list[str], Format]:
    """Reads a file; of plain text the first `most` bytes are enough."""
    try:
        with file.open("rb") as opened:
            content = opened.read(8) if most else b""
            if content.startswith(_BINARY_FILES):
                most = None
            content += opened.read() if most is None else opened.read(most)
        if most is not None and len(content) > most:
            content = content[: content.rfind(b"\n") + 1]
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    content = _unpack(file, content)
    for magic, what in _UNREADABLE.items():
        if content.startswith(magic):
            raise DataError(f"{file} is not a table but {what}.")
    try:
        if content.startswith(b"PAR1"):
            return _with_index(_parquet(content)), [], form
        if content.startswith(b"PK\x03\x04"):
            return _spreadsheet(content, text, form), [f"{file} is a spreadsheet."], form
        beginning = content[:2000].lstrip(b"\xef\xbb\xbf \t\r\n")
        if beginning.startswith(b"<"):
            raise DataError(f"{file} is not a table but a web page or XML (a failed download?).")
        if beginning.startswith((b"{", b"[{")) or re.match(rb"\[\s*\{", beginning):
            return _json(content, text), [f"{file} is JSON."], form
        return _csv(file, content, text, form)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{file} is not a CSV (UTF-8) or Parquet file: {reason}.") from error


def _unpack(file: pathlib.Path, content: bytes) -> bytes:
    for magic, (name, unpack) in _ARCHIVES.items():
        if content.startswith(magic):
            try:
                return unpack(content)
            except (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise DataError(
                    f"{file} is packed by {name}, but cut off or damaged ({error}): download or "
                    "pack it again."
                ) from error
    if not content.startswith(b"PK\x03\x04"):
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
            if "[Content_Types].xml" in names:  # .xlsx
                return content
            if len(names) != 1:
                raise DataError(
                    f"{file} is a zip of {len(names)} files ({', '.join(names[:3])}...): unpack it "
                    "and name one, or the folder."
                )
            return archive.read(names[0])
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error, RuntimeError) as error:
        raise DataError(
            f"{file} is a zip, but cut off, locked or damaged ({error}): download or pack it again."
        ) from error


def _parquet(content: bytes) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(io.BytesIO(content))


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Makes named indices columns; one without a name only counts rows."""
    named = [name for name in frame.index.names if name is not None]
    kept = frame.reset_index(level=named) if named else frame
    return kept.reset_index(drop=True)


def _spreadsheet(content: bytes, text: list[str], form: Format) -> pd.DataFrame:
    import pandas as pd

    return pd.read_excel(
        io.BytesIO(content), dtype=dict.fromkeys(text, str), **_missing(form), **_header(form)
    )


def _json(content: bytes, text: list[str]) -> pd.DataFrame:
    import pandas as pd

    decoded = content.decode("utf-8-sig").strip()
    if decoded.startswith("["):
        rows = json.loads(decoded)
    else:
        rows = [json.loads(line) for line in decoded.splitlines() if line.strip()]
    frame = pd.json_normalize(rows)
    for name in set(text) & set(frame.columns):
        frame[name] = frame[name].where(frame[name].isna(), frame[name].astype(str))
    return frame


def _csv(
    file: pathlib.Path, content: bytes, text: list[str], form: Format
) -> tuple[pd.DataFrame, list[str], Format]:
    import pandas as pd

    encoding = form.encoding or _encoding(content)
    try:
        decoded = content.decode(encoding)
    except LookupError:
        raise DataError(f"--encoding: Python knows no encoding called {encoding!r}.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not a CSV (UTF-8) or Parquet file: {error.reason} at byte {error.start}. "
            "If it is text in another encoding, name it, such as --encoding=latin-1."
        ) from error
    if form.separator is not None and len(form.separator) > 1:  # pandas' fast reader takes one
        decoded = decoded.replace(form.separator, "\t")
        form = dataclasses.replace(form, separator="\t")
    lines = [line for line in decoded[:200_000].splitlines()[:_SNIFFED] if line.strip(" ,;\t")]
    separator = form.separator or _separator(lines)
    rows = [_cells(line, separator) for line in lines]
    decimal = form.decimal or _decimal(rows, separator)
    said = []
    if separator != ",":
        said.append(f"Cells are separated by {_SEPARATORS.get(separator, repr(separator))}.")
    if decimal != ".":
        said.append("Numbers have a decimal comma.")
    index_col: Any = False
    if form.header and not form.column_names and len(rows) > 1:
        sizes = {len(row) for row in rows[1:]}
        trailing = all(row[-1] == "" for row in rows[1:])
        if sizes == {len(rows[0]) + 1} and not trailing:
            index_col = None  # pandas then takes the first column for the rows' names
            said.append(
                f"The header names {len(rows[0])} columns but the rows have {len(rows[0]) + 1}: "
                "the first is taken for the rows' names and left out."
            )
        elif max(sizes) > len(rows[0]) and not trailing:
            raise DataError(
                f"{file} has a header of {len(rows[0])} columns but rows of {max(sizes)}: correct "
                "it, or name the columns by --no_header and --column_names."
            )
    frame = pd.read_csv(
        io.StringIO(decoded),
        sep=r"\s+" if separator == " " else separator,
        decimal=decimal,
        dtype=dict.fromkeys(text, str),
        low_memory=False,  # or a column's type could change within it
        index_col=index_col,
        float_precision="round_trip",
        skipinitialspace=True,
        **_missing(form),
        **_header(form),
    )
    frame = frame.reset_index(drop=True)
    frame.columns = [str(name).strip() for name in frame.columns]
    found = dataclasses.replace(form, separator=separator, decimal=decimal, encoding=encoding)
    return frame, said, found


def _missing(form: Format) -> dict[str, Any]:
    return {"keep_default_na": False, "na_values": [*MISSING, *form.missing_values]}


def _header(form: Format) -> dict[str, Any]:
    if form.header:
        given = list(form.column_names)
        return {"header": 0, "names": given} if given else {"header": 0}
    return {"header": None, **({"names": list(form.column_names)} if form.column_names else {})}


def _encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) and content[2:].count(0) > len(content) // 4:
        return "utf-16"
    return "utf-8-sig"


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]


def _separator(lines: list[str]) -> str:
    """Returns what cuts the lines into equally many cells, the most of them; else a comma."""
    best, most = ",", 1
    for separator in _SEPARATORS:
        sizes = [len(_cells(line, separator)) for line in lines]
        if len(sizes) > 1 and sizes[0] == sizes[1] - 1:  # rows with names that the header lacks
            sizes[0] += 1
        even = sizes and len(set(sizes)) == 1
        if even and sizes[0] > most and not (separator == " " and most > 1):
            best, most = separator, sizes[0]
    return best


def _decimal(rows: list[list[str]], separator: str) -> str:
    if separator == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    commas = sum(bool(re.fullmatch(r"[+-]?\d+,\d+", cell)) for cell in cells)
    points = sum(bool(re.fullmatch(r"[+-]?\d+\.\d+", cell)) for cell in cells)
    return "," if commas and not points else "."
