"""The real `main()` with clients that fail, on small data in TFF's own format."""

import numpy as np
import pandas as pd
import pytest
from conftest import save_digits_model
from tff_files import write_database

import run_experiment
from datasets import emnist
from tff_fedmeta import seeds
from tff_fedmeta.config import failures
from tff_fedmeta.experiment import run as run_module

SMALL = [
    "--data_source=tff",
    "--only_digits",
    "--algorithms=reptile,fedavg",
    "--rounds=4",
    "--clients_per_round=4",
    "--batch_size=4",
    "--adaptation_steps=1",
    "--adaptation_learning_rates=0.05",
    "--rounds_per_evaluation=4",
    "--rounds_per_checkpoint=2",
]
FAILING = [
    "--client_dropout=0.4",
    "--straggler_fraction=0.5",
    "--availability=0.9",
    "--byzantine_fraction=0.3",
    "--attack=noise",
    "--attack_scale=0.5",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    write_database(directory / emnist.FILE_NAME)
    save_digits_model(directory)
    return directory


def run(cache, output_dir, *more):
    model = f"--model={cache / 'digits.keras'}"
    where = [f"--cache_dir={cache}", f"--output_dir={output_dir}"]
    return run_experiment.main(["run_experiment.py", *SMALL, model, *where, *more])


@pytest.fixture(scope="module")
def failed(cache, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "failed"
    assert run(cache, directory, *FAILING) == 0
    return directory


def rows(directory, algorithm="reptile"):
    return pd.read_csv(directory / algorithm / "metrics.csv", index_col="round")


def weights(directory, algorithm):
    import tensorflow as tf

    path = directory / algorithm / "keras_model" / "model.keras"
    return tf.keras.models.load_model(path).get_weights()


def test_failures_are_counted_and_the_same_for_every_algorithm(failed):
    first, second = rows(failed).loc[1:], rows(failed, "fedavg").loc[1:]
    columns = [f"clients/{what}" for what in ("available", "sampled", "dropped", "stragglers")]
    columns.append("clients/byzantine")
    pd.testing.assert_frame_equal(first[columns], second[columns])
    assert (first["clients/sampled"] <= 4).all() and first["clients/dropped"].sum() > 0
    contributing = first["clients/contributing"].fillna(0)
    assert (contributing == first["clients/sampled"] - first["clients/dropped"]).all()
    said = (failed / "comparison.md").read_text()
    assert "clients failed in every row alike" in said and "client_dropout 0.4" in said


def test_continued_run_with_failures_is_an_uninterrupted_one(failed, cache, tmp_path, monkeypatch):
    make, calls = run_module.client_data.client_dataset, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(rows_of_reptile()) >= 3 and len(calls) > 3:  # after the checkpoint of round 2
            raise KeyboardInterrupt
        return make(*arguments, **named)

    def rows_of_reptile():
        path = tmp_path / "reptile" / "metrics.csv"
        return path.read_text().splitlines()[1:] if path.exists() else []

    with monkeypatch.context() as patch:
        patch.setattr(run_module.client_data, "client_dataset", interrupted)
        assert run(cache, tmp_path, *FAILING) == 130
    assert rows(tmp_path).index.max() == 2
    assert run(cache, tmp_path, *FAILING) == 0
    for algorithm in ("reptile", "fedavg"):
        for ours, theirs in zip(weights(tmp_path, algorithm), weights(failed, algorithm)):
            np.testing.assert_array_equal(ours, theirs)
        timed = [name for name in rows(failed, algorithm) if "seconds" in name]
        pd.testing.assert_frame_equal(
            rows(tmp_path, algorithm).drop(columns=timed),
            rows(failed, algorithm).drop(columns=timed),
        )


def test_a_run_in_which_nobody_ever_answers_ends_where_it_began(cache, tmp_path, capsys):
    assert run(cache, tmp_path, "--client_dropout=1") == 0
    assert "reptile, round 4: no client contributed." in capsys.readouterr().out
    assert rows(tmp_path).loc[1:, "clients/dropped"].tolist() == [4] * 4
    validation = rows(tmp_path)["validation/loss_before"].dropna()
    assert len(validation) == 2 and validation.nunique() == 1


def test_attackers_train_on_flipped_labels(cache, tmp_path, monkeypatch):
    flip, make = failures.flip_labels, run_module.client_data.client_dataset
    flipped, trained_on = [], []

    def spy_flip(y, num_classes):
        flipped.append((y, flip(y, num_classes)))
        return flipped[-1][1]

    def spy_make(x, y, *args, **kwargs):
        trained_on.append(y)
        return make(x, y, *args, **kwargs)

    monkeypatch.setattr(failures, "flip_labels", spy_flip)
    monkeypatch.setattr(run_module.client_data, "client_dataset", spy_make)
    how = ["--algorithms=reptile", "--rounds=1", "--byzantine_fraction=0.5", "--attack=label_flip"]
    assert run(cache, tmp_path, *how) == 0
    assert rows(tmp_path).loc[1, "clients/byzantine"] == len(flipped) == 2
    for honest, lie in flipped:
        np.testing.assert_array_equal(lie, 9 - np.asarray(honest))  # of ten digits
        assert sum(y is lie for y in trained_on) == 1


def test_labels_that_are_no_classes_cannot_be_flipped(tmp_path, capsys):
    arguments = ["--dataset=sinusoid", "--byzantine_fraction=0.5", "--attack=label_flip"]
    directory = tmp_path / "run"
    assert run_experiment.main(["x", *arguments, f"--output_dir={directory}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "float32; choose another attack: sign_flip" in error
    assert not directory.exists()


def test_a_run_that_cannot_be_leaves_no_directory(tmp_path, capsys):
    arguments = ["--dataset=sinusoid", "--algorithms=anil", "--hparam=anil.head_layers=9"]
    directory = tmp_path / "runs" / "run"
    assert run_experiment.main(["x", *arguments, f"--output_dir={directory}"]) == 2
    assert "head_layers must lie between 1 and 3" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


PRIVATE = ["--aggregator=dp", "--algorithms=reptile", "--rounds_per_checkpoint=1"]


def test_a_continued_private_run_reports_the_epsilon_of_an_uninterrupted_one(
    cache, tmp_path, monkeypatch, caplog
):
    from tff_fedmeta.aggregation import privacy

    # Noise is TFF's own and has no seed: a clip this small keeps it from making the run diverge.
    how = [*PRIVATE, "--noise_multiplier=2", "--dp_delta=0.01", "--client_dropout=0.5"]
    how += ["--dp_clip=1e-6"]
    read, calls = seeds.stream_seed, []

    def interrupted(seed, *stream):
        if stream[0] == "training" and stream[1] == 3:
            calls.append(stream)
            raise KeyboardInterrupt
        return read(seed, *stream)

    with monkeypatch.context() as patch:
        patch.setattr(seeds, "stream_seed", interrupted)
        assert run(cache, tmp_path, *how) == 130
    assert calls and rows(tmp_path).index.max() == 2
    assert run(cache, tmp_path, *how) == 0
    population = rows(tmp_path)["clients/available"].max()
    promise = privacy.Guarantee(2.0, 4, int(population), 0.01)
    expected = [promise.epsilon(number) for number in (1, 2, 3, 4)]
    assert rows(tmp_path)["privacy/epsilon"].dropna().tolist() == pytest.approx(expected, rel=1e-9)
    said = (tmp_path / "comparison.md").read_text()
    assert f"({expected[-1]:.3g}, 0.01)-differentially private" in said
    assert "Outside of the guarantee: the figures on training clients" in said
    assert "reptile: The noise is unusable: with 4 clients a round" in caplog.text


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--aggregator=dp", "needs one of dp_epsilon"),
        ("--aggregator=ddp", "inside of the secure sum is not offered"),
        ("--dp_epsilon=1", "dp_epsilon is for the aggregator dp, not for mean"),
        ("--client_dropout=2", "client_dropout must be from 0 to 1, but is 2"),
        ("--availability=0", "availability must be greater than 0"),
        ("--attack=flip", "attack must be one of: sign_flip"),
        ("--attack_scale=-1", "attack_scale must be greater than 0"),
    ],
)
def test_wrong_flag_gets_one_sentence_and_status_two(argument, said, capsys):
    assert run_experiment.main(["run_experiment.py", argument]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1 and said in error


def test_privacy_refuses_clients_that_are_away(capsys):
    arguments = [*PRIVATE, "--noise_multiplier=1", "--availability=0.5"]
    assert run_experiment.main(["x", *arguments]) == 2
    assert "availability must be 1 with the aggregator dp" in capsys.readouterr().err


def test_every_attack_is_in_the_help(capsys):
    assert run_experiment.main(["run_experiment.py", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(attack in shown for attack in failures.ATTACKS)
