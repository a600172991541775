"""Arrays in files of the safetensors format, read and written with nothing but NumPy.

A file is the length of its header (8 bytes, little-endian), the header (JSON: for each name its
dtype, shape and where its bytes begin and end), and the bytes of the arrays, without gaps. Nothing
in it is ever executed. Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convolith._arguments import Array

__all__ = ["load_file", "load_metadata", "save_file"]

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}
_MOST_HEADER_BYTES = 100_000_000


def save_file(
    tensors: Mapping[str, Any],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays to a file, at once or not at all: a reader never sees half of it.

    Args:
        tensors: Arrays or Tensors by name.
        path: The file; one that exists is replaced.
        metadata: Words to keep with them.

    Raises:
        TypeError: Metadata that is not from words to words, or a dtype that the format lacks.
        OSError: The file cannot be written; it is as it was before.
    """
    header: dict[str, Any] = {}
    if metadata:
        if not all(isinstance(word, str) for pair in metadata.items() for word in pair):
            raise TypeError("metadata must be from strings to strings")
        header["__metadata__"] = dict(metadata)
    arrays: list[Array] = []
    offset = 0
    contiguous = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    # Wide elements first: every array is aligned.
    for name, array in sorted(contiguous.items(), key=lambda item: -item[1].dtype.itemsize):
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"tensors has the name {name!r}; it must be a string of another name")
        if little.dtype not in _NAMES:
            raise TypeError(f"{name} has dtype {array.dtype}, which the format lacks")
        header[name] = {
            "dtype": _NAMES[little.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        arrays.append(little)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for array in arrays:
                file.write(array.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def load_file(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays of a file.

    Args:
        path: The file.

    Returns:
        Arrays by name, in native byte order; BF16 becomes float32.

    Raises:
        ValueError: Not a whole and well-formed safetensors file; the message says what is wrong.
        OSError: The file cannot be read.
    """
    header, start, size = _read_header(path)
    header.pop("__metadata__", None)
    data = np.fromfile(path, np.uint8, count=size - start, offset=start)
    found: dict[str, Array] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(path, name, entry, len(data))
        spans.append((begin, end, name))
        array = data[begin:end].view(_DTYPES[dtype]).reshape(shape)
        if dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        elif sys.byteorder == "big":
            array = array.astype(array.dtype.newbyteorder("="))
        found[name] = array if array.flags.aligned else array.copy()
    place = 0
    for begin, end, name in sorted(spans):
        if begin != place:
            what = "overlaps another array" if begin < place else f"leaves a gap from {place}"
            raise _wrong(path, f"{name} begins at byte {begin}, which {what}")
        place = end
    if place != len(data):
        raise _wrong(path, f"{len(data) - place} bytes at the end belong to no array")
    return found


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the words that were kept with the arrays of a file.

    Args:
        path: The file.

    Raises:
        ValueError, OSError: As in `load_file`.
    """
    metadata: dict[str, str] = _read_header(path)[0].get("__metadata__", {})
    return metadata


def _wrong(path: str | os.PathLike[str], what: str) -> ValueError:
    return ValueError(f"{os.fspath(path)} is no safetensors file: {what}")


def _read_header(path: str | os.PathLike[str]) -> tuple[dict[str, Any], int, int]:
    """The header, where the bytes of the arrays begin, and the size of the file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise _wrong(path, f"it has {size} bytes, fewer than 8")
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST_HEADER_BYTES:
            raise _wrong(path, f"its header would have {length} bytes, more than 100 MB")
        if 8 + length > size:
            raise _wrong(path, f"its header would have {length} bytes, and it has {size} in all")
        text = file.read(length)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise _wrong(path, f"{twice!r} is there twice")
        return result

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _wrong(path, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _wrong(path, "its header is no JSON object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _wrong(path, "__metadata__ is not from strings to strings")
    return header, 8 + length, size


def _entry(
    path: str | os.PathLike[str], name: str, entry: Any, size: int
) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype, shape, begin and end of an array, checked."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _wrong(path, f"{name} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _wrong(path, f"{name} has dtype {dtype!r}; known are {', '.join(_DTYPES)}")
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise _wrong(path, f"{name} has {what} {numbers!r}; it must be a list of integers")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
        raise _wrong(path, f"{name} has data_offsets {offsets}; the arrays have {size} bytes")
    needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != needed:
        raise _wrong(
            path,
            f"{name}, {dtype} of shape {shape}, needs {needed} bytes and has "
            f"{offsets[1] - offsets[0]}",
        )
    if len(shape) > 32:
        raise _wrong(path, f"{name} has {len(shape)} axes; at most 32")
    return dtype, tuple(shape), offsets[0], offsets[1]
