"""Buffers that tell when they are overrun.

A guarded buffer ends, or begins, at a page that no one may touch: the first element read or
written beyond it ends the process at once. The rest of its own pages, and what lies around a buffer
without such pages, holds a canary pattern that is looked at after the call.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CANARY = 0xA5
REDZONE = 256  # bytes of canary on each side, without guard pages
PLACES = ("canary", "end", "start")
"""Where a buffer lies: within canaries, before a guard page, or behind one."""


@dataclass
class Buffer:
    """An array, and the memory around it that must stay as it is."""

    array: Array
    around: tuple[Array, Array]  # bytes before and after
    owner: Any = None

    def overrun(self) -> str | None:
        """What was written outside of the array, if anything."""
        for side, margin in zip(("before", "after"), self.around, strict=True):
            touched = np.flatnonzero(margin != CANARY)
            if touched.size:
                reach = margin.size - touched[0] if side == "before" else touched[-1] + 1
                return f"wrote up to {reach} bytes {side} its {self.array.nbytes} bytes"
        return None


def has_pages() -> bool:
    """Whether this system has guard pages."""
    return sys.platform.startswith(("linux", "darwin"))


def place(values: Array, where: str, alignment: int = 0) -> Buffer:
    """A contiguous copy of an array in memory of its own; `alignment` in bytes, of its start.

    Without an alignment a buffer before a guard page ends right at it.
    """
    if where == "canary":
        return _between_canaries(values)
    if where not in PLACES:
        raise ValueError(f"where is {where!r}; it must be one of {', '.join(PLACES)}")
    page = mmap.PAGESIZE
    inner = max(1, -(-values.nbytes // page)) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    whole = np.frombuffer(memory, np.uint8)[page : page + inner]
    whole[:] = CANARY
    start = 0
    if where == "end":
        start = inner - values.nbytes
        start -= start % max(alignment, 1)
    array = whole[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    array[...] = values
    forbidden = _Pages(memory, (address, address + page + inner))
    return Buffer(array, (whole[:start], whole[start + values.nbytes :]), forbidden)


def _between_canaries(values: Array) -> Buffer:
    whole = np.full(values.nbytes + 2 * REDZONE + 64, CANARY, np.uint8)
    start = REDZONE + (-(whole.ctypes.data + REDZONE)) % 64
    end = start + values.nbytes
    array = whole[start:end].view(values.dtype).reshape(values.shape)
    array[...] = values
    return Buffer(array, (whole[:start], whole[end:]))


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


class _Pages:
    """Pages without access for as long as this lives."""

    def __init__(self, memory: mmap.mmap, addresses: tuple[int, ...]) -> None:
        self.memory, self.addresses = memory, addresses
        self._protect(0)

    def _protect(self, access: int) -> None:
        for address in self.addresses:
            if _libc().mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), access):
                raise OSError(ctypes.get_errno(), "mprotect")

    def __del__(self) -> None:
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)


def dirty_heap(nbytes: int) -> None:
    """Leave blocks of NaN where the next arrays of this size are likely to be allocated."""
    if 0 < nbytes <= 1 << 22:
        blocks = [np.full(-(-nbytes // 8), np.nan) for _ in range(4)]
        blocks += [np.full(-(-nbytes // 4), np.nan, np.float32) for _ in range(4)]
        del blocks


def poison_allocations() -> None:
    """Have the C library fill what it allocates from now on with 0x7f, about 3e38 in float32.

    It also keeps large blocks on the heap, where they are used again. For a process of its own.
    """
    if sys.platform.startswith("linux"):
        perturb, mmap_threshold, trim_threshold = -6, -3, -1
        mallopt = getattr(_libc(), "mallopt", None)
        if mallopt is not None:
            mallopt(perturb, 0x80)
            mallopt(mmap_threshold, 1 << 30)
            mallopt(trim_threshold, 1 << 30)


def floating_point_mode() -> Iterator[str]:
    """What is unusual in this thread's floating-point mode."""
    tiny = np.full(2, np.finfo(np.float32).tiny, np.float32)
    if not np.all(tiny * np.float32(0.5) > 0) or not np.all(tiny * np.float32(0.25) > 0):
        yield "subnormal numbers are flushed to zero"
    one = np.full(2, 1.0)
    if np.any(one + 2.0**-54 != 1) or np.any(one - 2.0**-55 != 1):
        yield "rounding is not to nearest"


def strided(values: Array) -> Array:
    """The same numbers in every other element of a larger array, the last axis backwards."""
    if values.ndim == 0 or math.prod(values.shape) == 0:
        return values
    between = np.nan if values.dtype.kind == "f" else -7
    wide = np.full((*values.shape[:-1], 2 * values.shape[-1] + 1), between, values.dtype)
    view = wide[..., -2::-2]
    view[...] = values
    return view
