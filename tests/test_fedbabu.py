"""FedBABU against NumPy: the body is trained and sent, the head is neither."""

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow_federated as tff
from conftest import assert_close, assert_equal, initial_weights, make_client, model_fn

import tff_fedmeta as fm

SIZES = (5, 14)
KWARGS = dict(inner_learning_rate=0.2, batch_size=4, inner_epochs=2, shuffle=False)


def trained(rounds=2, **kwargs):
    process = fm.build_fedbabu(model_fn, **KWARGS, **kwargs)
    state = process.initialize()
    for _ in range(rounds):
        state, _ = process.next(state, [fm.client_dataset(*make_client(n, n)) for n in SIZES])
    return list(process.get_model_weights(state).trainable)


@pytest.mark.usefixtures("tff_runtime")
def test_the_body_is_that_of_numpy_and_the_head_stays():
    body_alone, expected = [0.2, 0.2, 0.0, 0.0], initial_weights()
    for _ in range(2):
        ends = [
            reference.sgd(expected, reference.batches(*make_client(n, n), 4, epochs=2), body_alone)
            for n in SIZES
        ]
        expected = [
            sum(n * w for n, w in zip(SIZES, pair)) / sum(SIZES)
            for pair in zip(*(end[-1] for end in ends))
        ]
    found = trained()
    assert_close(found, expected)
    assert_equal(found[2:], initial_weights()[2:])
    assert np.abs(found[0] - initial_weights()[0]).max() > 0.01


@pytest.mark.usefixtures("tff_runtime")
def test_noise_falls_on_the_body_alone():
    noisy = tff.learning.dp_aggregator(noise_multiplier=0.1, clients_per_round=2)
    found = trained(rounds=1, model_aggregator=noisy)
    assert_equal(found[2:], initial_weights()[2:])
    assert np.abs(found[0] - trained(rounds=1)[0]).max() > 1e-3


def test_the_head_is_not_in_what_clients_send():
    created = []

    class Recording(tff.aggregators.MeanFactory):
        def create(self, value_type, weight_type):
            created.append(value_type)
            return super().create(value_type, weight_type)

    fm.build_fedbabu(model_fn, **KWARGS, model_aggregator=Recording())
    shapes = [list(tensor.shape) for tensor in created[0]]
    assert shapes == [[6, 8], [8]]


@pytest.mark.parametrize(
    "head_layers, message",
    [
        (2, "head_layers is 2, so that the head is the whole model.*give fewer"),
        (3, "head_layers must lie between 1 and 2.*but is 3"),
    ],
)
def test_a_head_that_leaves_no_body_is_refused(head_layers, message):
    with pytest.raises(ValueError, match=message):
        fm.build_fedbabu(model_fn, **KWARGS, head_layers=head_layers)
