"""FedAvg that goes on as Reptile: each stage is the algorithm that it is named after."""

import functools

import pytest
import tensorflow_federated as tff
from conftest import assert_close, assert_equal, make_client, model_fn

import tff_fedmeta as fm

LOCAL = dict(inner_learning_rate=0.2, batch_size=4)
SWITCHING = dict(LOCAL, inner_epochs=2, reptile_steps=3)


@functools.lru_cache(None)
def build(builder=fm.build_fedavg_reptile, **kwargs):
    return builder(model_fn, **kwargs)


def trained(process, rounds, start=None):
    """The trainable weights after some rounds, of which each client has a seed of its own."""
    state = process.initialize()
    if start is not None:
        state = process.set_model_weights(state, tff.learning.models.ModelWeights(start, []))
    for number in rounds:
        cohort = [fm.client_dataset(*make_client(n, n), seed=(number, n)) for n in (5, 14)]
        state = process.next(state, cohort).state
    return list(process.get_model_weights(state).trainable)


@pytest.mark.usefixtures("tff_runtime")
def test_each_stage_is_what_it_is_named_after():
    switching = build(**SWITCHING, switch_round=2, reptile_server_learning_rate=0.05)
    fedavg = build(fm.build_fedavg, **LOCAL, inner_epochs=2)
    first = trained(switching, range(2))
    assert_close(first, trained(fedavg, range(2)), 1e-6)
    adam = tff.learning.optimizers.build_adam(0.05)
    reptile = build(fm.build_reptile, **LOCAL, inner_steps=3, server_optimizer=adam)
    # Adam's state begins with the second stage, and the state of the first is no part of it.
    assert_equal(trained(switching, range(5)), trained(reptile, range(2, 5), start=first))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(switch_round=-1), "switch_round must be >= 0, but is -1"),
        (dict(reptile_steps=0), "reptile_steps must be >= 1, but is 0"),
        (dict(reptile_server_learning_rate=-1), "reptile_server_learning_rate must be >= 0"),
    ],
)
def test_what_it_cannot_use_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fm.build_fedavg_reptile(model_fn, **{**SWITCHING, "switch_round": 1, **change})
