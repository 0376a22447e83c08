"""Every listing of README and docs that says so is run as it stands there."""

import re
from pathlib import Path

import pytest

from tff_fedmeta import runtime

ROOT = Path(__file__).resolve().parent.parent
LISTING = re.compile(r"<!-- tests/test_documents.py runs this -->\n```python\n(.*?)```", re.DOTALL)
LISTINGS = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for number, code in enumerate(LISTING.findall(path.read_text()))
]


@pytest.mark.parametrize("code", LISTINGS)
def test_a_listing_runs(code, tmp_path, monkeypatch):
    runtime.quiet_tensorflow()
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<listing>", "exec"), {"__name__": "listing"})


def test_links_lead_somewhere():
    broken = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)  # calls look like links
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if "://" not in target and not (path.parent / target).exists():
                broken.append((path.name, target))
    assert not broken
