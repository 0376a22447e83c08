import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.runtime import worker
from tff_fedmeta.runtime.worker import WorkerError, worker_runtime

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ENVIRONMENT.pop("TF_CPP_MIN_LOG_LEVEL", None)  # quiet_tensorflow() is to set it


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def total(numbers):
    return tff.federated_sum(numbers)


@tff.tensorflow.computation(tff.TensorType(np.int64))
def count_to(n):
    return tf.while_loop(lambda i: i < n, lambda i: [i + 1], [tf.constant(0, tf.int64)])[0]


@tff.tensorflow.computation(tff.TensorType(np.int32))
def must_be_positive(x):
    with tf.control_dependencies([tf.debugging.assert_positive(x)]):
        return tf.identity(x)


FOR_EVER = 10**12


def is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def ends_soon(pid):
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


# In this process.


def test_runs_computations_and_restores_the_context():
    stack = tff.framework.get_context_stack()
    before = stack.current
    for _ in range(2):
        with worker_runtime() as outer:
            log = outer.log_file
            assert outer.num_threads == len(os.sched_getaffinity(0))
            assert total([1, 2, 3]) == 6
            with worker_runtime(num_threads=1) as inner:
                assert inner.pid != outer.pid
                assert total([4, 5]) == 9
            assert total([]) == 0
            pid = outer.pid
            assert is_running(pid) and log.exists()
        assert not is_running(pid) and not log.exists()
        assert stack.current is before


def test_runs_in_another_thread():
    results = []

    def work():
        with worker_runtime():
            results.append(total([1, 2]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert results == [3]


def test_worker_environment_is_one_thread_per_operation(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with worker_runtime(num_threads=3, log_file=tmp_path / "worker.log") as local:
        assert total([7]) == 7
        environment = Path(f"/proc/{local.pid}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{local.pid}/cmdline").read_bytes().split(b"\0")
        assert os.getsid(local.pid) == local.pid
    assert b"TF_NUM_INTRAOP_THREADS=1" in environment
    assert b"--max_concurrent_computation_calls=3" in command
    assert (tmp_path / "worker.log").exists()


def test_a_worker_that_dies_in_a_computation_is_an_error_with_its_log(tmp_path, capfd):
    log = tmp_path / "worker.log"
    with worker_runtime(log_file=log) as local:
        log.write_text("".join(f"line {i}\n" for i in range(30)))
        timer = threading.Timer(0.7, os.kill, [local.pid, signal.SIGKILL])
        timer.start()
        with pytest.raises(WorkerError, match=r"(?s)worker died \(SIGKILL.*line 10\n.*line 29"):
            count_to(FOR_EVER)
        with pytest.raises(WorkerError, match="worker died"):  # nobody waits for it for ever
            total([1, 2])
    assert "Traceback" not in capfd.readouterr().err


def test_users_error_is_raised_once_and_the_worker_lives(tmp_path, caplog):
    log = tmp_path / "worker.log"
    with worker_runtime(log_file=log) as local:
        pid = local.pid
        with pytest.raises(Exception, match="assertion failed") as error:
            must_be_positive(-1)
        assert not isinstance(error.value, RuntimeError)
        with pytest.raises(TypeError):
            must_be_positive("text")
        assert must_be_positive(1) == 1
        assert local.pid == pid and is_running(pid)
    assert log.read_text().count("Failed to run computation") == 1
    assert not caplog.records


@pytest.mark.parametrize("arguments", [{"num_threads": 0}, {"start_timeout": 0}])
def test_impossible_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))), worker_runtime(**arguments):
        pass


def test_log_file_that_cannot_be_written(tmp_path):
    with (
        pytest.raises(OSError, match="missing"),
        worker_runtime(log_file=tmp_path / "missing" / "log"),
    ):
        pass


@pytest.mark.parametrize(
    ("script", "timeout", "message"),
    [
        (None, 30, "missing or cannot be executed"),
        ("#!/bin/sh\necho no such luck >&2; exit 3", 30, r"(?s)exit status 3.*no such luck"),
        ("not a program", 30, r"(?s)exit status 1.*Exec format error"),
        ("#!/bin/sh\necho $$; exec sleep 60", 0.5, r"(?s)not ready after 0.5 s.*\d"),
    ],
    ids=["missing", "dies", "no program", "never ready"],
)
def test_worker_that_cannot_start(script, timeout, message, tmp_path, monkeypatch):
    binary, log = tmp_path / "worker", tmp_path / "worker.log"
    if script:
        binary.write_text(script)
        binary.chmod(0o755)
    monkeypatch.setattr(worker, "worker_binary", lambda: binary)
    with (
        pytest.raises(RuntimeError, match=message),
        worker_runtime(log_file=log, start_timeout=timeout),
    ):
        pass
    said = log.read_text() if script else ""  # a missing worker writes none
    for pid in re.findall(r"^\d+$", said, re.MULTILINE):
        assert ends_soon(int(pid))


# In programs of their own, for how they end.

START = """
import os, signal, sys, time
from pathlib import Path
from tff_fedmeta.runtime import quiet_tensorflow
from tff_fedmeta.runtime.worker import worker_runtime
quiet_tensorflow()
import numpy as np, tensorflow as tf, tensorflow_federated as tff

@tff.tensorflow.computation(tff.TensorType(np.int64))
def count_to(n):
    return tf.while_loop(lambda i: i < n, lambda i: [i + 1], [tf.constant(0, tf.int64)])[0]

def say(*pids):
    print("pids", *pids, flush=True)
"""
IN_THE_MIDDLE = START + f"with worker_runtime() as local: say(local.pid); count_to({FOR_EVER})"

PROGRAMS = {
    "SIGINT": IN_THE_MIDDLE,
    "SIGKILL": IN_THE_MIDDLE,
    "normal": START
    + """
with worker_runtime() as first: count_to(3); say(first.pid)
with worker_runtime() as second: count_to(3); say(second.pid)
""",
    "never left": START
    + "entered = worker_runtime(); local = entered.__enter__(); count_to(3); say(local.pid)",
    "exception": START + "with worker_runtime() as local: count_to(3); say(local.pid); 1 / 0",
}


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finish(code, number=None):
    """Runs a program, to be ended by a signal if there is a number; status, stderr and pids."""
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,  # which a worker could hold open
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    output = ""
    if number is not None:
        output = program.stdout.readline()
        while cpu_seconds(output.split()[1]) < 1.0:  # until the worker is counting
            time.sleep(0.05)
        program.send_signal(number)
    rest, errors = program.communicate(timeout=90)  # returns when nobody holds the pipes
    return program.returncode, errors, re.findall(r"\d+(?=[ \n])", output + rest)


@pytest.mark.parametrize(
    ("name", "status", "errors", "workers"),
    [
        ("SIGINT", -signal.SIGINT, r"Traceback .*\nKeyboardInterrupt\n", 1),
        ("SIGKILL", -signal.SIGKILL, r"", 1),
        ("normal", 0, r"", 2),
        ("never left", 0, r"", 1),
        ("exception", 1, r"Traceback .*\nZeroDivisionError: division by zero\n", 1),
    ],
)
def test_no_worker_and_no_noise_is_left(name, status, errors, workers):
    returncode, stderr, pids = finish(PROGRAMS[name], getattr(signal, name, None))
    assert returncode == status
    assert re.fullmatch(errors, stderr, re.DOTALL), stderr
    assert "Exception ignored" not in stderr and stderr.count("Traceback") <= 1
    assert len(pids) == workers
    assert all(ends_soon(int(pid)) for pid in pids)


def test_a_pipe_ends_with_the_program():
    code = START + "with worker_runtime(): count_to(3); print('done')"
    done = subprocess.run(
        f'"{sys.executable}" -c "$CODE" 2>&1 | cat',
        shell=True,
        env={**ENVIRONMENT, "CODE": code},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
