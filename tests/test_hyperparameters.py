import dataclasses

import numpy as np
import pytest

from tff_fedmeta import checks
from tff_fedmeta.algorithms.registry import hyperparameter_kinds
from tff_fedmeta.config import hyperparameters


def resolve(algorithm, defaults, said):
    kind = hyperparameter_kinds()[algorithm]
    return hyperparameters.resolve(algorithm, kind, defaults, said)


def test_the_user_is_over_the_task_and_the_task_over_the_algorithm():
    resolved = resolve(
        "reptile",
        {"inner_learning_rate": 0.2, "server_learning_rate": 0.3},
        {"server_learning_rate": 0.4},
    )
    assert resolved == hyperparameters.Reptile(inner_learning_rate=0.2, server_learning_rate=0.4)
    assert resolved.client_weighting == hyperparameters.Reptile().client_weighting


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("inner_learning_rate", "0.05", 0.05),
        ("inner_learning_rate", "1e-3", 0.001),
        ("inner_learning_rate", "0", 0.0),
        ("server_learning_rate", 2, 2.0),
        ("server_schedule", "cooldown", "cooldown"),
        ("client_weighting", "examples", "examples"),
    ],
)
def test_values_are_parsed_as_their_type(name, text, value):
    parsed = getattr(resolve("reptile", {}, {name: text}), name)
    assert parsed == value and type(parsed) is type(value)


def test_truth_is_said_in_words():
    assert resolve("anil", {}, {"first_order": "True"}).first_order is True
    assert resolve("anil", {}, {"first_order": "false"}).first_order is False
    with pytest.raises(ValueError, match=r"anil\.first_order must be true or false.*'maybe'"):
        resolve("anil", {}, {"first_order": "maybe"})


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("inner_learning_rate", "fast", "reptile.inner_learning_rate must be a number.*'fast'"),
        ("inner_learning_rate", "-0.1", "inner_learning_rate must be from 0 to 1e.06, but is -0.1"),
        ("inner_learning_rate", "nan", "inner_learning_rate must be a finite number, but is nan"),
        ("server_learning_rate", "inf", "server_learning_rate must be a finite number, but is inf"),
        ("server_schedule", "linar", "constant, linear, cooldown; .* Did you mean 'linear'?"),
        ("server_decay", "true", "of reptile must be one of: .*; got 'server_decay'"),
        ("client_weighting", "example", "examples, uniform; .* Did you mean 'examples'?"),
        ("iner_learning_rate", "1", "of reptile must be .* Did you mean 'inner_learning_rate'?"),
        ("q", "1", "of reptile must be one of: server_optimizer, .*; got 'q'.$"),
    ],
)
def test_what_cannot_be_is_explained(name, value, message):
    with pytest.raises(ValueError, match=message):
        resolve("reptile", {}, {name: value})


@pytest.mark.parametrize(
    "algorithm, name",
    [
        ("fedsgd", "inner_learning_rate"),
        ("fedavg", "support_fraction"),
        ("reptile", "head_layers"),
        ("maml", "head_layers"),
        ("fomaml", "first_order"),
        ("meta_sgd", "first_order"),
        ("anil", "local_meta_steps"),
        ("per_fedavg", "proximal_strength"),
    ],
)
def test_a_hyperparameter_that_an_algorithm_does_not_have_is_refused(algorithm, name):
    with pytest.raises(ValueError, match=f"hyperparameter of {algorithm} must be .*'{name}'"):
        resolve(algorithm, {}, {name: "1"})


@pytest.mark.parametrize("kind", dict.fromkeys(hyperparameter_kinds().values()))
def test_no_algorithm_takes_a_negative_rate(kind):
    rates = [f.name for f in dataclasses.fields(kind) if f.name.endswith(("_rate", "_strength"))]
    assert rates
    for rate in rates:
        with pytest.raises(
            ValueError, match=f"{rate} must be (from 0 to 1e.06|greater than 0), but is -1"
        ):
            kind(**{rate: -1})


@pytest.mark.parametrize(
    "algorithm, name, value, message",
    [
        ("maml", "server_optimizer", "adamm", "sgd, adam, yogi; .* Did you mean 'adam'?"),
        ("maml", "support_fraction", "1", "must lie between 0 and 1.*but is 1.0"),
        ("anil", "split", "half", "split must be one of: random, ordered, same; got 'half'"),
        ("anil", "head_layers", "0", "head_layers must be from 1 to 1000, but is 0"),
        ("anil", "head_layers", "1.5", "anil.head_layers must be a whole number.*'1.5'"),
        (
            "per_fedavg",
            "local_meta_steps",
            "0",
            "local_meta_steps must be from 1 to 10000, but is 0",
        ),
        ("per_fedavg", "first_order", "2", "per_fedavg.first_order must be true or false"),
    ],
)
def test_what_the_family_cannot_use_is_explained(algorithm, name, value, message):
    with pytest.raises(ValueError, match=message):
        resolve(algorithm, {}, {name: value})


@pytest.mark.parametrize("value", [1.0, "1", True, None])
def test_a_count_that_is_no_whole_number_is_named(value):
    with pytest.raises(ValueError, match=f"rounds must be a whole number, but is {value!r}"):
        checks.check_count("rounds", value, 0)


def test_numbers_of_numpy_are_numbers():
    checks.check_count("rounds", np.int64(1), 1)
    checks.check_number("rate", np.float32(0.5), 0)
    checks.check_split(np.float32(0.5))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan"), True, "0.5"])
def test_a_support_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="support_fraction must lie between 0 and 1"):
        checks.check_split(fraction)


@pytest.mark.parametrize(
    "low, high, value, message",
    [
        (1, float("inf"), 0, "rounds must be >= 1, but is 0"),
        (0, 3, 4, "rounds must be from 0 to 3, but is 4"),
        (0, 3, "2", "rounds must be a finite number, but is '2'"),
        (0, 3, True, "rounds must be a finite number, but is True"),
        (0, float("inf"), float("inf"), "rounds must be a finite number, but is inf"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(low, high, value, message):
    with pytest.raises(ValueError, match=message):
        checks.check_number("rounds", value, low, high)
