"""Checks an HDF5 file of weights before Keras reads it: plain numbers that the file itself holds.

HDF5 can also point elsewhere (external links, external storage, virtual data sets), load code
(filter plugins), and promise more than it holds (compression, storage that was never written,
several data sets over the same bytes). Keras writes none of these.
"""

from __future__ import annotations

import io
import math

import h5py

from tff_fedmeta.keras_files.errors import Refusal, first_line
from tff_fedmeta.keras_files.objects import show

_MAX_OBJECTS = 100_000


def check(content: bytes) -> int:
    """Checks the weights in an HDF5 file.

    Args:
      content: The whole file.

    Returns:
      How many numbers its data sets hold.

    Raises:
      Refusal: If the file holds anything but groups of numbers.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return _check_objects(file, len(content))
    except Refusal:
        raise
    except Exception as error:  # h5py passes on whatever HDF5 makes of a damaged file
        raise Refusal(f"its weights cannot be read as HDF5 ({first_line(error)})") from error


def _check_objects(file: h5py.File, size: int) -> int:
    seen: set[int] = set()
    numbers = num_bytes = 0
    groups: list[h5py.Group] = [file]
    while groups:
        group = groups.pop()
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            link = group.id.links.get_info(name.encode())
            if link.type != h5py.h5l.TYPE_HARD:
                raise Refusal(f"its weights contain the link {show(where)}, which points elsewhere")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise Refusal(f"its weights contain {show(where)} twice")
            seen.add(address)
            if len(seen) > _MAX_OBJECTS:
                raise Refusal(f"its weights have more than {_MAX_OBJECTS:,} parts")
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_dataset(item, where)
                numbers += math.prod(item.shape)
                num_bytes += math.prod(item.shape) * item.dtype.itemsize
            else:
                raise Refusal(f"its weights contain {show(where)}, which is not an array")
    if num_bytes > size:
        raise Refusal(f"its weights promise {num_bytes:,} bytes, but the file has {size:,}")
    return numbers


def _check_dataset(dataset: h5py.Dataset, where: str) -> None:
    # A bool is an enumeration to HDF5; other enumerations, references and text are not weights.
    if dataset.dtype.kind not in "fiub" or h5py.check_ref_dtype(dataset.dtype):
        raise Refusal(f"its weights contain {show(where)}, which is not an array of numbers")
    if dataset.shape is None:
        raise Refusal(f"its weights contain {show(where)}, which is empty")
    how = dataset.id.get_create_plist()
    if dataset.is_virtual or how.get_layout() == h5py.h5d.VIRTUAL:
        raise Refusal(f"its weights contain {show(where)}, a virtual data set of other files")
    if how.get_external_count():
        raise Refusal(f"its weights contain {show(where)}, which is stored in another file")
    if how.get_nfilters() or how.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        raise Refusal(f"its weights contain {show(where)}, which is compressed or in chunks")
    promised = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if stored < promised:
        raise Refusal(
            f"its weights contain {show(where)} of {promised:,} bytes, but store {stored:,}"
        )
