import numpy as np
import pytest
import reference_numpy as reference
import tensorflow as tf
import tensorflow_federated as tff
from conftest import as_model_fn, initial_weights, make_client, make_keras_model, model_fn

import tff_fedmeta as fm
from tff_fedmeta.client import minibatches, support_query
from tff_fedmeta.experiment import summary

METRICS = ("loss", "accuracy")
KWARGS = dict(inner_learning_rate=0.1, batch_size=4, inner_steps=3, support_fraction=0.6)
ORDERED = dict(split="ordered", shuffle=False)


def build(model_fn=model_fn, **kwargs):
    return fm.build_adaptation_eval(model_fn, **{**KWARGS, **kwargs})


def weights_of(trainable, non_trainable=()):
    return tff.learning.models.ModelWeights(list(trainable), list(non_trainable))


def evaluate(clients, **kwargs):
    return build(**kwargs)(weights_of(initial_weights()), clients)


def client(n, seed=(0, 0)):
    return fm.client_dataset(*make_client(n, n), seed=seed)


def ordered_sides(n, fraction=KWARGS["support_fraction"]):
    x, y = make_client(n, n)
    num_support = int(fraction * n + 0.5)
    return (x[:num_support], y[:num_support]), (x[num_support:], y[num_support:])


def assert_curve(result, support, query, **kwargs):
    expected = reference.adaptation_curve(initial_weights(), support, query, **kwargs)
    assert (result["num_support"], result["num_query"]) == (len(support[1]), len(query[1]))
    for metric in METRICS:
        np.testing.assert_allclose(result[metric], expected[metric], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("tff_runtime")
class TestAdaptationEval:
    # 0.4 * 400 query examples are more than the evaluation passes through the model at once.
    @pytest.mark.parametrize("split", ["ordered", "same"])
    @pytest.mark.parametrize("budget", [dict(steps=5), dict(epochs=2)], ids=["steps", "epochs"])
    def test_curves_match_numpy_in_the_order_of_the_clients(self, split, budget):
        sizes = (14, 400, 5, 2)
        inner = {"inner_steps": None, **{f"inner_{name}": k for name, k in budget.items()}}
        results = evaluate([client(n) for n in sizes], split=split, shuffle=False, **inner)
        assert isinstance(results, list) and len(results) == len(sizes)
        for n, result in zip(sizes, results):
            everything = make_client(n, n)
            sides = ordered_sides(n) if split == "ordered" else (everything, everything)
            assert list(result)[:2] == ["num_support", "num_query"]
            assert set(result) == {"num_support", "num_query", *METRICS}
            assert_curve(result, *sides, rate=0.1, batch_size=4, **budget)

    def test_the_first_of_support_and_some_of_the_steps(self):
        kwargs = dict(inner_steps=5, measured_every=2, sized_support=True, **ORDERED)
        sizes = ((14, 3), (14, 100), (40, 10))
        clients = [fm.client_dataset(*make_client(n, n), support_size=most) for n, most in sizes]
        for (n, most), result in zip(sizes, evaluate(clients, **kwargs)):
            support, query = ordered_sides(n)
            support = tuple(array[:most] for array in support)
            expected = reference.adaptation_curve(
                initial_weights(), support, query, batch_size=4, rate=0.1, steps=5
            )
            assert (result["num_support"], result["num_query"]) == (len(support[1]), len(query[1]))
            for metric in METRICS:
                points = np.array(expected[metric])[[0, 2, 4, 5]]
                np.testing.assert_allclose(result[metric], points, rtol=1e-5, atol=1e-5)

    def test_random_splits_and_orders_are_those_of_training(self):
        seed = tf.constant([3, 4], tf.int64)
        x, y = make_client(14, 14)
        sides = support_query.split_support_query((x, y), seed, support_fraction=0.6)
        plan = minibatches.plan_minibatches(
            sides.num_support,
            seed,
            batch_size=4,
            inner_steps=3,
        )
        order = np.concatenate([plan.indices(step) for step in range(2)])
        assert sorted(order) == list(range(8)) != list(order)
        steps = [[side.numpy()[plan.indices(i)] for side in sides.support] for i in range(3)]
        points = reference.sgd(initial_weights(), steps, 0.1)
        (result,) = evaluate([client(14, seed=(3, 4))])
        expected = [reference.loss(point, *(s.numpy() for s in sides.query)) for point in points]
        np.testing.assert_allclose(result["loss"], expected, rtol=1e-5)

    def test_the_rate_has_no_influence_before_adapting(self):
        computation = [build(inner_learning_rate=rate) for rate in (0.0, 0.3)]
        weights = weights_of(initial_weights())
        (still,), (moved,) = (evaluate(weights, [client(14)]) for evaluate in computation)
        assert len(still["loss"]) == len(moved["loss"]) == 4
        assert set(still["loss"]) == {still["loss"][0]} == {moved["loss"][0]}
        assert len(set(moved["loss"])) == 4

    def test_zero_steps_are_one_point(self):
        (result,) = evaluate([client(14)], inner_steps=0, **ORDERED)
        assert_curve(result, *ordered_sides(14), rate=0.1, batch_size=4, steps=0)

    def test_query_labels_have_no_influence_on_predictions(self):
        # With one query example, each of the three possible labels once, and the same support, the
        # probabilities of the labels sum to one as long as adapting does not see the label.
        x, y = make_client(8, 8)
        clients = [fm.client_dataset(x, np.append(y[:7], np.int32(label))) for label in range(3)]
        results = evaluate(clients, support_fraction=0.9, inner_learning_rate=0.5, **ORDERED)
        assert [result["num_query"] for result in results] == [1, 1, 1]
        probabilities = np.exp([-result["loss"] for result in results])
        np.testing.assert_allclose(probabilities.sum(axis=0), 1.0, rtol=1e-5)
        assert np.abs(probabilities[:, -1] - probabilities[:, 0]).max() > 0.05

    def test_dropout_is_off_when_measuring(self):
        def with_dropout():
            first, second = make_keras_model().layers
            dropout = tf.keras.layers.Dropout(0.5)
            return tf.keras.Sequential([tf.keras.Input([6]), first, dropout, second])

        (result,) = evaluate(
            [client(14)], model_fn=as_model_fn(with_dropout), inner_learning_rate=0.0, **ORDERED
        )
        _, query = ordered_sides(14)
        expected = [reference.loss(initial_weights(), *query)] * 4
        np.testing.assert_allclose(result["loss"], expected, rtol=1e-5)

    def test_clients_do_not_influence_one_another(self):
        together = evaluate([client(14), client(9), client(14)])
        (alone,) = evaluate([client(14)])
        for metric in METRICS:
            np.testing.assert_array_equal(together[0][metric], alone[metric])
            np.testing.assert_array_equal(together[2][metric], alone[metric])

    @pytest.mark.parametrize("split", ["random", "ordered"])
    def test_clients_too_small_to_split_have_no_query_and_finite_values(self, split):
        results = evaluate([client(n) for n in (0, 1, 5)], split=split)
        assert [result["num_support"] for result in results] == [0, 0, 3]
        assert [result["num_query"] for result in results] == [0, 0, 2]
        assert np.isfinite([result[metric] for result in results for metric in METRICS]).all()
        assert summary.measurable(results) == results[2:]

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("split", ["random", "same"])
    def test_client_with_a_value_that_is_not_finite_is_not_measured(self, split, value):
        x, y = make_client(8, 8)
        x[3, 2] = value
        broken, whole = evaluate([fm.client_dataset(x, y), client(8)], split=split)
        assert broken["num_support"] == broken["num_query"] == 0
        assert np.isfinite([broken[metric] for metric in METRICS]).all()
        assert summary.measurable([broken, whole]) == [whole]

    def test_learned_rates_are_one_for_every_weight(self):
        computation = build(learned_rates=True, **ORDERED)
        theta = initial_weights()
        random = np.random.default_rng(1)
        for rates in (
            [np.full_like(weight, 0.1) for weight in theta],
            [random.uniform(-0.1, 0.3, weight.shape).astype(np.float32) for weight in theta],
        ):
            (result,) = computation(weights_of(theta + rates), [client(14)])
            assert_curve(result, *ordered_sides(14), rate=rates, batch_size=4, steps=3)

    @pytest.mark.parametrize("learned_rates", [True, False])
    def test_learned_rates_must_be_announced(self, learned_rates):
        theta = initial_weights()
        weights = theta if learned_rates else theta * 2
        with pytest.raises(TypeError):
            build(learned_rates=learned_rates)(weights_of(weights), [client(5)])

    def test_an_inner_optimizer_keeps_its_state_between_points(self):
        adam = tff.learning.optimizers.build_adam(123.0)
        (result,) = evaluate(
            [client(14)], inner_optimizer=adam, inner_learning_rate=0.01, **ORDERED
        )
        (support, query), optimizer = ordered_sides(14), tf.keras.optimizers.Adam(0.01)
        keras_model = make_keras_model()
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        expected = [reference.loss(initial_weights(), *query)]
        for x, y in reference.batches(*support, 4, steps=3):
            with tf.GradientTape() as tape:
                value = loss(y, keras_model(x))
            variables = keras_model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))
            expected.append(reference.loss(keras_model.get_weights(), *query))
        np.testing.assert_allclose(result["loss"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(inner_learning_rate=-1.0), "inner_learning_rate must be >= 0, but is -1.0"),
        (dict(batch_size=0), "batch_size must be >= 1, but is 0"),
        (dict(inner_steps=-1), "inner_steps must be >= 0, but is -1"),
        (dict(inner_epochs=1), "Exactly one of inner_steps and inner_epochs.*3 and 1"),
        (dict(inner_steps=None), "Exactly one of inner_steps and inner_epochs.*None and None"),
        (dict(support_fraction=1.0), "support_fraction must lie"),
        (dict(split="half"), "split must be one of"),
        (
            dict(learned_rates=True, inner_optimizer=tff.learning.optimizers.build_adam(0.1)),
            "give no inner_optimizer",
        ),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def clients_of(*curves, metric="accuracy"):
    return [{metric: list(curve), "num_query": 5} for curve in curves]


@pytest.mark.parametrize(
    "curves, chosen",
    [
        # Means 0.3, 0.5, 0.4 and 0.3, 0.4, 0.6.
        (
            {0.1: [(0.2, 0.4, 0.8), (0.4, 0.6, 0.0)], 1.0: [(0.2, 0.4, 0.6), (0.4, 0.4, 0.6)]},
            (1.0, 2),
        ),
        ({0.1: [(0.5, 0.4, 0.4)], 0.2: [(0.5, 0.3, 0.5)]}, (0.1, 0)),  # not adapting is best
        ({0.1: [(0.1, 0.5, 0.5)]}, (0.1, 1)),  # a tie goes to fewer steps
        ({0.2: [(0.1, 0.5)], 0.1: [(0.1, 0.5)]}, (0.1, 1)),  # then to the smaller rate
        ({0.1: [(0.1, 0.2, 0.5)], 0.2: [(0.1, 0.5, 0.2)]}, (0.2, 1)),  # steps before rate
        ({0.1: [(0.1, 0.2)], 9.0: [(0.1, np.nan)]}, (0.1, 1)),
        ({0.1: [(0.1, 0.2)], 9.0: [(0.1, np.inf)]}, (0.1, 1)),
    ],
)
def test_adaptation_is_chosen_by_the_mean_of_a_metric(curves, chosen):
    curves = {summary.Way(rate): clients_of(*clients) for rate, clients in curves.items()}
    chosen = (summary.Way(chosen[0]), chosen[1])
    assert summary.choose_adaptation(curves, "accuracy") == chosen
    negated = {
        way: clients_of(*(-np.array(c["accuracy"]) for c in clients), metric="loss")
        for way, clients in curves.items()
    }
    assert summary.choose_adaptation(negated, "loss", higher_is_better=False) == chosen


def test_clients_without_a_query_have_no_say_in_the_choice():
    way = summary.Way(0.1)
    curves = {way: [*clients_of((0.1, 0.2)), {"accuracy": [9.0, 0.0], "num_query": 0}]}
    assert summary.choose_adaptation(curves, "accuracy") == (way, 1)


def test_nothing_can_be_chosen_without_a_query_or_a_finite_value():
    with pytest.raises(ValueError, match="None of the 1 clients has the two examples"):
        summary.choose_adaptation(
            {summary.Way(0.1): [{"accuracy": [0.0], "num_query": 0}]}, "accuracy"
        )
    with pytest.raises(ValueError, match="No setting gave a finite accuracy"):
        summary.choose_adaptation({summary.Way(0.1): clients_of((np.nan, np.nan))}, "accuracy")


@pytest.mark.parametrize("higher_is_better, share_hurt", [(True, 0.25), (False, 0.5)])
def test_a_summary_counts_every_client_once(higher_is_better, share_hurt):
    results = clients_of((0.2, 9.0, 0.6), (0.4, 9.0, 0.4), (0.6, 9.0, 0.1), (0.8, 9.0, 0.9))
    found = summary.summarize(results, "accuracy", 2, higher_is_better)
    assert found["share_hurt"] == share_hurt  # one falls, one stays, two rise
    # Deviations from the mean are +-0.1 and +-0.3; percentile q lies at place 0.03 * q of 0 to 3.
    assert found["before"] == pytest.approx(
        {"mean": 0.5, "std": 0.05**0.5, "p10": 0.26, "p50": 0.5, "p90": 0.74}
    )
    # 0.1, 0.4, 0.6, 0.9; deviations +-0.4 and +-0.1.
    assert found["after"] == pytest.approx(
        {"mean": 0.5, "std": 0.085**0.5, "p10": 0.19, "p50": 0.5, "p90": 0.81}
    )
