"""Who imports whom: the rules of docs/architecture.md, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("tff_fedmeta", "datasets", "benchmarks", "searches")
SOURCES = sorted(path.relative_to(ROOT) for name in OURS for path in (ROOT / name).rglob("*.py"))


def imported(path, whole=True):
    """The modules that a file imports; with `whole` those imported inside of functions too."""
    tree = ast.parse((ROOT / path).read_text())
    nodes = ast.walk(tree) if whole else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(*places):
    found = [
        path
        for path in SOURCES
        if any(path == Path(place) or Path(place) in path.parents for place in places)
    ]
    assert found
    return found


def offenders(places, forbidden, whole=True):
    return [
        (str(path), module)
        for path in files(*places)
        for module in imported(path, whole)
        if module == forbidden or module.startswith(f"{forbidden}.")
    ]


NO_TENSORFLOW = [
    "tff_fedmeta/config",
    "tff_fedmeta/checks.py",
    "tff_fedmeta/seeds.py",
    "tff_fedmeta/command_line",
    "tff_fedmeta/plugins.py",
    "tff_fedmeta/algorithms/registry.py",
]


@pytest.mark.parametrize("module", ["tensorflow", "tensorflow_federated", "keras"])
def test_what_a_user_sets_needs_no_tensorflow(module):
    assert not offenders(NO_TENSORFLOW, module)


@pytest.mark.parametrize("package", ["algorithms", "aggregation", "experiment", "runtime"])
def test_what_a_client_computes_has_no_federation_in_it(package):
    assert not offenders(["tff_fedmeta/client"], f"tff_fedmeta.{package}")


def test_the_runtime_imports_nothing_of_ours():
    for path in files("tff_fedmeta/runtime"):
        ours = [name for name in imported(path) if name and name.split(".")[0] in OURS]
        assert all(name.startswith("tff_fedmeta.runtime") for name in ours), (path, ours)


def test_nothing_in_the_package_imports_the_experiment():
    others = [
        str(path)
        for path in files("tff_fedmeta")
        if Path("tff_fedmeta/experiment") not in path.parents
    ]
    assert not offenders(others, "tff_fedmeta.experiment")


def test_config_knows_no_algorithm():
    for package in ("algorithms", "aggregation", "client", "runtime", "experiment"):
        assert not offenders(["tff_fedmeta/config"], f"tff_fedmeta.{package}")


def test_data_sets_and_learning_do_not_import_each_other():
    assert not offenders(["datasets"], "tff_fedmeta")
    assert not offenders(["tff_fedmeta"], "datasets")


def test_no_file_is_longer_than_a_sitting():
    longest = {str(path): len((ROOT / path).read_text().splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in longest.items() if lines > 450} == {}
