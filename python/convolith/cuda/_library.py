"""The compiled CUDA part, `convolith_cuda.so` beside the package: its C functions and structs."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from convolith import _core

_INTERFACE = 1
_FILE = Path(__file__).parents[1] / "convolith_cuda.so"

Pointer = ctypes.c_void_p


class DeviceError(RuntimeError):
    """A call of the CUDA runtime failed; the message names the call and the problem."""


class NotAvailableError(RuntimeError):
    """This build has no CUDA part, or there is no driver or device; the message says which."""


class Maps(ctypes.Structure):
    """convolith::TensorView"""

    _fields_: ClassVar = [
        ("data", Pointer),
        ("sample_stride", ctypes.c_int64),
        ("channel_stride", ctypes.c_int64),
        ("pixel_stride", ctypes.c_int64),
    ]


class ConvArguments(ctypes.Structure):
    """convolith::ConvArguments"""

    _fields_: ClassVar = [
        ("x", Maps),
        ("y", Maps),
        ("weight", Pointer),
        ("bias", Pointer),
        ("residual", Maps),
    ]


class Options(ctypes.Structure):
    """What a plan follows from, besides the problem."""

    _fields_: ClassVar = [
        ("algorithm", ctypes.c_char_p),
        ("workspace_limit", ctypes.c_int64),
        ("strict", ctypes.c_int32),
        ("packs_once", ctypes.c_int32),
        ("device", ctypes.c_int32),
    ]


class PlanRecord(ctypes.Structure):
    """What is known of a plan."""

    _fields_: ClassVar = [
        ("algorithm", ctypes.c_char_p),
        ("workspace_bytes", ctypes.c_uint64),
        ("packed_bytes", ctypes.c_uint64),
        ("componentwise", ctypes.c_double),
        ("uniform", ctypes.c_double),
    ]


class CandidateRecord(ctypes.Structure):
    """How an algorithm stands to a problem."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("summary", ctypes.c_char_p),
        ("supported", ctypes.c_int32),
        ("reason", ctypes.c_char * 508),
        ("workspace_bytes", ctypes.c_uint64),
        ("packed_bytes", ctypes.c_uint64),
        ("cost_seconds", ctypes.c_double),
        ("componentwise", ctypes.c_double),
        ("uniform", ctypes.c_double),
    ]


class PoolRecord(ctypes.Structure):
    """A pooling: what PoolProblem.numbers tells."""

    _fields_: ClassVar = [
        ("op", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("layout", ctypes.c_int32),
        ("adaptive", ctypes.c_int32),
        ("count_include_pad", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("batch", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("divisor", ctypes.c_int64),
        ("norm_type", ctypes.c_double),
        ("windows", ctypes.c_int64 * 7 * 3),
    ]

    @classmethod
    def of(cls, problem: _core.PoolProblem) -> PoolRecord:
        """The record of a problem."""
        *numbers, batch, channels, divisor, norm_type, windows = problem.numbers
        axes = (ctypes.c_int64 * 7 * 3)(*((ctypes.c_int64 * 7)(*axis) for axis in windows))
        return cls(*numbers, 0, batch, channels, divisor, norm_type, axes)


class DeviceRecord(ctypes.Structure):
    """What a device says of itself."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("multiprocessors", ctypes.c_int32),
    ]


_SIGNATURES: dict[str, list[Any]] = {
    "devices": [],
    "device": [ctypes.c_int, ctypes.POINTER(DeviceRecord)],
    "versions": [ctypes.POINTER(ctypes.c_int)] * 2,
    "plan": [
        ctypes.c_char_p,
        ctypes.POINTER(Options),
        ctypes.POINTER(Pointer),
        ctypes.POINTER(PlanRecord),
    ],
    "free_plan": [Pointer],
    "explain": [Pointer],
    "pack": [Pointer, Pointer, Pointer, ctypes.c_int, Pointer],
    "run": [
        Pointer,
        ctypes.POINTER(ConvArguments),
        Pointer,
        Pointer,
        ctypes.c_int,
        Pointer,
    ],
    "candidates": [
        ctypes.c_char_p,
        ctypes.POINTER(Options),
        ctypes.POINTER(CandidateRecord),
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_int),
    ],
    "pool": [
        ctypes.POINTER(PoolRecord),
        *([ctypes.POINTER(Maps)] * 3),
        ctypes.c_int,
        Pointer,
    ],
    "pool_backward": [
        ctypes.POINTER(PoolRecord),
        *([ctypes.POINTER(Maps)] * 4),
        ctypes.c_int,
        Pointer,
    ],
    "channel_sums": [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(Maps),
        *([ctypes.c_int64] * 3),
        Pointer,
        ctypes.c_int,
        Pointer,
    ],
    "allocate": [ctypes.c_uint64, ctypes.c_int, Pointer, ctypes.POINTER(Pointer)],
    "release": [Pointer, ctypes.c_int, Pointer],
    "synchronize": [ctypes.c_int, Pointer],
}


class Library:
    """The functions of a compiled CUDA part, `convolith_cuda_` left out of their names."""

    def __init__(self, file: Path) -> None:
        """Load `file`."""
        library = ctypes.CDLL(str(file))
        if library.convolith_cuda_interface() != _INTERFACE:
            raise NotAvailableError(f"{file} is of another version of convolith")
        library.convolith_cuda_message.restype = ctypes.c_char_p
        self.message = library.convolith_cuda_message
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, f"convolith_cuda_{name}")
            function.argtypes = arguments
            function.restype = None if name == "free_plan" else ctypes.c_int
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        """A function whose name is not in the table."""
        raise AttributeError(f"the CUDA part has no function {name!r}")

    def text(self) -> str:
        """What the last function that said something said."""
        return str(self.message().decode())

    def check(self, status: int) -> None:
        """Raise the exception of a status."""
        if status != 0:
            self._raise(status)

    def _raise(self, status: int) -> NoReturn:
        kinds = (ValueError, _core.UnsupportedError, OverflowError, MemoryError, DeviceError)
        raise kinds[status - 1](self.text())


_replaced: list[Library] = []


@functools.cache
def _built() -> Library | None:
    return Library(_FILE) if _FILE.is_file() else None


def library() -> Library:
    """The compiled CUDA part, or NotAvailableError."""
    found = _replaced[-1] if _replaced else _built()
    if found is None:
        raise NotAvailableError(
            "this build of convolith has no CUDA part; install it with "
            "pip install . -C cmake.define.CONVOLITH_CUDA=ON, which needs nvcc 12.4 or later"
        )
    return found


def replace(file: Path | None) -> None:
    """Use another compiled CUDA part, or again the package's own: for tests."""
    _replaced[:] = [] if file is None else [Library(file)]
