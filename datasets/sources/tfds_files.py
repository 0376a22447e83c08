"""Data of TensorFlow Datasets (TFDS): is a data set there, can it be had, and reading it.

TFDS prepares a data set aside and gives it its name when it is whole, so that what has that name is
read as it is; a damaged file is reported when it is read. Nothing is ever changed or deleted here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import stat
import sys
import urllib.error
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from datasets.sources import tff_files
from datasets.task import DataError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class TfdsDataset:
    """A data set of TFDS, as `sources.RealData` wants to fetch it.

    Attributes:
      name: What TFDS calls it, with its configuration if it has any: "movielens/100k-ratings".
      splits: The splits that are read.
      features: Names of the features that are read.
      cache_dir: TFDS's `data_dir`; None means its own default, `~/tensorflow_datasets`.
      url: What is asked for to learn whether a download can begin; None means the first of the
        addresses that TFDS has for the data set.
    """

    name: str
    splits: tuple[str, ...]
    features: tuple[str, ...]
    cache_dir: str | os.PathLike[str] | None = None
    url: str | None = None

    def find(self) -> Any:
        """Returns TFDS's builder, prepared or not; no network is needed.

        Raises:
          DataError: If TFDS knows no such data set, it lacks one of `features`, or the directory
            that is there is not a complete data set.
        """
        import tensorflow_datasets as tfds

        self._check_files(self._directory())
        try:
            builder = tfds.builder(self.name, data_dir=self.cache_dir)
            if builder.data_path.exists():
                # What the files have, which may not be what TFDS's code for them says.
                builder = tfds.builder_from_directory(builder.data_dir)
        except tfds.core.DatasetNotFoundError as error:
            raise DataError(
                f"TensorFlow Datasets has no data set {self.name!r}: see "
                "https://www.tensorflow.org/datasets/catalog/overview for those it has."
            ) from error
        except Exception as error:  # of names, versions and files TFDS raises whatever there is
            raise DataError(
                f"TensorFlow Datasets cannot open {self.name!r}: {_first_line(error)}."
            ) from error
        found = list(builder.info.features or ())
        missing = [feature for feature in self.features if feature not in found]
        if missing:
            raise DataError(
                f"The data set {self.name} must have the features {', '.join(self.features)}, "
                f"but it lacks {', '.join(missing)}; it has {', '.join(found)}."
            )
        return builder

    def fetch(self) -> None:
        """Downloads and prepares the data set unless that was done before.

        Raises:
          DataError: If it cannot be had.
        """
        builder = self.find()
        if not builder.data_path.exists():
            _prepare(builder, self.url)
        splits = builder.info.splits
        missing = [split for split in self.splits if split not in splits]
        if missing:
            raise DataError(
                f"{builder.data_dir} must have the splits {', '.join(self.splits)}, but it lacks "
                f"{', '.join(missing)}; it has {', '.join(splits) or 'none'}."
            )
        for path in (path for split in self.splits for path in splits[split].filepaths):
            if not path.exists():
                raise DataError(f"{path} is missing.")

    def num_classes(self, feature: str) -> int:
        """Returns how many classes a label tells apart; a billion if it does not say."""
        return getattr(self.find().info.features[feature], "num_classes", None) or 10**9

    def num_examples(self) -> int:
        """Returns how many examples there are in all splits, once it is fetched."""
        return int(self.find().info.splits.total_num_examples)

    def advice(self) -> str:
        """Says what makes the data set available, as a clause."""
        import tensorflow_datasets as tfds

        directory = self._directory()
        wanted = directory / str(tfds.builder_cls(self.name.split("/")[0]).VERSION)
        if wanted.exists():
            return f"delete {wanted} so that TensorFlow Datasets prepares it again"
        return f"copy {directory} from a machine where TensorFlow Datasets could prepare it"

    def _directory(self) -> pathlib.Path:
        import tensorflow_datasets as tfds

        return pathlib.Path(self.cache_dir or tfds.core.constants.DATA_DIR).expanduser() / self.name

    def _check_files(self, directory: pathlib.Path) -> None:
        """Raises DataError at what TFDS would wait for, or would import because a file names it."""
        for path in sorted(directory.rglob("*")) if directory.is_dir() else []:
            mode = path.stat().st_mode if path.exists() else 0
            if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise DataError(f"{path} is not an ordinary file: {self.advice()}.")
            if path.name == "features.json" and mode:
                try:
                    names = list(_classes(json.loads(path.read_bytes())))
                except (OSError, ValueError, RecursionError):
                    continue  # TFDS says what is wrong with it
                for name in names:
                    if not name.startswith("tensorflow_datasets.core.features."):
                        raise DataError(
                            f"{path} wants {name!r} imported, but only features of TensorFlow "
                            "Datasets itself are read."
                        )

    def examples(self, split: str) -> tf.data.Dataset:
        """Returns a split's examples with `features` alone, in the same order at every call.

        Iterate over it within `reading`.
        """
        import tensorflow_datasets as tfds

        # TFDS's own PartialDecoding would warn of what TFDS itself has deprecated.
        examples = self.find().as_dataset(
            split=split,
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            shuffle_files=False,
        )
        return examples.map(lambda example: {name: example[name] for name in self.features})

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what TensorFlow raises at a missing or damaged file into a DataError."""
        import tensorflow as tf

        try:
            yield
        # TensorFlow's message holds the bytes that it could not parse, which need not be text.
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            parsed = isinstance(error, tf.errors.OpError)
            why = _first_line(error) if parsed else "an example is not a tf.train.Example"
            raise DataError(
                f"The files of {self.name} are damaged or incomplete, {self.advice()} ({why})."
            ) from error


def _classes(features: Any) -> Iterator[str]:
    """Yields the Python classes that a `features.json` names."""
    if isinstance(features, dict):
        for key in ("pythonClassName", "python_class_name", "type"):
            if isinstance(features.get(key), str):
                yield features[key]
        features = list(features.values())
    if isinstance(features, list):
        for value in features:
            yield from _classes(value)


def _prepare(builder: Any, url: str | None) -> None:
    """Lets TFDS download and prepare, which is asked for only if the host answers."""
    import tensorflow_datasets as tfds

    # TFDS itself would try for minutes.
    url = url or next(iter(builder.url_infos or ()), None)
    if url is not None:
        try:
            tff_files.check_reachable(url)
        except DataError as error:
            # Whatever a host thinks of our question, it answers.
            if not isinstance(error.__cause__, urllib.error.HTTPError):
                raise
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        # TFDS's messages are none of our results.
        with contextlib.redirect_stdout(sys.stderr), tff_files.socket_timeout():
            builder.download_and_prepare(download_config=settings)
    except Exception as error:  # requests, zipfile, urllib and TensorFlow all have their own
        raise DataError(
            f"Preparing {builder.info.full_name} in {builder.data_dir} failed: "
            f"{_first_line(error)}."
        ) from error


def _first_line(error: Exception) -> str:
    # Without the names of nodes that TensorFlow puts around it.
    said = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error), flags=re.DOTALL).strip()
    return (said.splitlines() or [type(error).__name__])[0].rstrip(".")
