"""The library can be installed beside the lock; the data sets never leave the clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_wheel_holds_the_library_alone_and_imports_elsewhere(tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"  # building writes beside the sources
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    files = [path for kind in ("*.py", "*.html") for path in (ROOT / "tff_fedmeta").rglob(kind)]
    for path in files:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (source / "datasets").mkdir()
    (source / "datasets" / "__init__.py").write_text("")
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("tff_fedmeta-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tff_fedmeta"}
    ours = {str(path.relative_to(ROOT)) for path in files}
    assert ours <= set(names)
    code = "import tff_fedmeta as fm; from tff_fedmeta.config import ExperimentConfig; print(fm)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "site",
        check=True,
        capture_output=True,
        text=True,
    )
    assert str(tmp_path / "site") in done.stdout
