"""The real `main()` from the command line to its last file, on small data in TFF's own format."""

import json
import os
import shutil
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import cell
from tff_files import write_database

import datasets
import run_experiment
from datasets import emnist
from tff_fedmeta.command_line import experiment_flags, flags
from tff_fedmeta.command_line.configuration import configuration
from tff_fedmeta.config import ExperimentConfig

ROOT = Path(__file__).parent.parent
SMALL = [
    "--data_source=tff",
    "--rounds=3",
    "--clients_per_round=2",
    "--batch_size=4",
    "--adaptation_batch_size=3",
    "--adaptation_steps=2",
    "--adaptation_learning_rates=0.02,0.05",
    "--rounds_per_evaluation=2",
    "--rounds_per_checkpoint=1",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    write_database(directory / emnist.FILE_NAME)
    return directory


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # whatever a test writes by mistake


def run(cache, output_dir, *more):
    return run_experiment.main(
        ["run_experiment.py", *SMALL, f"--cache_dir={cache}", f"--output_dir={output_dir}", *more]
    )


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """The directory of a finished small run."""
    directory = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory.parent)  # a relative directory, as users give
        assert run(cache, directory.name) == 0
    return directory


def exported_weights(directory, algorithm="reptile"):
    import tensorflow as tf

    path = directory / algorithm / "keras_model" / "model.keras"
    return tf.keras.models.load_model(path).get_weights()


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second))


def snapshot(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def read_json(path):
    return json.loads(path.read_text())


def test_config_is_complete_and_reads_back(finished):
    config = ExperimentConfig.from_json((finished / "config.json").read_text())
    assert config.data_source == "tff" and config.rounds == 3
    assert set(config.hyperparameters) == {"reptile", "fedavg"}


def test_versions_and_timings_say_what_they_should(finished):
    assert read_json(finished / "versions.json")["tensorflow-federated"] == "0.87.0"
    timings = read_json(finished / "timings.json")
    assert timings["data"] > 0
    for phase in ("training", "client_work", "evaluation"):
        assert timings[phase]["reptile"] > 0 and timings[phase]["fedavg"] > 0
    rows = pd.read_csv(finished / "reptile" / "metrics.csv")
    assert timings["client_work"]["reptile"] == pytest.approx(rows["client_seconds"].sum())
    assert (rows["client_seconds"].dropna() < rows["seconds"].dropna()).all()


def test_tffs_worker_trains_the_same_models(finished, cache, tmp_path):
    directory = tmp_path / "worker"
    assert run(cache, directory, "--runtime=worker") == 0
    for algorithm in ("reptile", "fedavg"):
        for ours, theirs in zip(
            exported_weights(finished, algorithm), exported_weights(directory, algorithm)
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert (directory / "worker.log").exists() and not (finished / "worker.log").exists()
    assert read_json(directory / "timings.json")["client_work"] == {}


def test_another_aggregator_is_written_down_measured_and_counted(finished, cache, tmp_path):
    arguments = ["--algorithms=reptile", "--aggregator=trimmed_mean", "--trim_fraction=0.4"]
    assert run(cache, tmp_path / "run", *arguments) == 0
    config = ExperimentConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert (config.aggregator, config.aggregator_options) == (
        "trimmed_mean",
        {"trim_fraction": 0.4},
    )
    comparison = (tmp_path / "run" / "comparison.md").read_text()
    assert "aggregated by **trimmed_mean** (trim_fraction 0.4)" in comparison
    rows = pd.read_csv(tmp_path / "run" / "reptile" / "metrics.csv")
    assert rows["aggregator/clients"].tolist()[1:] == [2, 2, 2]
    assert rows["aggregator/non_finite"].tolist()[1:] == [0, 0, 0]
    num_weights = sum(w.size for w in exported_weights(tmp_path / "run"))
    down, up = rows["bytes/down_per_client"], rows["bytes/up_per_client"]
    assert down.isna()[0] and down.tolist()[1:] == [4 * num_weights] * 3
    # Besides: the client's weight, metrics, counts.
    assert up.nunique() == 1 and 4 * num_weights + 4 < up[1] < 4 * num_weights + 100
    mean = pd.read_csv(finished / "reptile" / "metrics.csv")
    assert mean["bytes/down_per_client"][1] == down[1]


def test_metrics_have_one_row_a_round_and_equal_budgets(finished):
    reptile, fedavg = (
        pd.read_csv(finished / name / "metrics.csv") for name in ("reptile", "fedavg")
    )
    assert reptile["round"].tolist() == fedavg["round"].tolist() == [0, 1, 2, 3]
    assert set(reptile["data_source"]) == {"tff"}
    for column in ("train/num_examples", "train/num_batches"):
        assert reptile[column].tolist()[1:] == fedavg[column].tolist()[1:]
    assert reptile["clients/contributing"].tolist()[1:] == [2, 2, 2]
    evaluated = reptile["validation/accuracy_after"].notna().tolist()
    assert evaluated == [True, False, True, True]


def test_adaptation_file_has_each_test_client_and_its_summary(finished):
    for algorithm in ("reptile", "fedavg"):
        result = read_json(finished / algorithm / "adaptation_test.json")
        assert result["steps"] == [0, 1, 2]
        assert result["chosen"]["inner_learning_rate"] in (0.02, 0.05)
        assert result["chosen"]["steps"] in result["steps"]
        for client in result["clients"]:
            assert len(client["loss"]) == len(client["accuracy"]) == 3
        before = [client["accuracy"][0] for client in result["clients"]]
        assert result["summary"]["before"]["mean"] == pytest.approx(np.mean(before))
        assert set(result["summary"]["after"]) == {"mean", "std", "p10", "p50", "p90"}


def test_both_algorithms_adapt_the_same_clients_on_the_same_split(finished):
    first, second = (
        read_json(finished / name / "adaptation_test.json")["clients"]
        for name in ("reptile", "fedavg")
    )
    keys = ("client_id", "num_support", "num_query")
    assert [[c[k] for k in keys] for c in first] == [[c[k] for k in keys] for c in second]


def test_metadata_says_how_to_adapt(finished):
    metadata = read_json(finished / "fedavg" / "keras_model" / "metadata.json")
    config = ExperimentConfig.from_json((finished / "config.json").read_text())
    chosen = read_json(finished / "fedavg" / "adaptation_test.json")["chosen"]
    assert metadata == {
        "algorithm": "fedavg",
        "dataset": "emnist",
        "data_source": "tff",
        "adaptation": {**chosen, "batch_size": 3, "adapts": "all weights"},
        "input": {
            "shape": [None, 28, 28],
            "dtype": "float32",
            "meaning": "a grey image of 28 x 28, 1.0 = paper and 0.0 = ink",
        },
        "target": {
            "shape": [None],
            "dtype": "int32",
            "meaning": "the character's place in the list of classes, from 0",
        },
        "output": {
            "meaning": "a logit for each class",
            "classes": list("0123456789" + string.ascii_uppercase + string.ascii_lowercase),
        },
        "config_hash": config.hash,
    }


def test_table_has_a_row_for_each_algorithm_with_its_budget(finished):
    text = (finished / "comparison.md").read_text()
    batches = pd.read_csv(finished / "reptile" / "metrics.csv")["train/num_batches"].sum()
    for name in ("reptile", "fedavg"):
        assert cell(text, name, "gradients") == f"{int(batches):,}"
    assert "Data source: **tff**" in text
    assert "reptile differs from fedavg in that it weighs clients equally" in text


def test_plot_and_tensorboard_are_there(finished):
    assert (finished / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert list((finished / "reptile" / "tensorboard").glob("events*"))


def test_exported_model_is_the_last_checkpoint_and_adapts(finished):
    import tensorflow as tf

    checkpoint = tf.train.load_checkpoint(
        str(finished / "fedavg" / "checkpoints" / "round_3" / "variables" / "variables")
    )
    saved = {
        tuple(shape): checkpoint.get_tensor(name)
        for name, shape in checkpoint.get_variable_to_shape_map().items()
    }
    path = finished / "fedavg" / "keras_model" / "model.keras"
    model = tf.keras.models.load_model(path)
    for weight in model.get_weights():
        np.testing.assert_array_equal(saved[weight.shape], weight)
    x = np.random.default_rng(0).uniform(size=(8, 28, 28)).astype(np.float32)
    y = np.arange(8)
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_finished_run_says_so_and_changes_nothing(finished, cache, capsys):
    before = snapshot(finished)
    assert run(cache, finished) == 0
    assert "This run is finished; nothing was done." in capsys.readouterr().out
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rounds=2"], "rounds 2 here, 3 there"),
        (["--seed=1"], "seed 1 here, 0 there"),
        (["--hparam=reptile.server_schedule=linear"], "server_schedule"),
        (["--noresume"], "holds this run already"),
    ],
)
def test_taken_directory_is_refused_and_left_alone(finished, cache, capsys, more, said):
    before = snapshot(finished)
    assert run(cache, finished, *more) == 2
    assert said in capsys.readouterr().err
    assert snapshot(finished) == before


def test_a_finished_run_goes_on_to_the_weights_of_a_longer_one(finished, cache, tmp_path, capsys):
    longer = shutil.copytree(finished, tmp_path / "longer")
    assert run(cache, longer, "--rounds=4") == 0
    assert f"its results are kept in {longer / 'rounds_3'}." in capsys.readouterr().out
    assert run(cache, tmp_path / "at_once", "--rounds=4", "--algorithms=reptile") == 0
    assert same(exported_weights(longer), exported_weights(tmp_path / "at_once"))
    rows = pd.read_csv(longer / "fedavg" / "metrics.csv")
    assert rows["round"].tolist() == [0, 1, 2, 3, 4]
    kept, before = longer / "rounds_3", finished
    assert same(exported_weights(kept), exported_weights(before))
    assert (kept / "comparison.md").read_bytes() == (before / "comparison.md").read_bytes()


def test_directory_with_unexplained_results_is_refused(cache, tmp_path, capsys):
    (tmp_path / "comparison.md").write_text("somebody's")
    assert run(cache, tmp_path) == 2
    assert "no config.json" in capsys.readouterr().err
    assert (tmp_path / "comparison.md").read_text() == "somebody's"


def test_killed_run_continues_to_the_weights_of_an_uninterrupted_one(finished, cache, tmp_path):
    command = [sys.executable, "run_experiment.py", *SMALL]
    command += [f"--cache_dir={cache}", f"--output_dir={tmp_path / 'killed'}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    first_checkpoint = tmp_path / "killed" / "reptile" / "checkpoints" / "round_1"
    deadline = time.monotonic() + 120
    while not first_checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_child(pid, process)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first_checkpoint.exists()
    assert not (tmp_path / "killed" / "comparison.md").exists()
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in workers)

    assert run(cache, tmp_path / "killed") == 0
    for algorithm in ("reptile", "fedavg"):
        assert same(
            exported_weights(tmp_path / "killed", algorithm), exported_weights(finished, algorithm)
        )
    rounds = pd.read_csv(tmp_path / "killed" / "reptile" / "metrics.csv")["round"]
    assert rounds.tolist() == [0, 1, 2, 3]


def is_child(pid, process):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return f"PPid:\t{process.pid}\n" in status


def is_alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_same_seed_gives_the_same_weights_and_another_seed_others(finished, cache, tmp_path):
    short = ["--algorithms=reptile"]
    for name, seed in (("same", 0), ("other", 1)):
        assert run(cache, tmp_path / name, *short, f"--seed={seed}") == 0
    assert same(exported_weights(tmp_path / "same"), exported_weights(finished))
    assert not same(exported_weights(tmp_path / "other"), exported_weights(finished))


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--dataset=emnis", "got 'emnis'. Did you mean 'emnist'?"),
        ("--data_source=disk", "must be one of: auto, tff, embedded"),
        ("--algorithms=reptil", "got 'reptil'. Did you mean 'reptile'?"),
        ("--rounds=0", "rounds must be from 1 to 10000000, but is 0."),
        ("--rounds=many", "'many'. --rounds: Training rounds (1 to 10,000,000)."),
        ("--roundz=3", "There is no flag --roundz. Did you mean --rounds?"),
        ("--output_dir=/dev/null/run", "/dev/null does not allow it"),
        ("--clients_per_round=-1", "clients_per_round must be from 1"),
        ("--support_fraction=1", "support_fraction must lie between 0 and 1"),
        ("--seed=-1", "seed must be from 0"),
        ("--inner_learning_rate=-0.1", "inner_learning_rate must be from 0"),
        ("--inner_learning_rate=nan", "inner_learning_rate must be a finite number"),
        ("--adaptation_learning_rates=a", "must be numbers, but got 'a'"),
        ("--adaptation_learning_rates=0", "must be greater than 0, but is 0.0"),
        ("--hparam=reptile.rate=1", "hyperparameter of reptile must be one of"),
        ("--hparam=maml.inner_learning_rate=1", "must be one of: reptile, fedavg; got 'maml'"),
        ("--support_sizes=5,x", "must be whole numbers, but got 'x'"),
        ("--support_sizes=0", "support_sizes must be from 1 to 1000000000, but is 0"),
        ("--hparam=reptile", "is written ALGORITHM.NAME=VALUE"),
        ("--hparam=reptile.server_schedule=cool", "Did you mean 'cooldown'?"),
        ("--hparam=fedavg.inner_learning_rate=fast", "must be a number"),
        ("--aggregator=mode", "must be one of: mean"),
        ("--trim_fraction=0.1", "trim_fraction is for the aggregator trimmed_mean, not for mean"),
        ("--secure_clip=far", "flag --secure_clip=far"),
        ("--runtime=cloud", "must be one of: local"),
        ("emnist", "Flags are written --name=value"),
    ],
)
def test_wrong_flag_gets_one_sentence_and_status_two(argument, said, capsys):
    assert run_experiment.main(["run_experiment.py", argument]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1
    assert said in error


def test_secure_sums_in_tffs_worker_get_one_sentence_and_status_two(capsys):
    arguments = ["run_experiment.py", "--aggregator=secure", "--runtime=worker"]
    assert run_experiment.main(arguments) == 2
    assert "which TFF's worker cannot compute" in capsys.readouterr().err


def test_a_rate_that_no_algorithm_has_gets_one_sentence_and_status_two(capsys):
    arguments = ["run_experiment.py", "--algorithms=fedsgd", "--inner_learning_rate=0.1"]
    assert run_experiment.main(arguments) == 2
    said = "Error: None of the algorithms has an --inner_learning_rate: fedsgd.\n"
    assert capsys.readouterr().err == said


def test_help_lists_the_data_sets(capsys):
    assert run_experiment.main(["run_experiment.py", "--dataset=help"]) == 0
    shown = capsys.readouterr().out
    for name, data_set in datasets.DATASETS.items():
        clients = data_set.about.clients
        assert f"--dataset={name}" in shown and clients in " ".join(shown.split())


def test_an_option_of_another_data_set_gets_one_sentence_and_status_two(capsys):
    assert run_experiment.main(["run_experiment.py", "--ways=3"]) == 2
    said = "Error: --ways is for --dataset=omniglot, not for emnist.\n"
    assert capsys.readouterr().err == said


def test_directory_in_use_is_refused(finished, cache, tmp_path, capsys):
    from tff_fedmeta.experiment import run_directory

    config = ExperimentConfig.from_json((finished / "config.json").read_text())
    lock = run_directory.claim(config, tmp_path / "run")
    assert run(cache, tmp_path / "run") == 2
    assert "Another process is at work" in capsys.readouterr().err
    lock.close()
    run_directory.claim(config, tmp_path / "run").close()


def test_other_versions_on_resume_are_said(finished, tmp_path, caplog):
    from tff_fedmeta.experiment import run_directory

    config = ExperimentConfig.from_json((finished / "config.json").read_text())
    (tmp_path / "versions.json").write_text('{"python": "3.0"}')
    run_directory.claim(config, tmp_path).close()
    assert "begun with other versions" in caplog.text
    assert read_json(tmp_path / "versions.json") == run_directory.versions()


def test_epochs_and_steps_together_are_refused(capsys):
    arguments = ["run_experiment.py", "--inner_epochs=1", "--inner_steps=5"]
    assert run_experiment.main(arguments) == 2
    assert "Give one of inner_epochs and inner_steps" in capsys.readouterr().err


def test_larger_cohort_than_there_are_clients_is_refused(cache, tmp_path, capsys):
    assert run(cache, tmp_path / "run", "--clients_per_round=100") == 2
    assert "at most the number of training clients" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_data_is_one_sentence(tmp_path, capsys, monkeypatch):
    def refuse(url, seconds):
        raise OSError("no network in this test")

    monkeypatch.setattr("datasets.sources.tff_files.probe", refuse)
    assert run(tmp_path, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "emnist_all.sqlite" in error and "--data_source=embedded" in error


def test_help_and_flag_errors_do_not_wait_for_tensorflow():
    code = (
        "import sys, run_experiment\n"
        "assert run_experiment.main(['x', '--help']) == 0\n"
        "assert run_experiment.main(['x', '--rounds=0']) == 2\n"
        "assert not any(name.startswith('tensorflow') for name in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for flag in ("--dataset", "--hparam", "--output_dir", "--support_fraction"):
        assert flag in result.stdout


def test_repetitions_draw_their_clients_anew_where_they_are_drawn(capsys):
    groups = experiment_flags.groups(datasets.DATASETS)

    def seed_of(*argv):
        values = flags.parse(groups, ["x", *argv])
        config = configuration(datasets.DATASETS, values, {})
        return run_experiment._request(config.repetition(2), values).split_seed

    assert seed_of("--seed=3", "--repetitions=3", "--resplit") == 5
    assert seed_of("--seed=3", "--repetitions=3") == 0
    assert run_experiment.main(["x", "--dataset=omniglot", "--resplit"]) == 2
    assert "omniglot is not drawn, but given" in capsys.readouterr().err
