"""What was made of a table, in sentences: much of it was decided from the values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datasets.tables import channels, columns, examples


def say(
    found: examples.Examples,
    fitted: Sequence[columns.Fitted],
    label: columns.Fitted,
    report: Mapping[str, Any],
    said: Sequence[str],
) -> None:
    """Says what was made of the file: much of it was decided from the values."""
    some = next(iter(found.rows.values()))
    number = sum(len(rows) for rows in found.rows.values())
    number_of_channels = len(channels.names(fitted))
    shape = [*some.shape[1:], number_of_channels]
    kind = f"{len(label['classes'])} classes" if "classes" in label else "a quantity"
    listed = columns.listed([f["column"] + _kind(f) for f in fitted])
    lines = [
        *said,
        f"{report['rows']:,} rows make {number:,} examples {shape}; {label['column']!r} is "
        f"{kind}; features: {listed}.",
    ]
    if found.max_gap is not None and np.isfinite(found.max_gap) and some.ndim == 2:
        lines.append(f"Windows do not cross gaps of more than {found.max_gap:.4g} in time.")
    for what, count in report.items():
        if what == "rows" or not count:
            continue
        plain = what.replace("_", " ")
        if isinstance(count, dict):
            first = ", ".join(f"{name}: {n:,}" for name, n in list(count.items())[:5])
            more = f" and {len(count) - 5} more" if len(count) > 5 else ""
            verb = "" if what.startswith("values") else "Left out, "
            start = f"{verb}{plain}"
            lines.append(f"{start[0].upper()}{start[1:]} ({len(count)}): {first}{more}.")
        else:
            lines.append(f"Left out, {plain}: {count:,}.")
    print("\n".join(lines), file=sys.stderr, flush=True)


def _kind(feature: columns.Fitted) -> str:
    if "ids" in feature:
        return f" ({len(feature['ids']):,} ids)"
    return " (text)" * ("categories" in feature)
