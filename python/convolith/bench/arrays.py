"""Arrays for measurements: they begin on a cache line, as every library's own do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CACHE_LINE = 64  # bytes


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A contiguous array that begins on a cache line; NumPy's begin 16 bytes behind one."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    begin = -raw.ctypes.data % CACHE_LINE
    return raw[begin : begin + size].view(dtype).reshape(shape)


def aligned(array: Array) -> Array:
    """A copy in C order that begins on a cache line."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
