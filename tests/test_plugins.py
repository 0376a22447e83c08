"""The user's own data set, algorithm, network and initial weights, through the command line."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import datasets
import run_experiment
from tff_fedmeta import plugins
from tff_fedmeta.algorithms import registry

ROOT = Path(__file__).resolve().parent.parent
NEW_ALGORITHM = ROOT / "examples" / "new_algorithm.py"

DATA_SET = """
import numpy as np
import datasets

NAMES = tuple(f"home_{i}" for i in range(12))

def read(name):
    rng = np.random.default_rng(int(name[5:]))
    left, right = rng.normal(size=(2, 20, 3)).astype(np.float32)
    turn = rng.normal(size=3)
    return {"left": left, "right": right}, ((left - right) @ turn > 0).astype(np.int32)

def build():
    import tensorflow as tf
    left, right = (tf.keras.Input([3], name=name) for name in ("left", "right"))
    dense = tf.keras.layers.Dense(
        2, kernel_initializer=tf.keras.initializers.GlorotUniform(seed=1)
    )
    both = tf.keras.layers.Concatenate()([left, right])
    return tf.keras.Model({"left": left, "right": right}, dense(both))

@datasets.register("two_sided_homes")
def load(request):
    import tensorflow as tf
    spec = tf.TensorSpec([None, 3], tf.float32)
    return datasets.Task(
        name="two_sided_homes", data_source="own",
        train_clients=NAMES[:8], validation_clients=NAMES[8:10], test_clients=NAMES[10:],
        read_client=read, build_keras_model=build,
        build_loss=lambda: tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        build_metrics=lambda: [tf.keras.metrics.SparseCategoricalAccuracy("accuracy")],
        input_spec=({"left": spec, "right": spec}, tf.TensorSpec([None], tf.int32)),
    )
"""
SMALL = [
    "--rounds=2",
    "--clients_per_round=3",
    "--adaptation_steps=2",
    "--adaptation_learning_rates=0.1",
    "--rounds_per_evaluation=2",
]


@pytest.fixture
def registries():
    """Puts registries back, so that one test's names are free for the next."""
    before = dict(datasets.DATASETS), dict(registry.REGISTRY), dict(plugins._loaded)
    yield
    for now, then in zip((datasets.DATASETS, registry.REGISTRY, plugins._loaded), before):
        now.clear()
        now.update(then)


@pytest.fixture
def plugin(tmp_path, registries):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return f"--plugin={path}"

    return write


def main(*arguments):
    return run_experiment.main(["run_experiment.py", *map(str, arguments)])


def test_an_own_data_set_of_two_inputs_and_an_own_algorithm_run_to_the_end(
    plugin, tmp_path, capsys
):
    import tensorflow as tf

    output = tmp_path / "run"
    arguments = [
        plugin(DATA_SET),
        f"--plugin={NEW_ALGORITHM}",
        "--dataset=two_sided_homes",
        "--algorithms=near_reptile,fedavg",
        "--hparam=near_reptile.strength=0.5",
        f"--output_dir={output}",
        *SMALL,
    ]
    assert main(*arguments) == 0
    assert "near_reptile" in (output / "comparison.md").read_text()
    config = json.loads((output / "config.json").read_text())
    assert set(config["plugins"]) == {"mine.py", "new_algorithm.py"}
    assert config["hyperparameters"]["near_reptile"]["strength"] == 0.5
    model = tf.keras.models.load_model(output / "near_reptile" / "keras_model" / "model.keras")
    assert [tuple(w.shape) for w in model.get_weights()] == [(6, 2), (2,)]
    assert len(pd.read_csv(output / "near_reptile" / "metrics.csv")) == 3
    capsys.readouterr()
    assert main(*arguments) == 0
    assert "This run is finished" in capsys.readouterr().out


def test_initial_weights_and_network_of_ones_own(plugin, tmp_path, capsys):
    import tensorflow as tf

    left, right = (tf.keras.Input([3], name=name) for name in ("left", "right"))
    hidden = tf.keras.layers.Dense(4, "tanh")(tf.keras.layers.Concatenate()([left, right]))
    mine = tf.keras.Model({"left": left, "right": right}, tf.keras.layers.Dense(2)(hidden))
    mine.save(tmp_path / "network.keras")
    mine.set_weights([np.full_like(w, 0.25) for w in mine.get_weights()])
    mine.save(tmp_path / "start.keras")
    output = tmp_path / "run"
    arguments = [
        plugin(DATA_SET),
        "--dataset=two_sided_homes",
        "--algorithms=reptile",
        "--inner_learning_rate=0",
        f"--model={tmp_path / 'network.keras'}",
        f"--initial_model={tmp_path / 'start.keras'}",
        f"--output_dir={output}",
        *SMALL,
    ]
    assert main(*arguments) == 0
    model = tf.keras.models.load_model(output / "reptile" / "keras_model" / "model.keras")
    for weight in model.get_weights():  # a rate of 0 moves nothing
        np.testing.assert_array_equal(weight, np.full_like(weight, 0.25))
    config = json.loads((output / "config.json").read_text())
    assert len(config["model"]) == len(config["initial_model"]) == 12


@pytest.mark.parametrize(
    "text, message",
    [
        ("import no_such_module", "cannot be imported: ModuleNotFoundError.*line 1"),
        ("\n\n1 / 0", "cannot be imported: ZeroDivisionError: division by zero, line 3"),
        ("def (", "cannot be imported: SyntaxError"),
        (
            "import datasets\n@datasets.register('emnist')\ndef load(request): ...",
            "a data set 'emnist' already",
        ),
        (
            "import tff_fedmeta as fm\n@fm.register_algorithm('maml', dict)\ndef b(m): ...",
            "called 'maml' already",
        ),
        (
            "import tff_fedmeta as fm\n@fm.register_algorithm('mine', dict)\ndef b(m): ...",
            "must be a dataclass",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_one_sentence(plugin, text, message, capsys):
    assert main(plugin(text), "--dataset=sinusoid") == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    import re

    assert re.search(message, said), said


def test_a_missing_plugin_is_one_sentence(capsys):
    assert main("--plugin=nowhere.py") == 2
    assert "there is no file 'nowhere.py'" in capsys.readouterr().err


def test_a_loader_of_something_else_is_one_sentence(plugin, capsys):
    text = "import datasets\n@datasets.register('odd')\ndef load(request): return 3"
    assert main(plugin(text), "--dataset=odd") == 2
    assert "must return a datasets.Task" in capsys.readouterr().err


def test_own_names_stand_in_help_and_in_messages(plugin, capsys):
    arguments = [plugin(DATA_SET), f"--plugin={NEW_ALGORITHM}"]
    assert main(*arguments, "--dataset=help") == 0
    assert "--dataset=two_sided_homes" in capsys.readouterr().out
    assert main(*arguments, "--help", "--algorithms=near_reptile") == 0
    assert "near_reptile.strength" in capsys.readouterr().out
    assert main(*arguments, "--algorithms=near_reptil") == 2
    assert "near_reptile" in capsys.readouterr().err


def test_what_a_builder_does_not_take_is_said(plugin, tmp_path, capsys):
    arguments = [
        plugin(DATA_SET),
        f"--plugin={NEW_ALGORITHM}",
        "--dataset=two_sided_homes",
        "--algorithms=near_reptile",
        "--straggler_fraction=0.5",
        f"--output_dir={tmp_path / 'run'}",
    ]
    assert main(*arguments, *SMALL) == 2
    assert "needs the builder of near_reptile to take roles" in capsys.readouterr().err


def test_the_example_of_own_clients_runs(registries, tmp_path):
    plugin = f"--plugin={ROOT / 'examples' / 'own_clients.py'}"
    options = ["--dataset=my_homes", "--homes=12", "--algorithms=reptile", *SMALL]
    assert main(plugin, *options, f"--output_dir={tmp_path / 'run'}") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["task_options"] == {"homes": 12}


def test_repetitions_have_directories_and_one_comparison(plugin, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = [
        plugin(DATA_SET),
        "--dataset=two_sided_homes",
        "--algorithms=reptile,fedavg",
        "--repetitions=2",
        "--baseline=reptile",
        "--seed=5",
        f"--output_dir={output}",
        *SMALL,
    ]
    assert main(*arguments) == 0
    compared = json.loads((output / "comparison.json").read_text())
    assert (compared["repetitions"], compared["baseline"]) == (2, "reptile")
    after = []
    for seed in (5, 6):
        directory = output / f"seed_{seed}"
        assert json.loads((directory / "config.json").read_text())["seed"] == seed
        result = json.loads((directory / "fedavg" / "adaptation_test.json").read_text())
        steps = result["chosen"]["steps"]
        after.append([client["accuracy"][steps] for client in result["clients"]])
    # A client's value is its mean over the repetitions.
    expected = np.mean(np.mean(after, axis=0))
    assert compared["algorithms"]["fedavg"]["after"]["mean"] == pytest.approx(expected)
    capsys.readouterr()
    assert main(*arguments) == 0
    assert "This run is finished" in capsys.readouterr().out
