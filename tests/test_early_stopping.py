"""Training that stops early: when it does, and which round it keeps."""

import math

import numpy as np
import pandas as pd
import pytest
from conftest import assert_equal, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.experiment import checkpoints, round_loop
from tff_fedmeta.experiment.early_stopping import Patience

COLUMN = "validation/loss_after"


def rows(*values):
    """Row 0 and one a round; None is a round without an evaluation."""
    found = [{"round": 0, COLUMN: 0.0, "evaluation_seconds": 0.1}]
    for number, value in enumerate(values, 1):
        measured = {} if value is None else {COLUMN: value, "evaluation_seconds": 0.1}
        found.append({"round": number, **measured})
    return found


@pytest.mark.parametrize(
    ("values", "best", "is_exhausted"),
    [
        ((), None, False),
        ((5.0,), 1, False),
        ((5.0, 3.0, 4.0), 2, False),
        ((5.0, 3.0, 4.0, 3.0), 2, True),  # as good is not better
        ((5.0, 3.0, 4.0, 2.0), 4, False),
        ((5.0, None, None, 6.0, None), 1, False),
        ((5.0, None, 6.0, None, math.nan), 1, True),
        ((math.nan, math.inf), None, True),
    ],
)
def test_what_rows_say(values, best, is_exhausted):
    patience = Patience(2, COLUMN, higher_is_better=False)
    assert patience.best_round(rows(*values)) == best
    assert patience.is_exhausted(rows(*values)) == is_exhausted
    read_back = pd.DataFrame(rows(*values)).to_dict("records")  # NaN where nothing was measured
    assert patience.best_round(read_back) == best
    assert patience.is_exhausted(read_back) == is_exhausted
    negative = [{**row, COLUMN: -row[COLUMN]} if COLUMN in row else row for row in rows(*values)]
    assert Patience(2, COLUMN, higher_is_better=True).best_round(negative) == best


@pytest.fixture(scope="module")
def process(tff_runtime):
    return fm.build_reptile(model_fn, inner_learning_rate=0.1, batch_size=4)


def clients_of_round(round_num):
    return [fm.client_dataset(*make_client(9), seed=(round_num, 0))]


def test_training_keeps_its_best_round_however_it_was_interrupted(process, tmp_path, capsys):
    def weights(state):
        return process.get_model_weights(state).trainable

    best = weights(round_loop.train(process, clients_of_round, 2))

    def evaluate(model):  # the loss is the distance from round 2
        gaps = [float(np.abs(a - b).max()) for a, b in zip(model.trainable, best)]
        return {COLUMN: max(gaps)}

    def train(clients=clients_of_round):
        return round_loop.train(
            process,
            clients,
            9,
            directory=tmp_path,
            title="reptile",
            evaluate=evaluate,
            rounds_per_checkpoint=3,
            patience=Patience(3, COLUMN, higher_is_better=False),
        )

    def interrupted(round_num):
        if round_num == 5:
            raise KeyboardInterrupt
        return clients_of_round(round_num)

    with pytest.raises(KeyboardInterrupt):
        train(interrupted)
    assert_equal(weights(train()), best)
    assert "reptile stops after round 5: round 2 was the best." in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["round"].tolist() == [0, 1, 2, 3, 4, 5]

    def never(round_num):
        raise AssertionError(round_num)

    assert_equal(weights(train(never)), best)
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"round_2", "round_3", "round_5"}

    (tmp_path / "checkpoints" / "round_2" / "metrics.csv").write_text("")
    with pytest.raises(
        checkpoints.CheckpointError, match=r"round_2, the best.*metrics.csv changed"
    ):
        train(never)
