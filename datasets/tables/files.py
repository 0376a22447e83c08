"""Reads a user's table, whatever it is: text, Parquet, JSON, a spreadsheet, packed, or a folder.

What a file is, its first bytes say and not its name. Parquet does not tell NaN from missing.
"""

from __future__ import annotations

import glob
import hashlib
import pathlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from datasets.tables import archives, csv_text, exact, other_formats
from datasets.tables.csv_text import Format
from datasets.task import DataError

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMN = "@file"  # the name, without folder and ending, of the file that a row is from

_BEGINNING = 200_000  # bytes
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|\[\s*[\[{\d\"])")


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
    import tqdm

    form = form or Format()
    files = paths_of(path)
    text = list(text_columns)
    frames, said = [], []
    for file in tqdm.tqdm(files, "reading", unit="file", delay=5, mininterval=5):
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
        content = archives.unpack(path, path.read_bytes())
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
            if content.startswith(archives.READ_WHOLE):
                most = None
            content += opened.read() if most is None else opened.read(most)
        if most is not None and len(content) > most:
            content = content[: content.rfind(b"\n") + 1]
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    content = archives.unpack(file, content)
    said: list[str] = []
    try:
        if content.startswith(archives.PARQUET):
            frame, said = other_formats.parquet(content)
        elif content.startswith(archives.ZIP):
            frame, said = other_formats.spreadsheet(file, content, text, form)
        elif _JSON.match(content[:2000]):
            frame, said = other_formats.json_rows(file, content)
        else:
            frame, said, form = csv_text.read(file, content, text, form)
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{file} is not a CSV (UTF-8) or Parquet file: {reason}.") from error
    for name in set(text) & set(map(str, frame.columns)):
        frame[name] = exact.ids(frame[name])
    return frame, said, form
