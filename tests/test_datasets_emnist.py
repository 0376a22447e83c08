"""Facts about EMNIST as a task: the real file, what stands in for it, and its download."""

import contextlib
import functools
import http.server
import lzma
import os
import socket
import sqlite3
import threading
import time
import urllib.request

import numpy as np
import pytest
from loading import load_task
from tff_files import NUM_CLIENTS, SPLITS, make_examples, write_database

from datasets import DataError, emnist
from datasets.sources import tff_files


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """Bytes of a small file in TFF's format."""
    path = tmp_path_factory.mktemp("intact") / "some.sqlite"
    write_database(path)
    return path.read_bytes()


@pytest.fixture
def cache(tmp_path, intact):
    (tmp_path / emnist.FILE_NAME).write_bytes(intact)
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def refuse(url, seconds):
        raise OSError("no network in this test")

    monkeypatch.setattr(tff_files, "probe", refuse)


def all_clients(task):
    return task.train_clients + task.validation_clients + task.test_clients


def unwrapped(banner):
    return " ".join(banner.replace("#", " ").split())


# --- the real file ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_digits", "split"), [(False, "all_train"), (True, "digits_only_train")]
)
def test_client_is_its_train_examples_with_paper_one_and_ink_zero(cache, only_digits, split):
    task = load_task("emnist", data_source="tff", cache_dir=cache, only_digits=only_digits)
    assert task.data_source == "tff"
    assert len(all_clients(task)) == NUM_CLIENTS
    for client in range(NUM_CLIENTS):
        x, y = task.read_client(f"f{client:04d}_00")
        want_x, want_y = make_examples(split, client)
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(x, want_x)
        np.testing.assert_array_equal(y, want_y)
        assert x[0].mean() > 0.99
        assert x[0, 14, 14] == 0.0


def test_file_without_the_splits_of_another_choice_is_welcome(tmp_path):
    write_database(tmp_path / emnist.FILE_NAME, splits=("digits_only_train", "digits_only_test"))
    task = load_task("emnist", data_source="tff", cache_dir=tmp_path, only_digits=True)
    assert len(all_clients(task)) == NUM_CLIENTS
    with pytest.raises(DataError, match="all_train"):
        load_task("emnist", data_source="tff", cache_dir=tmp_path)


def test_unknown_client_is_a_key_error(cache):
    with pytest.raises(KeyError):
        load_task("emnist", data_source="tff", cache_dir=cache).read_client("nobody")


def test_split_is_disjoint_and_the_same_for_every_seed(cache):
    tasks = [
        load_task("emnist", data_source="tff", cache_dir=cache, seed=seed) for seed in (0, 0, 1)
    ]
    assert len(set(all_clients(tasks[0]))) == NUM_CLIENTS
    assert all_clients(tasks[0]) == all_clients(tasks[1]) == all_clients(tasks[2])
    assert len(load_task("emnist", cache_dir=cache, num_test_clients=3).test_clients) == 3


def test_auto_takes_an_intact_cache_without_asking_the_network(cache, offline, capsys):
    assert load_task("emnist", cache_dir=cache).data_source == "tff"
    assert "WARNING" not in capsys.readouterr().err


# --- damaged files ---------------------------------------------------------------------------


def drop_table(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE client_metadata")
        database.commit()


def drop_column(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE client_metadata RENAME COLUMN num_examples TO n")
        database.commit()


def lose_examples(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM examples WHERE rowid = 5")
        database.commit()


def drop_split(path):
    path.unlink()
    write_database(path, splits=("digits_only_train", "all_test"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5000])


def zero_the_middle(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = bytes(8192)
    path.write_bytes(data)


def leave_journal(path):
    path.with_name(path.name + "-journal").write_bytes(b"unfinished")


DAMAGES = {
    "truncated": (truncate, "header promises"),
    "one_page_only": (lambda path: path.write_bytes(path.read_bytes()[:4096]), "header promises"),
    "garbage": (lambda path: path.write_bytes(bytes(range(256)) * 64), "not an SQLite file"),
    "still_compressed": (lambda p: p.write_bytes(lzma.compress(p.read_bytes())), "not an SQLite"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "directory": (lambda path: (path.unlink(), path.mkdir()), "directory"),
    "missing_table": (drop_table, "no table 'client_metadata'"),
    "missing_column": (drop_column, "lacks the column 'num_examples'"),
    "missing_split": (drop_split, "split 'all_train' is missing"),
    "lost_examples": (lose_examples, "examples instead of"),
    "zeroed_middle": (zero_the_middle, "damaged"),
    "unfinished": (leave_journal, "never finished"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named_refused_and_left_alone(cache, capsys, damage):
    path = cache / emnist.FILE_NAME
    spoil, reason = DAMAGES[damage]
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(DataError) as error:
        load_task("emnist", data_source="tff", cache_dir=cache)
    message = str(error.value)
    assert str(path) in message
    assert reason in message
    assert "delete" in message
    assert "--data_source=embedded" in message

    assert load_task("emnist", cache_dir=cache).data_source == "embedded"
    banner = capsys.readouterr().err
    assert str(path) in banner
    assert "EMBEDDED synthetic handwriting" in unwrapped(banner)
    assert len(banner.splitlines()) > 8
    assert (path.read_bytes() if path.is_file() else None) == before


def test_check_does_not_change_or_add_files(cache):
    path = cache / emnist.FILE_NAME
    before = path.read_bytes(), path.stat().st_mtime_ns
    tff_files.check_database(path, SPLITS)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(cache.iterdir()) == [path]


def test_stale_page_count_of_an_old_writer_is_not_held_against_a_file(cache):
    path = cache / emnist.FILE_NAME
    data = bytearray(path.read_bytes())
    data[28:32] = bytes(4)
    data[92:96] = bytes(4)
    path.write_bytes(data)
    tff_files.check_database(path, SPLITS)


def test_large_file_is_only_counted(cache, monkeypatch):
    monkeypatch.setattr(tff_files, "_FULL_CHECK_BYTES", 0)
    tff_files.check_database(cache / emnist.FILE_NAME, SPLITS)
    lose_examples(cache / emnist.FILE_NAME)
    with pytest.raises(DataError, match="instead of"):
        tff_files.check_database(cache / emnist.FILE_NAME, SPLITS)


# --- no file ---------------------------------------------------------------------------------


def test_compressed_file_alone_is_not_cached(tmp_path, intact, offline, capsys):
    (tmp_path / f"{emnist.FILE_NAME}.lzma").write_bytes(lzma.compress(intact))
    assert load_task("emnist", cache_dir=tmp_path).data_source == "embedded"
    assert "unpack" in capsys.readouterr().err


def test_tff_without_network_names_file_place_and_the_other_choice(tmp_path, offline):
    with pytest.raises(DataError) as error:
        load_task("emnist", data_source="tff", cache_dir=tmp_path)
    for part in (emnist.URL, str(tmp_path / emnist.FILE_NAME), "--data_source=embedded"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_auto_decides_within_ten_seconds_when_a_name_server_hangs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tff_files, "probe", lambda url, seconds: time.sleep(60))
    start = time.monotonic()
    assert load_task("emnist", cache_dir=tmp_path).data_source == "embedded"
    assert time.monotonic() - start < 10
    assert "does not answer" in unwrapped(capsys.readouterr().err)


def test_closed_port_is_unreachable_at_once():
    with socket.socket() as reserved:  # bound, but nobody listens
        reserved.bind(("127.0.0.1", 0))
        start = time.monotonic()
        with pytest.raises(DataError, match="cannot be reached"):
            tff_files.check_reachable(f"http://127.0.0.1:{reserved.getsockname()[1]}/x.lzma")
        assert time.monotonic() - start < 5


def test_silent_host_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DataError, match=r"does not answer|cannot be reached"):
            tff_files.check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/x.lzma", 0.5)


# --- download --------------------------------------------------------------------------------


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves bytes as the official file: TFF's own downloader, another host."""
    monkeypatch.setattr(tff_files, "FREE_BYTES", 0)
    monkeypatch.setenv("no_proxy", "*")
    root = tmp_path / "www"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        real, host = urllib.request.urlopen, f"http://127.0.0.1:{server.server_port}/"
        name = emnist.URL.rsplit("/", 1)[1]

        def redirected(request, *args, **kwargs):
            if isinstance(request, str):
                assert request == emnist.URL
                return real(host + name, *args, **kwargs)
            assert request.full_url == emnist.URL
            request.full_url = host + name
            return real(request, *args, **kwargs)

        monkeypatch.setattr(urllib.request, "urlopen", redirected)
        yield (root / name).write_bytes
        server.shutdown()


def test_good_download_is_cached_intact_and_loads(tmp_path, serve, intact):
    serve(lzma.compress(intact))
    cache = tmp_path / "new" / "cache"
    task = load_task("emnist", cache_dir=cache)
    assert task.data_source == "tff"
    assert len(all_clients(task)) == NUM_CLIENTS
    assert [path.name for path in cache.iterdir()] == [emnist.FILE_NAME]
    assert (cache / emnist.FILE_NAME).read_bytes() == intact
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("broken", ["truncated", "not_lzma", "missing"])
def test_broken_download_leaves_nothing(tmp_path, serve, intact, capsys, broken):
    packed = lzma.compress(intact)
    if broken != "missing":
        serve({"truncated": packed[: len(packed) // 2], "not_lzma": b"<html>" * 99}[broken])
    cache = tmp_path / "cache"
    reason = "HTTP Error 404" if broken == "missing" else f"Downloading {emnist.URL} failed"
    with pytest.raises(DataError) as error:
        load_task("emnist", data_source="tff", cache_dir=cache)
    for part in (reason, str(cache / emnist.FILE_NAME), "--data_source=embedded"):
        assert part in str(error.value)
    assert load_task("emnist", cache_dir=cache).data_source == "embedded"
    assert "EMBEDDED" in capsys.readouterr().err
    assert not cache.exists() or not list(cache.iterdir())


def test_interrupted_download_leaves_nothing(tmp_path):
    def interrupted(aside):
        (tmp_path / aside / emnist.FILE_NAME).write_bytes(b"half")
        raise KeyboardInterrupt

    cache = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        tff_files.download(cache / emnist.FILE_NAME, SPLITS, interrupted, emnist.URL)
    assert not list(cache.iterdir())
    assert socket.getdefaulttimeout() is None


def test_next_download_removes_what_a_killed_one_left(tmp_path):
    old, live = tmp_path / ".download-old", tmp_path / ".download-live"
    for aside in (old, live):
        aside.mkdir()
        (aside / "part").write_bytes(b"x")
    for path in (old / "part", old):
        os.utime(path, (time.time() - 3600,) * 2)
    with pytest.raises(DataError, match="failed"):
        tff_files.download(tmp_path / emnist.FILE_NAME, ["all_train"], lambda aside: None, "it")
    assert [path.name for path in tmp_path.iterdir()] == [".download-live"]


def test_full_disk_is_said_before_the_download_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(tff_files, "FREE_BYTES", 2**60)
    with pytest.raises(DataError, match="GB free"):
        tff_files.download(tmp_path / "x.sqlite", SPLITS, pytest.fail, emnist.URL)


# --- model -----------------------------------------------------------------------------------


def test_layers_differ_in_their_weights():
    kernels = emnist.build_cnn(0, 62).get_weights()[::2]
    flat = np.stack([kernel.ravel()[:200] for kernel in kernels])
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.5  # one seed for all would give 1


@pytest.mark.parametrize(("only_digits", "num_classes"), [(False, 62), (True, 10)])
def test_model_gives_logits_and_loss_and_metric_fit(only_digits, num_classes):
    task = load_task("emnist", data_source="embedded", only_digits=only_digits)
    x, y = task.read_client(task.train_clients[0])
    logits = task.build_keras_model()(x).numpy()
    assert logits.shape == (len(y), num_classes)
    assert logits.min() < 0
    (metric,) = task.build_metrics()
    metric.update_state(y, logits)
    assert metric.name == task.metric
    assert metric.result().numpy() == pytest.approx((logits.argmax(axis=1) == y).mean())
    shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -shifted[np.arange(len(y)), y].mean()
    assert task.build_loss()(y, logits).numpy() == pytest.approx(expected, rel=1e-4)
