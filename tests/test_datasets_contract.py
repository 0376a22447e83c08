"""What holds for every data set: its clients, its model and its options."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from loading import graph_weights, load_task

import datasets
import run_experiment
from datasets import DataError
from tff_fedmeta.algorithms.registry import REGISTRY

NAMES = [name for name, it in datasets.DATASETS.items() if "embedded" in it.data_sources]
OPTIONS = [(name, row) for name in datasets.DATASETS for row in datasets.describe_options(name)]
RANGED = [(name, row) for name, row in OPTIONS if row.range[:1] == ">"]
CHOICES = [(name, row) for name, row in OPTIONS if row.range and row.kind is str]
# Their orthogonal matrices come from a decomposition, which a graph computes a little differently.
ORTHOGONAL = ("stackoverflow", "shakespeare")


@functools.cache
def embedded(name, seed=0):
    return load_task(name, data_source="embedded", seed=seed)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def task(name):
    return embedded(name)


def groups(task):
    return task.train_clients, task.validation_clients, task.test_clients


def examples(task):
    return task.read_client(task.test_clients[0])


def named(pairs):
    return {"argvalues": pairs, "ids": [f"{name}-{row.name}" for name, row in pairs]}


# --- clients ---------------------------------------------------------------------------------


def test_it_says_what_it_is_and_that_it_is_embedded(name, task):
    assert (task.name, task.data_source) == (name, "embedded")
    assert task.has_real_data == (datasets.DATASETS[name].about.source != "embedded")


def test_no_client_is_in_two_groups_and_none_is_empty(task):
    everyone = [client for group in groups(task) for client in group]
    assert len(set(everyone)) == len(everyone) and all(groups(task))


def test_who_tests_does_not_depend_on_the_seed_and_their_number_can_be_said(name, task):
    assert groups(embedded(name, seed=1)) == groups(task)
    fewer = load_task(name, data_source="embedded", num_test_clients=3)
    assert len(fewer.test_clients) == 3 and fewer.test_clients == task.test_clients[:3]


def test_a_client_reads_the_same_again_and_as_the_input_spec_says(name, task):
    again = load_task(name, data_source="embedded")
    for array, other, spec in zip(examples(task), examples(again), task.input_spec):
        np.testing.assert_array_equal(array, other)
        assert array.dtype == spec.dtype.as_numpy_dtype
        assert spec.shape[0] is None and spec.shape.is_compatible_with(array.shape)
    x, y = examples(task)
    assert len(x) == len(y) > 1


def test_an_unknown_client_is_a_key_error(task):
    with pytest.raises(KeyError):
        task.read_client("nobody")


@pytest.mark.parametrize("number", [0, -1, 10**9])
def test_a_number_of_test_clients_out_of_range_is_refused(name, number):
    if number > 0 and name in ("omniglot", "sinusoid"):
        pytest.skip("clients are drawn from their ids, as many as are asked for")
    with pytest.raises(DataError, match=r"num_test_clients|The number of test clients"):
        load_task(name, data_source="embedded", num_test_clients=number)


def test_an_unknown_source_is_refused_with_the_right_ones(name):
    with pytest.raises(DataError, match=", ".join(datasets.DATASETS[name].data_sources)):
        load_task(name, data_source="mnist")


# --- model -----------------------------------------------------------------------------------


def test_every_build_starts_from_the_same_weights_also_in_a_graph(name, task):
    model = task.build_keras_model()
    for one, other in zip(model.get_weights(), task.build_keras_model().get_weights()):
        np.testing.assert_array_equal(one, other)
    # A seed that held in one graph only would give other numbers in the next.
    tolerance = 1e-6 if name in ORTHOGONAL else 0
    for _ in range(2):
        in_graph = graph_weights(task)
        assert len(in_graph) == len(model.trainable_variables)
        for one, other in zip(model.trainable_variables, in_graph):
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def test_another_seed_gives_every_kernel_other_weights(name, task):
    kernels, others = (
        [weight for weight in one.build_keras_model().get_weights() if np.ptp(weight) > 0]
        for one in (task, embedded(name, seed=1))
    )
    drawn = [(a, b) for a, b in zip(kernels, others) if a.ndim > 1]
    assert len(drawn) >= 2 and not any(np.array_equal(a, b) for a, b in drawn)


def test_predictions_fit_the_labels_the_loss_and_the_metric(name, task):
    x, y = examples(task)
    predicted = task.build_keras_model()(x).numpy()
    assert predicted.dtype == np.float32 and np.isfinite(predicted).all()
    if np.issubdtype(y.dtype, np.integer):  # classes: a logit for each
        assert predicted.shape[:-1] == y.shape and 0 <= y.min() <= y.max() < predicted.shape[-1]
        assert predicted.min() < 0  # no probabilities
    else:
        assert predicted.size == y.size and predicted.shape[0] == len(y)
    assert np.isfinite(task.build_loss()(y, predicted).numpy())
    metrics = {metric.name: metric for metric in task.build_metrics()}
    metrics[task.metric].update_state(y, predicted)
    assert np.isfinite(metrics[task.metric].result().numpy())
    assert task.higher_is_better == (task.metric == "accuracy")


def test_model_fn_takes_batches_of_any_size(task):
    model = task.model_fn()
    x, y = examples(task)
    for size in (1, len(x)):
        output = model.forward_pass({"x": x[:size], "y": y[:size]}, training=True)
        assert output.num_examples == size and np.isfinite(output.loss)


def test_saved_model_opens_with_plain_keras(task, tmp_path):
    import tensorflow as tf

    x, _ = examples(task)
    model = task.build_keras_model()
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


def test_training_splits_clients_as_evaluation_does(name, task):
    data_set = datasets.DATASETS[name]
    defaults = data_set.defaults_for(data_set.make_options())
    assert defaults.get("split", "random") == task.split
    assert set(defaults["hyperparameters"]) <= set(REGISTRY)


def test_what_the_numbers_mean_is_said_and_fits_the_model(task):
    told = task.meaning
    assert all((told.inputs, told.target, told.output))
    x, y = examples(task)
    output = task.build_keras_model().output_shape
    assert len(told.channels) in (0, x.shape[-1]) and len(told.classes) in (0, output[-1])
    for file in (told.ids_file, told.classes_file):
        assert file is None or json.dumps(task.assets[file])
    if told.classes_file is not None:
        assert len(task.assets[told.classes_file]) == output[-1]
    if np.issubdtype(y.dtype, np.floating) and told.scale != 1:
        quantities = np.concatenate([task.read_client(c)[1] for c in task.train_clients])
        assert abs(quantities.mean()) < 0.1 and abs(quantities.std() - 1) < 0.1


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "row"), **named(OPTIONS))
def test_an_option_says_what_it_means_and_takes_its_default(name, row):
    assert row.help.endswith(".") and row.range in row.text
    options = datasets.DATASETS[name].make_options({row.name: row.default})
    assert getattr(options, row.name) == row.default
    assert json.loads(json.dumps(dataclasses.asdict(options))) == dataclasses.asdict(options)


@pytest.mark.parametrize(("name", "row"), **named(RANGED))
def test_a_number_out_of_range_is_one_sentence_and_status_2_before_anything_is_loaded(
    name, row, capsys
):
    sign, low = row.range.split()[:2]
    bad = row.kind(low) - (sign == ">=")
    said = f"{row.name} must be a {'whole ' * (row.kind is int)}number {row.range}, but is {bad}."
    with pytest.raises(DataError) as error:
        load_task(name, data_source=datasets.DATASETS[name].about.source, **{row.name: bad})
    assert str(error.value) == said
    assert run_experiment.main(["", f"--dataset={name}", f"--{row.name}={bad}"]) == 2
    assert capsys.readouterr().err == f"Error: {said}\n"


@pytest.mark.parametrize(("name", "row"), **named(CHOICES))
def test_a_text_that_is_no_choice_is_refused_with_the_choices(name, row):
    with pytest.raises(DataError, match=f"^{row.name} must be one of {row.range}, but is 'x'.$"):
        datasets.DATASETS[name].make_options({row.name: "x"})


@pytest.mark.parametrize(("name", "row"), **named(OPTIONS))
def test_a_value_of_another_kind_is_refused(name, row):
    bad = 5 if row.kind in (str, bool) else "5"
    with pytest.raises(DataError, match=f"{row.name} must be .*, but is {bad!r}"):
        datasets.DATASETS[name].make_options({row.name: bad})


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_an_option_of_another_name_is_refused(name):
    with pytest.raises(DataError, match="has no option 'nothing'"):
        load_task(name, nothing=1)
