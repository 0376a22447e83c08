"""All data sets by name: the built-in ones, and those that a user registers.

@datasets.register("my_homes")
def load(request): ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Callable, TypeVar

from datasets import (
    csv_file,
    emnist,
    leaf,
    movielens,
    omniglot,
    shakespeare,
    sinusoid,
    stackoverflow,
)
from datasets.data_set import AUTO, About, DataSet, Request
from datasets.options import OptionRow, Options, describe
from datasets.task import DataError, Task

_MODULES = (emnist, stackoverflow, shakespeare, omniglot, movielens, csv_file, leaf, sinusoid)
DATASETS: dict[str, DataSet] = {module.NAME: module.DATASET for module in _MODULES}

# What a run on a registered data set starts from, where its author says nothing else: few clients
# in a round, so that small data sets run.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "algorithms": ("reptile", "fedavg"),
        "rounds": 50,
        "clients_per_round": 5,
        "batch_size": 20,
        "inner_epochs": 1,
        "support_fraction": 0.5,
        "adaptation_steps": 10,
        "adaptation_learning_rates": (0.01, 0.03, 0.1),
        "rounds_per_evaluation": 10,
        "rounds_per_checkpoint": 10,
        "hyperparameters": {},
    }
)
_OPTIONAL_DEFAULTS = ("inner_steps", "adaptation_batch_size", "split", "training_support_fraction")
OWN = "own"  # the data source of a registered data set that does not name one

Load = TypeVar("Load", bound=Callable[[Request], Task])


def register(
    name: str,
    *,
    about: About | None = None,
    options: type | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Load], Load]:
    """Registers a loader as a data set, as a decorator; then `--dataset=NAME` runs on it.

    Args:
      name: A name that no data set has: letters, digits and underscores.
      about: What `--dataset=help` says of it; by default that its data source is "own" and that it
        has no stand-in.
      options: A frozen dataclass with a field, made by `datasets.option`, for each option; its
        instance is the request's `options`. By default there are none.
      defaults: What a run starts from where nothing else is asked for, over `registry.DEFAULTS`.

    Returns:
      The decorator. It returns the loader, which takes a `Request` and returns a `Task`.

    Raises:
      DataError: If the name is taken or is not a name, or the options or the defaults cannot be
        used.
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise DataError(
            f"A data set's name is made of letters, digits and underscores, but is {name!r}."
        )
    if name in DATASETS or name == "help":
        raise DataError(f"There is a data set {name!r} already: register yours by another name.")
    kind = Options if options is None else options
    describe(kind)
    given = dict(defaults or {})
    unknown = [key for key in given if key not in (*DEFAULTS, *_OPTIONAL_DEFAULTS)]
    if unknown:
        raise DataError(
            f"The defaults of a data set are of {', '.join((*DEFAULTS, *_OPTIONAL_DEFAULTS))}, but "
            f"the defaults of {name!r} have {unknown[0]!r}."
        )
    for one, other in (("inner_epochs", "inner_steps"), ("inner_steps", "inner_epochs")):
        if given.get(one) is not None:
            given.setdefault(other, None)  # two ways to say how long clients train
    about = About(OWN, has_stand_in=False) if about is None else about

    def add(loader: Load) -> Load:
        DATASETS[name] = DataSet(name, about, kind, {**DEFAULTS, **given}, loader)
        return loader

    return add


def load(name: str, request: Request | None = None) -> Task:
    """Loads a data set.

    Args:
      name: One of `DATASETS`.
      request: What is asked for; its options may be a mapping of names to values.

    Raises:
      DataError: If there is no such data set, data source or option, an option is out of its range,
        the data cannot be had, or the loader does not return a `Task` of this name and source.
    """
    if name not in DATASETS:
        raise DataError(f"The data set must be one of {', '.join(DATASETS)}, but is {name!r}.")
    data_set = DATASETS[name]
    request = Request() if request is None else request
    options = request.options
    if not isinstance(options, data_set.options):
        options = data_set.make_options(options)
    sources = data_set.data_sources
    if request.data_source not in sources:
        raise DataError(
            f"data_source must be one of {', '.join(sources)}, but is {request.data_source!r}."
        )
    # Where there is one source alone, "auto" is another name of it.
    source = sources[1] if len(sources) == 2 else request.data_source
    task = data_set.load(dataclasses.replace(request, data_source=source, options=options))
    _check_task(task, data_set)
    # Again, for loaders that do not announce their clients.
    labels = getattr(task.input_spec[1], "dtype", None)
    request.announce(task.train_clients, labels and labels.as_numpy_dtype)
    return task


def open_reader(name: str, request: Request) -> Callable[[str], tuple[Any, Any]]:
    """Returns what reads a data set's clients, for a process that needs nothing else of it."""
    return load(name, request).read_client


def describe_options(name: str) -> list[OptionRow]:
    """Returns a row for each option of a data set: name, kind, default, range and help."""
    return DATASETS[name].describe_options()


def _check_task(task: Any, data_set: DataSet) -> None:
    """Raises DataError unless a loader returned a task of its name and of one of its sources."""
    if not isinstance(task, Task):
        raise DataError(
            f"The loader of the data set {data_set.name!r} must return a datasets.Task, but it "
            f"returned a {type(task).__name__}: {task!r:.60}."
        )
    if task.name != data_set.name:
        raise DataError(
            f"The loader of the data set {data_set.name!r} returned a task of the name "
            f"{task.name!r}: name it {data_set.name!r}."
        )
    sources = [source for source in data_set.data_sources if source != AUTO]
    if task.data_source not in sources:
        raise DataError(
            f"The task of the data set {data_set.name!r} must say that its data source is "
            f"{' or '.join(sources)}, but says {task.data_source!r}."
        )
