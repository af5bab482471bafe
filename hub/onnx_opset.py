"""The operator set of an ONNX file, read from its bytes: no ONNX library is needed to publish one.

A model is a protocol buffer (onnx.proto3): field 8 of ModelProto is `opset_import`, whose field 1 is the
domain (empty for the standard operators) and field 2 the version.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from eisv_lumen.errors import ArtifactError

_OPSET_IMPORT, _DOMAIN, _VERSION = 8, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def opset_of(path: Path) -> int:
    """Version of the standard operator set that a model imports.

    Raises:
        ArtifactError: The file is missing or no ONNX model.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
            imports = [
                dict(_fields(model, *span))
                for number, span in _fields(model, 0, len(model))
                if number == _OPSET_IMPORT and isinstance(span, tuple)
            ]
            for entry in imports:
                domain, version = entry.get(_DOMAIN, (0, 0)), entry.get(_VERSION, 0)
                if isinstance(domain, tuple) and model[slice(*domain)] in (b"", b"ai.onnx"):
                    return int(version) if isinstance(version, int) else 0
    except (OSError, ValueError, IndexError):
        pass
    raise ArtifactError(
        found=f"{path} is no ONNX model",
        expected="a graph that names its operator set",
        next="export the student again",
    )


def _fields(model: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Field numbers with their integer, or the span of their bytes."""
    while start < end:
        key, start = _varint(model, start)
        kind = key & 7
        if kind == _VARINT:
            value, start = _varint(model, start)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, start = _varint(model, start)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if start + length > end:
            raise ValueError("a field longer than the file")
        yield key >> 3, (start, start + length)
        start += length


def _varint(model: mmap.mmap, start: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = model[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
        if shift > 63:
            raise ValueError("a number that is too long")
