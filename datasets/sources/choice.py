"""Real data or the embedded stand-in: the one rule of `--data_source` for every data set.

"tff" (or "tfds", "file": whatever the real data are) takes the real data or fails with what to do;
"embedded" takes a synthetic stand-in, made on the spot; "auto" takes the real data if they can be
had, otherwise the stand-in, with a clear warning.
"""

from __future__ import annotations

import sys
import textwrap
from typing import Any, Callable, NamedTuple

from datasets.data_set import AUTO, EMBEDDED, About
from datasets.task import DataError


class RealData(NamedTuple):
    """The real data of a data set.

    Attributes:
      about: What there is to know of them.
      title: What users call them, e.g. "EMNIST".
      stand_in: What is embedded in their place, e.g. "synthetic handwriting".
      fetch: Makes sure that they are on this machine, downloading them if need be; raises
        `DataError` if they cannot be had.
      advice: Says what makes them available, as a clause.
      cached: Whether they are looked for in the cache directory.
      check: Validates what was asked for: raises `DataError` for mistakes, such as a wrong name,
        that must not fall back to the stand-in.
    """

    about: About
    title: str
    stand_in: str
    fetch: Callable[[], None]
    advice: Callable[[], str]
    cached: bool = True
    check: Callable[[], Any] | None = None


def check_source(data_source: str, about: About) -> None:
    """Raises DataError unless `--data_source` can be `data_source` for a data set."""
    if data_source not in about.data_sources:
        raise DataError(
            f"data_source must be one of {', '.join(about.data_sources)}, but is {data_source!r}."
        )


def resolve_source(data_source: str, real: RealData) -> str:
    """Returns where the clients come from: the real data's source or "embedded".

    Args:
      data_source: "auto", the real data's source or "embedded".
      real: The real data.

    Raises:
      DataError: If there is no such source, the real data are asked for and cannot be had, or
        their `check` finds a mistake.
    """
    check_source(data_source, real.about)
    if data_source == EMBEDDED:
        return EMBEDDED
    if real.check is not None:
        real.check()
    try:
        real.fetch()
    except DataError as error:
        if data_source == AUTO:
            print(_banner(str(error), real), file=sys.stderr, flush=True)
            return EMBEDDED
        raise DataError(
            f"{real.title} is not available: {real.advice()}, or choose --data_source=embedded "
            f"for {real.stand_in} ({str(error).rstrip('.')})."
        ) from error
    return real.about.source


def _banner(reason: str, real: RealData) -> str:
    """Draws the warning."""
    paragraphs = [
        f"WARNING: THIS RUN DOES NOT USE {real.title.upper()}",
        f"Why: {reason}",
        f"It uses EMBEDDED {real.stand_in} instead. Do not compare its figures with figures of "
        f"{real.title}.",
        f"For the real data, {real.advice()}"
        f"{', or name its directory with --cache_dir' if real.cached else ''}. "
        f"--data_source={real.about.source} refuses to run without them; --data_source=embedded "
        "silences this.",
    ]
    width = 92
    lines = [""]
    for paragraph in paragraphs:
        # Long words stay whole: a path or an address must remain copyable.
        lines += textwrap.wrap(paragraph, width, break_long_words=False, break_on_hyphens=False)
        lines.append("")
    rim = "#" * (width + 6)
    return "\n".join(["", rim, *(f"## {line:<{width}} ##" for line in lines), rim, ""])
