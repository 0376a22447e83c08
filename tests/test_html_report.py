"""report.html: one file, whole, safe to open, and readable without a network."""

import html.parser
import json
import re
import shutil
import subprocess

import pytest
from run_files import CURVES, make_config, write_run

from tff_fedmeta.experiment import html_report, saved_run


class Page(html.parser.HTMLParser):
    """Notes the elements, their attributes and the text of table cells."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.cells, self._in_cell = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in_cell = tag == "td"
        if self._in_cell:
            self.cells.append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "finished"
    return write_run(directory, ids=["<script>alert(1)</script>", "f"])


@pytest.fixture(scope="module")
def page(finished):
    return Page((finished / "report.html").read_text())


def test_plots_are_vectors_and_nothing_is_fetched(page, finished):
    assert len(page.all("svg")) == 5 and not page.all("img")
    assert not page.all("link") and all("src" not in attrs for attrs in page.all("script"))
    text = (finished / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", text.replace("xlink:href", "href"))
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_clients_have_rows_to_sort_by_and_their_ids_are_text(page):
    rows = [attrs["data-value"] for attrs in page.all("td") if "data-value" in attrs]
    assert rows[:7] == ["<script>alert(1)</script>", "3", "4", "0.5", "0.7", "0.5", "0.4"]
    assert len(page.all("script")) == 1
    assert "<script>alert(1)</script>" in page.cells
    assert {"70.0", "40.0"} <= set(page.cells)


def test_table_sentence_configuration_and_usage_are_there(page, finished):
    text = (finished / "report.html").read_text()
    assert "<strong>embedded (synthetic" in text
    assert "reptile is better than fedavg by 20.0 points" in text
    assert make_config().hash in page.cells
    assert "load_model(&#34;reptile/keras_model/model.keras&#34;)" in text
    assert "few.batch(20).take(2)" in text


def test_a_model_that_adapting_did_not_help_is_used_as_it_is(tmp_path):
    adaptation = {"inner_learning_rate": 0.1, "steps": 0, "batch_size": 2}
    (tmp_path / "metadata.json").write_text(json.dumps({"adaptation": adaptation}))
    usage = html_report.usage(html_report.Models("it", tmp_path), tmp_path)
    assert "fit" not in usage["code"] and usage["code"].endswith("model.predict(x)")


@pytest.mark.parametrize(
    ("how", "step"),
    [
        ({"learned_rates": "adaptation_rates.npz"}, "rate * gradient"),
        (
            {"learned_rates": "adaptation_rates.npz", "inner_rates": "per_step_and_layer"},
            "rate[min(k, len(rate) - 1)] * gradient",
        ),
        ({"proximal_strength": 2.0}, "0.1 * (gradient + 2 * (variable - start))"),
    ],
)
def test_the_usage_of_models_that_keras_cannot_adapt_is_their_own_step(how, step, tmp_path):
    import numpy as np
    import tensorflow as tf

    adaptation = {"inner_learning_rate": 0.1, "steps": 3, "batch_size": 2, **how}
    model = tf.keras.Sequential([tf.keras.Input([2]), tf.keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    start = model.get_weights()
    rates = [np.full_like(w, 0.1) for w in start]
    if "inner_rates" in how:  # of two steps, of which the last one is for all that follow
        rates = [np.stack([rate, rate]) for rate in rates]
    np.savez(tmp_path / "adaptation_rates.npz", *rates)
    (tmp_path / "metadata.json").write_text(json.dumps({"adaptation": adaptation}))
    usage = html_report.usage(html_report.Models("it", tmp_path), tmp_path.parent / "elsewhere")
    assert step in usage["code"]
    x, y = np.ones([4, 2], np.float32), np.zeros([4, 1], np.float32)
    names = {"x": x, "y": y, "loss": tf.keras.losses.MeanSquaredError()}
    exec(usage["code"], names)
    weights, expected = names["model"].get_weights(), [w.copy() for w in start]
    for _ in range(3):  # every batch is alike
        error = 2 * (x[0] @ expected[0] + expected[1])
        pull = how.get("proximal_strength", 0)
        expected[0] -= 0.1 * (error * np.ones([2, 1]) + pull * (expected[0] - start[0]))
        expected[1] -= 0.1 * (error + pull * (expected[1] - start[1]))
    for mine, theirs in zip(weights, expected):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_many_points_are_an_image_and_the_file_is_the_same_at_every_writing(tmp_path):
    curves = {name: rows * 600 for name, rows in CURVES.items()}
    ids = [f"client_{i}" for i in range(1200)]
    directory = write_run(tmp_path / "many", curves=curves, ids=ids)
    text = (directory / "report.html").read_text()
    assert text.count("data:image/png;base64") == 2  # both plots of points
    (directory / "report.html").unlink()
    write_run(directory, curves=curves, ids=ids)
    assert (directory / "report.html").read_text() == text


def test_the_script_sorts_in_a_browser(finished, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser")
    text = (finished / "report.html").read_text()
    click = 'document.querySelectorAll(".clients th button")[6].click();'
    (tmp_path / "page.html").write_text(text.replace("</body>", f"<script>{click}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [browser, *options, (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "CONSOLE" not in done.stderr
    values = [a["data-value"] for a in Page(done.stdout).all("td") if "data-value" in a]
    assert values[6::7] == ["0.4", "0.8"]
    assert saved_run.load_run(finished).clients["fedavg"]["after"].tolist() == [0.4, 0.8]
