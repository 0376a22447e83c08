"""The table and the plot, from figures whose summary is known."""

import dataclasses
import json
import types

import numpy as np
import pandas as pd
import pytest

import datasets
from tff_fedmeta.algorithms.registry import hyperparameter_kinds
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import adapted_client, report, summary

CONFIG = ExperimentConfig.from_defaults(
    "emnist", datasets.DATASETS["emnist"].defaults, {}, {}, hyperparameter_kinds()
)
TASK = types.SimpleNamespace(
    metric="accuracy",
    higher_is_better=True,
    data_source="embedded",
    has_real_data=True,
    measures=None,
    train_clients=("a", "b", "c"),
    validation_clients=("d",),
    test_clients=("e", "f"),
)


def metrics(first_accuracy):
    return pd.DataFrame(
        {
            "train/num_examples": [np.nan, 100, 120],
            "train/num_batches": [np.nan, 5, 6],
            "seconds": [np.nan, 1.5, 2.5],
            "bytes/down_per_client": [np.nan, 4_800_000, 4_800_000],
            "bytes/up_per_client": [np.nan, 1_200_000, 1_200_000],
            "validation/accuracy_before": [0.1, np.nan, first_accuracy],
            "validation/accuracy_after": [0.2, np.nan, first_accuracy + 0.1],
        },
        index=pd.Index([0, 1, 2], name="round"),
    )


def adapted(*curves):
    clients = [{"client_id": name, "accuracy": list(c)} for name, c in zip("ef", curves)]
    return {
        "steps": [0, 1, 2],
        "chosen": {"inner_learning_rate": 0.02, "steps": 2},
        "clients": clients,
        "summary": summary.summarize(clients, "accuracy", 2),
    }


RESULTS = {
    "reptile": adapted((0.5, 0.6, 0.7), (0.7, 0.7, 0.9)),
    "fedavg": adapted((0.5, 0.6, 0.4), (0.7, 0.7, 0.8)),
}
METRICS = {"reptile": metrics(0.6), "fedavg": metrics(0.5)}


def row(name, config=CONFIG):
    text = report.table(config, TASK, METRICS, RESULTS)
    header = next(line for line in text.splitlines() if line.startswith("| algorithm"))
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return dict(zip(header.strip("| ").split(" | "), line.strip("| ").split(" | ")))


def test_row_has_the_means_and_the_share_hurt():
    # reptile: (0.5, 0.7) -> (0.7, 0.9); fedavg: (0.5, 0.7) -> (0.4, 0.8), one of two worse off.
    assert row("reptile")["before"] == "0.6000 ± 0.1000"
    assert row("reptile")["after"] == "0.8000 ± 0.1000"
    assert row("reptile")["hurt"] == "0.0%" and row("fedavg")["hurt"] == "50.0%"
    assert row("fedavg")["after p10 / p50 / p90"] == "0.440 / 0.600 / 0.760"


def test_row_has_the_budget_of_all_rounds():
    assert row("fedavg")["rounds"] == "2"
    assert row("fedavg")["examples"] == "220"
    assert row("fedavg")["gradient evaluations"] == "11"
    assert row("fedavg")["training seconds"] == "4"
    assert row("fedavg")["adaptation"] == "2 steps at 0.02"


def test_row_has_the_bytes_of_a_client_and_of_all_of_them():
    few = dataclasses.replace(CONFIG, clients_per_round=3)
    assert row("fedavg", few)["MB down / up"] == "4.8 / 1.2"
    assert row("fedavg", few)["MB in all"] == "36"  # 6 MB, 3 clients, 2 rounds
    many = dataclasses.replace(CONFIG, clients_per_round=300)
    assert row("fedavg", many)["MB in all"] == "3,600"


def test_the_text_says_how_updates_were_aggregated():
    assert "aggregated by **mean**." in report.table(CONFIG, TASK, METRICS, RESULTS)
    trimmed = dataclasses.replace(CONFIG, aggregator="trimmed_mean")
    text = report.table(trimmed, TASK, METRICS, RESULTS)
    assert "aggregated by **trimmed_mean** (trim_fraction 0.3)." in text


def test_learnt_rates_and_counted_work_are_shown():
    work = METRICS["reptile"].assign(**{"work/examples": 7, "work/gradient_evaluations": 1000})
    results = {
        **RESULTS,
        "reptile": {**RESULTS["reptile"], "chosen": {"inner_learning_rate": None, "steps": 1}},
    }
    text = report.table(CONFIG, TASK, {**METRICS, "reptile": work}, results)
    (line,) = [line for line in text.splitlines() if line.startswith("| reptile |")]
    assert " | 1 steps at learnt rates | 2 | 21 | 3,000 |" in line
    figure = report.plot(CONFIG, TASK, {**METRICS, "reptile": work}, results)
    assert figure.axes[2].lines[0].get_label() == "reptile at learnt rates"


def with_reptile(**changes):
    values = {"server_decay": False, "client_weighting": "examples", **changes}
    fedavg = CONFIG.hyperparameters["fedavg"]
    return dataclasses.replace(
        CONFIG, hyperparameters={"reptile": {**fedavg, **values}, "fedavg": fedavg}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "reptile and fedavg coincide"),
        ({"server_decay": True}, "falls linearly to 0"),
        ({"client_weighting": "uniform"}, "weighs clients equally"),
        ({"server_learning_rate": 0.3}, "its server_learning_rate is 0.3 instead of 1"),
        ({"inner_learning_rate": 0.3}, "its inner_learning_rate is 0.3 instead of"),
        ({"server_optimizer": "adam"}, "its server_optimizer is adam instead of sgd"),
    ],
)
def test_table_says_where_reptile_and_fedavg_are_the_same(changes, said):
    assert said in report.table(with_reptile(**changes), TASK, METRICS, RESULTS)


def test_equal_steps_do_not_make_the_two_the_same():
    # TFF weighs by the examples of the steps, which are alike for clients of unlike size.
    config = dataclasses.replace(with_reptile(), inner_epochs=None, inner_steps=5)
    assert "not by the examples of their steps" in report.table(config, TASK, METRICS, RESULTS)


def test_data_source_is_in_table_and_title():
    assert "**embedded (synthetic" in report.table(CONFIG, TASK, METRICS, RESULTS)
    figure = report.plot(CONFIG, TASK, METRICS, RESULTS)
    assert "data source: embedded" in figure.get_suptitle()


def test_embedded_data_that_stand_in_for_nothing_are_just_named():
    task = types.SimpleNamespace(**{**vars(TASK), "has_real_data": False})
    assert "Data source: **embedded**." in report.table(CONFIG, task, METRICS, RESULTS)


@pytest.mark.parametrize(
    ("higher_is_better", "heading", "side"),
    [
        (True, "never trained on\n", "above"),
        (False, "never trained on (lower is better)\n", "below"),
    ],
)
def test_table_and_plot_say_which_way_is_better(higher_is_better, heading, side):
    task = types.SimpleNamespace(**{**vars(TASK), "higher_is_better": higher_is_better})
    assert heading in report.table(CONFIG, task, METRICS, RESULTS)
    figure = report.plot(CONFIG, task, METRICS, RESULTS)
    assert f"{side} the line adaptation helped" in figure.axes[3].get_title()


def test_example_client_is_drawn_by_the_task_once_for_every_algorithm(tmp_path):
    calls = []
    task = types.SimpleNamespace(plot_client=lambda *arguments: calls.append(arguments))
    drawn = {
        "reptile": adapted_client.AdaptedClient(1, 0, 2, 3),
        "fedavg": adapted_client.AdaptedClient(4, 0, 5, 6),
    }
    report.write_example(task, "e", drawn, tmp_path)
    assert [call[1:] for call in calls] == [("e", 1, 2, 3), ("e", 4, 5, 6)]
    assert [call[0].get_title() for call in calls] == ["reptile", "fedavg"]
    assert (tmp_path / "example_client.png").read_bytes().startswith(b"\x89PNG")


def test_plot_shows_every_curve_at_its_place():
    figure = report.plot(CONFIG, TASK, METRICS, RESULTS)
    rounds, work, steps, clients = figure.axes
    lines = {line.get_label(): line for line in rounds.lines}
    np.testing.assert_allclose(lines["reptile, adapted"].get_xydata(), [[0, 0.2], [2, 0.7]])
    lines = {line.get_label(): line for line in work.lines}
    np.testing.assert_allclose(lines["fedavg, before adapting"].get_xydata(), [[0, 0.1], [11, 0.5]])
    np.testing.assert_allclose(steps.lines[0].get_ydata(), [0.6, 0.65, 0.8])
    np.testing.assert_allclose(clients.collections[1].get_offsets(), [[0.5, 0.4], [0.7, 0.8]])


def test_files_are_written_and_the_table_last(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, data_source="embedded")
    for name in config.algorithms:
        (tmp_path / name).mkdir()
        METRICS[name].to_csv(tmp_path / name / "metrics.csv")
        (tmp_path / name / "adaptation_test.json").write_text(json.dumps(RESULTS[name]))
    text = report.write_comparison(config, TASK, tmp_path)
    assert (tmp_path / "comparison.md").read_text() == text
    png, table = tmp_path / "comparison.png", tmp_path / "comparison.md"
    assert png.stat().st_mtime_ns <= table.stat().st_mtime_ns
    assert not list(tmp_path.glob("*.partial"))
