"""What a run on each data set starts from: every value that a default resolves to, written down."""

import dataclasses
import json
from pathlib import Path

import pytest

import datasets
from tff_fedmeta.algorithms.registry import hyperparameter_kinds
from tff_fedmeta.config import ExperimentConfig

# name and some options -> those options, and the configuration they resolve to. After an intended
# change of a default, change the value here too.
EXPECTED = json.loads((Path(__file__).parent / "resolved_defaults.json").read_text())


@pytest.mark.parametrize("case", EXPECTED)
def test_configuration_resolves_to_what_is_written_down(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("c,l,t,f\n" + "a,0,1,0.5\nb,1,2,0.25\n" * 4)
    expected = dict(EXPECTED[case])
    data_set = datasets.DATASETS[case.split()[0]]
    options = data_set.make_options(expected.pop("given"))
    defaults = data_set.defaults_for(options)
    assert list(defaults["algorithms"]) == expected.pop("algorithms")
    config = ExperimentConfig.from_defaults(
        data_set.name,
        defaults,
        {
            "algorithms": tuple(expected["hyperparameters"]),
            "task_options": dataclasses.asdict(options),
        },
        {},
        hyperparameter_kinds(),
    )
    found = json.loads(json.dumps(dataclasses.asdict(config)))
    for name, values in expected.pop("hyperparameters").items():
        assert found["hyperparameters"][name].items() >= values.items(), name
    # Options that came later have None, "not said", in what is written down.
    assert found["task_options"].items() >= expected.pop("task_options").items()
    for name, value in expected.items():
        assert found[name] == value, name


def test_every_data_set_is_written_down():
    assert {case.split()[0] for case in EXPECTED} == set(datasets.DATASETS)


def test_what_is_preferred_for_an_algorithm_goes_before_how_clients_split():
    defaults = {
        **datasets.DATASETS["movielens"].defaults,
        "training_support_fraction": 0.3,
        "hyperparameters": {"maml": {"split": "random", "support_fraction": 0.4}},
    }
    values = {"algorithms": ("maml", "anil", "reptile")}
    config = ExperimentConfig.from_defaults(
        "movielens", defaults, values, {"anil": {"split": "same"}}, hyperparameter_kinds()
    )
    maml, anil, reptile = (config.hyperparameters[name] for name in values["algorithms"])
    assert (maml["split"], maml["support_fraction"]) == ("random", 0.4)
    assert (anil["split"], anil["support_fraction"]) == ("same", 0.3)  # what the user said is first
    assert "split" not in reptile
