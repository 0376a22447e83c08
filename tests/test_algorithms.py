import asyncio
import collections
import functools

import numpy as np
import pytest
import reference_numpy as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import (
    INPUT_SPEC,
    as_model_fn,
    assert_close,
    assert_equal,
    dense,
    differ,
    initial_weights,
    make_client,
    make_keras_model,
    model_fn,
)

import tff_fedmeta as fm
from tff_fedmeta import checks
from tff_fedmeta.algorithms import registry
from tff_fedmeta.runtime import bytes_sent

pytestmark = pytest.mark.usefixtures("tff_runtime")

# Every algorithm has a row here, and with it all tests that take `name` or `process`.
LOCAL = dict(inner_learning_rate=0.1, inner_steps=2, batch_size=4)
META = dict(LOCAL, server_optimizer=tff.learning.optimizers.build_sgdm(0.1))
KWARGS = {
    "reptile": LOCAL,
    "fomaml": META,
    "maml": META,
    "meta_sgd": META,
    "anil": META,
    "per_fedavg": dict(LOCAL, meta_learning_rate=0.1, local_meta_steps=2),
    "fedavg_reptile": dict(LOCAL, switch_round=2, reptile_steps=3),
    "fedbabu": LOCAL,
    "fedrecon": dict(LOCAL, shared_learning_rate=0.1),
    "fedrep": LOCAL,
    "imaml": dict(META, proximal_strength=2.0, cg_steps=3),
    "pfedme": dict(LOCAL, proximal_strength=2.0, local_rounds=2, local_learning_rate=0.4),
}
# Those that split a client, and need two examples of it.
SPLITTING = tuple(name for name in fm.ALGORITHMS if registry.REGISTRY[name].splits)
# Those that differentiate no step, so that dropout is no trouble.
STOCHASTIC = ("reptile", "fedavg_reptile", "fomaml", "pfedme", "fedbabu", "fedrep", "fedrecon")
# For what all algorithms have from the same few lines: one that trains, one that differentiates.
two_algorithms = pytest.mark.parametrize("name", ["reptile", "maml"])
NUM_EXAMPLES = tff.learning.ClientWeighting.NUM_EXAMPLES
UNIFORM = tff.learning.ClientWeighting.UNIFORM


@functools.lru_cache(None)  # a process takes seconds to build and to prepare
def build(name="reptile", model_fn=model_fn, **kwargs):
    return fm.ALGORITHMS[name](model_fn, **{**KWARGS[name], **kwargs})


@pytest.fixture(scope="module", params=fm.ALGORITHMS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def process(tff_runtime, name):
    return build(name)


@functools.lru_cache(None)
def clients(*sizes, seed=0):
    return [fm.client_dataset(*make_client(n, n), seed=(seed, n)) for n in sizes]


def run(process, cohort, rounds=1, state=None):
    """Returns the trainable tensors, and the client metrics, after training on one cohort."""
    state = process.initialize() if state is None else state
    for _ in range(rounds):
        state, metrics = process.next(state, cohort)
    return list(process.get_model_weights(state).trainable), metrics["client_work"]


def initial_tensors(name):
    """The weights that training starts from, and for Meta-SGD its rates behind them."""
    weights = initial_weights()
    return weights + [np.full_like(w, 0.1) for w in weights] * (name == "meta_sgd")


def mean_loss(weights, *sizes):
    return np.mean([reference.loss(weights[:4], *make_client(n, n)) for n in sizes])


def test_the_reference_gradient_is_that_of_the_reference_loss():
    x, y = make_client(5)
    weights = [w.astype(np.float64) for w in initial_weights()]
    for weight, gradient in zip(weights, reference.gradient(weights, x, y)):
        for i in np.ndindex(weight.shape):
            value = weight[i]
            weight[i] = value + 1e-6
            above = reference.loss(weights, x, y)
            weight[i] = value - 1e-6
            below = reference.loss(weights, x, y)
            weight[i] = value
            np.testing.assert_allclose(gradient[i], (above - below) / 2e-6, atol=1e-8)


@pytest.mark.parametrize(
    "client_weighting, budget",
    [(NUM_EXAMPLES, dict(steps=5)), (NUM_EXAMPLES, dict(epochs=2)), (UNIFORM, dict(epochs=2))],
)
def test_reptile_matches_numpy(client_weighting, budget):
    process = fm.build_reptile(
        model_fn,
        inner_learning_rate=0.2,
        batch_size=4,
        shuffle=False,
        server_optimizer=tff.learning.optimizers.build_sgdm(0.5),
        client_weighting=client_weighting,
        **{f"inner_{name}": value for name, value in budget.items()},
    )
    expected = initial_weights()
    for _ in range(2):
        expected = reference.reptile_round(
            expected,
            [make_client(n, n) for n in (5, 14)],
            rate=0.2,
            server_rate=0.5,
            batch_size=4,
            by_examples=client_weighting == NUM_EXAMPLES,
            **budget,
        )
    weights, _ = run(process, clients(5, 14), rounds=2)
    assert_close(weights, expected)
    assert mean_loss(weights, 5, 14) < mean_loss(initial_weights(), 5, 14)


def test_one_epoch_is_the_default():
    assert checks.check_local_training(0.1, 4, None, None) == {"inner_epochs": 1}


@pytest.mark.parametrize("nothing", [dict(inner_steps=0), dict(inner_learning_rate=0.0)])
def test_reptile_without_steps_or_rate_stays(nothing):
    weights, metrics = run(build(**nothing), clients(5, 14))
    assert_equal(weights, initial_weights())
    assert metrics["clients"]["contributing"] == 2


def test_an_algorithm_is_a_tff_learning_process(process, name):
    assert isinstance(process, tff.learning.templates.LearningProcess)
    weights = process.get_model_weights(process.initialize())
    assert_equal(weights.trainable, initial_tensors(name))


def test_the_server_descends(process):
    weights, metrics = run(process, clients(9, 14), rounds=30)
    assert mean_loss(weights, 9, 14) < 0.8 * mean_loss(initial_weights(), 9, 14)
    assert np.isfinite(metrics["train"]["loss"]) and 0 <= metrics["train"]["accuracy"] <= 1


def test_the_order_of_clients_is_irrelevant(process):
    one, _ = run(process, clients(5, 9, 14))
    other, _ = run(process, clients(5, 9, 14)[::-1])
    assert_close(one, other, 1e-6)


def test_training_is_a_function_of_the_seed(process):
    one, _ = run(process, clients(9, 14, seed=1), rounds=3)
    same, _ = run(process, clients(9, 14, seed=1), rounds=3)
    other, _ = run(process, clients(9, 14, seed=2), rounds=3)
    assert_equal(one, same)
    assert differ(one, other)


def broken_client(what):
    x, y = make_client(0 if what == "empty" else 9)
    x[4:5, 2] = {"nan": np.nan, "inf": np.inf, "overflow": 1e38}.get(what, 0.0)
    return fm.client_dataset(x, y)


@pytest.mark.parametrize(
    "what, count",
    [("empty", "too_small"), ("nan", "non_finite"), ("inf", "non_finite")],
)
def test_a_broken_client_contributes_nothing_and_is_counted(process, what, count):
    without, metrics_without = run(process, clients(5, 14))
    weights, metrics = run(process, [broken_client(what), *clients(5, 14)])
    assert_close(weights, without, 1e-6)
    assert metrics["train"] == pytest.approx(metrics_without["train"], rel=1e-6)
    expected = {"contributing": 2, "too_small": 0, "non_finite": 0, count: 1}
    assert metrics["clients"] == expected
    assert metrics_without["clients"] == {**expected, count: 0}


def test_a_cohort_of_broken_clients_changes_nothing(process, name):
    cohort = [broken_client("empty"), broken_client("nan"), broken_client("inf")]
    weights, metrics = run(process, cohort, rounds=2)
    assert_equal(weights, initial_tensors(name))
    assert metrics["clients"] == {"contributing": 0, "too_small": 1, "non_finite": 2}
    assert metrics["work"] == {"examples": 0, "gradient_evaluations": 0}
    assert metrics["train"]["num_examples"] == 0 and np.isnan(metrics["train"]["loss"])


@pytest.mark.parametrize("name", ["fedbabu", "fedrep", "fedrecon"])
def test_a_rounds_bytes_show_what_is_not_sent(name):
    """The head, 8 x 3 + 3 numbers of float32, is not in what clients send."""
    everything, without_head = (
        bytes_sent.bytes_per_client(build(each), 2) for each in ("reptile", name)
    )
    assert everything.up - without_head.up == 4 * (8 * 3 + 3)
    assert everything.down == without_head.down


@two_algorithms
def test_a_nan_that_the_model_swallows_is_counted(name):
    def swallowing():
        swallow = tf.keras.layers.Lambda(lambda x: tf.where(tf.math.is_finite(x), x, 0.0))
        return tf.keras.Sequential([tf.keras.Input([6]), swallow, dense(3)])

    process = build(name, as_model_fn(swallowing))
    without, _ = run(process, clients(5, 14))
    weights, metrics = run(process, [broken_client("nan"), *clients(5, 14)])
    assert_close(weights, without, 1e-6)
    assert metrics["clients"] == {"contributing": 2, "too_small": 0, "non_finite": 1}


@two_algorithms
def test_a_loss_that_overflows_is_counted_and_does_not_spoil_that_of_the_round(name):
    class Overflowing(tf.keras.losses.Loss):
        def call(self, y_true, y_pred):
            logits, feature = y_pred[:, :3], tf.stop_gradient(y_pred[:, 3])
            entropy = tf.keras.losses.sparse_categorical_crossentropy(y_true, logits, True)
            return entropy + tf.where(feature > 1e37, np.inf, 0.0)

    def with_feature():
        inputs = tf.keras.Input([6])
        logits = dense(3)(tf.keras.layers.Lambda(tf.math.tanh)(inputs))
        return tf.keras.Model(inputs, tf.concat([logits, inputs[:, 2:3]], axis=1))

    def overflowing():
        return tff.learning.models.from_keras_model(
            with_feature(), loss=Overflowing(), input_spec=INPUT_SPEC
        )

    process = build(name, overflowing)
    without, metrics_without = run(process, clients(5, 14))
    x, y = make_client(9)
    x[:, 2] = 1e38
    weights, metrics = run(process, [fm.client_dataset(x, y), *clients(5, 14)])
    assert metrics["clients"] == {"contributing": 2, "too_small": 0, "non_finite": 1}
    assert_close(weights, without, 1e-6)
    assert metrics["train"] == pytest.approx(metrics_without["train"], rel=1e-6)


@two_algorithms
def test_an_update_that_overflows_is_counted(name):
    def linear():
        return tf.keras.Sequential([tf.keras.Input([6]), dense(3)])

    process = build(name, as_model_fn(linear), inner_learning_rate=10.0)
    _, metrics = run(process, [broken_client("overflow"), *clients(5, 14)])
    assert metrics["clients"] == {"contributing": 2, "too_small": 0, "non_finite": 1}


def test_reptile_trains_on_a_single_example():
    process = build(inner_steps=2)
    expected = reference.sgd(initial_weights(), [make_client(1, 1)] * 2, 0.1)[-1]
    weights, metrics = run(process, clients(1))
    assert_close(weights, expected)
    assert metrics["clients"] == {"contributing": 1, "too_small": 0, "non_finite": 0}


@pytest.mark.parametrize("name", SPLITTING)
def test_a_client_that_cannot_be_split_contributes_nothing(name):
    process = build(name)
    without, _ = run(process, clients(5, 14))
    weights, metrics = run(process, clients(1, 5, 14))
    assert_close(weights, without, 1e-6)
    assert metrics["clients"] == {"contributing": 2, "too_small": 1, "non_finite": 0}


def test_a_single_example_is_enough_where_it_is_on_both_sides():
    _, metrics = run(build("maml", split="same"), clients(1, 5, 14))
    assert metrics["clients"]["contributing"] == 3


@pytest.mark.parametrize(
    "name, options, examples, gradient_evaluations",
    [
        # 14 examples: 7 support in batches of 4 and 3, 7 query, worth two batches.
        ("reptile", dict(inner_epochs=2), 28, 8),
        ("reptile", dict(inner_steps=5), 4 + 4 + 4 + 2 + 4, 5),
        # Two local rounds, each of five steps, or of half of the steps of two epochs.
        ("pfedme", dict(inner_epochs=2), 28, 8),
        ("pfedme", dict(inner_steps=5), 14 + 14 + 4 + 4, 10),
        ("fomaml", dict(inner_epochs=1), 14, 2 + 2),
        ("fomaml", dict(inner_steps=3), 4 + 3 + 4 + 7, 3 + 2),
        ("maml", dict(inner_steps=3), 4 + 3 + 4 + 7, 3 + 2 + 2 * 3),
        # Every meta-step: a batch of support, all of the query.
        ("per_fedavg", dict(inner_steps=1), 4 + 3 + 2 * 7, 2 + 2 * 2 + 2 * 2),
        # Together: an epoch over support, and the query in parts of 3 and 4.
        ("per_fedavg", dict(inner_epochs=1, local_meta_steps=9), 14, 2 + 2 + 2 * 2),
    ],
)
def test_the_work_of_clients_is_counted(name, options, examples, gradient_evaluations):
    process = build(name, **{"inner_steps": None, **options})
    _, metrics = run(process, [*clients(14, 14), broken_client("nan")])
    expected = {"examples": 2 * examples, "gradient_evaluations": 2 * gradient_evaluations}
    assert metrics["work"] == expected


def test_later_rounds_build_no_model(name):
    built = []

    def counting_model_fn():
        built.append(1)
        return model_fn()

    process = build(name, counting_model_fn)
    state, _ = process.next(process.initialize(), clients(5, 14))
    after_one = len(built)
    run(process, clients(9, 14, 5), rounds=2, state=state)
    assert len(built) == after_one > 0


def test_training_continues_from_a_saved_state(process, tmp_path):
    def train(state, rounds):
        for round_num in rounds:
            state, _ = process.next(state, clients(5, 14, seed=round_num))
        return state

    manager = tff.program.FileProgramStateManager(tmp_path)
    asyncio.run(manager.save(train(process.initialize(), range(3)), 3))
    saved = asyncio.run(manager.load(3, process.initialize()))
    continued = process.get_model_weights(train(saved, range(3, 6)))
    uninterrupted = process.get_model_weights(train(process.initialize(), range(6)))
    assert_equal(continued.trainable, uninterrupted.trainable)


@pytest.mark.parametrize("name", ["reptile", "maml", "per_fedavg"])
def test_the_inner_optimizer_starts_fresh_at_every_client_and_round(name):
    process = build(name, inner_optimizer=tff.learning.optimizers.build_adam(0.1))
    one, _ = run(process, clients(9), rounds=2)
    two, _ = run(process, clients(9) * 2, rounds=2)
    assert_close(one, two, 1e-6)


def test_an_inner_adam_steps_by_the_inner_learning_rate():
    adam = tff.learning.optimizers.build_adam(123.0)
    process = build(inner_optimizer=adam, inner_learning_rate=0.01, inner_steps=1, batch_size=9)
    weights, _ = run(process, clients(9))
    gradients = reference.gradient(initial_weights(), *make_client(9, 9))
    expected = [w - 0.01 * np.sign(g) for w, g in zip(initial_weights(), gradients)]
    assert_close(weights, expected, 1e-4)


def test_fomaml_is_of_first_order():
    with pytest.raises(TypeError, match="first_order"):
        build("fomaml", first_order=False)


def test_an_inner_optimizer_without_a_rate_to_set_is_refused():
    schedule = tff.learning.optimizers.schedule_learning_rate
    scheduled = schedule(tff.learning.optimizers.build_sgdm(0.1), lambda step: 0.1)
    with pytest.raises(ValueError, match="inner_optimizer must let its learning rate be set"):
        build(inner_optimizer=scheduled)


def test_an_inner_optimizer_that_is_none_is_refused():
    with pytest.raises(TypeError, match="inner_optimizer must be a tff"):
        build(inner_optimizer="adam")


def test_meta_sgd_takes_no_inner_optimizer():
    with pytest.raises(ValueError, match="steps by the rates it learns; give no inner_optimizer"):
        build("meta_sgd", inner_optimizer=tff.learning.optimizers.build_adam(0.1))


@two_algorithms
def test_a_server_adam_first_moves_by_its_rate_against_the_update(name):
    sgd, _ = run(build(name), clients(5, 14))
    adam = tff.learning.optimizers.build_adam(0.01)
    weights, _ = run(build(name, server_optimizer=adam), clients(5, 14))
    for start, by_sgd, by_adam in zip(initial_tensors(name), sgd, weights):
        clear = np.abs(by_sgd - start) > 1e-3
        step = 0.01 * np.sign(by_sgd - start)
        np.testing.assert_allclose((by_adam - start)[clear], step[clear], rtol=1e-2)


@two_algorithms
def test_an_unweighted_aggregator_is_uniform_weighting(name):
    unweighted = build(name, model_aggregator=tff.aggregators.UnweightedMeanFactory())
    uniform = build(name, client_weighting=UNIFORM)
    one, _ = run(unweighted, clients(5, 14), rounds=3)
    other, _ = run(uniform, clients(5, 14), rounds=3)
    assert_close(one, other, 1e-6)


def test_the_robust_aggregator_bounds_what_a_broken_client_does(name):
    robust = build(name, model_aggregator=tff.learning.robust_aggregator())
    x, y = make_client(9)
    weights, metrics = run(robust, [fm.client_dataset(1e6 * x, y), *clients(5, 14)], rounds=3)
    assert metrics["clients"]["contributing"] == 3
    moved = np.concatenate([(w - s).ravel() for w, s in zip(weights, initial_tensors(name))])
    assert 0.0 < np.linalg.norm(moved) < 4.0


@two_algorithms
def test_the_robust_aggregator_without_clipping_keeps_ordinary_updates(name):
    zeroing = build(name, model_aggregator=tff.learning.robust_aggregator(clipping=False))
    assert_close(run(zeroing, clients(5, 14))[0], run(build(name), clients(5, 14))[0], 1e-6)


@two_algorithms
def test_a_private_aggregator_composes(name):
    private = tff.learning.dp_aggregator(noise_multiplier=0.01, clients_per_round=2)
    assert_three_rounds_train(name, private)


@two_algorithms
def test_a_compressing_aggregator_composes(name):
    assert_three_rounds_train(name, tff.learning.compression_aggregator())


def assert_three_rounds_train(name, aggregator):
    weights, metrics = run(build(name, model_aggregator=aggregator), clients(5, 14), rounds=3)
    assert metrics["clients"]["contributing"] == 2
    assert all(np.isfinite(w).all() for w in weights)
    assert differ(weights, initial_tensors(name))


@two_algorithms
@pytest.mark.parametrize(
    "spec",
    [tuple(INPUT_SPEC.values()), collections.OrderedDict(reversed(INPUT_SPEC.items()))],
    ids=["pair", "y before x"],
)
def test_every_form_of_input_spec_gives_the_same(name, spec):
    one, metrics_one = run(build(name, as_model_fn(make_keras_model, spec)), clients(5, 14))
    other, metrics = run(build(name), clients(5, 14))
    assert_equal(one, other)
    assert metrics_one == metrics


def test_a_weighting_by_another_name_is_refused(name):
    with pytest.raises(TypeError, match="must be a tff"):
        build(name, client_weighting="uniform")


@two_algorithms
def test_embeddings_train(name):
    def embedding_model():
        return tf.keras.Sequential(
            [
                tf.keras.Input([5], dtype=tf.int32),
                tf.keras.layers.Embedding(10, 4),
                tf.keras.layers.GlobalAveragePooling1D(),
                dense(3),
            ]
        )

    spec = collections.OrderedDict(INPUT_SPEC, x=tf.TensorSpec([None, 5], tf.int32))
    words = np.arange(40, dtype=np.int32).reshape(8, 5) % 9  # word 9 never occurs
    client = fm.client_dataset(words, (np.arange(8) % 3).astype(np.int32))
    process = build(name, as_model_fn(embedding_model, spec))
    state = process.initialize()
    before = process.get_model_weights(state).trainable[0]
    after = run(process, [client], state=state)[0][0]
    assert np.isfinite(after).all()
    assert np.any(after != before, axis=1).tolist() == [True] * 9 + [False]


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(inner_learning_rate=-0.1), "inner_learning_rate must be >= 0, but is -0.1"),
        (dict(inner_learning_rate=float("nan")), "inner_learning_rate must be a finite number"),
        (dict(inner_learning_rate="fast"), "inner_learning_rate must be a finite number.*'fast'"),
        (dict(batch_size=2.5), "batch_size must be a whole number, but is 2.5"),
        (dict(batch_size=0), "batch_size must be >= 1, but is 0"),
        (dict(inner_steps=-1), "inner_steps must be >= 0, but is -1"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs)


@pytest.mark.parametrize("name", SPLITTING)
@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(support_fraction=1.0), "support_fraction must lie between 0 and 1.*but is 1.0"),
        (dict(split="half"), "split must be one of: random, ordered, same; got 'half'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(local_meta_steps=0), "local_meta_steps must be >= 1, but is 0"),
        (dict(meta_learning_rate=-1.0), "meta_learning_rate must be >= 0, but is -1.0"),
    ],
)
def test_per_fedavg_refuses_what_it_cannot_use(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build("per_fedavg", **kwargs)


def test_anil_refuses_a_head_larger_than_the_model():
    with pytest.raises(ValueError, match=r"head_layers must lie between 1 and 2.*but is 3"):
        build("anil", head_layers=3)


def with_layer(layer):
    """A model with one more layer; Keras wants a fresh one at every call."""
    return as_model_fn(
        lambda: tf.keras.Sequential([tf.keras.Input([6]), dense(8, "tanh"), layer(), dense(3)])
    )


def test_moving_statistics_are_refused(name):
    with pytest.raises(ValueError, match=r"batch_normalization.*LayerNormalization.*trainable=Fal"):
        build(name, with_layer(tf.keras.layers.BatchNormalization))


@two_algorithms
def test_frozen_batch_normalisation_trains(name):
    frozen = build(name, with_layer(lambda: tf.keras.layers.BatchNormalization(trainable=False)))
    _, metrics = run(frozen, clients(5, 14))
    assert metrics["clients"]["contributing"] == 2


def test_second_order_refuses_a_stochastic_layer_by_name(name):
    dropout = with_layer(lambda: tf.keras.layers.Dropout(0.5, name="my_dropout"))
    if name in STOCHASTIC:
        assert run(build(name, dropout), clients(5, 14))[1]["clients"]["contributing"] == 2
        return
    with pytest.raises(ValueError, match=r"my_dropout.*take the layer out.*first_order=True"):
        build(name, dropout)


@pytest.mark.parametrize(
    "budget, message",
    [
        (dict(inner_epochs=-1, inner_steps=None), "inner_epochs must be >= 0, but is -1"),
        (dict(inner_epochs=1, inner_steps=2), "exclude each other.*1 and 2"),
    ],
)
def test_epochs_and_steps_exclude_each_other(name, budget, message):
    with pytest.raises(ValueError, match=message):
        build(name, **budget)


def test_a_model_of_fixed_batch_size_is_refused(name):
    spec = collections.OrderedDict(INPUT_SPEC, x=tf.TensorSpec([20, 6], tf.float32))
    with pytest.raises(ValueError, match="batch dimension None"):
        build(name, as_model_fn(make_keras_model, spec))


@two_algorithms
def test_another_model_in_the_loss_keeps_its_weights(name):
    """Only the weights that the server sends may begin as zeros."""

    def make(teacher_scale):
        def model_fn():
            ones = tf.keras.initializers.Constant(teacher_scale)
            teacher = tf.keras.Sequential(
                [tf.keras.Input([6]), tf.keras.layers.Dense(3, kernel_initializer=ones)]
            )
            teacher.trainable = False

            class Distillation(tf.keras.losses.Loss):
                def call(self, y_true, y_pred):
                    return tf.reduce_mean((teacher(tf.ones([1, 6])) - y_pred) ** 2, -1)

            return tff.learning.models.from_keras_model(
                make_keras_model(), loss=Distillation(), input_spec=INPUT_SPEC
            )

        return model_fn

    results = [
        run(build(name, make(scale)), clients(8))[1]["train"]["loss"] for scale in (0.0, 1.0)
    ]
    assert results[1] > results[0] + 10
