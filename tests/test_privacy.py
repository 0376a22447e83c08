"""Differential privacy: the accountant, the clip and the noise."""

import math

import dp_accounting
import numpy as np
import pytest
import tensorflow_federated as tff
from conftest import differ, make_client, model_fn
from dp_accounting import rdp

import tff_fedmeta as fm
from tff_fedmeta.aggregation import aggregators, noisy_mean, privacy
from tff_fedmeta.aggregation.privacy import Guarantee
from tff_fedmeta.config import aggregator_options
from tff_fedmeta.experiment import cohorts, round_loop

SIZES = (5, 14, 9)
UNIFORM = tff.learning.ClientWeighting.UNIFORM


def by_hand(z, n, total, rounds, delta, sampling):
    """Epsilon, with `dp_accounting` alone."""
    relation = dp_accounting.NeighboringRelation
    if sampling == "poisson":
        accountant = rdp.RdpAccountant(neighboring_relation=relation.ADD_OR_REMOVE_ONE)
        event = dp_accounting.PoissonSampledDpEvent(n / total, dp_accounting.GaussianDpEvent(z))
    else:  # the sum changes by two clips if a client is replaced
        accountant = rdp.RdpAccountant(neighboring_relation=relation.REPLACE_ONE)
        event = dp_accounting.SampledWithoutReplacementDpEvent(
            total, n, dp_accounting.GaussianDpEvent(z * 1.0 / 2.0)
        )
    return accountant.compose(event, rounds).get_epsilon(delta)


@pytest.mark.parametrize("sampling", ["fixed", "poisson"])
def test_epsilon_is_dp_accountings(sampling):
    promise = Guarantee(2.0, 20, 300, 1e-4, sampling)
    for rounds in (1, 50):
        expected = by_hand(2.0, 20, 300, rounds, 1e-4, sampling)
        assert promise.epsilon(rounds) == pytest.approx(expected, rel=1e-9)
    assert promise.epsilon(0) == 0
    assert Guarantee(0.0, 20, 300, 1e-4, sampling).epsilon(1) == math.inf


def test_everybody_in_every_round_is_the_gaussian_mechanism():
    # Without sampling, replacing one is what adding or removing one is at half of the noise.
    fixed, poisson = Guarantee(4.0, 50, 50, 1e-4), Guarantee(2.0, 50, 50, 1e-4, "poisson")
    assert fixed.epsilon(10) == pytest.approx(poisson.epsilon(10), rel=1e-6)


def test_noise_found_spends_the_epsilon_and_no_more():
    z = privacy.find_noise(2.0, 30, 20, 300, 1e-4, "poisson")
    spent = by_hand(z, 20, 300, 30, 1e-4, "poisson")
    assert 1.98 < spent <= 2.0 + 1e-3


def test_options_make_the_guarantee():
    options = aggregator_options.resolve("dp", {"noise_multiplier": 1.5})
    assert privacy.guarantee(options, 10, 200, 7) == Guarantee(1.5, 10, 200, 200**-1.1)
    wanted = {"dp_epsilon": 3.0, "dp_delta": 1e-3, "dp_sampling": "poisson"}
    found = privacy.guarantee(aggregator_options.resolve("dp", wanted), 10, 200, 7)
    assert 2.97 < by_hand(found.noise_multiplier, 10, 200, 7, 1e-3, "poisson") <= 3.001


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("dp", {}, "needs one of dp_epsilon"),
        ("dp", {"dp_epsilon": 1.0, "noise_multiplier": 1.0}, "needs one of dp_epsilon"),
        ("dp", {"dp_epsilon": 0.0}, "dp_epsilon must be from 0.01 to"),
        ("dp", {"noise_multiplier": -1.0}, "noise_multiplier must be from 0 to 100000"),
        ("dp", {"noise_multiplier": 1.0, "dp_delta": 1.0}, "dp_delta must be less than 1"),
        ("dp", {"noise_multiplier": 1.0, "dp_clip": 0.0}, "dp_clip must be from 1e-30 to"),
        ("dp", {"noise_multiplier": 1.0, "dp_sampling": "all"}, "dp_sampling must be one of"),
        ("mean", {"dp_epsilon": 1.0}, "dp_epsilon is for the aggregator dp, not for mean"),
        ("secure", {"dp_epsilon": 1.0}, "inside of the secure sum is not offered"),
        ("ddp", {}, "inside of the secure sum is not offered"),
    ],
)
def test_wrong_options_get_a_sentence(name, options, said):
    with pytest.raises(ValueError, match=said):
        aggregator_options.resolve(name, options)


def test_an_aggregator_without_a_cohort_is_refused():
    with pytest.raises(ValueError, match="dp needs clients_per_round and noise_multiplier"):
        aggregators.build_aggregator("dp", noise_multiplier=1.0)


def build(aggregator, **more):
    return fm.build_reptile(
        model_fn,
        inner_learning_rate=0.1,
        batch_size=4,
        client_weighting=UNIFORM,
        model_aggregator=aggregator,
        **more,
    )


def clients(sizes=SIZES):
    return [fm.client_dataset(*make_client(n, n), seed=(1, n)) for n in sizes]


def flat_step(process, of_round, state=None):
    state = state or process.initialize()
    after, _ = process.next(state, of_round)
    before = process.get_model_weights(state).trainable
    new = process.get_model_weights(after).trainable
    return np.concatenate([(b - a).ravel() for b, a in zip(before, new)]), after


@pytest.mark.parametrize("clip", [{"dp_clip": 1e6}, {"dp_initial_clip": 1e6}])
def test_without_noise_it_is_the_uniform_mean(clip, tff_runtime):
    private = build(
        aggregators.build_aggregator("dp", clients_per_round=3, noise_multiplier=0.0, **clip)
    )
    plain, state, other = build(None), None, None
    for _ in range(3):
        expected, state = flat_step(plain, clients(), state)
        step, other = flat_step(private, clients(), other)
        np.testing.assert_allclose(step, expected, rtol=1e-5, atol=1e-6)


def test_updates_are_clipped_and_divided_by_the_expected_cohort(tff_runtime):
    clip = 0.05
    private = build(
        aggregators.build_aggregator("dp", clients_per_round=4, noise_multiplier=0.0, dp_clip=clip)
    )
    plain = build(None)
    clipped = []
    for n in SIZES:
        update, _ = flat_step(plain, clients([n]))
        assert np.linalg.norm(update) > clip
        clipped.append(update * clip / np.linalg.norm(update))
    step, _ = flat_step(private, clients())
    np.testing.assert_allclose(step, np.sum(clipped, axis=0) / 4, rtol=1e-4, atol=1e-7)
    # One that is left out counts as zeros.
    with_empty, _ = flat_step(private, [*clients(), fm.client_dataset(*make_client(0))])
    np.testing.assert_allclose(with_empty, step, rtol=1e-4, atol=1e-7)


def test_noise_has_the_deviation_it_should_and_is_fresh_in_every_round(tff_runtime):
    aggregator = aggregators.build_aggregator(
        "dp", clients_per_round=4, noise_multiplier=3.0, dp_clip=2.0
    )
    process = build(aggregator)
    first, state = flat_step(process, [])  # an empty round is noise alone
    second, _ = flat_step(process, [], state)
    assert len(first) == 83
    for noise in (first, second):
        assert noise.std() == pytest.approx(3.0 * 2.0 / 4, rel=0.35)  # 4.5 deviations of it
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_a_round_in_which_everybody_fails_is_run_with_noise(tff_runtime, capsys, tmp_path):
    aggregator = aggregators.build_aggregator(
        "dp", clients_per_round=3, noise_multiplier=1.0, dp_clip=1.0
    )
    process = build(aggregator)
    promise = Guarantee(1.0, 3, 30, 1e-3, "poisson")

    def train(rounds):
        return round_loop.train(
            process,
            lambda number: [] if number == 2 else clients(),
            rounds,
            directory=tmp_path,
            title="it",
            runs_empty=True,
            figures_of_round=lambda number: {"privacy/epsilon": promise.epsilon(number)},
        )

    first = process.get_model_weights(train(1)).trainable
    second = process.get_model_weights(train(2)).trainable  # continued from the checkpoint
    train(3)
    assert differ(first, second)
    assert "it, round 2: no client contributed. It made a step of noise." in capsys.readouterr().out
    spent = round_loop.pd.read_csv(tmp_path / "metrics.csv")["privacy/epsilon"]
    expected = [by_hand(1.0, 3, 30, rounds, 1e-3, "poisson") for rounds in (1, 2, 3)]
    assert spent.tolist() == pytest.approx(expected, rel=1e-9)


def test_a_small_cohorts_noise_is_called_unusable():
    said = privacy.noise_in_words(1.0, 10, 10_000)
    assert "10 clients a round" in said and "0.1 of the clip in each of 10,000 weights" in said
    assert "a norm of 10 clips" in said and "about 100 clients a round" in said
    assert said.count(". ") == 0
    assert privacy.noise_in_words(1.0, 100, 10_000) is None
    assert privacy.noise_in_words(0.0, 10, 10_000) is None


def test_poisson_cohorts_are_a_pure_function_of_independent_draws():
    ids = [str(number) for number in range(50)]
    sample = cohorts.poisson_sampler(ids, 10, seed=3)
    drawn = np.array([np.isin(ids, sample(number)) for number in range(2000)])
    assert sample(7) == cohorts.poisson_sampler(ids, 10, seed=3)(7)
    assert sample(7) != cohorts.poisson_sampler(ids, 10, seed=4)(7)
    assert drawn.mean(axis=0) == pytest.approx(np.full(50, 0.2), abs=0.045)
    sizes = drawn.sum(axis=1)
    assert sizes.mean() == pytest.approx(10, abs=0.3)
    assert sizes.var() == pytest.approx(50 * 0.2 * 0.8, rel=0.15)


def test_an_update_whose_norm_overflows_counts_as_zeros(tff_runtime):
    one = np.ones(4, np.float32)
    process = noisy_mean.build_dp_aggregator(3, 0.0, clip=2.0).create(
        tff.types.to_type([tff.TensorType(np.float32, [4])]), tff.TensorType(np.float32)
    )
    output = process.next(process.initialize(), [[one], [one], [1e20 * one]], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(output.result[0], one * 2 / 3, rtol=1e-6)
    assert output.measurements["non_finite"] == 1
