"""Progress bars by tqdm: on a terminal, in a notebook, or as lines in a file or a pipe."""

import sys
from typing import Any

import tqdm
import tqdm.auto
import tqdm.notebook


class _Lines:
    """Standard error with a line for each state of a bar, in the place of carriage returns."""

    def write(self, text: str) -> None:
        lines = text.replace("\r", "\n").strip("\n")
        if lines.strip():
            sys.stderr.write(lines.rstrip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(total: int, title: str, unit: str, done: int = 0) -> Any:
    """Returns a `tqdm.tqdm`; a notebook's widget where `tqdm.auto` finds one.

    Args:
      total: How many there are.
      title: What is being done.
      unit: What is counted, e.g. "round".
      done: How many were done before.
    """
    what: dict[str, Any] = dict(total=total, initial=done, desc=title, unit=unit)
    if issubclass(tqdm.auto.tqdm, tqdm.notebook.tqdm_notebook):
        return tqdm.auto.tqdm(**what)
    terminal = sys.stderr.isatty()
    return tqdm.tqdm(
        **what,
        mininterval=0.5 if terminal else 10.0,
        file=sys.stderr if terminal else _Lines(),
    )
