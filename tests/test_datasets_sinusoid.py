"""Facts about the sinusoid task, and its outputs from the real `main()`."""

import json
import math
import re

import numpy as np
import pytest
from loading import load_task

import datasets
import run_experiment
from datasets import DataError, sinusoid
from tff_fedmeta.experiment import run_directory

ARGUMENTS = ["run_experiment.py", "--dataset=sinusoid"]


@pytest.fixture(scope="module")
def task():
    return load_task("sinusoid")


def amplitude_and_phase(x, y):
    """Of y = a sin(x) + b cos(x) = A sin(x + phase), by least squares; and what is left of y."""
    basis = np.concatenate([np.sin(x), np.cos(x)], axis=1).astype(np.float64)
    (a, b), *_ = np.linalg.lstsq(basis, y[:, 0].astype(np.float64), rcond=None)
    return np.hypot(a, b), np.arctan2(b, a), np.abs(basis @ [a, b] - y[:, 0]).max()


def waves(task, count=1000):
    fits = [amplitude_and_phase(*task.read_client(c)) for c in task.train_clients[:count]]
    return np.array(fits).T


def test_every_client_is_a_sine_wave_of_the_papers_range(task):
    amplitude, phase, rest = waves(task)
    assert rest.max() < 1e-5
    assert 0.1 <= amplitude.min() < 0.2 and 4.9 < amplitude.max() <= 5.0
    assert -1e-5 <= phase.min() < 0.05 and math.pi - 0.05 < phase.max() <= math.pi + 1e-5
    # The means of uniform draws, within four standard errors.
    assert amplitude.mean() == pytest.approx(2.55, abs=4 * 4.9 / math.sqrt(12 * 1000))
    assert phase.mean() == pytest.approx(math.pi / 2, abs=4 * math.pi / math.sqrt(12 * 1000))


def test_phases_of_the_reptile_paper_go_all_the_way_round(task):
    _, phase, _ = waves(load_task("sinusoid", max_phase=2 * math.pi))
    assert 0.4 < (phase < 0).mean() < 0.6
    _, phase, _ = waves(task)
    assert not (phase < -1e-5).any()


def test_clients_have_the_structure_that_the_task_says(task):
    x, y = task.read_client("test_00007")
    for array, spec in zip((x, y), task.input_spec):
        assert (array.shape, array.dtype) == ((20, 1), spec.dtype.as_numpy_dtype)
        assert spec.shape.is_compatible_with(array.shape)
    every = np.concatenate([task.read_client(c)[0] for c in task.validation_clients])
    assert -5 <= every.min() < -4.9 and 4.9 < every.max() <= 5


def test_client_is_the_same_in_every_run_and_differs_from_others(task):
    first = task.read_client("train_00001")
    for other in (load_task("sinusoid", seed=1, num_test_clients=3), task):
        np.testing.assert_array_equal(first, other.read_client("train_00001"))
    drawn = [task.read_client(c)[0].tobytes() for c in ("train_00001", "test_00001")]
    assert drawn[0] != drawn[1]


def test_groups_are_disjoint_and_of_the_size_asked_for(task):
    groups = (task.train_clients, task.validation_clients, task.test_clients)
    assert [len(group) for group in groups] == [10_000, 200, 500]
    assert len({client for group in groups for client in group}) == 10_700
    fewer = load_task("sinusoid", num_test_clients=3)
    assert fewer.test_clients == task.test_clients[:3]
    assert fewer.train_clients == task.train_clients


def test_unknown_client_is_a_key_error(task):
    with pytest.raises(KeyError):
        task.read_client("test_00500")


def test_both_sources_are_the_made_data_without_a_warning(capsys):
    for data_source in ("auto", "embedded"):
        assert load_task("sinusoid", data_source=data_source).data_source == "embedded"
    assert capsys.readouterr() == ("", "")
    assert datasets.DATASETS["sinusoid"].data_sources == ("auto", "embedded")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_test_clients": 0}, "num_test_clients must be >= 1, but is 0"),
        ({"max_phase": math.nan}, "max_phase must be a number > 0 and <= 1,000, but is nan"),
        ({"max_phase": math.inf}, "max_phase must be a number > 0 and <= 1,000, but is inf"),
    ],
)
def test_wrong_argument_is_refused_by_name(arguments, said):
    with pytest.raises(DataError, match=re.escape(said)):
        load_task("sinusoid", **arguments)


def test_model_starts_from_its_seed_and_is_the_papers(task):
    model, again, other = (sinusoid.build_mlp(seed) for seed in (0, 0, 1))
    assert model.count_params() == 1761
    x = np.linspace(-5, 5, 7, dtype=np.float32)[:, None]
    w1, b1, w2, b2, w3, b3 = model.get_weights()
    expected = np.maximum(np.maximum(x @ w1 + b1, 0) @ w2 + b2, 0) @ w3 + b3
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    np.testing.assert_array_equal(model(x), again(x))
    assert np.abs(model(x) - other(x)).max() > 0.01


# --- a run -----------------------------------------------------------------------------------


class Drawn:
    """What the hook was given, a call for each algorithm."""

    def __init__(self):
        self.calls = []

    def __call__(self, max_phase, axes, client_id, support, before, after):
        self.calls.append((client_id, support, before, after))
        PLOT_CLIENT(max_phase, axes, client_id, support, before, after)
        self.curves = {line.get_label(): line.get_xydata() for line in axes.lines}


PLOT_CLIENT = sinusoid.plot_client
ALGORITHMS = ("reptile", "meta_sgd")  # one adapts with learnt rates
SHORT = [
    f"--algorithms={','.join(ALGORITHMS)}",
    "--rounds=20",
    "--clients_per_round=4",
    "--inner_steps=3",
    "--adaptation_learning_rates=0.01",
    "--num_test_clients=40",
    "--rounds_per_evaluation=20",
    "--rounds_per_checkpoint=10",
    "--batch_size=4",  # three batches of support, so that their order matters
]


@pytest.fixture(scope="module")
def drawn():
    return Drawn()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, drawn):
    directory = tmp_path_factory.mktemp("sinusoid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sinusoid, "plot_client", drawn)
        assert run_experiment.main([*ARGUMENTS, *SHORT, f"--output_dir={directory}"]) == 0
    return directory


def result(finished, algorithm):
    return json.loads((finished / algorithm / "adaptation_test.json").read_text())


def test_ten_points_are_adapted_on_and_ten_measured(finished):
    for client in result(finished, "reptile")["clients"]:
        assert (client["num_support"], client["num_query"]) == (10, 10)
        np.testing.assert_allclose(client["mse"], client["loss"], rtol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hurt_are_those_whose_error_grew(finished, algorithm):
    found = result(finished, algorithm)
    steps = found["chosen"]["steps"]
    grew = [client["mse"][steps] > client["mse"][0] for client in found["clients"]]
    assert len(grew) == 40
    assert found["summary"]["share_hurt"] == np.mean(grew)
    assert found["summary"]["after"]["mean"] < found["summary"]["before"]["mean"]


@pytest.mark.parametrize("index", range(len(ALGORITHMS)), ids=ALGORITHMS)
def test_the_curves_drawn_have_the_errors_that_are_reported(finished, drawn, task, index):
    client_id, (support_x, support_y), before, after = drawn.calls[index]
    assert client_id == task.test_clients[0]
    found = result(finished, ALGORITHMS[index])
    x, y = task.read_client(client_id)
    adapted_on = np.isin(x, support_x)[:, 0]
    np.testing.assert_array_equal(np.sort(y[adapted_on], 0), np.sort(support_y, 0))
    steps = found["chosen"]["steps"]
    assert steps > 0 and not np.allclose(before(x), after(x))
    for predict, entry in ((before, 0), (after, steps)):
        error = np.mean((predict(x[~adapted_on]) - y[~adapted_on]) ** 2)
        assert error == pytest.approx(found["clients"][0]["mse"][entry], rel=1e-4)


def test_picture_shows_the_wave_the_points_and_both_curves(finished, drawn, task):
    _, support, before, after = drawn.calls[-1]
    curves = drawn.curves
    x, y = curves["the client's wave"].T
    _, _, rest = amplitude_and_phase(x[:, None], y[:, None])
    assert (x[0], x[-1]) == (-5, 5) and rest < 1e-5
    np.testing.assert_array_equal(curves["adapted on"], np.concatenate(support, axis=1))
    for label, predict in (("before adapting", before), ("after adapting", after)):
        expected = predict(x[:, None].astype(np.float32))[:, 0]
        np.testing.assert_allclose(curves[label][:, 1], expected, rtol=1e-5)
    assert (finished / "example_client.png").read_bytes().startswith(b"\x89PNG")


def test_table_says_that_lower_is_better_and_names_no_stand_in(finished):
    text = (finished / "comparison.md").read_text()
    assert text.startswith("# sinusoid: mse on clients never trained on (lower is better)\n")
    assert "Data source: **embedded**." in text and "not comparable" not in text


def test_exported_model_adapts_with_plain_keras(finished, task):
    import tensorflow as tf

    model = tf.keras.models.load_model(finished / "reptile" / "keras_model" / "model.keras")
    x, y = task.read_client("test_00001")
    losses = model.fit(x, y, batch_size=20, epochs=5, verbose=0).history
    assert losses["loss"][-1] < losses["loss"][0]
    np.testing.assert_allclose(losses["mse"], losses["loss"], rtol=1e-4)


def test_continuing_with_auto_is_no_warning(tmp_path, capsys):
    arguments = [*ARGUMENTS, *SHORT, f"--output_dir={tmp_path}"]
    for _ in range(2):  # begins, and finds the directory begun
        lock, config, *_ = run_experiment._prepare(arguments)
        lock.close()
        assert config.data_source == "embedded"
    assert "WARNING" not in capsys.readouterr().err
    assert not run_directory.is_finished(tmp_path)
