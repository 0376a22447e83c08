"""FedRep against NumPy: first the head, then the body, which alone is sent."""

import functools

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow as tf
from conftest import assert_close, assert_equal, initial_weights, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.algorithms.fedrep import fedrep
from tff_fedmeta.client import minibatches
from tff_fedmeta.client.rules import SGD

SIZES = (5, 14)
KWARGS = dict(inner_learning_rate=0.2, batch_size=4, shuffle=False)
HEAD, BODY = [0.0, 0.0, 0.2, 0.2], [0.2, 0.2, 0.0, 0.0]


@pytest.mark.usefixtures("tff_runtime")
@pytest.mark.parametrize(
    "budget, head_share, num_head",
    [
        # Two epochs: four batches of 5 examples, eight of 14.
        (dict(epochs=2), 0.5, {4: 2, 8: 4}),
        (dict(steps=5), 0.7, {5: 4}),  # 3.5 steps are rounded up,
        (dict(steps=3), 0.99, {3: 2}),  # but one is left for the body
    ],
)
def test_the_body_is_that_of_numpy_and_the_head_stays(budget, head_share, num_head):
    expected = initial_weights()
    for _ in range(2):
        ends = []
        for n in SIZES:
            batches = reference.batches(*make_client(n, n), 4, **budget)
            cut = num_head[len(batches)]
            fitted = reference.sgd(expected, batches[:cut], HEAD)[-1]
            ends.append(reference.sgd(fitted, batches[cut:], BODY)[-1])
        mean = [sum(n * w for n, w in zip(SIZES, pair)) / sum(SIZES) for pair in zip(*ends)]
        expected = [*mean[:2], *initial_weights()[2:]]
    process = fm.build_fedrep(
        model_fn,
        **KWARGS,
        head_share=head_share,
        **{f"inner_{name}": value for name, value in budget.items()},
    )
    state = process.initialize()
    for _ in range(2):
        state, _ = process.next(state, [fm.client_dataset(*make_client(n, n)) for n in SIZES])
    found = list(process.get_model_weights(state).trainable)
    assert_close(found, expected)
    assert_equal(found[2:], initial_weights()[2:])
    assert np.abs(found[0] - initial_weights()[0]).max() > 0.01


def test_with_all_layers_in_the_head_it_is_local_training():
    model = model_fn()
    for variable, value in zip(model.trainable_variables, initial_weights()):
        variable.assign(value)
    x, y = make_client(14, 14)
    found = fedrep(
        model,
        {"x": tf.constant(x), "y": tf.constant(y)},
        tf.constant([0, 0], tf.int64),
        rule=SGD(0.2),
        plan=functools.partial(
            minibatches.plan_minibatches, batch_size=4, inner_epochs=2, shuffle=False
        ),
        body=[],
        head_share=0.5,
    )
    assert found.update == [] and found.gradient_evaluations == 8
    alone = reference.sgd(initial_weights(), reference.batches(x, y, 4, epochs=2), 0.2)[-1]
    assert_close([v.numpy() for v in model.trainable_variables], alone)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(head_layers=2), "head_layers is 2, so that the head is the whole model.*give fewer"),
        (dict(head_share=0.0), "head_share must lie between 0 and 1, both excluded, but is 0.0"),
        (dict(head_share=1), "head_share must lie between 0 and 1, both excluded, but is 1"),
        (dict(inner_steps=0), "inner_steps must be >= 1, but is 0"),
    ],
)
def test_what_fedrep_cannot_use_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fm.build_fedrep(model_fn, **KWARGS, **change)
