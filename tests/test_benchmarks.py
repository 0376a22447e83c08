"""The benchmarks' own `main()` on tiny workloads: no timing is asserted, only what they compute."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import assert_close, differ

from benchmarks import contenders, memory, processes, report, rounds, scaling
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parent.parent
TINY = ["--workloads=linear", "--clients=2", "--examples=25", "--repetitions=1", "--warmup=1"]
MARKED = "before\n<!-- benchmarks.{0} -->\nold\n<!-- end of benchmarks.{0} -->\nafter\n"


@pytest.fixture
def started(monkeypatch):
    """The process ids of the sessions that the benchmarks start."""
    pids = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            pids.append(self.pid)

    monkeypatch.setattr(processes.subprocess, "Popen", Recorded)
    return pids


@pytest.fixture
def marked(tmp_path):
    path = tmp_path / "performance.md"
    path.write_text("".join(MARKED.format(name) for name in ("rounds", "scaling", "memory")))
    return path


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def members(session):
    """The processes of a session."""
    found = []
    for pid in filter(alive, psutil.pids()):
        with contextlib.suppress(ProcessLookupError):
            found += [pid] if os.getsid(pid) == session else []
    return found


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def section(path, name):
    return path.read_text().split(f"benchmarks.{name} -->")[1]


def test_contenders_end_with_the_same_weights_and_the_table_is_written(started, marked, capsys):
    contenders = "--contenders=ours,bare,bare_per_core"
    assert rounds.main(["rounds", *TINY, contenders, f"--write={marked}"]) == 0
    printed = capsys.readouterr().out
    assert "linear: final weights agree" in printed
    written = section(marked, "rounds")
    for text in (report.machine(), "bare_per_core", "--repetitions=1", "weights agree"):
        assert text in written
    assert "old" not in written and "--write" not in written
    assert section(marked, "memory") == "\nold\n<!-- end of "
    assert marked.read_text().startswith("before\n") and marked.read_text().endswith("after\n")
    assert started
    wait_until(lambda: not any(map(members, started)))


def test_a_bare_loop_that_trains_otherwise_is_found_out(started, marked, monkeypatch, capsys):
    start = rounds.start

    def start_wrongly(contender, name, workload, sizes):
        if contender == "bare":
            return rounds.BareContender([processes.Process("Bare", name, *sizes, batch_size=24)])
        return start(contender, name, workload, sizes)

    monkeypatch.setattr(rounds, "start", start_wrongly)
    command = ["rounds", *TINY, "--contenders=bare_per_core,bare", f"--write={marked}"]
    assert rounds.main(command) == 1
    assert "linear: final weights DISAGREE" in capsys.readouterr().out
    assert section(marked, "rounds") == "\nold\n<!-- end of "
    wait_until(lambda: not any(map(members, started)))


def test_stock_and_ours_train_alike(tff_runtime):
    workload = WORKLOADS["linear"].resized(3, None)
    stock, ours = contenders.build_stock(workload), contenders.build_ours(workload)
    first = stock.weights()
    for _ in range(2):
        assert stock.round() > 0 and ours.round() > 0
    assert_close(stock.weights(), ours.weights(), 1e-6)
    assert differ(stock.weights(), first)


@pytest.mark.parametrize("name", WORKLOADS)
def test_any_cohort_has_the_same_first_clients(name):
    workload = WORKLOADS[name]
    few, more = (workload.resized(n, 3).clients() for n in (2, 3))
    for one, other in zip(few, more):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)
    assert [len(x) for x, _ in few] == [3, 3]
    for spec, array in zip(workload.input_spec(), few[0]):
        assert spec.dtype == array.dtype and spec.shape.is_compatible_with(array.shape)


def test_shares_are_balanced_by_examples_and_none_is_empty():
    assert rounds.balanced_shares([10, 30, 20, 5], 2) == [[1, 3], [2, 0]]
    assert rounds.balanced_shares([1, 1], 8) == [[0], [1]]


def test_distance_is_relative_and_nan_agrees_with_nothing():
    a, b = [np.array([3.0, 4.0]), np.array([0.0])], [np.array([3.0, 4.0]), np.array([0.5])]
    assert rounds.distance(b, a) == pytest.approx(0.1)
    nan = rounds.Measurement("x", 1, 1, {}, {}, {}, {"a": 0.0, "b": float("nan")}, 1.0)
    assert not nan.agrees


def test_spread_is_median_smallest_and_largest():
    assert report.spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0 to 3.0)"
    assert report.spread([1.25], 2) == "1.25"


class InProcess:
    """In place of a process, what it would hold."""

    def __init__(self, kind, name, num_clients, num_examples):
        assert kind == "ours"
        self._federated = contenders.build_ours(WORKLOADS[name].resized(num_clients, num_examples))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def wait_until_ready(self):
        pass

    def call(self, method, *args):
        return getattr(self._federated, method)(*args)

    def resident_memory(self):
        return psutil.Process().memory_info().rss

    peak_memory = resident_memory


def test_scaling_has_a_row_for_each_cohort(tff_runtime, marked, monkeypatch):
    monkeypatch.setattr(scaling, "Process", InProcess)
    command = ["scaling", "--cohorts=1,2", "--examples=4", "--repetitions=1"]
    assert scaling.main([*command, f"--write={marked}"]) == 0
    rows = [row.split("|") for row in section(marked, "scaling").splitlines() if "|" in row]
    assert [row[1].strip() for row in rows[2:]] == ["ours", "ours"]
    assert [int(row[2]) for row in rows[2:]] == [1, 2]


def test_memory_is_read_after_the_rounds_asked_for(tff_runtime, marked, monkeypatch):
    monkeypatch.setattr(memory, "Process", InProcess)
    command = ["memory", "--rounds=3,2", "--clients=4", "--cohort=2", "--examples=5"]
    assert memory.main([*command, f"--write={marked}"]) == 0
    rows = [row.split("|") for row in section(marked, "memory").splitlines() if "|" in row]
    assert [int(row[1]) for row in rows[2:]] == [2, 3]
    assert all(int(row[2]) > 10 for row in rows[2:])


@pytest.mark.parametrize(
    ("main", "flag", "hint"),
    [
        (rounds.main, "--workloads=cnm", "Did you mean 'cnn'?"),
        (rounds.main, "--contenders=", "at least one of"),
        (rounds.main, "--repetitions=0", "positive"),
        (rounds.main, "--repetition=x", "flag must be one of"),
        (rounds.main, "--warmup=x", "Rounds before them"),
        (rounds.main, "--write=/nowhere.md", "cannot be read"),
        (rounds.main, f"--write={__file__}", "has no section"),
        (rounds.main, "linear", "--name=value"),
        (scaling.main, "--cohorts=10,x", "whole numbers"),
        (scaling.main, "--stock=0", "whole numbers"),
        (memory.main, "--rounds=5,50", "round 10 or later"),
        (memory.main, "--cohort=101", "at most --clients"),
    ],
)
def test_wrong_flags_are_one_sentence_and_status_2(main, flag, hint, started, capsys):
    assert main(["program", flag]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and hint in error and error.count("\n") == 1
    assert not started


def test_a_contender_that_cannot_be_made_says_why(started, monkeypatch, capsys):
    monkeypatch.setattr(rounds, "start", lambda *_: rounds.Contender([processes.Process("Bare")]))
    assert rounds.main(["rounds", *TINY]) == 1
    assert "missing 1 required positional argument" in capsys.readouterr().err
    wait_until(lambda: not any(map(members, started)))


def test_a_benchmark_interrupted_in_a_round_leaves_nothing_behind():
    flags = [*TINY, "--contenders=bare_per_core", "--repetitions=1000000"]
    program = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.rounds", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stderr.readline() == "linear: bare_per_core is ready.\n"
        family = [process.pid for process in processes._family(program.pid)]
        assert len(family) > 1
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 130
        assert program.stderr.read() == "\nInterrupted.\n"
        wait_until(lambda: not any(map(alive, family)))
    finally:
        program.kill()
        program.communicate()


def test_a_process_ends_when_its_program_is_gone(started):
    with processes.Process("Bare", "linear", 1, 1) as process:
        process._pipe.close()
        wait_until(lambda: not members(started[0]))
        assert process._process.wait() == -signal.SIGKILL


def test_memory_is_that_of_the_process_which_is_gone_afterwards(started):
    with processes.Process("Bare", "linear", 1, 1) as process:
        process.wait_until_ready()
        assert 50e6 < process.resident_memory() <= process.peak_memory() + 1e6
        assert members(started[0]) == started
    assert not alive(started[0])


def test_the_family_of_a_process_includes_sessions_that_it_started():
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert child.pid in [process.pid for process in processes._family(os.getpid())]
    finally:
        child.kill()
        child.wait()
