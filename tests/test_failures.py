"""Clients that fail: who does, and what that does to a round of every algorithm."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from conftest import assert_close, assert_equal, differ, make_client, model_fn

import tff_fedmeta as fm
from tff_fedmeta.algorithms.registry import REGISTRY
from tff_fedmeta.config import failures
from tff_fedmeta.config.failures import Failures, Role
from tff_fedmeta.experiment import cohorts as cohorts_module
from tff_fedmeta.experiment import round_loop

IDS = [f"client {number}" for number in range(200)]
LOCAL = dict(inner_learning_rate=0.1, batch_size=4, inner_epochs=2)
ARGUMENTS = {
    "fedsgd": dict(batch_size=4, server_optimizer=tff.learning.optimizers.build_sgdm(1.0)),
    "fedprox": dict(LOCAL, proximal_strength=0.5),
    "per_fedavg": dict(LOCAL, meta_learning_rate=0.1, local_meta_steps=2),
    "fedavg_reptile": dict(LOCAL, switch_round=9, reptile_steps=4),
    "fedrecon": dict(LOCAL, shared_learning_rate=0.1),
    "imaml": dict(LOCAL, proximal_strength=2.0),
    "pfedme": dict(LOCAL, proximal_strength=2.0, local_rounds=2, local_learning_rate=0.4),
}
BUILDERS = {name: row.build for name, row in REGISTRY.items() if row.trains}
SIZES = (5, 14, 9)


def cohorts(ids=IDS, clients_per_round=20, seed=3, **how):
    def sampler_of(among):
        return cohorts_module.cohort_sampler(among, clients_per_round, seed)

    return cohorts_module.cohorts(Failures(**how), ids, sampler_of, seed)


def test_without_failures_a_cohort_is_the_samplers():
    cohort, sample = cohorts(), cohorts_module.cohort_sampler(IDS, 20, 3)
    for number in (1, 2, 50):
        now = cohort(number)
        assert now.answering == now.sampled == sample(number)
        assert now.role(now.sampled[0], Failures()) == (1, 1, 0)
    assert not Failures().any and not Failures().need_roles


def test_cohorts_are_a_pure_function_of_seed_and_round():
    how = dict(client_dropout=0.5, availability=0.4, straggler_fraction=0.5, byzantine_fraction=0.3)
    cohort = cohorts(**how)
    seventh = cohort(7)
    assert cohort(8) != seventh
    assert cohort(7) == seventh == cohorts(**how)(7) != cohorts(seed=4, **how)(7)
    assert set(seventh.answering) < set(seventh.sampled)
    assert set(seventh.work_shares) | seventh.byzantine <= set(seventh.answering)


def test_fractions_hold_over_the_rounds():
    cohort = cohorts(client_dropout=0.3, straggler_fraction=0.25, byzantine_fraction=0.1)
    counts = [cohort(number).counts for number in range(1, 501)]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    answered = total["clients/sampled"] - total["clients/dropped"]
    assert total["clients/sampled"] == 500 * 20
    assert total["clients/dropped"] / total["clients/sampled"] == pytest.approx(0.3, abs=0.015)
    assert total["clients/stragglers"] / answered == pytest.approx(0.25, abs=0.01)
    assert total["clients/byzantine"] / answered == pytest.approx(0.1, abs=0.01)


def test_a_fraction_that_makes_whole_clients_is_exact():
    cohort = cohorts(byzantine_fraction=0.2, straggler_fraction=1)
    for number in range(1, 50):
        now = cohort(number)
        assert len(now.byzantine) == 4 and set(now.work_shares) == set(now.sampled)
        assert all(0 < share <= 1 for share in now.work_shares.values())


def test_dropout_of_one_silences_everybody_and_of_none_nobody():
    assert cohorts(client_dropout=1)(1).answering == []
    assert cohorts(client_dropout=0, straggler_fraction=0.1)(1).counts["clients/dropped"] == 0


def test_clients_are_available_in_one_window_of_every_day():
    cohort = cohorts(availability=0.25, clients_per_round=len(IDS))
    present = np.array([[c in cohort(number).sampled for c in IDS] for number in range(1, 49)])
    assert (present[:24] == present[24:]).all()
    assert (present[:24].sum(axis=0) == 24 / 4).all()
    assert (np.abs(np.diff(present[:25].astype(int), axis=0)).sum(axis=0) == 2).all()
    assert cohort(5).counts["clients/available"] == present[4].sum()


def test_nobody_available_is_an_empty_cohort():
    sampled = [cohorts(ids=IDS[:1], availability=0.25)(number).sampled for number in range(24)]
    assert sorted(map(len, sampled)) == [0] * 18 + [1] * 6


@pytest.mark.parametrize(
    "attack, scale, role",
    [
        ("sign_flip", 5, (1, -5, 0)),
        ("scale", 1000, (1, 1000, 0)),
        ("noise", 2, (1, 0, 2)),
        ("nan", 1, (1, float("nan"), 0)),
        ("label_flip", 1, (1, 1, 0)),
    ],
)
def test_attackers_are_told_what_to_send(attack, scale, role):
    how = Failures(byzantine_fraction=0.5, attack=attack, attack_scale=scale)
    now = cohorts(byzantine_fraction=0.5)(1)
    attacker = sorted(now.byzantine)[0]
    honest = next(client for client in now.answering if client not in now.byzantine)
    np.testing.assert_array_equal(now.role(attacker, how), role)
    assert now.role(honest, how) == (1, 1, 0)
    assert how.need_roles == (attack != "label_flip") and how.flip_labels != how.need_roles


@pytest.mark.parametrize(
    "how, said",
    [
        (dict(client_dropout=1.1), "client_dropout must be from 0 to 1, but is 1.1"),
        (dict(straggler_fraction=-0.1), "straggler_fraction must be from 0 to 1"),
        (dict(byzantine_fraction=float("nan")), "byzantine_fraction must be a finite number"),
        (dict(availability=0), "availability must be greater than 0"),
        (dict(attack_scale=0), "attack_scale must be greater than 0"),
        (dict(attack="nan"), "need a byzantine_fraction > 0"),
        (dict(attack_scale=5.0), "need a byzantine_fraction > 0"),
        (dict(attack="scale", byzantine_fraction=0.1), "an attack_scale other than 1"),
        (dict(attack="sign_flop"), "Did you mean 'sign_flip'"),
    ],
)
def test_what_is_no_failure_is_refused(how, said):
    with pytest.raises(ValueError, match=said):
        Failures(**how)


def test_flipped_labels_are_the_classes_in_reverse():
    y = np.array([0, 3, 9], np.int32)
    flipped = failures.flip_labels(y, 10)
    assert flipped.tolist() == [9, 6, 0] and flipped.dtype == np.int32
    with pytest.raises(ValueError, match="but the labels of this task are float32"):
        failures.flip_labels(y.astype(np.float32), 10)
    with pytest.raises(ValueError, match="several arrays"):
        failures.check_labels(None)


def build(name, **more):
    return BUILDERS[name](model_fn, **ARGUMENTS.get(name, LOCAL), **more)


def clients(roles=None, sizes=SIZES, number=1):
    """Clients of a round; roles: a role for each, or none."""
    return [
        fm.client_dataset(*make_client(n, n), seed=(number, n), role=role)
        for n, role in zip(sizes, roles or [None] * len(sizes))
    ]


def run_round(process, of_round):
    """Returns by how much a round moves the weights, and what its clients tell."""
    state = process.initialize()
    before = list(process.get_model_weights(state).trainable)
    state, metrics = process.next(state, of_round)
    after = process.get_model_weights(state).trainable
    return [b - a for b, a in zip(before, after)], metrics["client_work"]


def by_sgd(name):
    """What it takes that the server subtracts the mean update as it is."""
    if name in ("fedavg", "fedprox", "fedsgd"):
        return {}
    return dict(server_optimizer=tff.learning.optimizers.build_sgdm(1.0))


@pytest.mark.parametrize("name", BUILDERS)
def test_roles_do_what_they_say_in_every_algorithm(name, tff_runtime):
    told = build(name, **by_sgd(name), roles=True)
    step, work = run_round(told, clients([Role()] * 3))
    flipped, flipped_work = run_round(told, clients([Role(), Role(factor=-5.0), Role()]))
    attacker, _ = run_round(told, clients([Role()], sizes=SIZES[1:2]))
    # A mean by size is linear in each update: one that is -5 times itself moves it by 6 shares.
    share = SIZES[1] / sum(SIZES)
    assert_close(flipped, [s - 6 * share * u for s, u in zip(step, attacker)], 2e-5)
    assert flipped_work["train"] == work["train"]  # what it computed, not what it sent
    lazy, lazy_work = run_round(told, clients([Role(work_share=0.3)] * 3))
    assert differ(lazy, step)
    assert lazy_work["train"]["num_batches"] <= work["train"]["num_batches"]


@pytest.mark.parametrize("name", ["reptile", "fedavg", "fedprox", "fedsgd"])
def test_an_honest_role_changes_no_bit(name, tff_runtime):
    step, work = run_round(build(name), clients())
    honest, honest_work = run_round(build(name, roles=True), clients([Role()] * 3))
    assert_equal(honest, step)
    assert honest_work == work


@pytest.mark.parametrize("name", ["reptile", "fedavg"])
@pytest.mark.parametrize("budget", [dict(inner_epochs=4), dict(inner_steps=8)])
def test_a_straggler_takes_the_first_of_its_steps(name, budget, tff_runtime):
    settings = dict(inner_learning_rate=0.1, batch_size=4)
    told = BUILDERS[name](model_fn, **settings, **budget, roles=True)
    lazy, work = run_round(told, clients([Role(work_share=0.25)], sizes=[8]))
    short = {kind: count // 4 for kind, count in budget.items()}
    expected, _ = run_round(BUILDERS[name](model_fn, **settings, **short), clients(sizes=[8]))
    assert_close(lazy, expected, 1e-6)
    assert work["train"]["num_batches"] == 2


def test_a_straggler_of_maml_takes_the_first_of_its_inner_steps(tff_runtime):
    settings = dict(inner_learning_rate=0.1, batch_size=4, **by_sgd("maml"))
    told = fm.build_maml(model_fn, **settings, inner_steps=4, roles=True)
    lazy, work = run_round(told, clients([Role(work_share=0.3)], sizes=[14]))
    expected, short = run_round(
        fm.build_maml(model_fn, **settings, inner_steps=2), clients(sizes=[14])
    )
    assert_close(lazy, expected, 1e-6)
    assert work["work"] == short["work"]


def test_a_straggler_of_per_fedavg_takes_the_first_of_its_meta_steps(tff_runtime):
    settings = dict(inner_learning_rate=0.1, meta_learning_rate=0.1, batch_size=4, inner_steps=1)
    told = fm.build_per_fedavg(model_fn, **settings, local_meta_steps=4, roles=True)
    lazy, _ = run_round(told, clients([Role(work_share=0.5)], sizes=[14]))
    short = fm.build_per_fedavg(model_fn, **settings, local_meta_steps=2)
    assert_close(lazy, run_round(short, clients(sizes=[14]))[0], 1e-6)


def test_noise_has_the_updates_norm_and_is_the_seeds(tff_runtime):
    told = build("reptile", roles=True)
    step, _ = run_round(told, clients([Role()], sizes=[9]))
    noise, _ = run_round(told, clients([Role(factor=0, noise=3)], sizes=[9]))
    again, _ = run_round(told, clients([Role(factor=0, noise=3)], sizes=[9]))
    other, _ = run_round(told, clients([Role(factor=0, noise=3)], sizes=[9], number=2))
    assert_equal(noise, again)
    assert differ(noise, other)
    flat, direction = (np.concatenate([t.ravel() for t in ts]) for ts in (noise, step))
    assert np.linalg.norm(flat) == pytest.approx(3 * np.linalg.norm(direction), rel=1e-4)
    cosine = flat @ direction / np.linalg.norm(flat) / np.linalg.norm(direction)
    assert abs(cosine) < 0.5  # 83 weights: a standard deviation of 0.11


@pytest.mark.parametrize("name", ["reptile", "fedavg"])
def test_a_nan_is_sent_and_no_mean_survives_it(name, tff_runtime):
    told = build(name, roles=True)
    roles = [Role(), Role(factor=float("nan")), Role()]
    step, work = run_round(told, clients(roles))
    assert not any(tensor.any() for tensor in step)  # TFF's server refuses a mean of NaN
    assert work["train"]["num_examples"] == 2 * sum(SIZES)


def test_a_round_in_which_everybody_fails_changes_nothing(tff_runtime, capsys, tmp_path):
    adam = tff.learning.optimizers.build_adam(0.1)
    uniform = tff.aggregators.UnweightedMeanFactory()  # makes zeros of nobody
    process = build("reptile", server_optimizer=adam, model_aggregator=uniform)
    silent, empty = 2, 3

    def of_round(number):
        if number == silent:
            return []
        return clients(number=number) if number != empty else clients(sizes=[0], number=number)

    state = round_loop.train(
        process,
        of_round,
        4,
        directory=tmp_path,
        title="it",
        figures_of_round=lambda number: {"clients/sampled": number},
    )
    said = capsys.readouterr().out
    for number in (silent, empty):
        assert f"it, round {number}: no client contributed. The model stays as it was." in said
    expected = process.initialize()
    for number in (1, 4):
        expected, _ = process.next(expected, of_round(number))
    tf.nest.map_structure(np.testing.assert_array_equal, state, expected)
    rows = round_loop.pd.read_csv(tmp_path / "metrics.csv")
    assert rows["clients/sampled"].tolist() == [1, 2, 3, 4]
    assert rows["train/num_examples"].tolist() == [56, 0, 0, 56]


def linear_model_fn():
    spec = collections.OrderedDict(
        x=tf.TensorSpec([None, 4], tf.float32), y=tf.TensorSpec([None, 1], tf.float32)
    )
    model = tf.keras.Sequential(
        [tf.keras.Input([4]), tf.keras.layers.Dense(1, kernel_initializer="zeros")]
    )
    return tff.learning.models.from_keras_model(
        model, loss=tf.keras.losses.MeanSquaredError(), input_spec=spec
    )


def test_dropout_of_half_learns_as_half_the_cohort_does(tff_runtime):
    truth = np.array([1.0, -2.0, 0.5, 3.0])

    def of_client(client):
        random = np.random.default_rng(int(client))
        x = random.normal(size=(6, 4)).astype(np.float32)
        return x, (x @ truth + 0.3 * random.normal(size=6)).astype(np.float32)[:, np.newaxis]

    ids = [str(number) for number in range(60)]
    data = {client: of_client(client) for client in ids}
    process = fm.build_reptile(linear_model_fn, inner_learning_rate=0.02, batch_size=6)

    def train(rounds, clients_per_round, **how):
        cohort = cohorts(ids=ids, clients_per_round=clients_per_round, **how)
        state = round_loop.train(
            process,
            lambda number: [fm.client_dataset(*data[c]) for c in cohort(number).answering],
            rounds,
        )
        return process.get_model_weights(state).trainable[0][:, 0]

    all_x, all_y = (np.concatenate(parts) for parts in zip(*data.values()))
    best = np.linalg.lstsq(all_x, all_y[:, 0], rcond=None)[0]
    half, dropped = train(300, 3), train(300, 6, client_dropout=0.5)
    assert np.abs(half - best).max() < 0.1 and np.abs(dropped - best).max() < 0.1
