"""All algorithms in one run of the real `main()`, and what their users take home."""

import json
import re
import shutil
import subprocess
import sys
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

PROGRAM = Path(__file__).parent.parent / "examples" / "on_device.py"
PAGE = Path(__file__).parent.parent / "docs" / "export.md"
ALGORITHMS = tuple(name for name, row in registry.REGISTRY.items() if row.trains)
# Runs the program of the examples, and says how far the weights moved the outputs.
PHONE = """
import pathlib, runpy, sys
import numpy as np
phone = runpy.run_path(sys.argv[1])
for home, user in zip(sys.argv[2::2], sys.argv[3::2]):
    phone["main"](home, user)
    model, x = phone["AdaptableModel"](home), np.load(user)["query_x"]
    before = model.call["infer"](x=x)["output"]
    (saved,) = pathlib.Path(user).parent.glob("user.*.weights")
    model.restore(saved)
    print(np.abs(model.call["infer"](x=x)["output"] - before).max())
assert not {"tff_fedmeta", "tensorflow_federated"} & set(sys.modules)
"""


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
        "--num_test_clients=3",
        "--export=keras,tflite,savedmodel",
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
    switching = metrics(finished, "fedavg_reptile")["work/examples"].dropna().tolist()
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
    for client in result["clients"][:1]:
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


# Adapts to every test client with the files alone, in a process that has nothing of ours.
RECOMPUTE = """
import json, sys
import numpy as np
import tensorflow as tf

def figures(logits, y):
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return {
        "loss": float(-log[np.arange(len(y)), y].mean()),
        "accuracy": float((log.argmax(axis=1) == y).mean()),
    }

found = {}
for home in sys.argv[2:]:
    interpreter = tf.lite.Interpreter(home + "/adaptable.tflite")
    train, infer, reset = map(interpreter.get_signature_runner, ("train", "infer", "reset"))
    serve = tf.saved_model.load(home + "/savedmodel").signatures["adapt_and_predict"]
    found[home] = []
    for number in range(int(sys.argv[1])):
        client = np.load(f"{number}.npz")
        x, y = client["query_x"], client["query_y"]
        reset()
        curve = [figures(infer(x=x)["output"], y)]
        for k in range(3):
            train(x=client[f"x{k}"], y=client[f"y{k}"])
            curve.append(figures(infer(x=x)["output"], y))
        support = [np.concatenate([client[f"{part}{k}"] for k in range(3)]) for part in "xy"]
        support_x, support_y, query_x = map(tf.constant, (*support, x))
        answer = serve(support_x=support_x, support_y=support_y, query_x=query_x)
        found[home].append({"tflite": curve, "savedmodel": figures(answer["output"], y)})
assert not {"tff_fedmeta", "tensorflow_federated"} & set(sys.modules)
json.dump(found, open("found.json", "w"))
"""


def test_the_files_alone_give_the_figures_of_every_test_client(finished, cache, tmp_path):
    homes = {
        name: taken_home(finished, name)[0] for name in ("reptile", "meta_sgd", "anil", "pfedme")
    }
    result = taken_home(finished, "reptile")[2]
    whole = []  # whether the server, which walks the support in its order, takes these batches
    for number, client in enumerate(result["clients"]):
        (x, y), batches = query_and_batches(finished, cache, client["client_id"])
        arrays = {
            f"{part}{k}": batch[i] for k, batch in enumerate(batches) for i, part in enumerate("xy")
        }
        np.savez(tmp_path / f"{number}.npz", query_x=x, query_y=y, **arrays)
        whole.append(all(len(batch[1]) == 2 for batch in batches[:2]))
    assert len(whole) == 3 and any(whole)
    arguments = [str(len(whole)), *map(str, homes.values())]
    subprocess.run([sys.executable, "-c", RECOMPUTE, *arguments], check=True, cwd=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    moved = set()
    for algorithm, home in homes.items():
        result = taken_home(finished, algorithm)[2]
        chosen = result["chosen"]["steps"]
        for client, mine, exact in zip(result["clients"], found[str(home)], whole):
            for name in ("loss", "accuracy"):
                curve = [point[name] for point in mine["tflite"]]
                np.testing.assert_allclose(curve, client[name], rtol=1e-4, atol=1e-6)
                if exact:
                    assert mine["savedmodel"][name] == pytest.approx(client[name][chosen], rel=1e-4)
                    moved.add(abs(client[name][chosen] - client[name][0]) > 1e-3)
    assert True in moved


def test_metadata_says_what_the_files_need(finished):
    for algorithm in ALGORITHMS:
        home = finished / algorithm / "keras_model"
        facts = json.loads((home / "metadata.json").read_text())
        assert facts["tflite"]["num_bytes"] == (home / "adaptable.tflite").stat().st_size
        head_alone = "weights" in facts["adaptation"]
        assert (facts["tflite"]["select_ops"] == []) == head_alone, algorithm
        files = [path for path in (home / "savedmodel").rglob("*") if path.is_file()]
        assert facts["savedmodel"]["num_bytes"] == sum(path.stat().st_size for path in files)
        assert set(facts["savedmodel"]["signatures"]) == {"serving_default", "adapt_and_predict"}


def test_the_phone_adapts_saves_and_is_restarted(finished, tmp_path):
    """With the weights in TensorFlow's file, and as arrays; in processes without this package."""
    random = np.random.default_rng(0)
    x, query = random.uniform(size=[2, 5, 28, 28]).astype(np.float32)
    arguments = []
    for algorithm in ("reptile", "anil"):
        home = tmp_path / algorithm
        shutil.copytree(finished / algorithm / "keras_model", home)
        metadata = json.loads((home / "metadata.json").read_text())
        metadata["adaptation"]["steps"] = 3  # whatever was chosen
        (home / "metadata.json").write_text(json.dumps(metadata))
        np.savez(home / "user.npz", x=x, y=np.arange(5, dtype=np.int32), query_x=query)
        arguments += [str(home), str(home / "user.npz")]
    command = [sys.executable, "-c", PHONE, str(PROGRAM), *arguments]
    first, second = (
        subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
        for _ in range(2)
    )
    first, second = first.splitlines(), second.splitlines()
    for said, again in ((first[:8], second[:5]), (first[8:], second[5:])):
        assert said[0] == "Inputs: a grey image of 28 x 28, 1.0 = paper and 0.0 = ink."
        assert len(said[2].split()) == 3 and said[4].startswith("Saved ")
        assert again[1].startswith("Restored ")
        assert (again[-3], again[-1]) == (said[-3], said[-1])
        assert set(said[-3].split()[1:]) <= set("0123456789") and float(said[-1]) > 1e-3


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


def test_the_other_listings_of_the_page_run_one_after_the_other(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/quickstart").symlink_to(finished)
    listings = re.findall(r"(?<!runs this -->\n)```python\n(.*?)```", PAGE.read_text(), re.S)
    random = np.random.default_rng(0)
    x = random.uniform(size=[5, 28, 28]).astype(np.float32)
    names = {"x": x, "y": random.integers(0, 10, 5).astype(np.int32)}
    for listing in listings:
        exec(listing, names)
    assert len(listings) == 5 and len(np.load("user.npz")["x"]) == 20
    request = json.loads(Path("request.json").read_text())
    metadata = json.loads((finished / "reptile/keras_model/metadata.json").read_text())
    signature = metadata["savedmodel"]["signatures"][request["signature_name"]]
    assert list(request["inputs"]) == signature["inputs"]
    size = Path("adaptable.tflite").stat().st_size
    assert size == pytest.approx(metadata["tflite"]["num_bytes"], rel=0.02)


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
