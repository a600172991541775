"""Kernels in shared libraries: a C function of the signature in `convolith_check.h`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convolith.testing.convolutions import output_extents, padding_pairs
from convolith.testing.family import Call, Family
from convolith.testing.kernels import Skip
from convolith.testing.outcome import wrong
from convolith.testing.problem import Problem

Array = npt.NDArray[Any]

HEADER = Path(__file__).with_name("convolith_check.h")
DONE, UNSUPPORTED = 0, 1
DIRECTION = {"forward": 0, "backward": 1, "backward_input": 1, "backward_weight": 2}

_AXES = ctypes.c_int64 * 3
_SCALARS = ("version", "bits", "rank", "direction", "channels_last")
_COUNTS = ("batch", "in_channels", "out_channels", "groups")
_PER_AXIS = ("input", "kernel", "output", "stride", "dilation", "before", "after")
_REST = ("count_include_pad", "rows", "inner", "columns", "transpose_a", "transpose_b")

# Words of problems that the signature has no place for.
_BEYOND = (
    "residual",
    "activation",
    "bias_grad",
    "padding_mode",
    "unbatched",
    "indices",
    "divisor_override",
    "ceil_mode",
    "norm_type",
    "lead",
)
_SERVED = ("conv", "max_pool", "avg_pool", "sum_pool", "matmul")


class CProblem(ctypes.Structure):
    """`convolith_problem`."""

    _fields_ = tuple(
        (name, _AXES if name in _PER_AXIS else ctypes.c_int64)
        for name in (*_SCALARS, *_COUNTS, *_PER_AXIS, *_REST)
    )


class CKernel:
    """A function of a shared library, called with pointers into guarded memory."""

    takes_out = True
    takes_strides = False

    def __init__(self, library: str | Path, symbol: str, bits: int) -> None:
        """OSError without the library, ValueError without the symbol."""
        path = Path(library)
        loaded = ctypes.CDLL(str(path.resolve() if path.exists() else path))
        try:
            self.function = getattr(loaded, symbol)
        except AttributeError:
            raise ValueError(f"{library} has no symbol {symbol!r}") from None
        self.function.restype = ctypes.c_int
        self.function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.POINTER(CProblem)]
        self.path, self.name, self.bits = library, symbol, bits

    def reproducer(self, problem: Problem) -> str:
        """The command line."""
        return f"convolith check --lib {self.path} --symbol {self.name} --problem {str(problem)!r}"

    def run(
        self, family: Family, problem: Problem, call: Call, outs: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """Call it; Skip for 1, a failure for other numbers."""
        described = describe(problem)
        if described.bits != self.bits:
            raise Skip(f"the kernel is of {self.bits} bits")
        arrays = [a for a in call.args if isinstance(a, np.ndarray)]
        pointers = [array.ctypes.data for array in arrays]
        second = pointers[1] if len(pointers) > 1 else None
        bias = call.options.get("bias")
        code = self.function(
            pointers[0],
            second,
            None if bias is None else bias.ctypes.data,
            outs[0].ctypes.data,
            ctypes.byref(described),
        )
        if code == UNSUPPORTED:
            raise Skip("the kernel returned 1, not supported")
        if code != DONE:
            raise wrong("raised", f"the kernel returned {code}")
        return outs


def describe(problem: Problem) -> CProblem:
    """The structure for a problem; Skip for one that it cannot say."""
    if not problem.op.startswith(_SERVED):
        raise Skip(f"the C signature has no {problem.op}")
    for name in _BEYOND:
        if problem.get(name) is not None:
            raise Skip(f"the C signature has no {name}")
    found = CProblem(
        version=1,
        bits=8 * np.dtype(problem.dtype).itemsize,
        rank=problem.rank,
        direction=DIRECTION[problem.direction],
        channels_last=problem.data_format == "channels_last",
        batch=problem.batch,
        in_channels=problem.in_channels or 0,
        out_channels=problem.out_channels or problem.in_channels or 0,
        groups=problem.groups,
        count_include_pad=not problem.exclude_pad,
    )
    if problem.op == "matmul":
        for name in ("rows", "inner", "columns", "transpose_a", "transpose_b"):
            setattr(found, name, int(getattr(problem, name) or 0))
        return found
    pairs = padding_pairs(problem)
    columns = {
        "input": problem.input,
        "kernel": problem.kernel,
        "output": output_extents(problem),
        "stride": problem.stride,
        "dilation": problem.dilation,
        "before": [before for before, _ in pairs],
        "after": [after for _, after in pairs],
    }
    for name, values in columns.items():
        neutral = 0 if name in ("before", "after") else 1
        padded = [*[neutral] * (3 - problem.rank), *values]
        setattr(found, name, _AXES(*padded))
    return found
