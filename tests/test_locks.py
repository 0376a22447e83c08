"""Extras are installed on top of the lock, so they must not change a version of it."""

import itertools
import re
from pathlib import Path

import pytest
from packaging import requirements

ROOT = Path(__file__).resolve().parent.parent


def versions(name, python):
    """Package -> the version that a lock has for a Python."""
    environment = {"python_full_version": f"{python}.0", "python_version": python}
    lines = re.findall(r"^[a-z0-9._-]+==[^\\\n]+", (ROOT / name).read_text(), re.MULTILINE)
    found = map(requirements.Requirement, lines)
    here = (one for one in found if one.marker is None or one.marker.evaluate(environment))
    return {one.name: str(one.specifier) for one in here}


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11"])
def test_extras_keep_the_versions_of_the_lock_and_of_each_other(python):
    names = ("", "-notebook", "-tracking")
    for first, second in itertools.combinations(names, 2):
        one, other = (versions(f"requirements{name}.txt", python) for name in (first, second))
        both = one.keys() & other.keys()
        assert {name: one[name] for name in both} == {name: other[name] for name in both}
    assert "typing-extensions" in versions("requirements-tracking.txt", python)
