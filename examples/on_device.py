"""Plays the phone: an exported model adapts to one user, with TensorFlow Lite and NumPy alone.

    python examples/on_device.py runs/quickstart/reptile/keras_model user.npz

`user.npz` has a user's few examples, the arrays x and y, and what to predict for, query_x, as
metadata.json says. The first call adapts, predicts and saves. The second, an application that was
started again, restores what was saved and predicts the same.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np


class AdaptableModel:
    """adaptable.tflite with what metadata.json says of it.

    Args:
      home: The directory `keras_model` of a run with --export=keras,tflite.
    """

    def __init__(self, home):
        self.home = Path(home)
        self.metadata = json.loads((self.home / "metadata.json").read_text())
        self.facts = self.metadata.get("tflite", {"error": "the run had no --export=keras,tflite."})
        if "error" in self.facts:
            raise SystemExit(f"{home} has no adaptable.tflite: {self.facts['error']}")
        file = str(self.home / self.facts["file"])
        # The interpreter is kept: the functions that it gives are its parts.
        self.interpreter = interpreter_kind(self.facts["select_ops"])(model_path=file)
        names = ("train", "infer", "save", "restore")
        self.call = {name: self.interpreter.get_signature_runner(name) for name in names}

    def adapt(self, x, y, seed=0):
        """Takes the steps of adaptation that the run chose; returns the loss before each."""
        how = self.metadata["adaptation"]
        random, order, losses = np.random.default_rng(seed), [], []
        for _ in range(how["steps"]):
            if not len(order):
                order = random.permutation(len(x))
            batch, order = order[: how["batch_size"]], order[how["batch_size"] :]
            losses.append(float(self.call["train"](x=x[batch], y=y[batch])["loss"]))
        return losses

    def predict(self, x):
        """Returns names of classes, or quantities in their own unit; else the output itself."""
        output, told = self.call["infer"](x=x)["output"], self.metadata["output"]
        if "classes_file" in told:
            told = {"classes": json.loads((self.home / told["classes_file"]).read_text())}
        if "classes" in told:
            return np.array(told["classes"])[output.argmax(axis=-1)]
        return output * told.get("scale", 1.0) + told.get("mean", 0.0)

    def save(self, path):
        """Writes the weights that adaptation moves, whole or not at all."""
        aside = f"{path}.partial"
        if self.facts["checkpoints"] == "file":
            self.call["save"](checkpoint_path=np.array(aside, np.bytes_))
        else:
            with open(aside, "wb") as file:
                np.savez(file, **self.call["save"]())
        os.replace(aside, path)

    def restore(self, path):
        """Reads what `save` wrote."""
        if self.facts["checkpoints"] == "file":
            self.call["restore"](checkpoint_path=np.array(str(path), np.bytes_))
        else:
            with np.load(path, allow_pickle=False) as weights:
                self.call["restore"](**weights)


def interpreter_kind(select_ops):
    """Returns an interpreter for a file: the small package, or TensorFlow's for its operators."""
    if not select_ops:
        try:
            from ai_edge_litert.interpreter import Interpreter

            return Interpreter
        except ImportError:
            pass
    import tensorflow as tf

    return tf.lite.Interpreter


def main(home, user_file):
    """Adapts and saves, or restores, and predicts; returns the predictions."""
    model = AdaptableModel(home)
    print(f"Inputs: {model.metadata['input'].get('meaning', 'not said')}.")
    # Weights belong to one model: after an update the user's examples adapt the new one.
    told = model.metadata
    saved = Path(user_file).with_suffix(f".{told['algorithm']}-{told['config_hash']}.weights")
    with np.load(user_file, allow_pickle=False) as user:
        if saved.exists():
            model.restore(saved)
            print(f"Restored {saved}.")
        else:
            start = time.perf_counter()
            losses = model.adapt(user["x"], user["y"])
            seconds = (time.perf_counter() - start) / max(len(losses), 1)
            model.save(saved)
            print(f"Adapted to {len(user['x'])} examples; the loss before each step:")
            print(" ".join(f"{loss:.3f}" for loss in losses))
            print(f"{1000 * seconds:.1f} ms a step.")
            print(f"Saved {saved}, {saved.stat().st_size:,} bytes.")
        predictions = model.predict(user["query_x"])
    print(f"Predicted: {' '.join(map(str, predictions[:10].reshape(-1)[:10]))}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    print(f"At most {peak:.0f} MB of memory.")
    return predictions


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
