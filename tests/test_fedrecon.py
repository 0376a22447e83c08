"""Federated reconstruction against TFF's own and NumPy; what of it is sent."""

import functools

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import (
    INPUT_SPEC,
    assert_close,
    assert_equal,
    initial_weights,
    make_client,
    make_keras_model,
    model_fn,
)

import tff_fedmeta as fm

KWARGS = dict(
    inner_learning_rate=0.3, shared_learning_rate=0.2, batch_size=4, split="ordered", shuffle=False
)


@functools.lru_cache(None)
def build(**kwargs):
    return fm.build_fedrecon(model_fn, **{**KWARGS, **kwargs})


def trained(process, sizes, rounds=2):
    state = process.initialize()
    for _ in range(rounds):
        state, metrics = process.next(state, [fm.client_dataset(*make_client(n, n)) for n in sizes])
    return list(process.get_model_weights(state).trainable), metrics["client_work"]


def tffs_own(local_layer):
    """TFF's federated reconstruction after two rounds of two clients of two batches."""

    def reconstruction_model():
        model = make_keras_model()
        shared = [layer for index, layer in enumerate(model.layers) if index != local_layer]
        return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
            keras_model=model,
            global_layers=shared,
            local_layers=[model.layers[local_layer]],
            input_spec=INPUT_SPEC,
        )

    process = tff.learning.algorithms.build_fed_recon(
        reconstruction_model,
        loss_fn=lambda: tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.2),
        reconstruction_optimizer_fn=tff.learning.optimizers.build_sgdm(0.3),
    )
    clients = [
        tf.data.Dataset.from_tensor_slices(dict(zip("xy", make_client(8, seed)))).batch(4)
        for seed in (1, 2)
    ]
    state = process.initialize()
    for _ in range(2):
        state = process.next(state, clients).state
    return list(process.get_model_weights(state).trainable)


@pytest.mark.usefixtures("tff_runtime")
@pytest.mark.parametrize("local_layer, local_layers", [(1, ""), (0, "dense")])
def test_it_agrees_with_tffs_own(local_layer, local_layers):
    process = build(local_layers=local_layers)
    state = process.initialize()
    for _ in range(2):
        clients = [fm.client_dataset(*make_client(8, seed)) for seed in (1, 2)]
        state = process.next(state, clients).state
    found = process.get_model_weights(state).trainable
    local = slice(2 * local_layer, 2 * local_layer + 2)
    shared = slice(2 - 2 * local_layer, 4 - 2 * local_layer)
    assert_close(found[shared], tffs_own(local_layer), 1e-5)
    assert_equal(found[local], initial_weights()[local])
    assert np.abs(found[shared][0] - initial_weights()[shared][0]).max() > 0.01


@pytest.mark.usefixtures("tff_runtime")
@pytest.mark.parametrize("budget", [dict(epochs=2), dict(steps=3)])
def test_it_matches_numpy(budget):
    sizes, expected = (5, 14), initial_weights()
    for _ in range(2):
        ends = []
        for n in sizes:
            x, y = make_client(n, n)
            half = (n + 1) // 2
            support, query = (
                reference.batches(*part, 4, **budget)
                for part in ((x[:half], y[:half]), (x[half:], y[half:]))
            )
            rebuilt = reference.sgd(expected, support, [0.0, 0.0, 0.3, 0.3])[-1]
            ends.append(reference.sgd(rebuilt, query, [0.2, 0.2, 0.0, 0.0])[-1])
        mean = [sum(n * w for n, w in zip(sizes, pair)) / sum(sizes) for pair in zip(*ends)]
        expected = [*mean[:2], *initial_weights()[2:]]
    found, metrics = trained(build(**{f"inner_{k}": v for k, v in budget.items()}), sizes)
    assert_close(found, expected)
    if "epochs" in budget:  # 5 are 3 + 2, 14 are 7 + 7: batches of 3 and 2, of 4, 3, 4 and 3
        assert metrics["work"] == {"examples": 2 * 19, "gradient_evaluations": 2 * (2 + 4)}


@pytest.mark.parametrize("local_layers, shapes", [("", [[6, 8], [8]]), ("dense", [[8, 3], [3]])])
def test_what_is_sent_has_no_local_variable(local_layers, shapes):
    created = []

    class Recording(tff.aggregators.MeanFactory):
        def create(self, value_type, weight_type):
            created.append(value_type)
            return super().create(value_type, weight_type)

    build(local_layers=local_layers, model_aggregator=Recording())
    assert [list(tensor.shape) for tensor in created[0]] == shapes


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(head_layers=2), "head_layers is 2, so that the head is the whole model.*give fewer"),
        (dict(local_layers="dense,dense_1"), "names dense, dense_1, so that the local part is the"),
        (
            dict(local_layers="user"),
            "A layer of local_layers must be one of: dense, dense_1; got 'user'",
        ),
        (dict(shared_learning_rate=-1.0), "shared_learning_rate must be >= 0, but is -1.0"),
        (dict(inner_steps=0), "inner_steps must be >= 1, but is 0"),
        (dict(inner_epochs=0), "inner_epochs must be >= 1, but is 0"),
        (dict(split="half"), "split must be one of"),
    ],
)
def test_what_fedrecon_cannot_use_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fm.build_fedrecon(model_fn, **{**KWARGS, **change})
