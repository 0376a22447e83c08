import collections

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_close, initial_weights, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.algorithms import baselines
from tff_fedmeta.algorithms.registry import REGISTRY

pytestmark = pytest.mark.usefixtures("tff_runtime")

SIZES = (5, 14, 9)
EPOCHS, STEPS = dict(inner_epochs=2), dict(inner_steps=5)
UNIFORM = dict(client_weighting=tff.learning.ClientWeighting.UNIFORM)


BASELINES = {
    name: row.build for name, row in REGISTRY.items() if row.trains and not row.meta_learning
}

# name -> the arguments that a builder needs
ARGUMENTS = {
    "fedavg": dict(inner_learning_rate=0.1, batch_size=4),
    "fedprox": dict(inner_learning_rate=0.1, batch_size=4, proximal_strength=1),
    "fedsgd": dict(batch_size=4),
}


def train(process, clients_of_round, rounds=3):
    """Returns the weights and the last round's training metrics."""
    state = process.initialize()
    for round_num in range(rounds):
        state, metrics = process.next(state, clients_of_round(round_num))
    return list(process.get_model_weights(state).trainable), metrics["client_work"]["train"]


def clients_of_round(round_num):
    return [fm.client_dataset(*make_client(n, n), seed=(round_num, n)) for n in SIZES]


def batched_clients(budget):
    """The same clients as TFF has them: pipelines of batches, in the order of the data."""

    def batch(n):
        x, y = make_client(n, n)
        examples = collections.OrderedDict(x=x, y=y)
        batches = tf.data.Dataset.from_tensor_slices(examples).batch(4)
        if "inner_epochs" in budget:
            return batches.repeat(budget["inner_epochs"])
        return batches.repeat().take(budget["inner_steps"])

    return [batch(n) for n in SIZES]


# TFF weighs a client by the examples it walked, which is its size in equal epochs, not in steps.
@pytest.mark.parametrize(
    "kwargs",
    [
        EPOCHS,
        dict(STEPS, **UNIFORM),
        dict(EPOCHS, **UNIFORM, server_optimizer=tff.learning.optimizers.build_sgdm(0.5, 0.9)),
    ],
    ids=["epochs", "steps", "options"],
)
def test_fedavg_and_reptile_coincide_on_shuffled_data(kwargs):
    kwargs = dict(kwargs, inner_learning_rate=0.1, batch_size=4)
    weights, metrics = train(fm.build_reptile(model_fn, **kwargs), clients_of_round)
    fedavg_weights, fedavg_metrics = train(fm.build_fedavg(model_fn, **kwargs), clients_of_round)
    assert_close(weights, fedavg_weights)
    assert metrics == pytest.approx(fedavg_metrics, rel=1e-5)


@pytest.mark.parametrize(
    "build, budget, options",
    [
        (fm.build_reptile, EPOCHS, {}),
        (fm.build_reptile, STEPS, UNIFORM),
        (fm.build_fedavg, EPOCHS, {}),
        (fm.build_fedavg, STEPS, {}),
    ],
    ids=["reptile-epochs", "reptile-steps", "fedavg-epochs", "fedavg-steps"],
)
def test_server_step_one_is_tffs_own_fedavg_on_batched_data(build, budget, options):
    process = build(
        model_fn, inner_learning_rate=0.1, batch_size=4, shuffle=False, **budget, **options
    )
    stock = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1), **options
    )
    weights, metrics = train(process, clients_of_round)
    stock_weights, stock_metrics = train(stock, lambda round_num: batched_clients(budget))
    assert_close(weights, stock_weights)
    assert metrics == pytest.approx(stock_metrics, rel=1e-5)


@pytest.mark.parametrize("kwargs", [EPOCHS, dict(STEPS, **UNIFORM)], ids=["epochs", "steps"])
def test_fedprox_of_strength_zero_is_fedavg(kwargs):
    kwargs = dict(kwargs, inner_learning_rate=0.1, batch_size=4)
    weights, metrics = train(baselines.build_fedavg(model_fn, **kwargs), clients_of_round)
    fedprox = fm.build_fedprox(model_fn, proximal_strength=0, **kwargs)
    fedprox_weights, fedprox_metrics = train(fedprox, clients_of_round)
    assert_close(fedprox_weights, weights, 1e-6)
    assert fedprox_metrics == pytest.approx(metrics, rel=1e-6)


def fedprox_round(weights, clients, *, rate, proximal_gradient, epochs):
    """One round of FedProx with the examples in their order and a server step of 1."""
    ends = []
    for x, y in clients:
        end = weights
        for batch in reference.batches(x, y, 4, epochs=epochs):
            gradients = reference.gradient(end, *batch)
            proximal = [proximal_gradient(w, start) for w, start in zip(end, weights)]
            end = [w - rate * (g + p) for w, g, p in zip(end, gradients, proximal)]
        ends.append(end)
    sizes = [len(y) for _, y in clients]
    return [np.average(ends_of_weight, axis=0, weights=sizes) for ends_of_weight in zip(*ends)]


def test_fedprox_is_fedavg_with_the_papers_term():
    weights, _ = train(
        fm.build_fedprox(
            model_fn,
            inner_learning_rate=0.1,
            proximal_strength=0.5,
            batch_size=4,
            shuffle=False,
            **EPOCHS,
        ),
        clients_of_round,
        rounds=2,
    )
    clients = [make_client(n, n) for n in SIZES]
    expected = initial_weights()
    for _ in range(2):
        expected = fedprox_round(
            expected,
            clients,
            rate=0.1,
            proximal_gradient=lambda w, start: 0.5 * (w - start),
            epochs=2,
        )
    assert_close(weights, expected)


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_fedprox_refuses_a_strength_that_is_none(strength):
    arguments = dict(ARGUMENTS["fedprox"], proximal_strength=strength)
    with pytest.raises(ValueError, match="proximal_strength must be "):
        fm.build_fedprox(model_fn, **arguments)


@pytest.mark.parametrize(
    "batch_size, server_optimizer, rate",
    [
        (1, tff.learning.optimizers.build_sgdm(0.5), 0.5),
        (4, tff.learning.optimizers.build_sgdm(0.5), 0.5),
        (20, tff.learning.optimizers.build_sgdm(0.5), 0.5),
        (4, None, 0.1),
    ],
    ids=["one at a time", "batches", "all at once", "default"],
)
def test_fedsgd_steps_along_the_gradient_on_all_examples(batch_size, server_optimizer, rate):
    process = baselines.build_fedsgd(
        model_fn, batch_size=batch_size, server_optimizer=server_optimizer
    )
    weights, metrics = train(process, clients_of_round)
    x, y = (np.concatenate(parts) for parts in zip(*(make_client(n, n) for n in SIZES)))
    expected = initial_weights()
    losses = []
    for _ in range(3):
        losses.append(reference.loss(expected, x, y))
        gradients = reference.gradient(expected, x, y)
        expected = [w - rate * g for w, g in zip(expected, gradients)]
    assert_close(weights, expected)
    assert metrics["loss"] == pytest.approx(losses[-1], rel=1e-5)
    assert metrics["num_examples"] == sum(SIZES)
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("name", BASELINES)
def test_an_empty_client_is_nothing_to_a_baseline(name):
    process = BASELINES[name](model_fn, **ARGUMENTS[name])
    weights, metrics = train(process, clients_of_round)
    empty = fm.client_dataset(*make_client(0))
    with_empty, metrics_with = train(process, lambda number: [empty, *clients_of_round(number)])
    assert_close(with_empty, weights, 1e-6)
    assert metrics_with == pytest.approx(metrics, rel=1e-6)
    alone, _ = train(process, lambda number: [empty])
    assert_close(alone, initial_weights(), 0)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_refuse_what_reptile_refuses(name):
    build, arguments = BASELINES[name], ARGUMENTS[name]
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        build(model_fn, **dict(arguments, batch_size=0))
    if name == "fedsgd":  # no local training
        return
    with pytest.raises(ValueError, match="inner_learning_rate must be >= 0"):
        build(model_fn, **dict(arguments, inner_learning_rate=-0.1))
    with pytest.raises(ValueError, match="exclude each other"):
        build(model_fn, **arguments, inner_epochs=1, inner_steps=1)


@pytest.mark.parametrize("name", BASELINES)
def test_an_unweighted_aggregator_counts_all_clients_the_same(name):
    unweighted = tff.aggregators.UnweightedMeanFactory()
    process = BASELINES[name](model_fn, **ARGUMENTS[name], model_aggregator=unweighted)
    plain = BASELINES[name](model_fn, **ARGUMENTS[name])
    weights, _ = train(process, clients_of_round, rounds=1)
    alone = [train(plain, lambda _, c=c: [c], rounds=1)[0] for c in clients_of_round(0)]
    assert_close(weights, [np.mean(tensors, axis=0) for tensors in zip(*alone)], 1e-5)
