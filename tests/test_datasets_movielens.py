"""MovieLens: users in the order of time, the factorisation, and what it is measured by."""

import json

import numpy as np
import pytest
import tfds_files as files
from loading import load_task

import run_experiment
from datasets import DataError
from datasets.problems import factorisation, recommendation
from datasets.stand_ins import ratings as made_ratings

# Of user u, movie m: five stars less whatever sets u and m apart; later movies have lower numbers.
NUM_USERS, NUM_MOVIES = 12, 130


def make_ratings(users=NUM_USERS):
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        seen = rng.permutation(20)[: 10 + user % 3]  # of the first 20; all others have one rating
        rows += [(user, movie, 5.0 - (user + movie) % 4, 1000 - movie) for movie in seen]
    once = range(20, NUM_MOVIES)
    rows += [(movie % users, movie, 3.0, 2000 + movie) for movie in once]
    rng.shuffle(rows)  # TFDS's order is that of a hash
    return [(str(int(u)), int(m), float(r), int(t)) for u, m, r, t in rows]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    files.write_movielens(path, make_ratings())
    return path


@pytest.fixture(scope="module")
def real(directory):
    return load_task("movielens", data_source="tfds", cache_dir=directory)


@pytest.fixture(scope="module")
def stand_in():
    return load_task("movielens", data_source="embedded")


def of_training(task):
    return [row for row in make_ratings() if row[0] in task.train_clients]


# --- clients ---------------------------------------------------------------------------------


def test_users_are_the_clients_and_each_is_in_one_group(real):
    groups = [real.train_clients, real.validation_clients, real.test_clients]
    everyone = [client for group in groups for client in group]
    assert sorted(everyone) == sorted(str(user) for user in range(NUM_USERS))
    assert real.data_source == "tfds" and real.split == "ordered"
    with pytest.raises(KeyError):
        real.read_client("99")


def test_ratings_are_read_through_tfds_in_the_order_of_time(real):
    listed = real.assets["movies.json"]["movies"]
    place = {movie["movie_id"]: index for index, movie in enumerate(listed)}
    for user in ("0", real.test_clients[0]):
        mine = sorted((row for row in make_ratings() if row[0] == user), key=lambda row: row[3])
        x, y = real.read_client(user)
        assert (x.dtype, y.dtype) == (np.int32, np.float32)
        assert x[:, 0].tolist() == [place.get(str(movie), 0) for _, movie, _, _ in mine]
        assert y[:, 0].tolist() == [stars for _, _, stars, _ in mine]


def test_ratings_of_the_same_second_have_one_order(tmp_path):
    rows = [(user, movie, float(movie % 5 + 1), 7) for user in range(8) for movie in range(9)]
    files.write_movielens(tmp_path / "a", rows)
    files.write_movielens(tmp_path / "b", rows[::-1])
    one, other = (load_task("movielens", cache_dir=tmp_path / name) for name in "ab")
    assert one.data_source == "tfds"
    for client in ("0", "3"):
        for left, right in zip(one.read_client(client), other.read_client(client)):
            np.testing.assert_array_equal(left, right)


def test_movies_and_mean_come_from_training_clients_alone(real):
    rows = of_training(real)
    counts = {}
    for _, movie, _, _ in rows:
        counts[str(movie)] = counts.get(str(movie), 0) + 1
    enough = sorted((-n, movie) for movie, n in counts.items() if n >= 3)
    found = real.assets["movies.json"]
    assert found["movies"][0] == {"movie_id": "", "title": "", "num_ratings": 0}
    assert found["movies"][1:] == [
        {"movie_id": movie, "title": f"Céleste {movie} (1990)", "num_ratings": -n}
        for n, movie in enough
    ]
    assert found["mean_rating"] == pytest.approx(np.mean([stars for _, _, stars, _ in rows]))
    # Those with one rating are unknown, so that their id is trained.
    assert all(int(movie["movie_id"]) < 20 for movie in found["movies"][1:])
    assert any((real.read_client(client)[0] == 0).any() for client in real.train_clients)


def test_stand_in_has_the_same_element_structure(real, stand_in):
    for task in (real, stand_in):
        x, y = task.read_client(task.train_clients[0])
        assert x.shape == y.shape == (len(x), 1) and (x.dtype, y.dtype) == ("int32", "float32")
        assert set(np.unique(y)) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert real.input_spec == stand_in.input_spec


def test_embedded_users_are_pure_functions_and_rate_nothing_twice():
    one, again = (made_ratings.rate(0, "embedded_0007") for _ in range(2))
    for left, right in zip(one, again):
        np.testing.assert_array_equal(left, right)
    assert len(set(one.movies)) == len(one.movies) and (np.diff(one.times) >= 0).all()
    assert made_ratings.rate(1, "embedded_0007").movies.tolist() != one.movies.tolist()
    with pytest.raises(KeyError):
        made_ratings.rate(0, "embedded_9999")


def test_embedded_users_differ_in_what_their_earlier_ratings_tell(stand_in):
    """A user's own mean is nearer to the later ratings than everybody's, and Zipf's law holds."""
    mean = stand_in.assets["movies.json"]["mean_rating"]
    ours, own = [], []
    for client in stand_in.train_clients:
        y = stand_in.read_client(client)[1]
        earlier, later = np.split(y, [len(y) // 2])
        ours.append(np.sqrt(np.mean((later - mean) ** 2)))
        own.append(np.sqrt(np.mean((later - earlier.mean()) ** 2)))
    assert np.mean(own) < np.mean(ours) - 0.05
    counts = np.array([movie["num_ratings"] for movie in stand_in.assets["movies.json"]["movies"]])
    assert counts[1:41].sum() > 2.5 * counts[-40:].sum()


# --- what bad input gets ---------------------------------------------------------------------


def test_too_few_ratings_to_learn_from(tmp_path):
    files.write_movielens(tmp_path, [(u, u * 10 + m, 3.0, m) for u in range(4) for m in range(3)])
    with pytest.raises(DataError, match=r"Movies that 3 training users rated .* none among the 6"):
        load_task("movielens", data_source="tfds", cache_dir=tmp_path)


def test_rating_that_is_no_number(tmp_path):
    rows = make_ratings()
    files.write_movielens(tmp_path, [(*rows[0][:2], float("nan"), 1), *rows[1:]])
    with pytest.raises(DataError, match=r"must be a finite number"):
        load_task("movielens", data_source="tfds", cache_dir=tmp_path)


def test_missing_feature_ends_with_status_2(tmp_path, capsys):
    files.write_movielens(tmp_path, make_ratings(), leave_out=["timestamp"])
    arguments = ["run_experiment.py", "--dataset=movielens", "--data_source=tfds"]
    assert run_experiment.main([*arguments, f"--cache_dir={tmp_path}"]) == 2
    assert "lacks timestamp" in capsys.readouterr().err


# --- the model and its figures ---------------------------------------------------------------


def test_model_is_the_product_of_two_vectors_and_a_constant():
    model = factorisation.build_model(0, 9, 4, 3.5)
    vectors, taste, mood = model.get_weights()
    assert (vectors.shape, taste.shape, mood.tolist()) == ((9, 4), (4, 1), [3.5])
    movies = np.array([[0], [8], [3]], np.int32)
    expected = vectors[movies[:, 0]] @ taste + 3.5
    np.testing.assert_allclose(model.predict(movies, verbose=0), expected, rtol=1e-6)
    again = factorisation.build_model(0, 9, 4, 3.5).get_weights()
    np.testing.assert_array_equal(again[0], vectors)
    assert not np.allclose(factorisation.build_model(1, 9, 4, 3.5).get_weights()[0], vectors)


def test_tff_pools_the_error_of_clients_before_it_takes_the_root(stand_in):
    """The root of the mean over all examples, not the mean of batches' or clients' roots."""
    import tff_fedmeta as fm

    process = fm.build_reptile(
        stand_in.model_fn, inner_learning_rate=0.0, inner_epochs=1, batch_size=7
    )
    clients = [stand_in.read_client(client) for client in stand_in.train_clients[:3]]
    with fm.local_runtime():
        output = process.next(process.initialize(), [fm.client_dataset(x, y) for x, y in clients])
    model = stand_in.build_keras_model()
    errors = [model.predict(x, verbose=0) - y for x, y in clients]
    pooled = np.sqrt(np.mean(np.concatenate(errors) ** 2))
    assert output.metrics["client_work"]["train"]["rmse"] == pytest.approx(pooled, rel=1e-5)
    assert pooled != pytest.approx(np.mean([np.sqrt(np.mean(e**2)) for e in errors]), rel=1e-3)


def test_liked_movie_is_found_if_fewer_than_ten_of_the_others_are_as_good():
    others = np.arange(1, 101)  # exactly as many as are drawn
    scores = np.arange(200.0)
    scores[150:153] = [90.5, 91.5, 91.0]  # ten are better; nine; nine are better and one is equal
    liked = np.array([150, 151, 152])
    found = recommendation.find(scores, liked, others, np.random.default_rng(0))
    assert found.tolist() == [False, True, False]
    assert not recommendation.find(np.zeros(200), liked, others, np.random.default_rng(0)).any()


def test_chance_finds_ten_in_a_hundred_and_one():
    rng = np.random.default_rng(0)
    scores, liked = rng.random(3000), np.arange(1001, 3000)
    found = recommendation.find(scores, liked, np.arange(1, 1001), np.random.default_rng(1))
    assert np.mean(found) == pytest.approx(10 / 101, abs=0.02)


def measure(support, query, before, after, num_movies=140, seed=3):
    counts = np.arange(num_movies)[::-1].copy()  # movie 1 is the most popular
    as_examples = [
        (np.array([movies]).T.astype(np.int32), np.array([stars], np.float32).T)
        for movies, stars in (support, query)
    ]
    return recommendation.measure_client(counts, 3.0, *as_examples, before, after, seed)


def test_measures_of_a_client_worked_by_hand():
    """Likes movie 2 (popular) and 139 (the least), and not 70; one way finds 139, the other 2."""
    figures = measure(
        ([5, 6], [2.0, 5.0]),
        ([2, 70, 139], [4.0, 1.0, 5.0]),
        before=lambda x: np.float32(x),
        after=lambda x: np.float32(-x),
    )
    assert figures["global mean"] == {"rmse": pytest.approx(np.sqrt((1 + 4 + 4) / 3))}
    assert figures["user mean"] == {"rmse": pytest.approx(np.sqrt((0.5**2 + 2.5**2 + 1.5**2) / 3))}
    assert figures["before"] == {
        "rmse": pytest.approx(np.sqrt((2**2 + 69**2 + 134**2) / 3)),
        "hit-rate@10": 0.5,
    }
    assert figures["after"]["hit-rate@10"] == figures["most popular"]["hit-rate@10"] == 0.5


def test_rated_and_unknown_movies_are_never_among_the_others():
    """All rated movies and the unknown id have the best scores: they must not crowd out 139."""
    support, query = (list(range(1, 31)), [3.0] * 30), ([139, 31], [5.0, 1.0])
    scores = np.zeros([140, 1])
    scores[[0, *range(1, 32)]] = 9.0
    scores[139] = 5.0
    figures = measure(support, query, lambda x: scores[x[:, 0]], lambda x: -scores[x[:, 0]])
    assert figures["before"]["hit-rate@10"] == 1.0 and figures["after"]["hit-rate@10"] == 0.0


@pytest.mark.parametrize(
    ("query", "num_movies"), [(([2, 3], [3.5, 1.0]), 140), (([2, 3], [5.0, 1.0]), 103)]
)
def test_no_hit_rate_without_a_liked_movie_or_enough_others(query, num_movies):
    figures = measure(([4], [3.0]), query, np.float32, np.float32, num_movies)
    assert [set(named) for named in figures.values()] == [{"rmse"}] * 4 + [set()]


# --- a run -----------------------------------------------------------------------------------

ALGORITHMS = ("reptile", "fedavg")
SHORT = [
    "run_experiment.py",
    "--dataset=movielens",
    "--data_source=tfds",
    f"--algorithms={','.join(ALGORITHMS)}",
    "--rounds=6",
    "--clients_per_round=5",
    "--num_test_clients=12",
    "--batch_size=80",  # all of anybody's support: the order of examples does not matter
    "--adaptation_steps=4",
    "--adaptation_learning_rates=0.1",
    "--rounds_per_evaluation=6",
]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """TFDS's files of 60 embedded users: enough movies to rank liked ones among a hundred."""
    path = tmp_path_factory.mktemp("many")
    rated = {user: made_ratings.rate(0, user) for user in made_ratings.client_ids()[:60]}
    files.write_movielens(
        path,
        [
            (user, int(movie[1:]), float(stars), int(time))
            for user, ratings in rated.items()
            for movie, stars, time in zip(*ratings)
        ],
    )
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, many):
    path = tmp_path_factory.mktemp("run")
    assert run_experiment.main([*SHORT, f"--cache_dir={many}", f"--output_dir={path}"]) == 0
    return path


def read(finished, algorithm, name):
    return json.loads((finished / algorithm / f"{name}.json").read_text())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_measures_have_the_errors_that_the_evaluation_reports(finished, algorithm):
    adapted = read(finished, algorithm, "adaptation_test")
    measured = read(finished, algorithm, "measures_test")
    steps = adapted["chosen"]["steps"]
    assert steps > 0 and adapted["summary"]["after"]["mean"] < adapted["summary"]["before"]["mean"]
    for one, other in zip(adapted["clients"], measured["clients"]):
        assert one["client_id"] == other["client_id"]
        figures = other["figures"]
        assert figures["before"]["rmse"] == pytest.approx(one["rmse"][0], rel=1e-4)
        assert figures["after"]["rmse"] == pytest.approx(one["rmse"][steps], rel=1e-4)
    for when in ("before", "after"):
        mean = measured["summary"][when]["rmse"]
        assert mean["mean"] == pytest.approx(adapted["summary"][when]["mean"], rel=1e-4)
        assert mean["clients"] == len(adapted["clients"]) == 12


def test_what_is_compared_with_is_the_same_for_every_algorithm(finished):
    one, other = (read(finished, name, "measures_test")["clients"] for name in ALGORITHMS)
    for way in ("global mean", "user mean", "most popular"):
        assert [c["figures"][way] for c in one] == [c["figures"][way] for c in other]


def test_table_shows_every_way_to_predict(finished):
    text = (finished / "comparison.md").read_text()
    summary = read(finished, "reptile", "measures_test")["summary"]
    assert summary["after"]["hit-rate@10"]["clients"] >= 6
    lines = [line for line in text.splitlines() if line[:2] == "| "]
    rows = {line.split(" | ")[0][2:].strip(): line for line in lines}
    assert f"{summary['after']['hit-rate@10']['mean']:.4f}" in rows["reptile, after"]
    assert f"{summary['user mean']['rmse']['mean']:.4f}" in rows["user mean"]
    assert f"{summary['most popular']['hit-rate@10']['mean']:.4f}" in rows["most popular"]
    assert "fedavg, before" in rows and "global mean" in rows
    assert recommendation.EXPLANATION in text
    assert "Data source: **tfds**" in text
    assert "rmse on clients never trained on (lower is better)" in text


def test_exported_model_adapted_in_plain_keras_has_the_reported_error(finished, many):
    import tensorflow as tf

    task = load_task("movielens", data_source="tfds", cache_dir=many, num_test_clients=12)
    home = finished / "reptile" / "keras_model"
    how = json.loads((home / "metadata.json").read_text())["adaptation"]
    listed = json.loads((home / "movies.json").read_text())
    assert listed == task.assets["movies.json"]
    model = tf.keras.models.load_model(home / "model.keras")
    assert model.input_shape == (None, 1) and len(listed["movies"]) == len(model.get_weights()[0])
    start = model.get_weights()
    for client in read(finished, "reptile", "adaptation_test")["clients"][:3]:
        model.set_weights(start)
        x, y = task.read_client(client["client_id"])
        support, query = slice(client["num_support"]), slice(client["num_support"], None)
        assert client["num_support"] <= how["batch_size"]
        before = model.evaluate(x[query], y[query], verbose=0, return_dict=True)
        assert before["rmse"] == pytest.approx(client["rmse"][0], rel=1e-4)
        model.fit(x[support], y[support], batch_size=80, epochs=how["steps"], verbose=0)
        after = model.evaluate(x[query], y[query], verbose=0, return_dict=True)
        assert after["rmse"] == pytest.approx(client["rmse"][how["steps"]], rel=1e-4)
