"""Damaged files of a run: the newest sound checkpoint counts, or one sentence says the fault."""

import shutil

import pandas as pd
import pytest
from conftest import assert_equal, make_client, model_fn

import run_experiment
import tff_fedmeta as fm
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import round_loop, run_directory


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


def make_a_directory(path):
    path.unlink()
    path.mkdir()


DAMAGES = (cut, flip, empty, delete, make_a_directory)


def files_below(directory):
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def clients_of_round(round_num):
    return [fm.client_dataset(*make_client(n), seed=(round_num, n)) for n in (3, 5)]


@pytest.fixture(scope="module")
def process(tff_runtime):
    return fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)


@pytest.fixture(scope="module")
def four_rounds(process, tmp_path_factory):
    """A training of four rounds, and its state after a fifth without interruption."""
    directory = tmp_path_factory.mktemp("four")
    round_loop.train(process, clients_of_round, 4, directory=directory)
    return directory, round_loop.train(process, clients_of_round, 5)


def continued(process, directory):
    """Trains on to round five; returns the weights and the rows without the times."""
    state = round_loop.train(process, clients_of_round, 5, directory=directory)
    rows = pd.read_csv(directory / "metrics.csv").drop(columns="seconds")
    return process.get_model_weights(state).trainable, rows


def test_each_damaged_file_of_a_checkpoint_is_found_and_its_rounds_are_computed_again(
    process, four_rounds, tmp_path, caplog
):
    whole, state = four_rounds
    expected = process.get_model_weights(state).trainable
    names = files_below(whole / "checkpoints" / "round_4")
    assert {"saved_model.pb", "metrics.csv", "checksums.json"} <= {name.name for name in names}
    for name in names:
        for damage in DAMAGES:
            directory = tmp_path / damage.__name__ / name.name
            shutil.copytree(whole, directory)
            damage(directory / "checkpoints" / "round_4" / name)
            caplog.clear()
            weights, rows = continued(process, directory)
            assert_equal(weights, expected)
            assert rows["round"].tolist() == [1, 2, 3, 4, 5]
            assert caplog.text.count("Training continues after round 3.") == 1, (damage, name)
            assert (directory / "checkpoints" / "damaged_round_4").exists()
            shutil.rmtree(directory)


def test_rows_that_were_changed_come_from_the_checkpoint(process, four_rounds, tmp_path, caplog):
    whole, _ = four_rounds
    _, expected = continued(process, shutil.copytree(whole, tmp_path / "whole"))
    assert caplog.text == ""
    for damage in (cut, flip, empty, delete):
        directory = tmp_path / damage.__name__
        shutil.copytree(whole, directory)
        damage(directory / "metrics.csv")
        caplog.clear()
        _, rows = continued(process, directory)
        pd.testing.assert_frame_equal(rows, expected)
        assert "its rows come from the checkpoint of round 4" in caplog.text, damage


def copy_of_an_older(checkpoints):
    shutil.copytree(checkpoints / "round_3", checkpoints / "round_9")


def an_empty_folder(checkpoints):
    (checkpoints / "round_9").mkdir()


def a_file(checkpoints):
    (checkpoints / "round_9").write_text("text")


@pytest.mark.parametrize("put", [copy_of_an_older, an_empty_folder, a_file])
def test_what_is_no_checkpoint_of_its_round_is_set_aside(
    process, four_rounds, tmp_path, caplog, put
):
    whole, state = four_rounds
    directory = shutil.copytree(whole, tmp_path / "run")
    put(directory / "checkpoints")
    weights, rows = continued(process, directory)
    assert_equal(weights, process.get_model_weights(state).trainable)
    assert rows["round"].tolist() == [1, 2, 3, 4, 5]
    assert "Training continues after round 4." in caplog.text


def test_without_a_sound_checkpoint_training_starts_again(process, four_rounds, tmp_path, caplog):
    whole, state = four_rounds
    directory = shutil.copytree(whole, tmp_path / "run")
    for path in (directory / "checkpoints").glob("*/checksums.json"):
        path.unlink()
    weights, rows = continued(process, directory)
    assert_equal(weights, process.get_model_weights(state).trainable)
    assert rows["round"].tolist() == [1, 2, 3, 4, 5]
    assert "training starts again at round 1" in caplog.text


def test_what_a_kill_left_half_written_is_swept(process, four_rounds, tmp_path):
    directory = shutil.copytree(four_rounds[0], tmp_path / "run")
    checkpoints = directory / "checkpoints"
    shutil.copytree(checkpoints / "round_4", checkpoints / "partial" / "round_5_temp1234")
    shutil.copytree(checkpoints / "round_4", checkpoints / "round_5_temp1234")
    continued(process, directory)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["round_4", "round_5"]


def test_a_checkpoint_of_another_process_is_one_sentence(process, four_rounds, tmp_path):
    directory = shutil.copytree(four_rounds[0], tmp_path / "run")
    other = fm.build_meta_sgd(model_fn, inner_learning_rate=0.1, inner_steps=1, batch_size=4)
    with pytest.raises(run_directory.RunDirectoryError, match="is whole but is not a state"):
        round_loop.train(other, clients_of_round, 5, directory=directory)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "finished"
    assert run(directory) == 0
    return directory


def run(directory):
    return run_experiment.main(
        [
            *("run_experiment.py", "--dataset=sinusoid", "--algorithms=reptile", "--rounds=2"),
            *("--clients_per_round=2", "--num_test_clients=3", "--adaptation_steps=1"),
            "--adaptation_learning_rates=0.02",
            *("--rounds_per_checkpoint=1", f"--output_dir={directory}"),
        ]
    )


def test_every_damaged_file_of_a_finished_run_is_named(finished, tmp_path, capsys):
    result = [name for name in files_below(finished) if name.parts[1:2] != ("tensorboard",)]
    result = [name for name in result if "checkpoints" not in name.parts and name.name != ".lock"]
    assert len(result) >= 8
    for name in result:
        for damage in DAMAGES:
            if (name.name, damage) == (run_directory.COMPARISON, delete):
                continue  # that is how a run is made to write its results again
            directory = tmp_path / damage.__name__ / name.name
            shutil.copytree(finished, directory)
            damage(directory / name)
            status = run(directory)
            said = capsys.readouterr().err.strip()
            assert "\n" not in said and str(name) in said, (damage, name, said)
            assert status == (2 if said.startswith("Error: ") else 0)
            shutil.rmtree(directory)


def test_every_damaged_file_of_an_interrupted_run_is_written_again_or_named(
    finished, tmp_path, capsys
):
    """As far as that needs no training; what training reads is damaged above."""
    config = ExperimentConfig.from_json((finished / "config.json").read_text())
    for name in files_below(finished):
        if "checkpoints" in name.parts or name.name in (run_directory.COMPARISON, ".lock"):
            continue
        for damage in DAMAGES:
            directory = tmp_path / damage.__name__ / name.name
            shutil.copytree(finished, directory)
            (directory / run_directory.COMPARISON).unlink()
            damage(directory / name)
            try:
                run_directory.find_run(config, directory, resume=True)
                run_directory.claim(config, directory).close()
            except ValueError as error:
                assert str(name) in str(error) or "config.json" in str(error), (damage, name)
                assert "\n" not in str(error)
            else:
                read = ExperimentConfig.from_json((directory / "config.json").read_text())
                assert read == config
            shutil.rmtree(directory)


def test_results_are_written_again_from_the_checkpoints(finished, tmp_path, capsys):
    directory = shutil.copytree(finished, tmp_path / "run")
    wanted = (directory / "reptile" / "adaptation_test.json").read_bytes()
    cut(directory / "reptile" / "adaptation_test.json")
    (directory / run_directory.COMPARISON).unlink()
    assert run(directory) == 0
    assert (directory / "reptile" / "adaptation_test.json").read_bytes() == wanted
    capsys.readouterr()
    assert run(directory) == 0
    assert "WARNING" not in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file.json").mkdir()
    with pytest.raises(
        run_directory.RunDirectoryError, match=r"file.json cannot be written: .*\.$"
    ):
        run_directory.write_json(tmp_path / "file.json", {})
