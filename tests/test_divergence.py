"""Training that leaves reason is told once, and its row is one without figures."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import test_reporting as sound
from conftest import cell

from tff_fedmeta.experiment import comparison, divergence, plots, report, summary


def frame(*losses, start=2.0):
    rows = [{"round": 0, "validation/loss_before": start}]
    rows += [{"round": n, "train/loss": loss} for n, loss in enumerate(losses, 1)]
    return pd.DataFrame(rows).set_index("round")


@pytest.mark.parametrize("start, limit", [(2.0, 2000.0), (0.01, 1000.0), (math.nan, 1000.0)])
def test_the_limit_is_a_thousand_times_the_loss_of_the_untrained_model(start, limit):
    assert divergence.limit_of({"validation/loss_before": start}) == limit


def test_the_round_is_the_first_of_those_that_did_not_come_back():
    assert divergence.find(frame(1.5, 1900.0, 0.3)) is None
    assert divergence.find(frame(1.5, 1e9, 0.3)) is None
    assert divergence.find(frame(1.5, 1e9, 0.3, 2001.0, 1e18)) == (4, 2001.0, 2000.0)
    assert divergence.find(frame(math.inf)) == (1, math.inf, 2000.0)


def test_a_round_in_which_all_clients_sent_what_is_not_finite_is_one():
    rows = frame(1.0, math.nan)
    rows["train/num_examples"] = [np.nan, 50, 0]
    rows["clients/non_finite"] = [np.nan, 0, 3]
    assert divergence.find(rows) == (2, math.inf, 2000.0)


def test_rounds_without_anybody_are_none():
    rows = frame(1.0, math.nan)
    rows["train/num_examples"] = [np.nan, 50, 0]
    assert divergence.find(rows) is None


def test_it_is_said_once_also_by_a_run_that_continues():
    first = {"round": 0, "validation/loss_before": 2.0}
    watch = divergence.Watch([first])
    assert watch.see(1, {"train/loss": 5.0}) is None
    assert watch.see(2, {"train/loss": 1e4}).round_num == 2
    assert watch.see(3, {"train/loss": 1e5}) is None
    again = divergence.Watch([first, {"round": 2, "train/loss": 1e4}])
    assert again.see(3, {"train/loss": 1e5}) is None


def test_the_sentence_names_the_way_out():
    text = divergence.Divergence(7, 3.2e18, 2000.0).in_words("reptile")
    assert text.startswith("reptile diverged in round 7: the loss is 3.2e+18")
    assert "--hparam=reptile.inner_learning_rate" in text and "--inner_clip_norm" in text


def diverged_result():
    nothing = [None, None, None]
    clients = [
        dict(client_id=name, num_support=2, num_query=2, loss=nothing, accuracy=nothing)
        for name in ("e", "f")
    ]
    return {
        "metric": "accuracy",
        "data_source": "embedded",
        "diverged": "fedavg diverged in round 1: it did.",
        "steps": [0, 1, 2],
        "chosen": {"inner_learning_rate": 0.1, "steps": 0},
        "clients": clients,
        "summary": summary.summary_of_nothing(),
    }


def test_table_and_plot_show_a_row_that_diverged():
    metrics = {name: sound.metrics(0.5) for name in sound.CONFIG.algorithms}
    metrics["fedavg"]["validation/loss_before"] = [2.0, 1e300, math.inf]
    adapted = {
        name: sound.adapted((0.5, 0.6, 0.7), (0.7, 0.7, 0.9)) for name in sound.CONFIG.algorithms
    }
    adapted["fedavg"] = json.loads(json.dumps(diverged_result(), allow_nan=False))
    found = sound.gather(metrics=metrics, adapted=adapted)
    text = report.table(found)
    for column in ("global", "adapted", "gain", "adaptation"):
        assert cell(text, "fedavg", column) == "diverged"
    assert cell(text, "reptile", "global") == "60.0"
    assert "- fedavg diverged in round 1: it did." in text
    figure = plots.plot(found)
    figure.canvas.draw()
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert "fedavg diverged" in labels and "reptile" in labels


def test_the_comparison_takes_it():
    reference = {**diverged_result(), "diverged": None}
    for client in reference["clients"]:
        client["accuracy"] = [0.1, 0.2, 0.3]
    both = {"fedavg": [diverged_result()], "reptile": [reference]}
    row = comparison.compare(both, "reptile")["algorithms"]["fedavg"]
    assert row["diverged"] == 2 and row["share_hurt"] == 1.0 and row["after"]["mean"] is None
