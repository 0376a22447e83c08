"""Is a file in TFF's cache whole, and can one be fetched that is?

TFF takes any file of the right name for a finished download. An interrupted one leaves a
truncated file that counts as cached ever after, so a file is checked before TFF may open it: by
its structure, never by a hash, because smaller files of the same format are welcome. Files that
fail the check are never used, changed or deleted here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import sqlite3
import stat
import struct
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from datasets.sources.contents import Contents
from datasets.task import DataError

if TYPE_CHECKING:
    import tensorflow as tf

_COLUMNS = {
    "examples": {"split_name", "client_id", "serialized_example_proto"},
    "client_metadata": {"client_id", "split_name", "num_examples"},
}
# SQLite's own check reads the whole file: about 0.1 s per 250 MB from memory, but a minute for
# gigabytes from a slow disk. Larger files are only counted, for as long as that takes little.
_FULL_CHECK_BYTES = 2**30
_COUNT_SECONDS = 3.0
_METADATA_SECONDS = 60.0

PROBE_SECONDS = 8.0  # to decide whether a host answers
STALL_SECONDS = 30.0  # without a byte before a download counts as broken
_ASIDE = ".download-"  # begins the name of a directory that a download goes into

FREE_BYTES = 5 * 2**30  # an unpacked file takes a few gigabytes


def directory(cache_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Returns the cache directory that is meant: None is TFF's own default."""
    return (
        pathlib.Path.home() / ".tff" if cache_dir is None else pathlib.Path(cache_dir).expanduser()
    )


@dataclasses.dataclass(frozen=True)
class TffFile:
    """A data file of TFF.

    Attributes:
      url: Where TFF downloads it from.
      path: Where it is, or will be.
      splits: The splits that it must have.
      load: Lets TFF download and unpack it into a directory, under the name of `path`.
      free_bytes: What it takes on the disk, if that is more than `FREE_BYTES`.
    """

    url: str
    path: pathlib.Path
    splits: tuple[str, ...]
    load: Callable[[str], object]
    free_bytes: int = 0

    def fetch(self) -> None:
        """Downloads the file unless it is there; raises DataError if it is damaged or lacking.

        The unpacked file is what counts: a `.lzma` alone is not one.
        """
        if os.path.lexists(self.path):
            check_database(self.path, self.splits)
        else:
            check_reachable(self.url)
            download(self.path, self.splits, self.load, self.url, self.free_bytes)

    def advice(self) -> str:
        """Says what makes the file available, as a clause."""
        if os.path.lexists(self.path):
            return f"delete {self.path} so that it is downloaded again"
        return f"unpack {self.url} to {self.path}"


def build_reader(
    clients: Any, features: tuple[str, ...], contents: Contents
) -> Callable[[str], dict[str, np.ndarray]]:
    """Returns what reads one client of a `tff.simulation.datasets.ClientData` afresh.

    Args:
      clients: The clients.
      features: Names of the features that are wanted.
      contents: What they must be.

    Returns:
      A function from an id to each feature of all of that client's examples, [n, ...], in the order
      of the file. It raises KeyError for ids of no client, and DataError for examples that are not
      what they must be.
    """
    import tensorflow as tf

    known = frozenset(clients.client_ids)
    everything = np.iinfo(np.int64).max

    # Traced once for all clients: a pipeline of its own for each would pile up in memory.
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def read(client_id: tf.Tensor) -> dict[str, tf.Tensor]:
        examples = clients.serializable_dataset_fn(client_id)
        wanted = examples.map(lambda example: {name: example[name] for name in features})
        return wanted.batch(everything).get_single_element()

    def read_client(client_id: str) -> dict[str, np.ndarray]:
        if client_id not in known:
            raise KeyError(client_id)
        try:
            found = {name: value.numpy() for name, value in read(tf.constant(client_id)).items()}
        # TensorFlow's message holds the bytes that it could not parse, which need not be text.
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            raise contents.unreadable(client_id, error) from error
        what = contents.check(found)
        if what is not None:
            raise contents.fault(client_id, what)
        return found

    return read_client


def check_database(path: str | os.PathLike[str], splits: Iterable[str]) -> None:
    """Checks that a file is a complete database in TFF's `SqlClientData` format.

    Args:
      path: The `.sqlite` file. It is opened read-only.
      splits: The splits that must have clients and all of their examples.

    Raises:
      DataError: If it is not; names the file and the reason.
    """
    path = pathlib.Path(path)
    try:
        _check_file(path)
        with contextlib.closing(_open(path)) as database:
            _check_tables(database)
            if path.stat().st_size <= _FULL_CHECK_BYTES:
                _check_pages(database)
            for split in splits:
                _check_split(database, split)
    except (OSError, sqlite3.DatabaseError, _Damage) as error:
        raise DataError(
            f"{path} is damaged or not a data file of TensorFlow Federated: {error}."
        ) from error


def client_ids(path: pathlib.Path, split: str) -> tuple[str, ...]:
    """Returns the ids of a split's clients, sorted as TFF does; the file was checked before."""
    with contextlib.closing(_open(path)) as database:
        rows = database.execute(
            "SELECT DISTINCT client_id FROM client_metadata WHERE split_name = ?", (split,)
        )
        return tuple(sorted(client_id for (client_id,) in rows))


def _open(path: pathlib.Path) -> sqlite3.Connection:
    # "immutable" keeps SQLite from leaving or replaying files beside this one.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
    database.execute("PRAGMA trusted_schema = OFF")
    return database


class _Damage(Exception):
    """What is wrong with a file."""


def _check_file(path: pathlib.Path) -> None:
    """Compares the file with what its SQLite header promises."""
    for suffix in ("-journal", "-wal"):
        if path.with_name(path.name + suffix).exists():
            raise _Damage(f"a {path.name + suffix} beside it says that writing never finished")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise _Damage(f"it is {kind}, not an ordinary file")
    size = status.st_size
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        raise _Damage("it is empty")
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise _Damage("it is not an SQLite file")
    (page_size,) = struct.unpack_from(">H", header, 16)
    change_counter, num_pages = struct.unpack_from(">2I", header, 24)
    (counter_of_num_pages,) = struct.unpack_from(">I", header, 92)
    promised = (65536 if page_size == 1 else page_size) * num_pages
    # Only then does the number of pages hold; writers before SQLite 3.7 leave it stale.
    if change_counter == counter_of_num_pages and num_pages and size != promised:
        raise _Damage(f"it has {size:,} bytes where its header promises {promised:,}")


def _check_tables(database: sqlite3.Connection) -> None:
    """Looks for the tables and columns that TFF reads."""
    for table, columns in _COLUMNS.items():
        made = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (table,))
        for kind, how in made.fetchall():
            if kind not in ("table", "view") or "VIRTUAL" in str(how).upper().split("(")[0]:
                raise _Damage(f"its {table!r} is not an ordinary table")
        present = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if not present:
            raise _Damage(f"it has no table {table!r}")
        if columns - present:
            raise _Damage(f"its table {table!r} lacks the column {min(columns - present)!r}")


def _check_pages(database: sqlite3.Connection) -> None:
    """Lets SQLite walk all pages and report the first that is wrong."""
    (result,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise _Damage(" ".join(str(result).split()))


def _check_split(database: sqlite3.Connection, split: str) -> None:
    """Looks for clients in a split and, if that is quick, for all of their examples."""
    with _limited(database, _METADATA_SECONDS):  # a view computes for as long as it likes
        clients, promised = database.execute(
            "SELECT count(*), sum(num_examples) FROM client_metadata WHERE split_name = ?", (split,)
        ).fetchone()
        _check_ids(database, split)
    if not clients or not promised:
        raise _Damage(f"its split {split!r} is missing or empty")
    try:
        with _limited(database, _COUNT_SECONDS):
            (found,) = database.execute(
                "SELECT count(*) FROM examples WHERE split_name = ?", (split,)
            ).fetchone()
    except sqlite3.OperationalError as error:
        if "interrupt" in str(error):
            return  # out of time, not out of order
        raise
    if found != promised:
        raise _Damage(f"its split {split!r} has {found:,} examples instead of {promised:,}")


@contextlib.contextmanager
def _limited(database: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Makes queries raise `sqlite3.OperationalError`, "interrupted", after so long."""
    deadline = time.monotonic() + seconds
    database.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        yield
    finally:
        database.set_progress_handler(None, 0)


def _check_ids(database: sqlite3.Connection, split: str) -> None:
    """Looks for ids and counts that TFF cannot sort or would put into its own query unquoted."""
    rows = database.execute(
        "SELECT typeof(client_id), CAST(client_id AS BLOB) FROM client_metadata WHERE "
        "split_name = ?",
        (split,),
    )
    for kind, content in rows:
        try:
            client_id = content.decode() if kind == "text" else content
        except UnicodeDecodeError:
            client_id = content
        if not isinstance(client_id, str) or not client_id or set(client_id) & {"'", "\0"}:
            raise _Damage(
                f"its split {split!r} has the client id {client_id!r} ({kind}), but ids must be "
                "text in UTF-8 without apostrophes"
            )


def check_reachable(url: str, seconds: float = PROBE_SECONDS) -> None:
    """Asks a host for a file's headers, honouring proxies, for `seconds` at the most.

    Raises:
      DataError: If no good answer comes in time.
    """
    answers: list[Exception | None] = []

    def ask() -> None:
        try:
            probe(url, seconds)
            answers.append(None)
        except Exception as error:  # whatever it is, the caller's thread must hear of it
            answers.append(error)

    # A daemon thread, because looking up a name knows no time limit and must not hold the exit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise DataError(f"{url} does not answer within {seconds:g} s.")
    if answers[0] is not None:
        raise DataError(f"{url} cannot be reached ({answers[0]}).") from answers[0]


def probe(url: str, seconds: float) -> None:
    """Sends one HEAD request; raises OSError unless it succeeds."""
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=seconds):
        pass


def download(
    path: pathlib.Path,
    splits: Iterable[str],
    fetch: Callable[[str], object],
    origin: str,
    free_bytes: int = 0,
) -> None:
    """Lets TFF download a file aside, checks it, and only then gives it its name.

    Args:
      path: Where the file will be; does not exist yet.
      splits: As in `check_database`.
      fetch: Downloads and unpacks into the directory it gets, under the name of `path`.
      origin: What `fetch` downloads, for messages.
      free_bytes: As in `TffFile`.

    Raises:
      DataError: If the disk is too full, the download breaks or its result is damaged. Nothing
        of it remains then, as after an interruption; what a killed process left is removed by
        the next download.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        needed = max(FREE_BYTES, free_bytes)
        if free < needed:
            raise DataError(
                f"{path.parent} has {free / 2**30:.1f} GB free, but {needed / 2**30:.0f} GB "
                f"are needed."
            )
        _remove_abandoned(path.parent)
        # On the same disk as `path`, so that the last step is one atomic rename.
        with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=path.parent) as aside:
            with socket_timeout():
                fetch(aside)
            result = pathlib.Path(aside) / path.name
            check_database(result, splits)
            os.replace(result, path)
    except DataError as error:
        raise DataError(f"Downloading {origin} failed: {error}") from error
    except Exception as error:  # urllib, http, lzma, socket and TensorFlow all have their own
        raise DataError(f"Downloading {origin} failed ({error}).") from error


def _remove_abandoned(directory: pathlib.Path) -> None:
    """Removes the downloads of killed processes: a live one never stands still for so long."""
    for aside in directory.glob(f"{_ASIDE}*"):
        last_change = max(path.stat().st_mtime for path in [aside, *aside.iterdir()])
        if time.time() - last_change > 10 * STALL_SECONDS:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def socket_timeout(seconds: float = STALL_SECONDS) -> Iterator[None]:
    """Gives every new socket a time limit; TFF's downloader sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
