import collections

import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_close, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta import baselines

pytestmark = pytest.mark.usefixtures("tff_runtime")

SIZES = (5, 14, 9)
EPOCHS, STEPS = dict(inner_epochs=2), dict(inner_steps=5)
UNIFORM = dict(client_weighting=tff.learning.ClientWeighting.UNIFORM)


def train(process, clients_of_round):
    """Returns the weights and the training metrics after three rounds."""
    state = process.initialize()
    for round_num in range(3):
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


def test_an_empty_client_is_nothing_to_fedavg():
    process = fm.build_fedavg(model_fn, inner_learning_rate=0.1, batch_size=4)
    weights, metrics = train(process, clients_of_round)
    empty = fm.client_dataset(*make_client(0))
    with_empty, metrics_with = train(process, lambda number: [empty, *clients_of_round(number)])
    assert_close(with_empty, weights, 1e-6)
    assert metrics_with == pytest.approx(metrics, rel=1e-6)


@pytest.mark.parametrize("build", baselines.BASELINES.values())
def test_baselines_refuse_what_reptile_refuses(build):
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        build(model_fn, inner_learning_rate=0.1, batch_size=0)
    with pytest.raises(ValueError, match="exclude each other"):
        build(model_fn, inner_learning_rate=0.1, batch_size=4, inner_epochs=1, inner_steps=1)
