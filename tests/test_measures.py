"""A task's own measures: who is measured how, the means, and the table."""

import json

import numpy as np
import pytest
from conftest import cell

from tff_fedmeta.experiment import report, task_measures
from tff_fedmeta.experiment.adapted_client import AdaptedClient

FIGURES = [
    {"before": {"a": 1.0, "b": 4.0}, "after": {"a": 2.0, "b": 6.0}, "guess": {"b": 0.5}},
    {"before": {"a": 2.0}, "after": {"a": 5.0}, "guess": {}},
]
SUMMARY = {
    "before": {"a": {"mean": 1.5, "clients": 2}, "b": {"mean": 4.0, "clients": 1}},
    "after": {"a": {"mean": 3.5, "clients": 2}, "b": {"mean": 6.0, "clients": 1}},
    "guess": {"b": {"mean": 0.5, "clients": 1}},
}


def test_means_are_over_the_clients_that_have_a_figure():
    assert task_measures.summarize(FIGURES) == SUMMARY


def test_every_client_is_measured_on_its_own_sides_with_a_seed_of_its_own():
    calls = []

    def of_client(*arguments):
        calls.append(arguments)
        return FIGURES["cd".index(arguments[0][0])]

    def build_adapter():
        return lambda name: AdaptedClient(f"{name} support", f"{name} query", 1, 2)

    def measure(seed):
        found = task_measures.measure(of_client, ["c", "d"], build_adapter, seed)
        calls[-2:] = sorted(calls[-2:])  # threads come in any order
        return found

    found = measure(seed=0)
    assert found["clients"] == [
        {"client_id": "c", "figures": FIGURES[0]},
        {"client_id": "d", "figures": FIGURES[1]},
    ]
    assert found["summary"] == SUMMARY and json.loads(json.dumps(found)) == found
    assert [call[:4] for call in calls] == [
        ("c support", "c query", 1, 2),
        ("d support", "d query", 1, 2),
    ]
    measure(seed=0)
    measure(seed=1)
    seeds = np.array([call[4] for call in calls]).reshape(3, 2)
    assert seeds[0].tolist() == seeds[1].tolist()  # another algorithm draws the same
    assert len(set(seeds.ravel())) == 4 and seeds.min() >= 0


def test_table_has_two_rows_for_each_algorithm_and_one_for_what_they_share():
    other = {**SUMMARY, "after": {"a": {"mean": 0.25, "clients": 2}}, "guess": {}}
    text = report.measures_table({"reptile": SUMMARY, "fedavg": other}, "*a*: a letter.")
    a, b = "a (2 clients)", "b (1 clients)"
    assert (cell(text, "reptile, before", a), cell(text, "reptile, before", b)) == (
        "1.5000",
        "4.0000",
    )
    assert cell(text, "reptile, after", b) == "6.0000"
    assert (cell(text, "fedavg, after", a), cell(text, "fedavg, after", b)) == ("0.2500", "")
    assert (cell(text, "guess", a), cell(text, "guess", b)) == ("", "0.5000")
    assert text.endswith("*a*: a letter.\n")


@pytest.mark.parametrize("nothing", [[], [{}]])
def test_no_figures_are_no_summary(nothing):
    assert task_measures.summarize(nothing) == {}
