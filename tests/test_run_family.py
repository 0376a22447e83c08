"""All algorithms in one run of the real `main()`, and what their users take home."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import cell, save_digits_model
from loading import load_task
from tff_files import write_database

import run_experiment
from datasets import emnist
from tff_fedmeta import seeds
from tff_fedmeta.algorithms import registry
from tff_fedmeta.config import ExperimentConfig

PAGE = Path(__file__).parent.parent / "docs" / "export.md"
ALGORITHMS = tuple(name for name, row in registry.REGISTRY.items() if row.trains)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    write_database(directory / emnist.FILE_NAME)
    save_digits_model(directory)
    return directory


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """The directory of a small run in which every algorithm trained."""
    directory = tmp_path_factory.mktemp("family")
    arguments = [
        "run_experiment.py",
        "--data_source=tff",
        f"--cache_dir={cache}",
        f"--output_dir={directory}",
        f"--model={cache / 'digits.keras'}",
        f"--algorithms={','.join([*ALGORITHMS, 'local'])}",
        "--hparam=local.adaptation_steps=45",
        "--only_digits",
        "--rounds=2",
        "--clients_per_round=3",
        "--batch_size=2",
        "--adaptation_steps=3",
        "--adaptation_learning_rates=0.05",
        "--rounds_per_evaluation=2",
        "--inner_learning_rate=0.05",  # FedSGD has none,
        "--export=keras,tflite",
    ]
    assert run_experiment.main(arguments) == 0
    return directory


def metrics(finished, algorithm):
    return pd.read_csv(finished / algorithm / "metrics.csv").set_index("round")


def test_every_algorithm_has_a_row_in_the_comparison(finished):
    text = (finished / "comparison.md").read_text()
    for algorithm in ALGORITHMS:
        assert cell(text, algorithm, "global") and cell(text, algorithm, "gradients")
    assert cell(text, "meta_sgd", "adaptation").endswith(" at learnt")


def test_all_walk_the_same_examples(finished):
    baseline = metrics(finished, "fedavg")["train/num_examples"].dropna().tolist()
    # The second of two rounds is Reptile's, of a number of steps.
    switching = metrics(finished, "fedavg_reptile")["work/examples"].tolist()
    assert switching[0] == baseline[0] and switching[1] > baseline[1]
    for algorithm in set(ALGORITHMS) - {"fedavg", "fedprox", "fedsgd", "fedavg_reptile"}:
        assert metrics(finished, algorithm)["work/examples"].dropna().tolist() == baseline
    for algorithm in ("fedprox", "fedsgd"):
        assert metrics(finished, algorithm)["train/num_examples"].dropna().tolist() == baseline


def test_second_order_costs_two_more_gradients_a_step(finished):
    first, second = (
        metrics(finished, name)["work/gradient_evaluations"].sum() for name in ("fomaml", "maml")
    )
    steps = metrics(finished, "fomaml")["work/gradient_evaluations"].sum()
    assert first < second < 3 * steps
    table = (finished / "comparison.md").read_text()
    assert cell(table, "maml", "gradients") == f"{int(second):,}"


def taken_home(finished, algorithm):
    """The model's directory, how it adapts and the results that were reported."""
    home = finished / algorithm / "keras_model"
    how = json.loads((home / "metadata.json").read_text())["adaptation"]
    return home, how, json.loads((finished / algorithm / "adaptation_test.json").read_text())


def query_and_batches(finished, cache, client_id, steps=3):
    """A client's query, and the batches of support of its steps, as in the evaluation."""
    import tensorflow as tf

    from tff_fedmeta.client import minibatches, support_query

    config = ExperimentConfig.from_json((finished / "config.json").read_text())
    task = load_task("emnist", data_source="tff", cache_dir=cache, only_digits=True)
    examples = tuple(tf.constant(array) for array in task.read_client(client_id))
    seed = seeds.stream_seed(config.seed, "adaptation", client_id)
    sides = support_query.split_support_query(
        examples, seed, support_fraction=config.support_fraction
    )
    plan = minibatches.plan_minibatches(
        sides.num_support, seed, batch_size=config.batch_size, inner_steps=steps
    )
    batches = [minibatches.gather_examples(sides.support, plan.indices(i)) for i in range(steps)]
    return sides.query, batches


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_exported_model_reproduces_the_reported_adaptation(finished, cache, algorithm):
    """With Keras, the files of `keras_model/` and the split of the evaluation, step by step."""
    import tensorflow as tf

    home, how, result = taken_home(finished, algorithm)
    if algorithm == "meta_sgd":
        assert how["inner_learning_rate"] is None
        with np.load(home / how["learned_rates"]) as file:
            rates = list(file.values())
    for client in result["clients"]:
        query, batches = query_and_batches(finished, cache, client["client_id"])
        model = tf.keras.models.load_model(home / "model.keras", compile=False)
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        losses, accuracies, start = [], [], None
        for batch in [*batches, None]:
            logits = model(query[0])
            losses.append(float(loss(query[1], logits)))
            accuracies.append(np.mean(np.argmax(logits, 1) == query[1]))
            if batch is None:
                break
            batch_x, batch_y = batch
            with tf.GradientTape() as tape:
                value = loss(batch_y, model(batch_x))
            gradients = tape.gradient(value, model.trainable_variables)
            if start is None:
                start = [variable.numpy() for variable in model.trainable_variables]
            pull = how.get("proximal_strength", 0.0)
            assert (pull > 0) == (algorithm in ("pfedme", "imaml"))
            gradients = [
                tf.convert_to_tensor(g) + pull * (v - s)
                for g, v, s in zip(gradients, model.trainable_variables, start)
            ]
            if algorithm != "meta_sgd":
                rates = [how["inner_learning_rate"] or 0.05] * len(gradients)
            for variable, rate, gradient in zip(model.trainable_variables, rates, gradients):
                variable.assign_sub(rate * gradient)
        np.testing.assert_allclose(losses, client["loss"], rtol=1e-3)
        np.testing.assert_allclose(accuracies, client["accuracy"], atol=1e-6)


@pytest.mark.parametrize("number, algorithm", enumerate(["meta_sgd", "pfedme"]))
def test_the_adaptation_that_the_page_shows_is_the_reported_one(finished, cache, number, algorithm):
    import tensorflow as tf

    examples = re.findall(
        r"test_run_family.py runs this -->\n```python\n(.*?)```", PAGE.read_text(), re.S
    )
    assert len(examples) == 2
    home, how, result = taken_home(finished, algorithm)
    (client, *_) = result["clients"]
    query, batches = query_and_batches(finished, cache, client["client_id"])
    model = tf.keras.models.load_model(home / "model.keras", compile=False)
    few = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=tuple(tf.TensorSpec([None, *t.shape[1:]], t.dtype) for t in batches[0]),
    )
    how = {**how, "steps": 3, "inner_learning_rate": 0.05}  # where there is one, the only one
    exec(examples[number], {"home": home, "model": model, "few": few, "how": how, "tf": tf})
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(loss(query[1], model(query[0]))) == pytest.approx(client["loss"][3], rel=2e-4)
    assert client["loss"][3] != pytest.approx(client["loss"][0], rel=1e-3)


def test_learnt_rates_are_one_for_every_weight_and_were_learnt(finished):
    import tensorflow as tf

    home = finished / "meta_sgd" / "keras_model"
    model = tf.keras.models.load_model(home / "model.keras", compile=False)
    with np.load(home / "adaptation_rates.npz") as file:
        rates = list(file.values())
    assert [rate.shape for rate in rates] == [tuple(w.shape) for w in model.trainable_variables]
    assert all(np.std(rate) > 0 for rate in rates[-2:])
    assert not (finished / "maml" / "keras_model" / "adaptation_rates.npz").exists()


def test_a_client_alone_starts_from_the_untrained_weights_and_takes_many_steps(finished, cache):
    import tensorflow as tf

    from tff_fedmeta import keras_files
    from tff_fedmeta.experiment import own_model

    result = json.loads((finished / "local" / "adaptation_test.json").read_text())
    assert {path.name for path in (finished / "local").iterdir()} == {"adaptation_test.json"}
    rate = result["chosen"]["inner_learning_rate"]
    measured = [*range(0, 45, 2), 45]
    assert rate in (0.05, 0.1) and result["chosen"]["steps"] in measured
    (client, *_) = result["clients"]
    query, batches = query_and_batches(finished, cache, client["client_id"], steps=45)
    task = load_task("emnist", data_source="tff", cache_dir=cache, only_digits=True)
    network = keras_files.open_model(cache / "digits.keras")
    model = own_model.replace_network(task, network).build_keras_model()
    model.compile(
        tf.keras.optimizers.SGD(rate), tf.keras.losses.SparseCategoricalCrossentropy(True)
    )
    losses = [model.evaluate(*query, verbose=0)]
    for x, y in batches:
        model.train_on_batch(x, y)
        losses.append(model.evaluate(*query, verbose=0))
    assert [k for k, loss in enumerate(client["loss"]) if loss is not None] == measured
    np.testing.assert_allclose(
        [losses[k] for k in measured], [client["loss"][k] for k in measured], rtol=2e-3
    )
    text = (finished / "comparison.md").read_text()
    assert "*local*: a client alone." in text and cell(text, "local", "versus") != "-"
    with pytest.raises(ValueError, match="unpack"):
        cell(text, "local", "gradients")
