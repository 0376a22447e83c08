"""A user's own CSV or Parquet file: classification or regression, one client per person, home, ...

A row is an example; with `window`, so many consecutive rows of a client are one, labelled by the
last of them: what is known at that moment. `columns` says how columns become numbers. Everything
that is learnt from the file (types, categories, what stands for missing values, normalisation,
classes) comes from training clients alone and goes beside the exported model, as
`preprocessing.json`, with `prepare.py`, which makes the model's input of any rows. The
normalisation is a layer of the model, which therefore takes values in the file's own units.

Without a file, `stand_ins.households` stands in: synthetic smart homes, a table that goes the same
way.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from datasets.data_set import About, DataSet, Request
from datasets.sources import choice
from datasets.stand_ins import households
from datasets.tables import files, own_task, selection
from datasets.tables.options import Options, form_of
from datasets.task import DATA_SEED, DataError, Task

if TYPE_CHECKING:
    import pandas as pd

NAME = "csv"

# One row of a heavy-tailed table would otherwise carry the weights away.
_CLIPPED = {"inner_clip_norm": 5.0}

# Untried; see `adjust` for their split.
_META_GRADIENTS = {
    "inner_learning_rate": 0.02,
    "server_optimizer": "adam",
    "server_learning_rate": 0.003,
    "server_schedule": "linear",
    "server_warmup": 20,
    **_CLIPPED,
}

DEFAULTS: dict[str, Any] = {
    "algorithms": ("reptile", "fedavg"),
    "rounds": 60,
    "clients_per_round": 5,
    "batch_size": 20,
    "inner_epochs": 1,
    "support_fraction": 0.5,
    "adaptation_steps": 50,
    "adaptation_learning_rates": (0.01, 0.02, 0.05),
    "rounds_per_evaluation": 10,
    "rounds_per_checkpoint": 10,
    "hyperparameters": {
        "reptile": {"inner_learning_rate": 0.1, **_CLIPPED},
        "fedavg": {"inner_learning_rate": 0.1, **_CLIPPED},
        "fedprox": {"inner_learning_rate": 0.1, **_CLIPPED},
        **{name: _META_GRADIENTS for name in ("fomaml", "maml", "meta_sgd", "anil")},
        "per_fedavg": {"inner_learning_rate": 0.02, "meta_learning_rate": 0.05, **_CLIPPED},
    },
}


ABOUT = About(
    source="file",
    clients="the values of a column of your file; embedded: 60 synthetic homes",
    model="MLP, 1-D CNN over windows, or your own Keras file",
    metric="accuracy, or mean absolute error in the label's units",
    download="none",
    licence="your file's own",
    splits_clients=True,
)


def complete(options: Options) -> Options:
    """Makes the file's hash an option, so that no run continues on a changed file.

    Names of columns are checked here, before anything slow is done.

    Raises:
      DataError: If the file cannot be read, or has no such columns.
    """
    if options.csv is None:
        return options
    if options.client_column is not None and options.label_column is not None:
        selection.check(files.names(options.csv, form_of(options)), options)
    if options.csv_sha256 is not None:
        return options
    return dataclasses.replace(options, csv_sha256=files.sha256(options.csv))


def adjust(options: Options) -> dict[str, Any]:
    """Returns how training clients split: in the order of time where evaluation does so."""
    return {"split": _split(options)}


def _split(options: Options) -> str:
    """Returns how clients split: in order of time if there is one or windows share rows."""
    if options.csv is None or options.time_column is not None:
        return "ordered"
    window, stride = options.window, options.window_stride
    return "ordered" if window and stride and stride < window else "random"


def load(request: Request) -> Task:
    """Loads a file, or the embedded smart homes if none is given.

    Nothing is downloaded: `cache_dir` has no effect. With `split_column`, `num_test_clients` counts
    groups of clients. Rows of the same time, and all rows without `time_column`, stay in the file's
    order.

    Returns:
      A `Task` whose `read_client` gives x float32 [n, channels], or [n, window, channels] with
      `window`, in the file's units, and y int32 [n] classes or float32 [n], standardised, both
      in the order of time.

    Raises:
      DataError: If the file, a column, a value, the split or the model is not usable.
    """
    options: Options = request.options
    data_source = request.data_source
    if options.csv is not None and data_source == choice.AUTO:
        data_source = ABOUT.source  # a file that was named is not replaced by something else
    if options.csv is not None and data_source == choice.EMBEDDED:
        raise DataError("--csv names a file, but --data_source=embedded uses none: drop one.")
    real = choice.RealData(
        ABOUT,
        "a file of yours",
        "smart homes",
        lambda: _check_given(options.csv),
        _advice,
        cached=False,
    )
    data_source = choice.resolve_source(data_source, real)
    said: list[str] = []
    file: dict[str, Any] = {}
    if data_source != choice.EMBEDDED:
        frame, said, file = _read(options)
    else:
        # What is said of the homes' columns holds; the rest is theirs.
        own: dict[str, Any] = {
            name: value
            for name, value in households.OPTIONS.items()
            if getattr(options, name) is None
        }
        frame, options = households.table(DATA_SEED), dataclasses.replace(options, **own)
    return own_task.build(
        NAME,
        data_source,
        frame,
        options,
        split=_split(options),
        request=request,
        file=file,
        said=said,
    )


def _check_given(csv: str | None) -> None:
    if csv is None:
        raise DataError("--dataset=csv reads a file, but there is no --csv.")


def _advice() -> str:
    return "give --csv=FILE --client_column=... --label_column=..."


def _read(options: Options) -> tuple[pd.DataFrame, list[str], dict[str, Any]]:
    """Returns the table, what was decided in reading it, and how it spells values."""
    path, sha256 = options.csv, options.csv_sha256
    assert path is not None  # `_check_given`
    for name in ("client_column", "label_column"):
        if getattr(options, name) is None:
            raise DataError(f"--csv needs --{name}, the name of one of its columns.")
    if sha256 is not None and (found := files.sha256(path)) != sha256:
        raise DataError(
            f"{path} is not the file that --csv_sha256 means (it has {found}): it was changed."
        )
    ids = (options.client_column, options.series_column, options.split_column)
    frame, said, form = files.read(
        path, [name for name in ids if name is not None], form_of(options)
    )
    file = {"decimal": form.decimal or ".", "missing_values": list(form.missing_values)}
    return frame, said, file


DATASET = DataSet(
    NAME, ABOUT, Options, DEFAULTS, load, complete=complete, adjust=adjust, has_folds=True
)
