"""Intervals, paired differences and the words for them, against independent computations."""

import json

import numpy as np
import pytest

from tff_fedmeta.experiment import comparison, comparison_words


def result(before, after, ids=None, metric="accuracy"):
    """The content of an adaptation_test.json whose chosen step is 2."""
    ids = ids or [f"w{index}" for index in range(len(before))]
    clients = [
        {"client_id": client, metric: [b, 0.0, a, 0.0]} for client, b, a in zip(ids, before, after)
    ]
    return {
        "metric": metric,
        "data_source": "tff",
        "chosen": {"inner_learning_rate": 0.02, "steps": 2},
        "clients": clients,
    }


def random_result(seed, count=40, shift=0.0, ids=None):
    before = np.random.default_rng(count).integers(50, 90, count) / 100  # how hard each writer is
    random = np.random.default_rng(seed)
    after = before + random.integers(-3, 9, count) / 100 + shift
    return result(before.tolist(), after.tolist(), ids)


def after_of(run):
    return np.array([client["accuracy"][2] for client in run["clients"]])


def own_interval(values, draws=20_000):
    """The plain percentile bootstrap, written without SciPy."""
    random = np.random.default_rng(123)
    picks = random.integers(0, len(values), (draws, len(values)))
    return np.percentile(np.asarray(values)[picks].mean(1), [2.5, 97.5])


def test_everything_agrees_with_an_independent_computation():
    runs = {"maml": [random_result(1)], "fedavg": [random_result(2)]}
    found = comparison.compare(runs, "fedavg")
    mine, theirs = after_of(runs["maml"][0]), after_of(runs["fedavg"][0])
    before = np.array([client["accuracy"][0] for client in runs["maml"][0]["clients"]])
    row = found["algorithms"]["maml"]
    assert row["after"]["mean"] == pytest.approx(np.mean(mine))
    assert row["after"]["std"] == pytest.approx(np.std(mine))
    assert row["after"]["p10"] == pytest.approx(np.percentile(mine, 10))
    assert row["share_hurt"] == np.mean(mine - before < -1e-9)
    assert row["gain"]["mean"] == pytest.approx(np.mean(mine - before))
    versus = row["versus_baseline"]
    assert versus["mean"] == pytest.approx(np.mean(mine - theirs))
    for interval, values in (
        (versus["ci95"], mine - theirs),
        (row["gain"]["ci95"], mine - before),
    ):
        # Ours is 4.5 % wider on purpose: less than 0.2 points of intervals like these.
        np.testing.assert_allclose(interval, own_interval(values), rtol=0, atol=0.002)
    difference = np.round(mine - theirs, 6)
    assert (versus["wins"], versus["ties"], versus["losses"]) == (
        np.sum(difference > 0),
        np.sum(difference == 0),
        np.sum(difference < 0),
    )
    assert found["algorithms"]["fedavg"]["versus_baseline"] is None
    assert (found["num_clients"], found["repetitions"]) == (40, 1)
    assert found["data_source"] == "tff" and found["metric"] == "accuracy"
    json.dumps(found, allow_nan=False)


def test_pairing_is_by_client_not_by_place():
    first = random_result(1)
    turned = {**first, "clients": first["clients"][::-1]}
    with pytest.raises(ValueError, match="same clients"):
        comparison.compare({"maml": [first], "fedavg": [random_result(1, count=39)]}, "fedavg")
    found = comparison.compare({"maml": [turned], "fedavg": [first]}, "fedavg")
    assert found["algorithms"]["maml"]["versus_baseline"]["ties"] == 40


def test_identical_algorithms_differ_by_exactly_nothing():
    runs = [random_result(seed) for seed in range(3)]
    found = comparison.compare({"maml": runs, "fedavg": runs}, "fedavg")
    assert found["algorithms"]["maml"]["versus_baseline"] == {
        "mean": 0.0,
        "ci95": [0.0, 0.0],
        "wins": 0,
        "ties": 40,
        "losses": 0,
    }
    one, other = (found["algorithms"][name] for name in ("maml", "fedavg"))
    assert one["after"] == other["after"] and one["gain"] == other["gain"]
    assert comparison_words.sentences(found) == [
        "Maml and fedavg do exactly alike on each of these 40 test clients; by repetition: +0.0, "
        "+0.0, +0.0."
    ]


@pytest.mark.parametrize("count", [8, 40])
def test_interval_of_relabelled_pairs_covers_nothing_in_95_percent(count):
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        differences = random.gamma(2.0, 0.02, count) * random.choice([-1, 1], count)
        low, high = comparison.interval(differences)
        covered += low <= 0 <= high
    assert 181 <= covered <= 198  # 95 % of 200, give or take three standard errors


def test_a_lower_metric_that_is_better_wins():
    runs = {
        "maml": [result([2.0, 2.0, 2.0], [1.0, 1.0, 1.5], metric="loss")],
        "fedavg": [result([2.0, 2.0, 2.0], [1.5, 1.4, 1.5], metric="loss")],
    }
    found = comparison.compare(runs, "fedavg", higher_is_better=False)
    versus = found["algorithms"]["maml"]["versus_baseline"]
    assert versus["mean"] == pytest.approx(-0.3)
    assert (versus["wins"], versus["ties"], versus["losses"]) == (2, 1, 0)
    assert found["algorithms"]["maml"]["share_hurt"] == 0


def test_a_clients_value_is_its_mean_over_the_repetitions_that_tested_it():
    ids = [["a", "b", "c"], ["b", "c", "d"]]
    first = [
        result([0.5, 0.5, 0.5], [0.6, 0.7, 0.8], ids[0]),
        result([0.4, 0.4, 0.4], [0.9, 0.6, 0.5], ids[1]),
    ]
    second = [
        result([0.5, 0.5, 0.5], [0.5, 0.7, 0.8], ids[0]),
        result([0.4, 0.4, 0.4], [0.7, 0.7, 0.5], ids[1]),
    ]
    found = comparison.compare({"maml": first, "fedavg": second}, "fedavg")
    assert found["num_clients"] == 4 and found["repetitions"] == 2
    versus = found["algorithms"]["maml"]["versus_baseline"]
    assert versus["mean"] == pytest.approx(np.mean([0.1, 0.1, -0.05, 0.0]))
    assert (versus["wins"], versus["ties"], versus["losses"]) == (2, 1, 1)
    means = found["algorithms"]["maml"]["repetitions"]
    assert [run["after"] for run in means] == pytest.approx([0.7, 2 / 3])


def test_rounding_is_a_tie():
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in their last bit.
    forth = [result([0.0], [value]) for value in (0.1, 0.2, 0.3)]
    found = comparison.compare({"maml": forth, "fedavg": forth[::-1]}, "fedavg")
    assert found["algorithms"]["maml"]["versus_baseline"]["ties"] == 1


def test_clients_that_diverged_count_as_lost_are_in_no_mean_and_are_told():
    runs = {
        "maml": [result([0.5] * 5, [0.6, 0.7, None, 0.8, None])],
        "fedavg": [result([0.5] * 5, [0.6, 0.6, 0.6, None, None])],
    }
    found = comparison.compare(runs, "fedavg")
    row = found["algorithms"]["maml"]
    assert row["diverged"] == 2 and row["share_hurt"] == pytest.approx(0.4)
    assert row["after"]["mean"] == pytest.approx(0.7)
    versus = row["versus_baseline"]
    assert versus["mean"] == pytest.approx(0.05)  # of the two clients that both have
    assert (versus["wins"], versus["ties"], versus["losses"]) == (2, 2, 1)
    (text,) = comparison_words.sentences(found)
    assert "adapting diverged with maml on 2 and with fedavg on 2 of the test clients" in text
    json.dumps(found, allow_nan=False)


def test_an_algorithm_that_diverged_everywhere_still_has_a_row():
    runs = {"maml": [result([0.5] * 3, [None] * 3)], "fedavg": [random_result(0, 3)]}
    found = comparison.compare(runs, "fedavg")
    assert found["algorithms"]["maml"]["after"]["mean"] is None
    assert found["algorithms"]["maml"]["versus_baseline"]["losses"] == 3
    assert "cannot be compared" in comparison_words.sentences(found)[0]
    json.dumps(found, allow_nan=False)


def test_one_client_has_no_interval():
    found = comparison.compare({"maml": [result([0.5], [0.7])]}, "maml")
    assert found["algorithms"]["maml"]["after"]["ci95"] == [None, None]
    json.dumps(found, allow_nan=False)


def test_the_baseline_has_to_be_there_and_can_be_left_out():
    with pytest.raises(ValueError, match="fedavg"):
        comparison.compare({"maml": [random_result(0)]}, "fedavg")
    found = comparison.compare({"maml": [random_result(0)]}, None)
    assert found["baseline"] is None and comparison_words.sentences(found) == []


def test_a_difference_that_is_there_is_told_with_its_interval():
    better = comparison.compare(
        {"maml": [random_result(1, shift=0.1)], "fedavg": [random_result(1)]}, "fedavg"
    )
    low, high = better["algorithms"]["maml"]["versus_baseline"]["ci95"]
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)
    assert comparison_words.sentences(better, clients="writers") == [
        "On these 40 writers maml is better than fedavg by 10.0 points (95 %: 10.0 to 10.0)."
    ]
    (worse,) = comparison_words.sentences(better, higher_is_better=False)
    assert "maml is worse than fedavg by 10.0 points" in worse
    turned = comparison.compare(
        {"maml": [random_result(1)], "fedavg": [random_result(1, shift=0.1)]}, "fedavg"
    )
    assert "maml is worse than fedavg by 10.0 points" in comparison_words.sentences(turned)[0]


def test_a_difference_that_is_not_told_says_how_many_clients_it_takes():
    random = np.random.default_rng(5)
    theirs = random.uniform(0.6, 0.8, 40)
    mine = theirs + random.permutation(np.repeat([-0.05, 0.05], 20))
    found = comparison.compare(
        {"maml": [result(mine, mine)], "fedavg": [result(theirs, theirs)]}, "fedavg"
    )
    (text,) = comparison_words.sentences(found, clients="writers")
    assert text.startswith("No difference between maml and fedavg can be told on these 40 writers:")
    # (2.8 standard deviations of 0.05 / 0.01)^2 = 196, and the interval is 4.5 % wider than that.
    needed = int(text.split("about ")[1].split(" writers")[0])
    assert 190 <= needed <= 225


def test_other_metrics_are_told_in_their_own_unit():
    runs = {
        "maml": [result([2.0] * 4, [1.0, 1.1, 1.2, 1.3], metric="loss")],
        "fedavg": [result([2.0] * 4, [1.5, 1.5, 1.6, 1.9], metric="loss")],
    }
    found = comparison.compare(runs, "fedavg", higher_is_better=False)
    (text,) = comparison_words.sentences(found, higher_is_better=False)
    assert "maml is better than fedavg by 0.475 of loss" in text


def with_sizes(after, others=None):
    """A result whose clients adapted on 5 examples too, and were taken to other clients."""
    run = result([0.5] * len(after), after)
    rows = [{"client_id": f"w{i}", "after": value} for i, value in enumerate(after)]
    run["support_sizes"] = [
        {"size": 5, "chosen": None, "clients": rows},
        {"size": 50, "chosen": None, "clients": []},
    ]
    if others is not None:
        run["others"] = [
            {"client_id": f"w{i}", "before": 0.8, "after": value} for i, value in enumerate(others)
        ]
    return run


def test_sizes_of_support_and_other_clients_are_means_over_repetitions():
    runs = [
        with_sizes([0.6, 0.7, None], [0.7, 0.8, 0.9]),
        with_sizes([0.8, 0.9, 0.9], [0.5, 0.5, 0.5]),
    ]
    row = comparison.compare({"fedavg": runs}, None)["algorithms"]["fedavg"]
    five, fifty = row["support_sizes"]
    assert five["size"] == 5 and five["num_clients"] == 2  # one diverged once
    assert five["mean"] == pytest.approx(np.mean([0.7, 0.8]))
    assert five["ci95"][0] <= 0.75 <= five["ci95"][1]
    assert fifty == {"size": 50, "mean": None, "ci95": [None, None], "num_clients": 0}
    assert row["others"]["before"] == pytest.approx(0.8)
    assert row["others"]["after"] == pytest.approx(np.mean([0.6, 0.65, 0.7]))
    assert row["others"]["change"]["mean"] == pytest.approx(-0.15)
    json.dumps(row, allow_nan=False)


def test_what_was_not_measured_is_not_there():
    row = comparison.compare({"fedavg": [random_result(0)]}, None)["algorithms"]["fedavg"]
    assert "support_sizes" not in row and "others" not in row
    mixed = [with_sizes([0.6]), result([0.5], [0.6])]
    assert "support_sizes" not in comparison.compare({"a": mixed}, None)["algorithms"]["a"]
