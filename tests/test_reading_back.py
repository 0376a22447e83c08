"""What is read back, and how: no pickle, one way to open Keras files."""

import ast
import os
import pathlib

import pytest

from tff_fedmeta.config import ExperimentConfig
from tff_fedmeta.experiment import ownership, run_directory

ROOT = pathlib.Path(run_directory.__file__).parents[2]
CODE = [
    path
    for part in ("tff_fedmeta", "datasets", "searches", "benchmarks", "run_experiment.py")
    for path in ([ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py")))
]


FORBIDDEN_MODULES = {"pickle", "dill", "joblib", "marshal", "shelve", "yaml"}
# What a driver and its workers send each other; no file is read with it. See docs/cluster.md.
BETWEEN_PROCESSES = {
    "tff_fedmeta/runtime/cluster/parcel.py",
    "tff_fedmeta/runtime/cluster/tasks.py",
}
FORBIDDEN_CALLS = {"read_pickle", "eval", "exec", "load_extension", "enable_load_extension"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func
            yield (name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")), node


def keyword(call, name):
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_read_in_a_way_that_runs_code(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        imported = [a.name for a in getattr(node, "names", []) if isinstance(a, ast.alias)]
        imported.append(getattr(node, "module", None) or "")
        if path.relative_to(ROOT).as_posix() in BETWEEN_PROCESSES:
            continue
        for name in imported:
            assert name.split(".")[0] not in FORBIDDEN_MODULES
    for name, call in calls(tree):
        assert name not in FORBIDDEN_CALLS
        assert keyword(call, "allow_pickle") in (None, "False")
        if name == "load" and ast.unparse(call.func) == "np.load":
            assert keyword(call, "allow_pickle") == "False"
        if name in {"load_model", "load_weights"} and "keras" in ast.unparse(call.func):
            own = path.stem == "model_files"  # reads what the run itself wrote a moment before
            assert own or "keras_files" in path.as_posix() + ast.unparse(call.func)
        if name == "connect" and "sqlite3" in ast.unparse(call.func):
            assert keyword(call, "uri") == "True"  # read-only, see the test of the caches


def test_a_run_of_another_user_is_said_to_be_that(tmp_path, monkeypatch):
    checkpoint = tmp_path / "reptile" / "checkpoints" / "round_1"
    checkpoint.mkdir(parents=True)
    assert ownership.foreign_owner(tmp_path) is None
    assert ownership.foreign_owner(tmp_path / "missing") is None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    said = ownership.foreign_owner(tmp_path)
    assert said.startswith(f"{tmp_path} belongs to user ") and "only if you trust" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_checkpoint_of_another_user_in_a_directory_of_ones_own_is_said_too(tmp_path):
    checkpoint = tmp_path / "reptile" / "checkpoints" / "round_1"
    checkpoint.mkdir(parents=True)
    os.chown(checkpoint, 54321, -1)
    assert ownership.foreign_owner(tmp_path).startswith(
        f"{checkpoint} belongs to user number 54321"
    )


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[]", "5", "{", '"a"', "{}"])
def test_a_configuration_that_is_none_is_one_sentence(text):
    with pytest.raises(ValueError) as error:
        ExperimentConfig.from_json(text)
    assert "\n" not in str(error.value)


def test_a_lock_that_is_a_link_does_not_empty_its_target(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / ".lock").symlink_to(precious)
    with pytest.raises(run_directory.RunDirectoryError, match="cannot be written"):
        run_directory.claim(None, directory)
    assert precious.read_text() == "keep"


def test_a_link_in_a_run_directory_is_not_written_through(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "config.json.partial").symlink_to(precious)
    with pytest.raises(run_directory.RunDirectoryError, match="cannot be written"):
        run_directory.write_text(tmp_path / "config.json", "{}")
    assert precious.read_text() == "keep"
