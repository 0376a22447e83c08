"""The examples are run, so that they cannot rot."""

import re
import runpy
from pathlib import Path

import numpy as np

from tff_fedmeta import runtime

ROOT = Path(__file__).parent.parent


def test_own_model_learns_to_adapt_to_unseen_clients(tmp_path, monkeypatch):
    runtime.quiet_tensorflow()
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(ROOT / "examples" / "own_model.py"))
    accuracy = np.mean([result["accuracy"] for result in names["unseen"]], axis=0)
    assert accuracy[-1] > accuracy[0] + 0.02
    import tensorflow as tf

    saved = tf.keras.models.load_model(tmp_path / "reptile.keras", compile=False).get_weights()
    for mine, theirs in zip(saved, names["weights"].trainable):
        np.testing.assert_array_equal(mine, theirs)


def test_the_readmes_listing_runs_on_the_examples_model_and_clients(tmp_path, monkeypatch):
    runtime.quiet_tensorflow()
    monkeypatch.chdir(tmp_path)
    (listing,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    source = (ROOT / "examples" / "own_model.py").read_text()
    names = {}
    exec(source[: source.index("with fm.local_runtime()")], names)  # build_model, model_fn, client

    def arrays(number):
        element = names["client"](number).get_single_element()
        return element["x"].numpy(), element["y"].numpy()

    names["clients"] = [arrays(i) for i in range(10)]
    names["validation"] = {f"validation_{i}": arrays(100 + i) for i in range(5)}
    names["test"] = {f"test_{i}": arrays(200 + i) for i in range(10)}
    exec(compile(listing, "README.md", "exec"), names)
    summary = names["result"]["summary"]
    assert summary["after"]["mean"] >= summary["before"]["mean"]
    assert (tmp_path / "reptile.keras").exists()
