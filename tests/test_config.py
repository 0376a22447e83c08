import dataclasses
import json

import pytest

from tff_fedmeta.algorithms.registry import hyperparameter_kinds
from tff_fedmeta.config import ExperimentConfig

DEFAULTS = dict(
    algorithms=("reptile", "fedavg"),
    hyperparameters={"reptile": {"inner_learning_rate": 0.03}},
    rounds=10,
    clients_per_round=5,
    batch_size=20,
    inner_epochs=2,
    support_fraction=0.5,
    adaptation_steps=3,
    adaptation_learning_rates=(0.01, 0.1),
    rounds_per_evaluation=5,
    rounds_per_checkpoint=5,
)


def make_config(hparams=None, **values):
    return ExperimentConfig.from_defaults(
        "emnist", DEFAULTS, values, hparams or {}, hyperparameter_kinds()
    )


CONFIG = make_config()
OTHER_VALUES = dict(
    dataset="stackoverflow",
    data_source="embedded",
    task_options={"only_digits": True},
    algorithms=("fedavg", "reptile"),
    hyperparameters={**CONFIG.hyperparameters, "fedavg": {"inner_learning_rate": 0.2}},
    rounds=11,
    clients_per_round=6,
    batch_size=21,
    inner_epochs=3,
    inner_steps=4,
    seed=1,
    support_fraction=0.6,
    adaptation_steps=0,
    adaptation_batch_size=22,
    adaptation_learning_rates=(0.01,),
    adaptation_proximal_strengths=(0.0, 0.1),
    num_test_clients=7,
    rounds_per_evaluation=6,
    rounds_per_checkpoint=6,
    client_dropout=0.1,
    straggler_fraction=0.2,
    availability=0.9,
    byzantine_fraction=0.3,
    attack="noise",
    attack_scale=2.0,
    aggregator="robust",
    aggregator_options={"trim_fraction": 0.1},
    runtime="worker",
    adaptation="all",
    baseline="reptile",
    support_sizes=(5, 10),
    resplit=True,
    forgetting_clients=3,
    num_validation_clients=7,
    repetitions=2,
    patience=4,
    folds=3,
    fold=1,
    plugins={"mine.py": "0123"},
    model="4567",
    initial_model="89ab",
)


def test_the_user_is_over_the_defaults():
    said = make_config(
        {"reptile": {"server_schedule": "cooldown"}},
        rounds=7,
        batch_size=None,
        algorithms=("reptile",),
    )
    assert (said.rounds, said.batch_size, said.seed) == (7, 20, 0)
    assert said.adaptation_batch_size == 20
    assert make_config(adaptation_batch_size=5).adaptation_batch_size == 5
    assert list(said.hyperparameters) == ["reptile"]
    assert said.hyperparameters["reptile"]["inner_learning_rate"] == 0.03
    assert said.hyperparameters["reptile"]["server_schedule"] == "cooldown"


@pytest.mark.parametrize(
    "said, budget",
    [
        ({}, {"inner_epochs": 2}),
        ({"inner_epochs": 4}, {"inner_epochs": 4}),
        ({"inner_steps": 4}, {"inner_steps": 4}),
    ],
)
def test_one_way_to_say_how_long_clients_train_replaces_the_other(said, budget):
    assert make_config(**said).local_budget == budget


@pytest.mark.parametrize("inner_epochs, inner_steps", [(1, 1), (None, None)])
def test_exactly_one_of_epochs_and_steps_is_needed(inner_epochs, inner_steps):
    with pytest.raises(ValueError, match="one of inner_epochs and inner_steps"):
        dataclasses.replace(CONFIG, inner_epochs=inner_epochs, inner_steps=inner_steps)


def test_json_gives_back_the_same_configuration():
    read = ExperimentConfig.from_json(CONFIG.to_json())
    assert read == CONFIG
    assert read.hash == CONFIG.hash == json.loads(CONFIG.to_json())["config_hash"]
    assert type(read.algorithms) is type(read.adaptation_learning_rates) is tuple


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ExperimentConfig)])
def test_every_field_changes_the_hash_and_shows_as_a_difference(name):
    values = {name: OTHER_VALUES[name]}
    if name == "inner_steps":
        values["inner_epochs"] = None
    # Some mean nothing without another one, and are refused.
    needs = {
        "aggregator_options": dict(aggregator="trimmed_mean"),
        "attack": dict(byzantine_fraction=0.1),
        "attack_scale": dict(byzantine_fraction=0.1),
    }
    base = dataclasses.replace(CONFIG, **needs.get(name, {}))
    other = dataclasses.replace(base, **values)
    assert other.hash != base.hash
    assert {part.split()[0] for part in base.differences(other).split("; ")} == set(values)


def test_options_of_the_aggregator_have_defaults_which_are_written():
    trimmed = make_config(aggregator="trimmed_mean")
    assert trimmed.aggregator_options == {"trim_fraction": 0.3}
    assert trimmed == dataclasses.replace(trimmed, aggregator_options={"trim_fraction": 0.3})
    assert CONFIG.aggregator_options == {}


def test_differences_are_told_with_both_values():
    other = dataclasses.replace(CONFIG, rounds=20, seed=3)
    assert CONFIG.differences(other) == "rounds 10 here, 20 there; seed 0 here, 3 there"
    assert CONFIG.differences(make_config()) == ""


@pytest.mark.parametrize("name", ["rounds", "config_hash", "dataset"])
def test_text_changed_by_hand_is_refused(name):
    values = json.loads(CONFIG.to_json())
    values[name] = 11 if name == "rounds" else "0" * 12
    with pytest.raises(ValueError, match="changed by hand"):
        ExperimentConfig.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"config_hash": "", "algorithms": []}'])
def test_text_that_is_no_configuration_is_refused(text):
    with pytest.raises(ValueError):
        ExperimentConfig.from_json(text)


def test_a_missing_or_an_unknown_field_is_refused():
    values = json.loads(CONFIG.to_json())
    for wrong in ({**values, "momentum": 1}, {k: v for k, v in values.items() if k != "rounds"}):
        with pytest.raises(ValueError, match="not an experiment's configuration"):
            ExperimentConfig.from_json(json.dumps(wrong))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rounds": 0}, "rounds must be from 1 to [0-9]+, but is 0"),
        ({"clients_per_round": 0}, "clients_per_round must be from 1 to"),
        ({"batch_size": 0}, "batch_size must be from 1 to"),
        ({"adaptation_batch_size": 0}, "adaptation_batch_size must be from 1 to"),
        ({"inner_epochs": 0}, "inner_epochs must be from 1 to"),
        ({"inner_steps": 0}, "inner_steps must be from 1 to"),
        ({"num_test_clients": 0}, "num_test_clients must be from 1 to"),
        ({"seed": -1}, "seed must be from 0 to 2147483647"),
        ({"seed": 2**31}, "seed must be from 0 to 2147483647"),
        ({"adaptation_steps": -1}, "adaptation_steps must be from 0 to"),
        ({"rounds_per_evaluation": 0}, "rounds_per_evaluation must be from 1 to"),
        ({"rounds_per_checkpoint": 0}, "rounds_per_checkpoint must be from 1 to"),
        ({"support_fraction": 0.0}, "support_fraction must lie between 0 and 1"),
        ({"support_fraction": 1.0}, "support_fraction must lie between 0 and 1"),
        ({"adaptation_learning_rates": ()}, "one or more different numbers"),
        ({"adaptation_learning_rates": (0.1, 0.0)}, "must be greater than 0, but is 0.0"),
        ({"adaptation_learning_rates": (float("inf"),)}, "must be a finite number"),
        ({"algorithms": ()}, "one or more different names"),
        ({"algorithms": ("reptile", "reptile")}, "one or more different names"),
        ({"algorithms": ("reptil",)}, "algorithm must be .*Did you mean 'reptile'?"),
        ({"aggregator": "mode"}, "aggregator must be one of"),
        (
            {"aggregator_options": {"trim_fraction": 0.1}},
            "trim_fraction is for the aggregator trimmed_mean, not for mean",
        ),
        ({"aggregator": "secure", "clients_per_round": 2049}, "must be from 1 to 2048"),
        ({"aggregator": "secure", "runtime": "worker"}, "which TFF's worker cannot compute"),
        ({"aggregator_options": {"trim": 1}}, "No aggregator has an option 'trim'"),
        (
            {"aggregator": "trimmed_mean", "aggregator_options": {"trim_fraction": 0.5}},
            "trim_fraction must be less than 0.5",
        ),
        ({"baseline": "maml"}, "baseline must be one of: reptile, fedavg; got 'maml'"),
        ({"repetitions": 0}, "repetitions must be from 1 to 100"),
        ({"runtime": "remote_cluster"}, "runtime must be one of"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        make_config(**values)


def test_hyperparameters_of_an_algorithm_not_selected_are_refused():
    with pytest.raises(ValueError, match="algorithm of a --hparam must be one of: fedavg;"):
        make_config({"reptile": {"inner_learning_rate": "1"}}, algorithms=("fedavg",))
    with pytest.raises(ValueError, match=r"for \['fedavg', 'reptile'\], but the .* \['fedavg'\]"):
        dataclasses.replace(CONFIG, algorithms=("fedavg",))
