"""The round loop, on the small dense model."""

import asyncio

import pandas as pd
import pytest
import tensorflow_federated as tff
from conftest import assert_equal, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.experiment import cohorts, round_loop

CLIENTS = {f"client {n}": n for n in range(3, 13)}


@pytest.fixture(scope="module")
def process(tff_runtime):
    return fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)


def clients_of_round(round_num):
    ids = cohorts.cohort_sampler(list(CLIENTS), 3, seed=5)(round_num)
    return [
        fm.client_dataset(*make_client(CLIENTS[name]), seed=(round_num, CLIENTS[name]))
        for name in ids
    ]


def weights(process, state):
    return process.get_model_weights(state).trainable


def test_cohorts_are_a_pure_function_of_seed_and_round():
    sample = cohorts.cohort_sampler(list(CLIENTS), 3, seed=5)
    assert sample(7) == cohorts.cohort_sampler(list(CLIENTS), 3, seed=5)(7)
    assert len(set(sample(7))) == 3
    others = [sample(8), cohorts.cohort_sampler(list(CLIENTS), 3, seed=6)(7)]
    assert sample(7) not in others
    assert sorted(cohorts.cohort_sampler(list(CLIENTS), 99, seed=5)(1)) == sorted(CLIENTS)


def test_continuing_from_a_checkpoint_is_not_to_have_stopped(process, tmp_path):
    whole = round_loop.train(process, clients_of_round, 5)
    for rounds in (2, 3, 5):  # the checkpoint of round 2 is the last before round 3
        state = round_loop.train(
            process, clients_of_round, rounds, directory=tmp_path, rounds_per_checkpoint=2
        )
    assert_equal(weights(process, state), weights(process, whole))
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert rows["round"].tolist() == [1, 2, 3, 4, 5]
    assert (rows["clients/contributing"] == 3).all()


def test_rows_after_the_last_checkpoint_are_replaced(process, tmp_path):
    round_loop.train(process, clients_of_round, 4, directory=tmp_path, rounds_per_checkpoint=2)
    first = pd.read_csv(tmp_path / "metrics.csv").drop(columns="seconds")
    for checkpoint in (tmp_path / "checkpoints").glob("round_4*"):
        checkpoint.rename(tmp_path / "gone")  # as if killed after the row, before the checkpoint
    round_loop.train(process, clients_of_round, 4, directory=tmp_path, rounds_per_checkpoint=2)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "metrics.csv").drop(columns="seconds"), first
    )


def test_a_checkpoint_has_the_rows_that_led_to_it(process, tmp_path):
    def interrupted(round_num):
        if round_num == 4:
            raise KeyboardInterrupt
        return clients_of_round(round_num)

    with pytest.raises(KeyboardInterrupt):
        round_loop.train(process, interrupted, 5, directory=tmp_path, rounds_per_checkpoint=2)
    assert pd.read_csv(tmp_path / "metrics.csv")["round"].tolist() == [1, 2]
    round_loop.train(process, clients_of_round, 5, directory=tmp_path, rounds_per_checkpoint=2)
    assert pd.read_csv(tmp_path / "metrics.csv")["round"].tolist() == [1, 2, 3, 4, 5]


def test_evaluations_are_in_the_rows_of_their_rounds(process, tmp_path):
    round_loop.train(
        process,
        clients_of_round,
        5,
        directory=tmp_path,
        labels={"data_source": "here"},
        evaluate=lambda model_weights: {"figure": float(model_weights.trainable[0].sum())},
        rounds_per_evaluation=2,
    )
    rows = pd.read_csv(tmp_path / "metrics.csv", index_col="round")
    assert rows.index[rows["figure"].notna()].tolist() == [0, 2, 4, 5]
    assert set(rows["data_source"]) == {"here"}


def test_rows_are_told_as_they_are_written(process, tmp_path):
    told = []
    round_loop.train(
        process,
        clients_of_round,
        2,
        directory=tmp_path,
        on_row=lambda row, round_num: told.append((round_num, row["train/num_examples"])),
    )
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert told == list(zip(rows["round"], rows["train/num_examples"]))


def test_round_without_contributors_is_said(process, capsys):
    round_loop.train(process, lambda round_num: [fm.client_dataset(*make_client(0))], 1, title="it")
    assert "it, round 1: no client contributed." in capsys.readouterr().out


def test_tffs_own_loop_works_afterwards_and_agrees(process):
    asyncio.set_event_loop(asyncio.new_event_loop())  # other tests may have taken it away
    ours = round_loop.train(process, clients_of_round, 2)
    theirs = tff.simulation.run_training_process(process, clients_of_round, 2)
    assert_equal(weights(process, ours), weights(process, theirs))
