"""A run of who learns alone, on few examples and taken to other clients, against plain Keras."""

import json

import numpy as np
import pytest
from loading import load_task

import run_experiment
from tff_fedmeta import seeds

STEPS, SIZES, OTHERS = 20, (4, 9), 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    arguments = [
        "run_experiment.py",
        "--dataset=csv",
        "--data_source=embedded",
        "--algorithms=local",
        f"--hparam=local.adaptation_steps={STEPS}",
        "--hparam=local.inner_learning_rate=0.1",
        "--adaptation_learning_rates=0.1",
        "--adaptation_batch_size=4",
        f"--support_sizes={','.join(map(str, SIZES))},100000",
        f"--forgetting_clients={OTHERS}",
        f"--output_dir={directory}",
    ]
    assert run_experiment.main(arguments) == 0
    return directory


@pytest.fixture(scope="module")
def result(finished):
    return json.loads((finished / "local" / "adaptation_test.json").read_text())


@pytest.fixture(scope="module")
def task():
    return load_task("csv", data_source="embedded")


def sides_of(task, client_id):
    import tensorflow as tf

    from tff_fedmeta.client import support_query

    examples = tuple(tf.constant(array) for array in task.read_client(client_id))
    seed = seeds.stream_seed(0, "adaptation", client_id)
    sides = support_query.split_support_query(
        examples, seed, support_fraction=0.5, split=task.split
    )
    return tf.nest.map_structure(np.asarray, (sides.support, sides.query))


def adapted(task, client_id, rate, steps, size=None):
    """A Keras model after so many steps on the client's first `size` support examples."""
    import tensorflow as tf

    from tff_fedmeta.client import minibatches

    (x, y), _ = sides_of(task, client_id)
    x, y = x[:size], y[:size]
    seed = seeds.stream_seed(0, "adaptation", client_id)
    plan = minibatches.plan_minibatches(len(y), seed, batch_size=4, inner_steps=STEPS)
    model = task.build_keras_model()
    model.compile(tf.keras.optimizers.SGD(rate), task.build_loss(), task.build_metrics())
    for index in range(steps):
        batch = plan.indices(index).numpy()
        model.train_on_batch(x[batch], y[batch])
    return model


def accuracy(task, model, client_ids):
    queries = [sides_of(task, client)[1] for client in client_ids]
    return np.mean(
        [model.evaluate(*query, verbose=0, return_dict=True)[task.metric] for query in queries]
    )


def test_sizes_have_the_figures_of_that_many_examples(finished, result, task):
    *found, far = result["support_sizes"]
    assert [row["size"] for row in found] == list(SIZES)
    assert far == {"size": 100000, "chosen": None, "clients": []}
    for row in found:
        chosen = row["chosen"]
        enough = [c["client_id"] for c in result["clients"] if c["num_support"] >= row["size"]]
        assert [client["client_id"] for client in row["clients"]] == enough and enough
        for client in row["clients"][:1]:
            model = adapted(
                task,
                client["client_id"],
                chosen["inner_learning_rate"],
                chosen["steps"],
                row["size"],
            )
            expected = accuracy(task, model, [client["client_id"]])
            assert client["after"] == pytest.approx(expected, abs=1e-6)
    assert any(row["chosen"]["steps"] > 0 for row in found)
    row = json.loads((finished / "comparison.json").read_text())["algorithms"]["local"]
    assert row["support_sizes"][0]["mean"] == pytest.approx(
        np.mean([client["after"] for client in found[0]["clients"]])
    )
    assert "| local" in (finished / "comparison.md").read_text().split("on few examples")[1]


def test_others_have_the_figures_of_the_adapted_model_on_their_query(result, task):
    chosen = result["chosen"]
    assert chosen["steps"] > 0
    ids = [client["client_id"] for client in result["clients"]]
    assert [row["client_id"] for row in result["others"]] == ids
    for row in result["others"][:1]:
        rest = sorted(set(ids) - {row["client_id"]})
        rng = np.random.default_rng(seeds.stream_seed_int(0, "forgetting", row["client_id"]))
        others = [rest[i] for i in rng.permutation(len(rest))[:OTHERS]]
        model = adapted(task, row["client_id"], chosen["inner_learning_rate"], chosen["steps"])
        assert row["after"] == pytest.approx(accuracy(task, model, others), abs=1e-6)
        untrained = task.build_keras_model()
        untrained.compile(metrics=task.build_metrics())
        assert row["before"] == pytest.approx(accuracy(task, untrained, others), abs=1e-6)
    assert any(row["before"] != row["after"] for row in result["others"])
