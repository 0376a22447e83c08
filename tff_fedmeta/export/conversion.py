"""From a module to the content of a TensorFlow Lite file, and what is in such a file."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from tff_fedmeta.export import ConversionError
from tff_fedmeta.export.adaptable import AdaptableModel

_SELECT_PREFIX = "Flex"  # of the names that select operators have in a file
# How the converter's messages name what it cannot convert; the first that is found is told.
_OPERATIONS = (
    re.compile(r"^(?:Custom|TF Select) ops: (.+)$", re.M),
    re.compile(r"'?tf\.(\w+)'? op"),
    re.compile(r"Op type not registered '(\w+)'"),
)


class TFLiteFile(NamedTuple):
    """What an application has to know of a file.

    Attributes:
      num_bytes: The size of the file.
      select_ops: The operators that are not built into TensorFlow Lite and need its "Select
        TensorFlow operators" library; empty if the file needs built-in operators alone.
      checkpoints: "file": `save` and `restore` take the path of a file. "arrays": `save` returns
        the weights that adaptation moves and `restore` takes them, because TensorFlow Lite has no
        built-in operator that writes or reads a file.
      signatures: Name -> {"inputs": names, "outputs": names}.
    """

    num_bytes: int
    select_ops: Sequence[str]
    checkpoints: str
    signatures: Mapping[str, Mapping[str, Sequence[str]]]


def convert(module: AdaptableModel, select_ops: bool) -> bytes:
    """Converts a module to the content of a TensorFlow Lite file.

    Args:
      module: The module.
      select_ops: Whether operators that are not built into TensorFlow Lite may be used. Without
        them `save` and `restore` pass weights instead of writing files.

    Raises:
      ConversionError: If there is an operation that cannot be converted.
    """
    operators = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if select_ops:
        operators.append(tf.lite.OpsSet.SELECT_TF_OPS)
    with tempfile.TemporaryDirectory() as directory:
        try:
            signatures = module.signatures(checkpoints_in_files=select_ops)
            tf.saved_model.save(module, directory, signatures)
            converter = tf.lite.TFLiteConverter.from_saved_model(directory)
            converter.target_spec.supported_ops = operators
            converter.experimental_enable_resource_variables = True
            with _without_native_messages():
                return converter.convert()
        except Exception as error:  # the converter raises whatever its passes do
            raise ConversionError(
                f"TensorFlow Lite cannot convert the model because of {_operation(error)}."
            ) from error


def describe(content: bytes) -> TFLiteFile:
    """Reads from a file's content what an application has to know."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    custom = [(code.customCode or b"").decode() for code in model.operatorCodes]
    select = {name[len(_SELECT_PREFIX) :] for name in custom if name.startswith(_SELECT_PREFIX)}
    signatures = {
        signature.signatureKey.decode(): {
            "inputs": [tensor.name.decode() for tensor in signature.inputs or ()],
            "outputs": [tensor.name.decode() for tensor in signature.outputs or ()],
        }
        for signature in model.signatureDefs
    }
    by_path = signatures["save"]["inputs"]
    return TFLiteFile(len(content), sorted(select), "file" if by_path else "arrays", signatures)


@contextlib.contextmanager
def _without_native_messages() -> Iterator[None]:
    """Drops what native code writes to stderr: the converter's notes and repeated error texts.

    The exception that it raises holds what matters of them.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _operation(error: Exception) -> str:
    """Names what could not be converted, from an error of TensorFlow or its converter."""
    if "'untracked' resource" in str(error):
        return "a resource that is not a variable, such as a table of a lookup layer"
    for pattern in _OPERATIONS:
        found = pattern.search(str(error))
        if found:
            return f"the operation {found.group(1).strip()}"
    return f"this error: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}"
