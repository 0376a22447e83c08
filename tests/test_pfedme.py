"""pFedMe against NumPy, and where it is another algorithm."""

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_close, initial_weights, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.client import inner_loop, minibatches
from tff_fedmeta.client.proximal import ProximalSGD

SIZES = (5, 14)
KWARGS = dict(inner_learning_rate=0.2, batch_size=4, shuffle=False)
PFEDME = dict(KWARGS, proximal_strength=1.5, local_rounds=3, local_learning_rate=0.4)


def one_round(builder, **kwargs):
    process = builder(model_fn, **kwargs)
    state = process.initialize()
    state, _ = process.next(state, [fm.client_dataset(*make_client(n, n)) for n in SIZES])
    return list(process.get_model_weights(state).trainable)


def proximal_steps(weights, batches, rate, strength):
    start = [np.asarray(w, np.float64) for w in weights]
    now = start
    for x, y in batches:
        gradients = reference.gradient(now, x, y)
        now = [w - rate * (g + strength * (w - s)) for w, g, s in zip(now, gradients, start)]
    return now


def local_rounds(x, y, steps_of_round, **budget):
    """Algorithm 1 of arXiv:2006.08848 on one client, in float64."""
    batches = reference.batches(x, y, 4, **budget)
    shared = [np.asarray(w, np.float64) for w in initial_weights()]
    for first, last in steps_of_round(len(batches)):
        theta = proximal_steps(shared, batches[first:last], 0.2, 1.5)
        shared = [w - 0.4 * 1.5 * (w - t) for w, t in zip(shared, theta)]
    return shared


@pytest.mark.usefixtures("tff_runtime")
@pytest.mark.parametrize(
    "budget, steps_of_round",
    [
        (dict(inner_steps=2), lambda n: [(0, 2), (2, 4), (4, 6)]),
        # Two epochs: four batches of 5 examples, eight of 14, for three local rounds.
        (
            dict(inner_epochs=2),
            lambda n: {4: [(0, 1), (1, 2), (2, 4)], 8: [(0, 2), (2, 5), (5, 8)]}[n],
        ),
    ],
)
def test_pfedme_matches_numpy(budget, steps_of_round):
    planned = dict(steps=6) if "inner_steps" in budget else dict(epochs=2)
    ends = [local_rounds(*make_client(n, n), steps_of_round, **planned) for n in SIZES]
    expected = [sum(n * w for n, w in zip(SIZES, pair)) / sum(SIZES) for pair in zip(*ends)]
    assert_close(one_round(fm.build_pfedme, **PFEDME, **budget), expected)


@pytest.mark.usefixtures("tff_runtime")
def test_pfedme_that_hardly_holds_and_moves_all_the_way_is_reptile():
    """With lambda -> 0 and eta * lambda = 1, R local rounds of K steps are R * K local steps."""
    loose = dict(proximal_strength=1e-7, local_learning_rate=1e7, local_rounds=3)
    pfedme = one_round(fm.build_pfedme, **KWARGS, **loose, inner_steps=2)
    assert_close(pfedme, one_round(fm.build_reptile, **KWARGS, inner_steps=6), 1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(proximal_strength=-1.0), "proximal_strength must be >= 0, but is -1.0"),
        (dict(proximal_strength=0.0), "proximal_strength must be > 0.*use Reptile"),
        (dict(local_rounds=0), "local_rounds must be >= 1, but is 0"),
        (dict(local_learning_rate=-1.0), "local_learning_rate must be >= 0, but is -1.0"),
        (dict(inner_steps=0), "inner_steps must be >= 1, but is 0"),
        (dict(inner_epochs=0), "inner_epochs must be >= 1, but is 0"),
    ],
)
def test_what_pfedme_cannot_use_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fm.build_pfedme(model_fn, **{**PFEDME, **change})


@pytest.mark.parametrize("num_steps", [3, 8])  # those that are kept whole, and those that are not
def test_proximal_steps_are_differentiated_through_where_they_began(num_steps):
    """Finite differences in float64 of query loss after the steps, in one direction."""
    x, y = make_client(9, 9)
    query = make_client(6, 6)
    model = model_fn()
    start = [np.asarray(w, np.float64) for w in initial_weights()]
    for variable, value in zip(model.trainable_variables, start):
        variable.assign(value)
    examples = {"x": tf.constant(x), "y": tf.constant(y)}
    plan = minibatches.plan_minibatches(
        tf.constant(9),
        tf.constant([0, 0], tf.int64),
        batch_size=4,
        inner_steps=num_steps,
        shuffle=False,
    )
    rule = ProximalSGD(0.2, 1.5)
    variables = model.trainable_variables
    _, steps = inner_loop.train(
        model,
        examples,
        plan,
        rule,
        rule.initialize(variables),
        tf.constant(0),
        tf.constant(num_steps),
        keep=True,
        num_steps=num_steps,
    )
    batches = reference.batches(x, y, 4, steps=num_steps)
    end = proximal_steps(start, batches, 0.2, 1.5)
    assert_close([v.numpy() for v in variables], end)
    at_end = [tf.constant(g, tf.float32) for g in reference.gradient(end, *query)]
    found, _ = inner_loop.differentiate(model, examples, plan, rule, steps, at_end)

    def query_loss(offset, direction):
        moved = [w + offset * d for w, d in zip(start, direction)]
        return reference.loss(proximal_steps(moved, batches, 0.2, 1.5), *query)

    random = np.random.default_rng(0)
    for _ in range(5):
        direction = [random.normal(size=w.shape) for w in start]
        slope = (query_loss(1e-5, direction) - query_loss(-1e-5, direction)) / 2e-5
        inner = sum(np.sum(g * d) for g, d in zip(found, direction))
        assert inner == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.usefixtures("tff_runtime")
def test_adaptation_is_held_to_the_weights_that_it_starts_from():
    evaluate = fm.build_adaptation_eval(
        model_fn,
        inner_learning_rate=0.2,
        batch_size=4,
        inner_steps=3,
        split="ordered",
        shuffle=False,
        proximal_strength=1.5,
    )
    x, y = make_client(14, 14)
    weights = tff.learning.models.ModelWeights(initial_weights(), [])
    (result,) = evaluate(weights, [fm.client_dataset(x, y)])
    support, query = (x[:7], y[:7]), (x[7:], y[7:])
    expected = [
        reference.loss(
            proximal_steps(initial_weights(), reference.batches(*support, 4, steps=k), 0.2, 1.5),
            *query,
        )
        for k in range(4)
    ]
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-5)


def test_held_adaptation_takes_no_other_rule():
    with pytest.raises(ValueError, match="proximal SGD; give no learned_rates"):
        fm.build_adaptation_eval(
            model_fn,
            inner_learning_rate=0.1,
            batch_size=4,
            inner_steps=1,
            learned_rates=True,
            proximal_strength=1.0,
        )
