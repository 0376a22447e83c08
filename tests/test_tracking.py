"""--log_to: rounds and results in the records of MLflow and W&B, both offline."""

import importlib.util
import time

import pytest
from run_files import CURVES, adapted, make_config

import run_experiment
from tff_fedmeta.experiment import tracking

CONFIG = make_config()
ROWS = [
    {"round": 1, "train/loss": 2.0, "validation/accuracy_after": float("nan"), "data_source": "x"},
    {"round": 2, "train/loss": 1.0, "validation/accuracy_after": 0.5, "data_source": "x"},
]


def record(name):
    """Records two rounds, as a run that was interrupted after the first one."""
    for number, row in enumerate(ROWS):
        tracker = tracking.open_tracker(name, CONFIG, "reptile")
        tracker.log(row, number + 1)
        if number == 0:
            tracker._close()
    tracker.finish(adapted(CURVES["reptile"]), 2)


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_done(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_experiment.main(["run_experiment.py", "--log_to=wandb"]) == 2
    error = capsys.readouterr().err
    assert "--log_to=wandb needs the package wandb" in error and error.count("\n") == 1
    assert run_experiment.main(["run_experiment.py", "--log_to=mlflo"]) == 2
    assert "Did you mean 'mlflow'?" in capsys.readouterr().err


def test_without_a_tracker_nothing_is_recorded():
    record(None)


def test_a_tracker_is_given_the_finite_numbers():
    class Kept(tracking.Tracker):
        figures = ()

        def _log(self, figures, round_num):
            self.figures = (*self.figures, (round_num, figures))

    kept = Kept()
    for row in ROWS:
        kept.log(row, row["round"])
    kept.finish(adapted(CURVES["reptile"]), 2)
    first, second, last = kept.figures
    assert first == (1, {"round": 1.0, "train/loss": 2.0})
    assert second[1]["validation/accuracy_after"] == 0.5
    expected = {"test/accuracy_before": 0.6, "test/accuracy_after": 0.8, "test/share_hurt": 0.0}
    assert last == (2, pytest.approx(expected))


def test_mlflow_has_one_record_for_an_algorithm(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="`make tracking` installs it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    record("mlflow")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    (run,) = mlflow.search_runs(experiment_names=["tff_fedmeta"], output_format="list")
    assert run.data.params["inner_learning_rate"] == str(
        CONFIG.hyperparameters["reptile"]["inner_learning_rate"]
    )
    assert run.data.metrics["test/accuracy_after"] == pytest.approx(0.8)
    losses = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in losses] == [(1, 2.0), (2, 1.0)]


def test_wandb_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="`make tracking` installs it")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    record("wandb")
    expected = (f"reptile-{CONFIG.hash}", "test/accuracy_after", "train/loss")
    deadline = time.monotonic() + 10  # a process of W&B's own writes
    written = b""
    while not all(text.encode() in written for text in expected):
        assert time.monotonic() < deadline, expected
        time.sleep(0.1)
        written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.wandb"))
