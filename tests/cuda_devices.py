"""CUDA for the tests: the kernels compiled for the processor, and arrays of its memory.

The emulator of tests/cuda_emulator makes a library of the sources in src/cuda in which device
memory is the host's. CONVOLITH_CUDA_EMULATOR names one that is built already.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convolith import cuda
from convolith.cuda import _arrays

ROOT = Path(__file__).parents[1]
EMULATOR = ROOT / "tests" / "cuda_emulator"
SOURCES = (
    *sorted((ROOT / "src" / "cuda").glob("*.cpp")),
    *sorted((ROOT / "src" / "cuda").rglob("*.cu")),
    *(ROOT / "src" / name for name in ("problem.cpp", "window.cpp", "phases.cpp", "selection.cpp")),
    EMULATOR / "emulator.cpp",
)
FLAGS = (
    *("-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    "-U_FORTIFY_SOURCE",  # it forbids to jump between stacks
    *(f"-I{folder}" for folder in (EMULATOR, ROOT / "include", ROOT / "src")),
)


def compiler() -> str | None:
    """A C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "c++"))


def build_emulated(folder: Path) -> Path:
    """The CUDA part for the processor, built in `folder`."""
    if ready := os.environ.get("CONVOLITH_CUDA_EMULATOR"):
        return Path(ready)
    command = compiler()
    assert command is not None

    def compiled(source: Path) -> str:
        made = folder / f"{source.name}.o"
        done = subprocess.run(
            [command, *FLAGS, "-x", "c++", "-c", str(source), "-o", str(made)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return str(made)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compiled, SOURCES))
    library = folder / "convolith_cuda_emulated.so"
    subprocess.run([command, "-shared", "-o", str(library), *objects], check=True)
    return library


def rounded_to_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """To the nearest, ties to even, as bits."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Emulated:
    """The processor in place of a device."""

    orders = (0, 1)  # of threads

    def __init__(self, file: Path) -> None:
        """Of an emulated library that is in use."""
        self.set_order = ctypes.CDLL(str(file)).cuda_emulator_reverse

    def put(self, values: npt.NDArray[Any] | None, dtype: str) -> Any:
        """An array of the device, of one dtype."""
        if values is None:
            return None
        held = rounded_to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)
        held = np.ascontiguousarray(held)
        array = cuda.Array(held.shape, dtype, 0, 0)
        ctypes.memmove(array.data, held.ctypes.data, held.nbytes)
        return array

    def get(self, array: Any) -> npt.NDArray[Any]:
        """Its elements; float32 for bfloat16."""
        held = np.dtype(np.uint16 if array.dtype == "bfloat16" else array.dtype)
        assert array.strides == _arrays.row_major(array.shape)
        size = int(np.prod(array.shape)) * held.itemsize
        values = np.frombuffer(ctypes.string_at(array.data, size), held).reshape(array.shape)
        return from_bfloat16(values) if array.dtype == "bfloat16" else values


class TorchDevice:
    """A device, with torch's tensors."""

    orders = (0,)

    def __init__(self, torch: Any) -> None:
        """Of a torch that sees the device."""
        self._torch = torch

    def set_order(self, _: int) -> None:
        """Threads run as they do."""

    def put(self, values: npt.NDArray[Any] | None, dtype: str) -> Any:
        """A tensor on the device, of one dtype."""
        if values is None:
            return None
        return self._torch.from_numpy(np.ascontiguousarray(values)).to(
            "cuda", getattr(self._torch, dtype)
        )

    def get(self, array: Any) -> npt.NDArray[Any]:
        """Its elements; float32 for bfloat16."""
        if array.dtype == self._torch.bfloat16:
            array = array.float()
        result: npt.NDArray[Any] = array.cpu().numpy()
        return result


def rounded(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Values as an array of the dtype holds them."""
    if dtype == "bfloat16":
        return from_bfloat16(rounded_to_bfloat16(values))
    with np.errstate(over="ignore"):
        return values.astype(dtype)
