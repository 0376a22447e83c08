"""--list, --compare and --dry_run, more rounds for a finished run, and what TensorBoard shows."""

import asyncio
import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import cell
from run_files import TASK, make_config, write_algorithms, write_run
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import metadata

import run_experiment
import tff_fedmeta as fm
from tff_fedmeta.experiment import board, dry_run, extension, run_directory

ROOT = Path(__file__).resolve().parent.parent


def command(*flags):
    return run_experiment.main(["run_experiment.py", *flags])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, one with better clients, one not finished, one split otherwise, one of others."""
    home = tmp_path_factory.mktemp("made")
    better = {"reptile": ((0.5, 0.6, 0.8), (0.7, 0.8, 1.0)), "fedavg": ((0.5, 0.6, 0.5),) * 2}
    write_run(home / "runs" / "first")
    write_run(home / "runs" / "second", make_config(seed=1), curves=better)
    (home / "runs" / "third").mkdir()
    write_algorithms(home / "runs" / "third", make_config(algorithms=("fedavg",)))
    (home / "runs" / "third" / "fedavg" / "adaptation_test.json").unlink()
    write_run(home / "runs" / "other", make_config(support_fraction=0.2))
    write_run(home / "runs" / "clients", ids="eg")
    return home / "runs"


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made, tmp_path / "runs")


def test_list_shows_state_data_algorithms_and_the_best_figure(runs, capsys):
    (runs / "fourth").mkdir()
    (runs / "fourth" / "config.json").write_text("{")
    lock = (runs / "third" / ".lock").open("w")
    assert command("--list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "emnist (embedded)  2" in lines["first"] and "reptile, fedavg" in lines["first"]
    assert "accuracy 80.0 %, reptile" in lines["first"] and lines["first"].endswith("finished")
    assert "accuracy 90.0 %, reptile" in lines["second"]
    assert lines["third"].endswith("interrupted, the evaluation of fedavg is missing")
    assert lines["fourth"].endswith("config.json cannot be read")
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert command("--list", f"--output_dir={runs}") == 0
    assert "running, the evaluation of fedavg is next" in capsys.readouterr().out


def test_list_needs_no_tensorflow(runs):
    code = (
        "import sys, run_experiment; status = run_experiment.main(['', '--list']); "
        "sys.exit(10 * status + ('tensorflow' in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=runs.parent, env=environment)
    assert done.returncode == 0


def test_list_without_runs_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("--list") == 2
    assert capsys.readouterr().err == "Error: There are no runs: runs is no directory.\n"
    (tmp_path / "runs").mkdir()
    assert command("--list") == 0
    assert "There are no runs below runs." in capsys.readouterr().out


def test_compare_puts_runs_side_by_side_on_the_same_clients(runs, capsys):
    assert command("--compare=runs/first,runs/second", "--output_dir=both") == 0
    text = capsys.readouterr().out
    assert cell(text, "reptile (second)", "adapted").startswith("90.0")
    assert cell(text, "reptile (second)", "versus") == "+30.0"  # 0.9 - 0.6 of the first's fedavg
    assert cell(text, "fedavg (first)", "versus") == "-"
    assert cell(text, "seed", "first") == "0" and cell(text, "seed", "second") == "1"
    assert "better than fedavg (first) by 30.0 points" in text
    page = (runs.parent / "both" / "report.html").read_text()
    assert page.count("<svg") == 5 and "reptile (second) before" in page
    assert str(runs / "second" / "reptile" / "keras_model") in page
    assert command("--compare=runs/second,runs/first") == 0
    assert list(runs.glob("comparison-*/report.html"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--compare=runs/first"], "takes two or more runs"),
        (["--compare=runs/first,runs/first"], "takes different runs"),
        (["--compare=runs/first,runs/third"], "not finished: the evaluation of fedavg is missing"),
        (["--compare=runs/first,runs/nowhere"], "runs/nowhere is no directory of a run"),
        (["--compare=runs/first,runs/second", "--output_dir=runs/third"], "third holds a run"),
        (["--compare=runs/first,runs/other"], "support_fraction is 0.5 in the one and 0.2 in the"),
        (["--compare=runs/first,runs/clients"], "not tested on the same clients"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_a_sentence(runs, capsys, flags, said):
    assert command(*flags) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("Error: ") and error.count("\n") == 1
    assert not list(runs.glob("comparison-*"))


def test_a_longer_run_goes_on_where_the_finished_one_ended(tmp_path):
    config = make_config(repetitions=2)
    directory = write_run(tmp_path / "run", config)
    longer = dataclasses.replace(config, rounds=5)
    assert extension.shorter_run(longer, directory, True) == config
    before = (directory / "comparison.md").read_text()
    kept = extension.begin(config, longer, directory)
    assert kept == directory / "rounds_2"
    run = fm.load_run(kept)  # a finished run of its own
    assert run.config == config and (kept / "comparison.md").read_text() == before
    assert run_directory.damage(kept) is None and not list(kept.rglob("checkpoints"))
    assert run_directory.find_run(longer, directory, True) == longer
    for seed in (0, 1):
        part = directory / f"seed_{seed}"
        assert run_directory.find_run(longer.repetition(seed), part, True).rounds == 5
        assert not run_directory.is_finished(part)
        assert (part / "reptile" / "checkpoints" / "round_2").exists()
    with pytest.raises(ValueError, match="reptile after round 2 of 5 in seed_0"):
        fm.load_run(directory)


def test_an_extension_that_was_killed_begins_again(runs):
    config, directory = make_config(), runs / "first"
    longer = dataclasses.replace(config, rounds=5)
    extension.begin(config, longer, directory)
    run_directory.write_text(directory / "config.json", config.to_json())  # as if killed before
    assert extension.shorter_run(longer, directory, True) == config
    extension.begin(config, longer, directory)
    assert run_directory.find_run(longer, directory, True) == longer
    assert fm.load_run(directory / "rounds_2").config == config


@pytest.mark.parametrize(
    ("values", "hparams", "said"),
    [
        ({}, {"reptile": {"server_schedule": "linear"}}, "server's rate of reptile falls to 0"),
        ({}, {"reptile": {"server_schedule": "cooldown"}}, "server's rate of reptile falls to 0"),
        (
            {"aggregator": "dp", "aggregator_options": {"dp_epsilon": 8.0}},
            {},
            "the noise was chosen so that dp_epsilon is spent",
        ),
    ],
)
def test_what_is_spread_over_a_run_cannot_be_longer(tmp_path, values, hparams, said):
    config = make_config(hparams=hparams, **values)
    run_directory.write_text(tmp_path / "config.json", config.to_json())
    (tmp_path / "comparison.md").touch()
    with pytest.raises(ValueError, match=said):
        extension.shorter_run(dataclasses.replace(config, rounds=3), tmp_path, True)


def test_other_runs_are_not_extended(runs):
    config, directory = make_config(), runs / "first"

    def asked(resume=True, **values):
        return extension.shorter_run(dataclasses.replace(config, **values), directory, resume)

    assert asked(rounds=3) == config
    assert asked() is None and asked(rounds=1) is None
    assert asked(rounds=3, seed=1) is None and asked(rounds=3, resume=False) is None
    (directory / "comparison.md").unlink()
    assert asked(rounds=3) is None
    assert extension.shorter_run(config, runs / "nowhere", True) is None


def test_a_run_at_work_is_not_extended(runs):
    config, directory = make_config(), runs / "first"
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process is at work"):
            extension.begin(config, dataclasses.replace(config, rounds=3), directory)
    assert run_directory.is_finished(directory) and not (directory / "rounds_2").exists()


def test_a_price_is_that_of_all_rounds_and_repetitions():
    rows = pd.DataFrame(
        {
            "seconds": [np.nan, 5.0, 1.0, 2.0],
            "work/gradient_evaluations": [np.nan, 10, 20, 30],
            "bytes/down_per_client": [np.nan, 2e6, 2e6, 2e6],
            "bytes/up_per_client": [np.nan, 1e6, 1e6, 1e6],
        }
    )
    config = make_config(rounds=100, rounds_per_evaluation=30, clients_per_round=4, repetitions=2)
    price = dry_run.extrapolate(config, TASK, rows, seconds_per_client=0.5, num_rates=3)
    assert price.gradients == 2 * 20 * 100
    assert price.megabytes == pytest.approx(2 * 3 * 4 * 100)
    assert price.training == pytest.approx(2 * (3.5 + 1.5 * 100))
    # One validation client: before training, in rounds 30, 60, 90, 100; then three rates, and two
    # test clients.
    assert price.evaluation == pytest.approx(2 * 0.5 * (5 + 3 + 2))


def test_tensorboard_has_validation_first_bytes_last_and_the_hyperparameters(tmp_path):
    config = make_config()
    row = {
        **{"bytes/up_per_client": 1.0, "clients/dropped": 2.0, "train/loss": 3.0},
        **{"validation/accuracy_after": 4.0, "work/examples": 5.0, "server/update_rejected": 0},
        **{"seconds": 6.0, "data_source": "embedded", "round": 1},
    }
    board.write_hyperparameters(config, "reptile", tmp_path)
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        for tag, value in board.tags(row).items():
            tf.summary.scalar(tag, value, step=1)
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    shown = sorted(events.Tags()["tensors"])
    assert [tag.split("/")[0] for tag in shown if not tag.startswith("_")] == [
        *("1 validation", "2 training", "2 training", "3 clients", "4 server", "5 time", "6 bytes"),
    ]
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    written = metadata.parse_session_start_info_plugin_data(content).hparams
    assert written["algorithm"].string_value == "reptile" and written["rounds"].number_value == 2
    rate = config.hyperparameters["reptile"]["inner_learning_rate"]
    assert written["inner_learning_rate"].number_value == rate


@pytest.mark.slow
def test_dry_run_measures_and_writes_nothing_under_a_running_event_loop_too(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)

    async def program():
        flags = ["--dataset=sinusoid", "--algorithms=reptile", "--rounds=1000", "--dry_run"]
        return command(*flags, "--adaptation_learning_rates=0.01", "--output_dir=run")

    assert asyncio.run(program()) == 0
    out = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert json.loads(out[: out.index("\n}\n") + 2])["rounds"] == 1000
    assert "validation and" in out and "Altogether about" in out and "Nothing was written." in out
