"""What a data set is to the rest of the project, and what is asked of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from datasets import options as schema
from datasets.task import DATA_SEED, Fold, Task

AUTO, EMBEDDED, FILE = "auto", "embedded", "file"


@dataclasses.dataclass(frozen=True)
class About:
    """What `--dataset=help` says of a data set.

    Attributes:
      source: What `--data_source` calls the real data, e.g. "tff"; "embedded" where the data that
        are made on the spot are the real ones.
      clients: Who they are, and how many.
      model: What is trained.
      metric: What is reported.
      download: How much there is to download.
      licence: The licence of the real data.
      has_stand_in: Whether there are synthetic clients to run on where the real ones are not
        available.
      splits_clients: Whether who trains and who tests is drawn, and so can be drawn anew.
      own_file: Whether there is a second source, "file": the same kind of data in a file of the
        user's.
    """

    source: str
    clients: str = "as its loader says"
    model: str = "as its loader says"
    metric: str = "as its loader says"
    download: str = "as its loader says"
    licence: str = "not said"
    has_stand_in: bool = True
    own_file: bool = False
    splits_clients: bool = False

    @property
    def data_sources(self) -> tuple[str, ...]:
        """What `--data_source` can be."""
        stand_in = (EMBEDDED,) if self.has_stand_in else ()
        own_file = (FILE,) if self.own_file else ()
        return tuple(dict.fromkeys((AUTO, self.source, *own_file, *stand_in)))

    def facts(self) -> dict[str, str]:
        """Returns the facts to print: name of the fact -> text."""
        names = ("clients", "model", "metric", "download", "licence")
        facts = {name: getattr(self, name) for name in names}
        return {"source": ", ".join(self.data_sources), **facts}


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run asks of a data set's loader.

    Attributes:
      data_source: "auto": the real data if they are available, otherwise a synthetic stand-in with
        a warning on stderr; the real data's source, such as "tff" or "tfds": these, from the cache
        or downloaded, or an error; "embedded": the stand-in. `Task.data_source` says which it
        became.
      cache_dir: Directory of the downloaded files; None means the downloader's default,
        `~/.tff` or `~/tensorflow_datasets`.
      seed: >= 0; fixes the model's initial weights. Who trains and who tests does not depend on it.
      num_test_clients: How many clients are held out for the test, >= 1; None means the data set's
        own number, mostly 15 % of the clients.
      options: The data set's options: an instance of its `Options`, or a mapping of names to
        values, of which `datasets.load` makes one; None means the defaults. A loader always finds
        an instance.
      check_clients: Takes the number of training clients and the NumPy dtype of the labels, None if
        these are several arrays, and raises ValueError if the run cannot be on such clients.
      fold: Which part of the clients is tested, where each is once; None: the usual ones.
      split_seed: >= 0; decides who trains and who tests, where the data set splits clients itself
        (`About.splits_clients`).
    """

    data_source: str = AUTO
    cache_dir: str | os.PathLike[str] | None = None
    seed: int = 0
    num_test_clients: int | None = None
    options: Any = None
    check_clients: Callable[[int, Any], None] | None = None
    fold: Fold | None = None
    split_seed: int = DATA_SEED

    def announce(self, train_clients: Sequence[str], labels: Any) -> None:
        """Says who will train, as soon as a loader knows and before it does anything slow.

        Args:
          train_clients: Ids of the training clients.
          labels: The NumPy dtype of y; None if there are several arrays.

        Raises:
          ValueError: If the run cannot be on such clients.
        """
        if self.check_clients is not None:
            self.check_clients(len(train_clients), labels)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set: all that the rest of the project needs to know of it.

    Attributes:
      name: What `--dataset` calls it.
      about: What there is to know before it is loaded.
      options: A frozen dataclass whose fields are made by `datasets.option`.
      defaults: What a run starts from: a value for each field of the configuration that has none,
        under "hyperparameters" what is preferred for each algorithm, and how training clients
        split, for all algorithms that split them: "split" and "training_support_fraction".
      load: Makes the `Task` of a `Request` whose `options` is an instance.
      complete: Fills in options that others entail, such as the hash of a file that was named.
      adjust: What of the defaults depends on the options.
      has_folds: Whether it heeds `Request.fold`.
    """

    name: str
    about: About
    options: type
    defaults: Mapping[str, Any]
    load: Callable[[Request], Task]
    complete: Callable[[Any], Any] | None = None
    adjust: Callable[[Any], Mapping[str, Any]] | None = None
    has_folds: bool = False

    @property
    def data_sources(self) -> tuple[str, ...]:
        """What `--data_source` can be."""
        return self.about.data_sources

    def describe_options(self) -> list[schema.OptionRow]:
        """Returns a row for each option: name, kind, default, range and help."""
        return schema.describe(self.options)

    def make_options(self, values: Mapping[str, Any] | None = None) -> Any:
        """Returns an instance of `options` of the values given, completed by what they entail.

        Raises:
          DataError: If there is no such option, a value is not of its kind or out of its range, or
            a file that an option names cannot be read.
        """
        options = schema.make(self.options, values or {})
        return options if self.complete is None else self.complete(options)

    def defaults_for(self, options: Any) -> dict[str, Any]:
        """Returns what a run with these options, an instance of `options`, starts from."""
        adjusted = {} if self.adjust is None else self.adjust(options)
        return {**self.defaults, **adjusted}
