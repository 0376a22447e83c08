"""The table and the plot, from figures whose summary is known."""

import dataclasses
import json
import types

import numpy as np
import pandas as pd
import pytest
from conftest import cell

import datasets
from tff_fedmeta.algorithms.registry import hyperparameter_kinds
from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import adapted_client, plots, protocols, report, results, summary

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
    sizes = {"num_support": 3, "num_query": 4}
    clients = [{"client_id": name, **sizes, "accuracy": list(c)} for name, c in zip("ef", curves)]
    return {
        "metric": "accuracy",
        "data_source": "embedded",
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


def gather(config=CONFIG, task=TASK, metrics=METRICS, adapted=RESULTS):
    return results.gather(
        config,
        task,
        {name: [frame] for name, frame in metrics.items()},
        {name: [result] for name, result in adapted.items()},
    )


def table(**changes):
    return report.table(gather(**changes))


def test_row_has_the_means_in_percent_and_the_differences():
    # reptile: (0.5, 0.7) -> (0.7, 0.9); fedavg: (0.5, 0.7) -> (0.4, 0.8), one of two worse off.
    text = table()
    assert cell(text, "reptile", "global") == "60.0"
    assert cell(text, "reptile", "adapted").startswith("80.0 ± ")
    assert cell(text, "reptile", "gain") == "+20.0 ± 0.0"
    assert cell(text, "fedavg", "gain").startswith("+0.0 ± ")
    assert cell(text, "reptile", "versus") == "+20.0"
    assert cell(text, "reptile", "95 %") == "+10.0 to +30.0"
    assert cell(text, "fedavg", "versus") == "-"
    assert cell(text, "reptile", "hurt") == "0.0%" and cell(text, "fedavg", "hurt") == "50.0%"
    assert cell(text, "fedavg", "p10 / p50 / p90") == "44.0 / 60.0 / 76.0"
    assert cell(text, "reptile", "win, tie, loss") == "2, 0, 0"
    assert cell(text, "fedavg", "adaptation") == "2 at 0.02"


def test_the_sentence_stands_under_the_table():
    text = table()
    assert (
        "On these 2 test clients reptile is better than fedavg by 20.0 points (95 %: 10.0 to 30.0)."
    ) in text


def test_a_metric_that_is_no_share_is_written_as_it_is():
    loss = types.SimpleNamespace(**{**vars(TASK), "metric": "loss", "higher_is_better": False})
    adapted = {
        name: {
            **run,
            "metric": "loss",
            "clients": [dict(c, loss=c["accuracy"]) for c in run["clients"]],
        }
        for name, run in RESULTS.items()
    }
    text = table(task=loss, adapted=adapted, metrics={})
    assert cell(text, "reptile", "global") == "0.6"
    assert cell(text, "reptile", "versus") == "+0.2"
    assert "reptile is worse than fedavg by 0.2 of loss" in text


def test_everything_fits_a_terminal():
    long = {"per_fedavg": RESULTS["reptile"], "fedavg": RESULTS["fedavg"]}
    config = dataclasses.replace(
        CONFIG,
        algorithms=("per_fedavg", "fedavg"),
        hyperparameters={"per_fedavg": {}, "fedavg": CONFIG.hyperparameters["fedavg"]},
    )
    text = table(config=config, adapted=long, metrics=dict(zip(long, METRICS.values())))
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 80


def test_row_has_the_budget_of_all_rounds():
    text = table()
    assert cell(text, "fedavg", "examples") == "220"
    assert cell(text, "fedavg", "gradients") == "11"
    assert cell(text, "fedavg", "seconds") == "4"


def test_row_has_the_bytes_of_a_client_and_of_all_of_them():
    few = dataclasses.replace(CONFIG, clients_per_round=3)
    assert cell(table(config=few), "fedavg", "MB down / up") == "4.8 / 1.2"
    assert cell(table(config=few), "fedavg", "MB in all") == "36"  # 6 MB, 3 clients, 2 rounds
    many = dataclasses.replace(CONFIG, clients_per_round=300)
    assert cell(table(config=many), "fedavg", "MB in all") == "3,600"


def test_the_text_says_how_updates_were_aggregated():
    assert "aggregated by **mean**." in table()
    trimmed = dataclasses.replace(CONFIG, aggregator="trimmed_mean")
    assert "aggregated by **trimmed_mean** (trim_fraction 0.3)." in table(config=trimmed)


def test_an_algorithm_without_training_has_no_budget():
    text = table(metrics={"fedavg": METRICS["fedavg"]})
    with pytest.raises(ValueError, match="unpack"):
        cell(text, "reptile", "gradients")
    assert cell(text, "reptile", "global") == "60.0"


def test_learnt_rates_and_counted_work_are_shown():
    work = METRICS["reptile"].assign(**{"work/examples": 7, "work/gradient_evaluations": 1000})
    learnt = {
        **RESULTS,
        "reptile": {**RESULTS["reptile"], "chosen": {"inner_learning_rate": None, "steps": 1}},
    }
    changes = {"metrics": {**METRICS, "reptile": work}, "adapted": learnt}
    text = table(**changes)
    assert cell(text, "reptile", "adaptation") == "1 at learnt"
    assert cell(text, "reptile", "examples") == "21"
    assert cell(text, "reptile", "gradients") == "3,000"
    figure = plots.plot(gather(**changes))
    assert figure.axes[2].lines[0].get_label() == "reptile: 1 steps at learnt rates"


def with_reptile(**changes):
    values = {"server_schedule": "constant", "client_weighting": "examples", **changes}
    fedavg = CONFIG.hyperparameters["fedavg"]
    return dataclasses.replace(
        CONFIG, hyperparameters={"reptile": {**fedavg, **values}, "fedavg": fedavg}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "reptile and fedavg coincide"),
        ({"server_schedule": "linear"}, "falls linearly to 0"),
        ({"client_weighting": "uniform"}, "weighs clients equally"),
        ({"server_learning_rate": 0.3}, "its server_learning_rate is 0.3 instead of 1"),
        ({"inner_learning_rate": 0.3}, "its inner_learning_rate is 0.3 instead of"),
        ({"server_optimizer": "adam"}, "its server_optimizer is adam instead of sgd"),
    ],
)
def test_table_says_where_reptile_and_fedavg_are_the_same(changes, said):
    assert said in table(config=with_reptile(**changes))


def test_equal_steps_do_not_make_the_two_the_same():
    # TFF weighs by the examples of the steps, which are alike for clients of unlike size.
    config = dataclasses.replace(with_reptile(), inner_epochs=None, inner_steps=5)
    assert "not by the examples of their steps" in table(config=config)


def test_data_source_is_in_table_and_title():
    assert "**embedded (synthetic" in table()
    figure = plots.plot(gather())
    assert "data source: embedded" in figure.get_suptitle()


def test_embedded_data_that_stand_in_for_nothing_are_just_named():
    task = types.SimpleNamespace(**{**vars(TASK), "has_real_data": False})
    assert "Data source: **embedded**." in table(task=task)


@pytest.mark.parametrize(
    ("higher_is_better", "heading", "side"),
    [
        (True, "never trained on\n", "above"),
        (False, "never trained on (lower is better)\n", "below"),
    ],
)
def test_table_and_plot_say_which_way_is_better(higher_is_better, heading, side):
    task = types.SimpleNamespace(**{**vars(TASK), "higher_is_better": higher_is_better})
    assert heading in table(task=task)
    figure = plots.plot(gather(task=task))
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
    figure = plots.plot(gather())
    rounds, work, steps, clients, pairs = figure.axes[:5]
    adapted, before = rounds.lines[:2]
    assert adapted.get_label() == "reptile"
    np.testing.assert_allclose(adapted.get_xydata(), [[0, 0.2], [2, 0.7]])
    np.testing.assert_allclose(before.get_xydata(), [[0, 0.1], [2, 0.6]])
    np.testing.assert_allclose(work.lines[3].get_xydata(), [[0, 0.1], [11, 0.5]])
    np.testing.assert_allclose(steps.lines[0].get_ydata(), [0.6, 0.65, 0.8])
    np.testing.assert_allclose(clients.collections[1].get_offsets(), [[0.5, 0.4], [0.7, 0.8]])
    (points,) = [c for c in pairs.collections if len(c.get_offsets()) == 2]
    np.testing.assert_allclose(points.get_offsets()[:, 0], [30, 10])
    assert pairs.lines[0].get_xdata()[0] == pytest.approx(20)  # the mean
    (interval,) = [c for c in pairs.collections if hasattr(c, "get_segments")]
    np.testing.assert_allclose(interval.get_segments()[0][:, 0], [10, 30])


def test_without_a_baseline_the_plot_shows_what_adapting_adds():
    config = dataclasses.replace(
        CONFIG,
        algorithms=("reptile",),
        hyperparameters={"reptile": CONFIG.hyperparameters["reptile"]},
    )
    found = gather(
        config=config,
        metrics={"reptile": METRICS["reptile"]},
        adapted={"reptile": RESULTS["reptile"]},
    )
    pairs = plots.plot(found).axes[4]
    assert "gain by adapting" in pairs.get_xlabel()
    assert pairs.lines[0].get_xdata()[0] == pytest.approx(20)
    assert "versus" not in report.table(found)


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
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found == gather(config=config).comparison
    assert set(found) == {
        *("metric", "baseline", "algorithms", "num_clients", "repetitions", "data_source")
    }
    assert found["algorithms"]["reptile"]["versus_baseline"]["wins"] == 2


def test_repetitions_are_averaged_and_drawn_one_by_one(tmp_path):
    found = results.gather(
        CONFIG,
        TASK,
        {name: [frame, frame.assign(seconds=10.0)] for name, frame in METRICS.items()},
        {"reptile": [RESULTS["reptile"]] * 2, "fedavg": [RESULTS["fedavg"], RESULTS["reptile"]]},
    )
    text = report.table(found)
    assert cell(text, "reptile", "versus") == "+10.0"
    assert "by repetition: +20.0, +0.0" in text
    assert cell(text, "reptile", "seconds") == "17"  # (4 + 30) / 2
    assert len(plots.plot(found).axes[0].lines) == 2 * 2 * 2 + 2


def test_every_algorithm_there_is_fits_into_one_figure_in_a_colour_of_its_own(tmp_path):
    names = tuple(hyperparameter_kinds())
    config = ExperimentConfig.from_defaults(
        "emnist",
        datasets.DATASETS["emnist"].defaults,
        {"algorithms": names},
        {},
        hyperparameter_kinds(),
    )
    every_metric = {name: metrics(0.6) for name in names}
    every_result = {name: RESULTS["reptile"] for name in names}
    figure = plots.plot(gather(config, TASK, every_metric, every_result))
    figure.savefig(tmp_path / "figure.png")  # warns, which is an error, if the layout collapses
    colours = {str(line.get_color()) for line in figure.axes[0].lines if line.get_label() in names}
    assert len(names) > 10 and len(colours) == len(names)


def with_sizes(run, *, at_5, others):
    clients = [{"client_id": name, "after": after} for name, after in zip("ef", at_5)]
    elsewhere = [{"client_id": n, "before": 0.5, "after": after} for n, after in zip("ef", others)]
    sizes = [
        {"size": 5, "chosen": None, "clients": clients},
        {"size": 10, "chosen": None, "clients": clients[:1]},
    ]
    return {**run, "support_sizes": sizes, "others": elsewhere}


def test_few_examples_and_other_clients_have_tables_and_a_panel():
    found = gather(
        adapted={
            "reptile": with_sizes(RESULTS["reptile"], at_5=(0.6, 0.8), others=(0.3, 0.5)),
            "fedavg": with_sizes(RESULTS["fedavg"], at_5=(0.4, 0.5), others=(0.5, 0.5)),
        }
    )
    text = report.table(found)
    assert cell(text, "reptile", "5") == "70.0 ± 10.0" and cell(text, "fedavg", "10") == "40.0"
    assert "there were 2 with 5, 1 with 10." in text
    assert cell(text, "reptile", "global on others") == "50.0"
    assert cell(text, "reptile", "change") == "-10.0 ± 10.0"
    panel = plots.plot(found).axes[5]
    assert "few examples" in panel.get_title()
    np.testing.assert_allclose(panel.lines[0].get_xydata(), [[5, 70], [10, 60]])
    assert "Adapted on few examples" not in table() and "On other clients" not in table()


def test_who_chose_is_said_where_not_all_did():
    many = tuple(f"v{i}" for i in range(120))
    task = types.SimpleNamespace(**{**vars(TASK), "validation_clients": many})
    assert "chosen on 100 of the 120 validation clients, drawn by a fixed seed" in table(task=task)
    every = dataclasses.replace(CONFIG, num_validation_clients=0)
    assert "chosen on validation clients, the same way" in table(task=task, config=every)
    some = protocols.choosing_clients(CONFIG, task)
    assert len(set(some)) == 100 and list(some) == sorted(some, key=many.index) != list(many[:100])
    assert some == protocols.choosing_clients(dataclasses.replace(CONFIG, seed=5), task)
    assert protocols.choosing_clients(every, task) == many


def test_a_client_alone_has_a_row_but_no_budget_and_a_line_in_the_plot():
    names = ("local", "fedavg")
    config = ExperimentConfig.from_defaults(
        "emnist",
        datasets.DATASETS["emnist"].defaults,
        {"algorithms": names},
        {},
        hyperparameter_kinds(),
    )
    alone = adapted((0.1, None, 0.3), (0.1, None, 0.5))
    found = gather(
        config, TASK, {"fedavg": METRICS["fedavg"]}, {"local": alone, "fedavg": RESULTS["fedavg"]}
    )
    text = report.table(found)
    assert cell(text, "local", "adapted").startswith("40.0") and "*local*: a client alone" in text
    assert "up to 200 steps" in text
    (line, *_) = plots.plot(found).axes[2].lines
    assert line.get_label() == "alone, local: 2 steps at 0.02"
    assert list(line.get_ydata()) == pytest.approx([0.4, 0.4])
