"""How strongly adaptation is held to the trained weights, chosen on validation clients (Ditto)."""

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow_federated as tff
from conftest import make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.config.protocol import AdaptationProtocol
from tff_fedmeta.experiment import evaluation, summary
from tff_fedmeta.experiment.scope import Scope

PROTOCOL = AdaptationProtocol(
    steps=4,
    split="ordered",
    batch_size=50,
    learning_rates=(0.5,),
    proximal_strengths=(0.0, 0.2, 0.5),
)


def trained_weights():
    """Weights that were trained on other clients, and that a few examples can spoil."""
    random = np.random.default_rng(1)
    weights = [random.normal(size=shape) for shape in ((6, 8), (8,), (8, 3), (3,))]
    for number in range(300):
        gradients = reference.gradient(weights, *make_client(60, 1000 + number))
        weights = [w - 0.3 * g for w, g in zip(weights, gradients)]
    return [w.astype(np.float32) for w in weights]


def held_losses(trained, client, strength):
    """The query loss before and after each step on all of support, in float64."""
    x, y = client
    half = (len(y) + 1) // 2
    start = now = [np.asarray(w, np.float64) for w in trained]
    losses = []
    for _ in range(5):
        losses.append(reference.loss(now, x[half:], y[half:]))
        gradients = reference.gradient(now, x[:half], y[:half])
        now = [w - 0.5 * (g + strength * (w - s)) for w, g, s in zip(now, gradients, start)]
    return losses


@pytest.mark.usefixtures("tff_runtime")
def test_validation_clients_choose_the_pull_beside_the_steps():
    trained = trained_weights()
    validation = {f"v{n}": make_client(n, 100 + n) for n in (6, 7, 8)}
    test = {"t": make_client(12, 3)}
    result = fm.evaluate_adaptation(
        tff.learning.models.ModelWeights(trained, []),
        model_fn,
        PROTOCOL,
        validation,
        test,
        metric="loss",
        higher_is_better=False,
    )
    means = {
        strength: np.mean([held_losses(trained, c, strength) for c in validation.values()], axis=0)
        for strength in PROTOCOL.proximal_strengths
    }
    best = min(means, key=lambda strength: means[strength].min())
    steps = int(np.argmin(means[best]))
    assert best > 0 and steps > 0  # so that the choice says something
    assert result["chosen"] == {
        "inner_learning_rate": 0.5,
        "steps": steps,
        "proximal_strength": best,
    }
    np.testing.assert_allclose(
        result["clients"][0]["loss"], held_losses(trained, test["t"], best), rtol=1e-4
    )


def test_ties_go_to_the_weaker_pull():
    curve = [{"accuracy": [0.1, 0.5], "num_query": 5}]
    curves = {summary.Way(0.1, strength): curve for strength in (2.0, 0.0, 1.0)}
    assert summary.choose_adaptation(curves, "accuracy") == (summary.Way(0.1, 0.0), 1)


@pytest.mark.parametrize("scope", [Scope(learned_rates=True), Scope(proximal_strength=3.0)])
def test_what_has_its_own_way_is_not_given_another(scope, monkeypatch):
    built = []
    monkeypatch.setattr(
        evaluation.adaptation,
        "build_adaptation_eval",
        lambda model_fn, **arguments: built.append(arguments["proximal_strength"]),
    )
    (way,) = evaluation.build_evaluators(PROTOCOL, model_fn, scope)
    assert way.proximal_strength is None and built == [scope.proximal_strength]


def test_what_was_chosen_is_said_in_words():
    assert Scope().as_chosen({"proximal_strength": 0.1}).in_words() == (
        "all weights, held to the trained ones by 0.1"
    )
    assert Scope(head_layers=1).as_chosen({}).in_words() == "last layer"
    assert summary.Way(0.1).with_steps(2) == {"inner_learning_rate": 0.1, "steps": 2}


@pytest.mark.parametrize(
    "strengths, message",
    [
        ((), "proximal_strengths must be one or more different numbers"),
        ((0.1, 0.1), "one or more different numbers, but got .0.1, 0.1."),
        ((0.0, -1.0), r"proximal_strengths must be from 0 to 1e\+06, but is -1.0"),
        ((float("nan"),), "proximal_strengths must be a finite number"),
    ],
)
def test_pulls_that_cannot_be_are_refused(strengths, message):
    with pytest.raises(ValueError, match=message):
        AdaptationProtocol(proximal_strengths=strengths)
