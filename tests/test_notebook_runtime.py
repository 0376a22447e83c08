"""Runtimes where no `with` block can last: notebooks, asyncio programs, threads, interrupts."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import as_model_fn, assert_equal, dense, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.experiment import round_loop
from tff_fedmeta.runtime import default_context

ROOT = Path(__file__).parent.parent


def python(code):
    """Runs a program that has only just begun, and returns what it prints and its warnings."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_one_runtime_serves_the_program_and_without_it_tff_warns_once():
    out, err = python(
        """
        import asyncio, warnings
        import numpy as np
        from conftest import make_client, model_fn
        import tensorflow_federated as tff
        import tff_fedmeta as fm

        process = fm.build_reptile(model_fn, inner_learning_rate=0.1, inner_steps=1, batch_size=2)
        state = process.initialize()
        clients = [fm.client_dataset(*make_client(3))]

        def trained(_=None):
            return process.get_model_weights(process.next(state, clients).state).trainable[0]

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tffs_own = trained()
            trained()
        ours = [w for w in caught if "No runtime is open" in str(w.message)]
        print(len(ours), ours[0].filename, "fm.use_local_runtime()" in str(ours[0].message))

        async def in_a_thread():
            return await asyncio.to_thread(trained)

        try:
            asyncio.run(in_a_thread())
        except RuntimeError as error:
            print("in-this-thread" if "No runtime is open in this thread" in str(error) else error)

        first = fm.use_local_runtime()
        print(fm.use_local_runtime() is first, tff.framework.get_context_stack().current is first)
        in_loop, seconds = asyncio.run(in_a_thread()), first.client_clock()
        print(np.allclose(in_loop, tffs_own, atol=1e-6), seconds > 0)
        other = fm.use_local_runtime(num_threads=1)
        print(other is first, fm.use_local_runtime() is other)
        print(np.array_equal(trained(), in_loop), other.client_clock() > 0)
        with fm.local_runtime() as inner:
            trained()
        print(inner.client_clock() > 0)
        """
    )
    expected = ["1", "<string>", "True", "in-this-thread", "True", "False", "True", "True"]
    assert out == [*expected, "False", "True", "True", "True", "True"]
    assert "Exception ignored" not in err


def test_everything_works_under_a_running_event_loop(tmp_path):
    clients = [fm.client_dataset(*make_client(n)) for n in (3, 5)]

    def train(directory):
        process = fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)
        with fm.local_runtime():
            state = round_loop.train(process, lambda _: clients, 2, directory=directory)
            again = round_loop.train(process, lambda _: clients, 2, directory=directory)
            assert_equal(*(process.get_model_weights(s).trainable for s in (state, again)))
            return process.get_model_weights(state).trainable

    async def program():
        return train(tmp_path / "loop")

    assert_equal(asyncio.run(program()), train(tmp_path / "plain"))
    assert (tmp_path / "loop" / "metrics.csv").exists()
    assert not [t for t in threading.enumerate() if t.name == "files"]


def slow_model():
    return tf.keras.Sequential([tf.keras.Input([6]), dense(2000), dense(2000), dense(3)])


def prepared(context):
    """Whether both threads have their program: TensorFlow's preparing of one cannot be stopped."""
    for compiled in list(context._compiled.values()):
        of_clients = getattr(compiled, "_cohorts", None) or getattr(compiled, "_programs", {})
        for _, program in list(of_clients.values()):
            if len(program._sessions) == 2 and not program._lock.locked():
                return True
    return False


def interrupt_clients(context, sent):
    """Sends Ctrl-C when clients have been at their steps for a second, and notes when."""
    deadline = time.monotonic() + 120
    while not prepared(context) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    sent.append(time.monotonic())
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_an_interrupt_stops_clients_at_their_next_step_and_leaves_the_runtime_usable(kind):
    many_steps = dict(inner_learning_rate=1e-4, inner_steps=100_000, batch_size=2)
    few = fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)
    clients = [fm.client_dataset(*make_client(4, seed)) for seed in range(3)]
    large = as_model_fn(slow_model)
    if kind == "training":
        process = fm.build_reptile(large, **many_steps)
    else:
        evaluation = fm.build_adaptation_eval(large, **many_steps)
        weights = tff.learning.models.ModelWeights.from_model(large())
    with fm.local_runtime(num_threads=2) as context:
        state = few.initialize() if kind == "evaluation" else process.initialize()
        sent = []
        threading.Thread(target=interrupt_clients, args=[context, sent]).start()
        with pytest.raises(KeyboardInterrupt):
            process.next(state, clients) if kind == "training" else evaluation(weights, clients)
        assert time.monotonic() - sent[0] < 3
        assert context.client_clock() > 0.5
        state = few.initialize()
        after = few.get_model_weights(few.next(state, clients).state).trainable
    with fm.local_runtime():
        assert_equal(after, few.get_model_weights(few.next(state, clients).state).trainable)


def test_a_runtime_of_no_threads_is_refused_before_another_is_closed():
    with pytest.raises(ValueError, match="num_threads must be at least 1, not 0"):
        fm.use_local_runtime(num_threads=0)
    assert default_context._PROGRAM.context is None


def test_the_default_of_a_thread_is_tffs_until_something_is_built():
    stack = tff.framework.get_context_stack()
    default_context.watch()
    default_context.watch()  # does not wrap what it has put there
    assert not isinstance(stack._stack[0]._other, default_context._Default)
    assert np.isclose(tff.tensorflow.computation(lambda: tf.constant(2.0))(), 2.0)
