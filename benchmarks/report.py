"""Tables, the machine they were measured on, and writing both into a marked part of a file."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from tff_fedmeta.experiment import run_directory


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with its columns lined up on the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [header, ["-" * (width - 1) + ":" for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths)) + " |"
        for line in lines
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Returns the median and, if there are several values, the smallest and the largest."""
    low, middle, high = (
        f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def megabytes(num_bytes: float) -> str:
    """Returns a size in MB (10^6 bytes)."""
    return f"{num_bytes / 1e6:.0f}"


def write_section(path: str, name: str, text: str) -> None:
    """Replaces what a file has between the marks of a program; ValueError if it has no marks."""
    before, after = split_at_section(path, name)
    run_directory.write_text(Path(path), f"{before}\n{text}\n\n{after}")


def split_at_section(path: str, name: str) -> tuple[str, str]:
    """Returns what a file has up to a program's first mark and from its last, marks included.

    Raises:
      ValueError: If the file cannot be read or has no marks, which are the lines
        `<!-- benchmarks.NAME -->` and `<!-- end of benchmarks.NAME -->`.
    """
    begin, end = f"<!-- benchmarks.{name} -->\n", f"<!-- end of benchmarks.{name} -->"
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ValueError(f"--write: {path} cannot be read: {error.strerror}.") from error
    match = re.fullmatch(f"(.*{re.escape(begin)}).*({re.escape(end)}.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"--write: {path} has no section from {begin.strip()} to {end}.")
    return match[1], match[2]


def machine() -> str:
    """Describes the machine, the versions and the day in one sentence."""
    versions = run_directory.versions()
    cores = int(versions["cores"])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{datetime.date.today().isoformat()}: {_cpu()}, {cores} core{'s' * (cores != 1)}, "
        f"{memory / 2**30:.0f} GiB of memory; {_system()}, Python {versions['python']}, "
        f"TensorFlow {versions['tensorflow']}, TFF {versions['tensorflow-federated']}."
    )


def _cpu() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _system() -> str:
    """The distribution's name and the kernel's version."""
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        release = ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', release, re.MULTILINE)
    return f"{match[1] if match else 'Linux'} (Linux {platform.release().split('-')[0]})"
