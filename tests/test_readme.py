"""The README's library example is run, so that it cannot rot."""

import re
from pathlib import Path

import numpy as np

from tff_fedmeta import runtime

README = Path(__file__).parent.parent / "README.md"


def test_library_example_learns_to_adapt_to_unseen_clients(tmp_path, monkeypatch):
    runtime.quiet_tensorflow()
    (example,) = re.findall(
        r"test_readme.py runs this -->\n```python\n(.*?)```", README.read_text(), re.S
    )
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(example, str(README), "exec"), names)
    accuracy = np.mean([result["accuracy"] for result in names["unseen"]], axis=0)
    assert accuracy[-1] > accuracy[0] + 0.02
    import tensorflow as tf

    saved = tf.keras.models.load_model(tmp_path / "reptile.keras", compile=False).get_weights()
    for mine, theirs in zip(saved, names["weights"].trainable):
        np.testing.assert_array_equal(mine, theirs)
