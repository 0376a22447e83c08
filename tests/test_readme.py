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


def test_the_readmes_listing_is_what_the_example_does():
    """Its calls stand in the example or in a document's listing, with the same arguments."""
    (listing,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = (ROOT / "examples" / "own_model.py").read_text()
    for line in (
        "fm.build_reptile(model_fn, inner_learning_rate=0.2, inner_epochs=3, batch_size=10)",
        "weights = reptile.get_model_weights(state)",
        'fm.to_keras(build_model(), weights).save("reptile.keras")',
    ):
        assert line in listing and line in example
