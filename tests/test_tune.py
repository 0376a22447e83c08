"""searches.tune on the embedded homes: few trials, continued, reproduced; test clients unread."""

import json

import optuna
import pandas as pd
import pytest

import datasets
import run_experiment
from searches import space, study_files, tune
from tff_fedmeta.algorithms import registry
from tff_fedmeta.command_line import experiment_flags, flags

HOMES = [
    "--dataset=csv",
    "--data_source=embedded",
    "--rounds=4",
    "--rounds_per_evaluation=2",
    "--clients_per_round=3",
    "--adaptation_steps=5",
    "--adaptation_learning_rates=0.05",
    "--algorithms=reptile",
    "--hparam=reptile.client_weighting=uniform",
]


def search(directory, *more):
    return tune.main(["tune", *HOMES, f"--output_dir={directory}", *more])


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The directory of a search that was killed in its second trial, and who was read."""
    directory = tmp_path_factory.mktemp("tune") / "search"
    read, tasks, load = set(), [], datasets.load

    def load_and_listen(*arguments):
        task = load(*arguments)
        tasks.append(task)

        def read_client(client):
            read.add(client)
            return task.read_client(client)

        return datasets.task.dataclasses.replace(task, read_client=read_client)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", load_and_listen)
        assert search(directory, "--trials=1") == 0
        # A process that is killed leaves a trial under way.
        storage = f"sqlite:///{directory / study_files.STORAGE}"
        study = optuna.load_study(study_name="reptile", storage=storage)
        space.suggest(
            study.ask(fixed_distributions=None),
            {"inner_learning_rate": (0.01, 1.0), "server_learning_rate": (0.3, 3.0)},
        )
        assert search(directory, "--trials=3") == 0
    return directory, read, tasks[0]


def trials_of(directory):
    storage = f"sqlite:///{directory / study_files.STORAGE}"
    return optuna.load_study(study_name="reptile", storage=storage).trials


def test_the_first_trial_is_the_default_and_none_is_better_than_the_best(searched):
    directory, _, _ = searched
    first, *rest = trials_of(directory)
    default = registry.REGISTRY["reptile"].hyperparameters(inner_learning_rate=0.1)
    assert set(first.params) == {"inner_learning_rate", "server_learning_rate", "server_schedule"}
    assert first.params == {name: getattr(default, name) for name in first.params}
    assert len({tuple(trial.params.values()) for trial in rest}) > 1
    table = (directory / "search.md").read_text()
    values = [t.value for t in (first, *rest) if t.state.name == "COMPLETE"]
    assert f"{max(values):.4f}" in table and f"{first.value:.4f}" in table


def test_a_trial_that_was_under_way_is_redone_with_its_settings(searched):
    directory, _, _ = searched
    states = [trial.state.name for trial in trials_of(directory)]
    assert states.count("FAIL") == 1 and len(states) == 4
    killed, redone = trials_of(directory)[1:3]
    assert killed.state.name == "FAIL" and redone.params.items() >= killed.params.items()
    rows = pd.read_csv(directory / "trials.csv")
    assert rows["state"].tolist() == states and set(rows["algorithm"]) == {"reptile"}


def test_test_clients_are_never_read(searched):
    _, read, task = searched
    assert read & set(task.validation_clients) and not read & set(task.test_clients)


def test_the_flag_file_runs_the_best_trial_again(searched, tmp_path):
    directory, _, _ = searched
    flag_file = directory / "reptile.flags"
    assert "--hparam=reptile.client_weighting=uniform" in flag_file.read_text().splitlines()
    arguments = ["x", f"--flagfile={flag_file}", f"--output_dir={tmp_path / 'run'}"]
    assert run_experiment.main(arguments) == 0
    result = json.loads((tmp_path / "run" / "reptile" / "adaptation_test.json").read_text())
    complete = [t for t in trials_of(directory) if t.state.name == "COMPLETE"]
    best = max(complete, key=lambda trial: trial.value)
    assert result["validation"]["mean"] == best.value
    assert result["chosen"] == best.user_attrs["adaptation"]


def test_plots_are_there(searched):
    directory, _, _ = searched
    for kind in ("history", "importances"):
        file = directory / f"reptile_{kind}.png"
        said = f"There is no plot of {kind}" in (directory / "search.md").read_text()
        assert said != (file.exists() and file.read_bytes().startswith(b"\x89PNG"))
    assert (directory / "reptile_history.png").exists()


def test_another_search_in_its_place_is_refused(searched, capsys):
    directory, _, _ = searched
    assert search(directory, "--rounds=5") == 2
    assert "holds another search: rounds 5 here, 4 there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trials=0"], "--trials must be >= 1"),
        (["--algorithms=local", "--hparam="], "is written ALGORITHM.NAME=VALUE"),
        (["--repetitions=2"], "A search has one seed"),
        (["--roundz=2"], "Did you mean --rounds?"),
        (["--flagfile=nowhere.flags"], "--flagfile cannot be read"),
    ],
)
def test_a_mistake_gets_one_sentence(more, said, capsys, tmp_path):
    assert search(tmp_path / "search", *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "search").exists()


def test_what_trains_nothing_cannot_be_searched(capsys):
    assert tune.main(["tune", "--dataset=csv", "--algorithms=local,fedavg"]) == 2
    assert "local trains nothing" in capsys.readouterr().err


def test_ranges_hold_the_settings_of_a_run_and_leave_out_what_flags_set():
    kind = registry.REGISTRY["maml"].hyperparameters
    settings = {**vars(kind()), "server_learning_rate": 0.5, "server_optimizer": "sgd"}
    found = space.of(kind, settings, fixed={"inner_learning_rate"})
    assert found["server_learning_rate"] == pytest.approx((0.0001, 0.5))
    assert found["server_optimizer"] == ("adam", "yogi", "sgd")
    assert "inner_learning_rate" not in found and "split" not in found
    assert "server_learning_rate" not in space.of(kind, {**settings, "server_learning_rate": 0.0})
    assert found["support_fraction"] == (0.2, 0.8)
    values = {**dict.fromkeys(space.OF_ALL), "inner_clip_norm": 1.0}
    values["hparam"] = ["maml.support_fraction=0.2", "fedavg.server_schedule=linear"]
    assert space.said(values, "maml") == {"inner_clip_norm", "support_fraction"}


@pytest.mark.parametrize("name", [name for name in registry.REGISTRY if registry.trains(name)])
def test_every_algorithm_has_a_space_of_values_that_it_allows(name):
    kind = registry.REGISTRY[name].hyperparameters
    found = space.of(kind, vars(kind()))
    assert "server_learning_rate" in found and "server_schedule" in found
    for pick in (0, -1):
        kind(**{key: tried[pick] for key, tried in found.items()})  # which checks itself


def test_flags_come_back_as_they_were_given():
    groups = experiment_flags.groups(datasets.DATASETS)
    given = ["--rounds=7", "--hparam=maml.split=ordered", "--support_sizes=5,10", "--plugin=a.py"]
    argv = ["x", *given, "--output_dir=here", "--algorithms=maml", "--noresume"]
    found = study_files.as_flags(groups, flags.parse(groups, argv))
    assert sorted(found) == sorted(given)
