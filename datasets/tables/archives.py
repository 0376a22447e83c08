"""What a file is by its first bytes: packed, a table, or something that is named and refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pathlib
import zipfile
import zlib
from collections.abc import Callable

from datasets.task import DataError

PARQUET, ZIP = b"PAR1", b"PK\x03\x04"
_UNREADABLE = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls): save it as .xlsx or CSV",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file: write it as CSV or Parquet",
    b"SQLite format 3": "an SQLite database: write a table of it as CSV or Parquet",
    b"\x89PNG": "an image",
    b"\x93NUMPY": "a NumPy file: write it as CSV or Parquet",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it, or pack it as .gz",
    b"7z\xbc\xaf": "a 7-zip archive: unpack it, or pack it as .zip",
    b"@relation": "an ARFF file: write it as CSV",
    b"@RELATION": "an ARFF file: write it as CSV",
}
_PACKERS: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ": ("xz", lzma.decompress),
}
# What is read to the end, whatever is wanted of it.
READ_WHOLE = (PARQUET, ZIP, b"[", b"{", b"\xff\xfe", b"\xfe\xff", *_PACKERS)


def unpack(file: pathlib.Path, content: bytes) -> bytes:
    """Returns what was packed by gzip, bzip2, xz or zip, also twice; other content as it is.

    Args:
      file: Its name, for errors.
      content: The file's bytes.

    Raises:
      DataError: If an archive is cut off, damaged or has several files, or the content is known to
        be no table.
    """
    while True:
        for magic, (name, unpack_one) in _PACKERS.items():
            if content.startswith(magic):
                try:
                    content = unpack_one(content)
                    break
                except (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
                    raise DataError(
                        f"{file} is packed by {name}, but cut off or damaged ({error}): download "
                        "or pack it again."
                    ) from error
        else:
            break
    if content.startswith(ZIP):
        content = _unzip(file, content)
    for magic, what in _UNREADABLE.items():
        if content.startswith(magic):
            raise DataError(f"{file} is not a table but {what}.")
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise DataError(f"{file} is not a table but a web page or XML (a failed download?).")
    return content


def _unzip(file: pathlib.Path, content: bytes) -> bytes:
    """Returns the one file of a zip; a spreadsheet, which is a zip too, as it is."""
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
