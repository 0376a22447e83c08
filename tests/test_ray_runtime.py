"""`fm.ray_runtime()` on a Ray of its own, where Ray is installed (`make ray`)."""

import contextlib
import functools
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_equal, initial_weights, make_client, model_fn, tf, tff

import run_experiment
import tff_fedmeta as fm
from tff_fedmeta.aggregation import aggregators
from tff_fedmeta.runtime.cluster import protocol
from tff_fedmeta.runtime.ray import installed, joined

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is an extra: make ray"
)
COHORT = [fm.client_dataset(*make_client(n % 7, n), seed=(n, 1)) for n in range(70)]
LOCAL = dict(inner_learning_rate=0.1, inner_steps=2, batch_size=4)


@functools.lru_cache(None)
def process(algorithm="reptile", aggregator="mean"):
    return getattr(fm, f"build_{algorithm}")(
        model_fn,
        **LOCAL,
        model_aggregator=aggregators.build_aggregator(aggregator),
        metrics_aggregator=aggregators.build_metrics_aggregator(aggregator),
    )


@functools.lru_cache(None)
def evaluation():
    return fm.build_adaptation_eval(model_fn, **LOCAL)


def train(learning, cohort=COHORT, rounds=2):
    state = learning.initialize()
    for _ in range(rounds):
        state, metrics = learning.next(state, cohort)
    return tf.nest.flatten([learning.get_model_weights(state), metrics])


def curves():
    weights = tff.learning.models.ModelWeights(initial_weights(), ())
    return tf.nest.flatten(evaluation()(weights, COHORT[:20]))


@functools.lru_cache(None)
def locally(*what):
    with fm.local_runtime(num_threads=1):
        return train(process(*what)) if what else curves()


@needs_ray
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_the_bits_of_the_local_runtime(num_workers):
    with fm.ray_runtime(num_workers=num_workers, threads_per_worker=1 + num_workers % 2):
        for algorithm in ("reptile", "maml", "meta_sgd"):
            assert_equal(train(process(algorithm)), locally(algorithm))
        for aggregator in ("median", "secure"):
            assert_equal(train(process("reptile", aggregator)), locally("reptile", aggregator))
        assert_equal(curves(), locally())


@needs_ray
def test_listens_on_loopback_keeps_tff_out_and_leaves_nothing_behind():
    before = set(family())
    with fm.ray_runtime(num_workers=2, threads_per_worker=1) as context:
        train(process())
        assert context.figures()["cores"] == 2
        import ray

        def modules():
            return "tensorflow_federated" in sys.modules, "tensorflow" in sys.modules

        about = ray.get([ray.remote(modules).remote() for _ in range(4)])
        assert (False, True) in about and not any(tff_there for tff_there, _ in about)
        ours = set(family()) - before
        addresses = set(listening(ours))
        assert addresses and addresses <= LOOPBACK
        directories = directories_of(ours)
    assert not [pid for pid in ours if Path(f"/proc/{pid}").exists()]
    assert directories and not [d for d in directories if d.exists()]


# As /proc/net writes 127.0.0.1, the same as an IPv6 address, and ::1.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def family(pid=None):
    """A process's descendants, and itself; by default this process's."""
    children = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    members = [pid or os.getpid()]
    for member in members:
        members += children.get(member, [])
    return members


def directories_of(pids):
    """The directories that janitors among the processes are to remove."""
    arguments = []
    for pid in pids:
        with contextlib.suppress(OSError):  # one that has just ended
            arguments += Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return [Path(argument) for argument in arguments if argument.startswith("/tmp/fmray-")]


def listening(pids):
    """The addresses, as /proc/net/tcp writes them, that processes listen on."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(descriptor))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                yield fields[1].rpartition(":")[0]


@needs_ray
def test_a_workers_death_changes_no_bit_and_is_one_line(caplog):
    with fm.ray_runtime(num_workers=2, threads_per_worker=1):
        train(process(), rounds=1)
        struck = []

        def strike():
            deadline = time.monotonic() + 30
            while not struck and time.monotonic() < deadline:
                for pid in family():
                    with contextlib.suppress(OSError):
                        if Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::run"):
                            os.kill(pid, signal.SIGKILL)
                            struck.append(pid)
                            break
                time.sleep(0.001)

        killer = threading.Thread(target=strike)
        killer.start()
        actual = train(process())
        killer.join()
    assert struck
    assert_equal(actual, locally("reptile"))
    (record,) = [r for r in caplog.records if r.name.startswith("tff_fedmeta")]
    assert "were computed again on" in record.getMessage()


@needs_ray
def test_a_node_that_is_killed_changes_no_bit(monkeypatch, caplog):
    ray = installed.load()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in {**token, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
    installed._forget_token(ray)
    nodes = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("ray_nodes.py"), "1", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        address, schedulers = json.loads(nodes.stdout.readline())
        with pytest.raises(joined.RayStartError, match=r"not had 4 CPUs of a node free within 1 s"):
            fm.ray_runtime(address, threads_per_worker=4, patience=1).__enter__()
        with fm.ray_runtime(address) as context:
            first = train(process(), rounds=1)
            assert context.figures()["cores"] == 2
            killer = threading.Timer(0.05, os.kill, (schedulers[0], signal.SIGKILL))
            killer.start()
            assert_equal(train(process(), rounds=3), train_locally(rounds=3))
            killer.join()
            assert context.figures()["cores"] == 1
        assert_equal(first, train_locally(rounds=1))
    finally:
        nodes.stdin.close()
        nodes.wait(60)
        installed._forget_token(ray)
    (record,) = [r for r in caplog.records if r.name.startswith("tff_fedmeta")]
    assert record.getMessage().startswith("Lost the node ")


def train_locally(rounds):
    with fm.local_runtime(num_threads=1):
        return train(process(), rounds=rounds)


@needs_ray
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left_of_a_program_that_is_ended(sent, status):
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("ray_program.py")],
        stdout=subprocess.PIPE,
    )
    assert program.stdout.readline() == b"round\n"
    offspring = [pid for pid in family(program.pid) if pid != program.pid]
    directories = directories_of(offspring)
    assert len(offspring) > 3 and directories
    program.send_signal(sent)
    program.stdout.close()
    assert program.wait(60) == status
    deadline = time.monotonic() + 60  # at once, on a machine that is not busy
    while any(map(is_alive, offspring)) or any(d.exists() for d in directories):
        assert time.monotonic() < deadline, [pid for pid in offspring if is_alive(pid)]
        time.sleep(0.1)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def open_reader():
    return lambda client_id: make_client(int(client_id) % 7, int(client_id))


@needs_ray
def test_workers_read_references_themselves():
    source = fm.ClientSource(open_reader)
    cohort = [source.client(str(n), (n, 1)) for n in range(70)]
    with fm.local_runtime(num_threads=1):
        expected = train(process(), cohort)
    with fm.ray_runtime(num_workers=2, threads_per_worker=1) as context:
        assert_equal(train(process(), cohort), expected)
        assert context.figures()["bytes_sent"] < 20_000


@needs_ray
def test_errors_in_clients_are_the_same_and_not_tried_again():
    x, y = make_client(5)
    wrong = [*COHORT[:9], fm.client_dataset(x, np.full_like(y, 7))]
    said = []
    for runtime in (fm.local_runtime(num_threads=1), fm.ray_runtime(threads_per_worker=1)):
        with runtime:
            with pytest.raises(tf.errors.InvalidArgumentError) as raised:
                train(process(), wrong)
            train(process(), COHORT[:3], rounds=1)
        said.append(raised.value.message.splitlines()[0])
    assert said[0].partition("Received")[2] == said[1].partition("Received")[2] != ""


@needs_ray
def test_clusters_that_cannot_be_joined_are_one_sentence():
    with pytest.raises(joined.RayStartError, match=r"is auto or HOST:PORT.* but is 'here'"):
        fm.ray_runtime("here").__enter__()
    with pytest.raises(joined.RayStartError, match=r"answers at 127.0.0.1:9"):
        fm.ray_runtime("127.0.0.1:9").__enter__()
    # The second where this machine has a cluster, which has another token.
    with pytest.raises(joined.RayStartError, match=r"belongs to no Ray cluster|RAY_AUTH_TOKEN"):
        fm.ray_runtime("auto", patience=15).__enter__()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(num_workers=0), "num_workers must be at least 1, not 0"),
        (dict(threads_per_worker=-1), "threads_per_worker must be at least 1, not -1"),
        (dict(patience=0), "patience must be positive, not 0"),
        (dict(address="auto", num_workers=2), "num_workers is for a Ray that is started here"),
    ],
)
def test_impossible_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        fm.ray_runtime(**arguments).__enter__()


def test_without_ray_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(installed.sys, "version_info", (3, 11))
    with pytest.raises(ValueError, match="`make ray` installs it, or use runtime local"):
        fm.ray_runtime().__enter__()
    monkeypatch.setattr(installed.sys, "version_info", (3, 9))
    with pytest.raises(ValueError, match=r"needs Python 3\.10 or 3\.11, but this is 3\.9"):
        fm.ray_runtime().__enter__()


def test_other_versions_are_one_sentence():
    here = {"Python": "3.11", "ray": "2.60.0"}
    joined._check_versions("the node b", here, here)
    with pytest.raises(joined.RayStartError, match=r"the node b has ray 2\.59\.0 instead of 2\.60"):
        joined._check_versions("the node b", {**here, "ray": "2.59.0"}, here)
    ray_says = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.10.4\n"
        "This process on 10.0.0.5 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    said = joined._cannot_join("10.0.0.5:6379", ray_says)
    assert "\n" not in said and said.startswith("The cluster's nodes and this program must have")
    assert "Ray: 2.60.0 Python: 3.10.4 This process" in said


def test_the_flags_of_a_cluster_are_checked_before_data_are_loaded(capsys, monkeypatch):
    monkeypatch.setattr(run_experiment, "_load", lambda *args: pytest.fail("loaded"))
    assert run_experiment.main(["x", "--ray_address=auto"]) == 2
    assert "--ray_address is for --runtime=ray, but the runtime is local" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(installed, "check", lambda: None)
        assert run_experiment.main(["x", "--runtime=ray", "--ray_address=127.0.0.1:9"]) == 2
        assert "No Ray cluster answers at 127.0.0.1:9" in capsys.readouterr().err
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    assert run_experiment.main(["x", "--runtime=ray"]) == 2
    assert "The Ray runtime needs" in capsys.readouterr().err


def test_errors_of_the_cluster_are_of_one_kind():
    assert issubclass(joined.RayStartError, protocol.ClusterError)
