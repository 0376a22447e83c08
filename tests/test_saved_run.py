"""A finished run, read back, and one that is not finished."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_files import make_config, metrics, write_algorithms, write_run

import tff_fedmeta as fm

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "finished")


def test_tables_have_the_figures_of_the_files(finished):
    run = fm.load_run(str(finished))
    row = run.comparison.loc["reptile"]
    assert row["before"] == pytest.approx(0.6) and row["after"] == pytest.approx(0.8)
    assert row["versus_baseline"] == pytest.approx(0.2)
    written = json.loads((finished / "comparison.json").read_text())["algorithms"]["reptile"]
    assert [row["after_low"], row["after_high"]] == written["after"]["ci95"]
    assert (row["wins"], row["ties"], row["losses"]) == (2, 0, 0)
    assert run.comparison.loc["fedavg", "share_hurt"] == 0.5
    assert np.isnan(run.comparison.loc["fedavg", "versus_baseline"])
    assert run.metrics["fedavg"]["train/num_batches"].tolist()[1:] == [5, 6]
    assert run.metrics["fedavg"].index.tolist() == metrics(0.5).index.tolist()
    clients = run.clients["reptile"]
    assert clients.index.tolist() == ["e", "f"] and clients["num_query"].tolist() == [4, 4]
    np.testing.assert_allclose(clients["gain"], [0.2, 0.2])


def test_the_plot_is_the_runs_and_shows_itself_in_a_notebook(finished):
    figure = fm.load_run(finished).plot()
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.2, 0.7])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_model_opens_with_its_weights_and_the_safe_opener(finished, tmp_path):
    import tensorflow as tf

    directory = shutil.copytree(finished, tmp_path / "run")
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=[3])])
    model.save(directory / "reptile" / "keras_model" / "model.keras")
    run = fm.load_run(directory)
    for mine, theirs in zip(run.keras_model("reptile").get_weights(), model.get_weights()):
        np.testing.assert_array_equal(mine, theirs)
    (directory / "fedavg" / "keras_model" / "model.keras").write_bytes(b"import os")
    with pytest.raises(ValueError, match=r"fedavg/keras_model/model\.keras"):
        run.keras_model("fedavg")
    with pytest.raises(ValueError, match="Did you mean 'reptile'"):
        run.keras_model("reptil")
    with pytest.raises(ValueError, match="repetition must be from 0 to 0, but is 1"):
        run.keras_model("reptile", 1)


def test_the_documents_listing_reads_a_run(finished, tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.chdir(tmp_path)
    directory = shutil.copytree(finished, tmp_path / "runs" / "quickstart")
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=[3])])
    model.save(directory / "reptile" / "keras_model" / "model.keras")
    mark = "<!-- tests/test_saved_run.py runs this -->\n```python\n"
    text = (ROOT / "docs" / "notebooks.md").read_text()
    (listing,) = re.findall(re.escape(mark) + r"(.*?)```", text, re.DOTALL)
    names = {}
    exec(listing, names)
    assert names["model"].count_params() == model.count_params()
    assert names["run"].comparison.loc["reptile", "after"] == pytest.approx(0.8)


def test_repetitions_are_told_apart_by_their_seed(tmp_path):
    run = fm.load_run(write_run(tmp_path, make_config(repetitions=2, seed=4)))
    assert run.metrics["reptile"].loc[5].index.tolist() == [0, 1, 2]
    assert run.clients["fedavg"].loc[(4, "e"), "after"] == 0.4
    assert run.model_directory("reptile", 1) == tmp_path / "seed_5" / "reptile" / "keras_model"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["comparison.md"], "the comparison is missing"),
        (["comparison.md", "fedavg/keras_model/metadata.json"], "the export of fedavg is missing"),
        (["comparison.md", "reptile/adaptation_test.json"], "the evaluation of reptile is missing"),
        (["comparison.md", "fedavg/checkpoints"], "the training of fedavg after round 0 of 2 is"),
        (["config.json"], "is no directory of a run: it has no config.json"),
        (["task.json"], "task.json cannot be read"),
        (["fedavg/adaptation_test.json"], "cannot be read"),
    ],
)
def test_what_is_missing_is_said(finished, tmp_path, missing, said):
    directory = shutil.copytree(finished, tmp_path / "run")
    for name in missing:
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=said) as error:
        fm.load_run(directory)
    assert str(directory) in str(error.value)


def test_the_repetition_that_is_not_finished_is_named(tmp_path):
    config = make_config(repetitions=2)
    write_run(tmp_path / "seed_0", config.repetition(0))
    (tmp_path / "config.json").write_text(config.to_json())
    with pytest.raises(ValueError, match="training of reptile after round 0 of 2 in seed_1 is mis"):
        fm.load_run(tmp_path)
    (tmp_path / "seed_1").mkdir()
    write_algorithms(tmp_path / "seed_1", config.repetition(1))
    with pytest.raises(ValueError, match="the comparison in seed_1 is missing"):
        fm.load_run(tmp_path)


def test_what_is_no_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere is no directory of a run"):
        fm.load_run(tmp_path / "nowhere")
