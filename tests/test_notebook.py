"""The notebook in examples/ runs as it stands there, and has the outputs of a run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def outputs(notebook):
    return [
        output
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    ]


def test_the_committed_notebook_was_run_from_top_to_bottom_without_an_error():
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for output in outputs(notebook)}
    assert "error" not in kinds
    images = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(images) == 2
    assert "tensorflow/core" not in NOTEBOOK.read_text()  # what TensorFlow prints
    assert "INFO:tensorflow" not in NOTEBOOK.read_text()
    assert "/home/" not in NOTEBOOK.read_text() and "/tmp/" not in NOTEBOOK.read_text()


def test_jupyterlab_starts():
    pytest.importorskip("jupyterlab", reason="`make jupyter` installs it")
    done = subprocess.run([sys.executable, "-m", "jupyterlab", "--version"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_notebook_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="`make jupyter` installs it")
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells[1].source = notebook.cells[1].source.replace('".."', repr(str(ROOT)))
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    before_and_after = re.search(r"\{'before': ([\d.]+), 'after': ([\d.]+)\}", str(notebook))
    assert float(before_and_after[2]) > float(before_and_after[1])
    assert (tmp_path / "runs" / "quickstart" / "report.html").exists()
