"""Reads a `.keras` file and checks all of it, without TensorFlow."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import zipfile
from typing import Any, NamedTuple

from tff_fedmeta.keras_files import config as configuration
from tff_fedmeta.keras_files import hdf5
from tff_fedmeta.keras_files.errors import KerasFileError, Refusal, first_line

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# The largest that each member may be; a training configuration and names are all that is text.
MAX_BYTES = {CONFIG: 2**22, METADATA: 2**16, WEIGHTS: 2**31}
_MAX_RATIO = 100  # of a compressed member, where it matters
_SMALL = 2**20


class Archive(NamedTuple):
    """What a `.keras` file holds, checked.

    Attributes:
      config: The model's configuration, without its training configuration.
      weights: The HDF5 file of its weights.
      num_weights: How many numbers they are.
    """

    config: dict[str, Any]
    weights: bytes
    num_weights: int


def check_archive(path: str | os.PathLike[str]) -> Archive:
    """Reads a `.keras` file and checks all of it; imports no TensorFlow and writes nothing.

    Args:
      path: The file.

    Raises:
      KerasFileError: If it is not there, damaged or refused; names the file and the layer.
    """
    path = pathlib.Path(path)
    check_regular(path, ".keras")
    try:
        if not zipfile.is_zipfile(path):
            raise Refusal("it is not a zip archive, as models saved by Keras 2 are")
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            metadata, config = (_parse(_read(archive, name)) for name in (METADATA, CONFIG))
        if isinstance(metadata, dict):
            version = str(metadata.get("keras_version", ""))
            if version.startswith("3"):
                raise Refusal(
                    f"Keras {version} saved it, but TensorFlow 2.14 opens those of Keras 2"
                )
        config = configuration.only_needed(config)
        configuration.check(config)
        with zipfile.ZipFile(path) as archive:  # last, because they can be large
            weights = _read(archive, WEIGHTS)
        return Archive(config, weights, hdf5.check(weights))
    except Refusal as error:
        raise KerasFileError(f"{path} is not opened: {error}.") from error
    except Exception as error:  # whatever else can be wrong with it
        raise KerasFileError(f"{path} is damaged ({first_line(error)}).") from error


def check_regular(path: pathlib.Path, suffix: str) -> None:
    """Raises KerasFileError unless `path` is an ordinary file: a pipe would be waited for."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise KerasFileError(f"There is no file {str(path)!r} ({error.strerror}).") from error
    if not stat.S_ISREG(mode):
        raise KerasFileError(f"{path} must be a {suffix} file, but is not an ordinary file.")
    if not path.name.endswith(suffix):
        raise KerasFileError(f"{path} must be a {suffix} file: save it as one, with Keras 2.")


def _check_members(archive: zipfile.ZipFile) -> None:
    """Raises Refusal unless the members are those that Keras writes for a model without assets."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    for info in infos:
        name = info.filename
        if name not in MAX_BYTES or names.count(name) > 1:
            hint = ""
            if name.endswith((".npz", ".npy", ".pkl")):
                hint = " (NumPy's format can run code: save the weights as HDF5)"
            elif name.startswith("assets"):
                hint = " (layers with vocabularies are not opened)"
            raise Refusal(
                f"it must hold {', '.join(MAX_BYTES)} once each and nothing else, but has "
                f"{name[:80]!r}{hint}"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise Refusal(f"its {name} is a link")
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise Refusal(f"its {name} is encrypted, or compressed in an unusual way")
        if info.file_size > MAX_BYTES[name]:
            raise Refusal(f"its {name} has {info.file_size:,} bytes, more than {MAX_BYTES[name]:,}")
        if info.file_size > max(_SMALL, _MAX_RATIO * info.compress_size):
            raise Refusal(
                f"its {name} unpacks {info.compress_size:,} bytes to {info.file_size:,}, more than "
                f"{_MAX_RATIO} times as many"
            )
    missing = [name for name in MAX_BYTES if name not in names]
    if missing:
        raise Refusal(f"it has no {missing[0]}, as models saved by Keras 2 have")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except Exception as error:  # zlib, struct and zipfile all have their own
        raise Refusal(f"its {name} cannot be unpacked ({first_line(error)})") from error


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Refusal("its configuration is nested too deep") from error
    except ValueError as error:
        raise Refusal(f"its configuration is not JSON ({error})") from error
