"""Arrays on a CUDA device: what other libraries' arrays are made of, and results of their kind."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from convolith.cuda import _dlpack
from convolith.cuda._library import Pointer, library

DTYPES = ("float32", "float64", "float16", "bfloat16")
ITEM_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int64": 8, "uint8": 1}
_TYPESTR = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "int64": "<i8", "uint8": "|u1"}
_OF_TYPESTR = {text: name for name, text in _TYPESTR.items()}


class View(NamedTuple):
    """Where an array's elements lie; strides count elements."""

    data: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    device: int
    owner: Any = None  # whatever keeps the memory alive

    def permuted(self, axes: Sequence[int]) -> View:
        """The same with its axes in another order."""
        return self._replace(
            shape=tuple(self.shape[i] for i in axes), strides=tuple(self.strides[i] for i in axes)
        )

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        return all(
            n == 1 or s == wanted
            for n, s, wanted in zip(self.shape, self.strides, row_major(self.shape), strict=True)
        )

    @property
    def bytes(self) -> tuple[int, int]:
        """The first byte and the one after the last."""
        item = ITEM_BYTES[self.dtype]
        if 0 in self.shape:
            return self.data, self.data
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        first = self.data + item * sum(r for r in reach if r < 0)
        return first, self.data + item * (1 + sum(r for r in reach if r > 0))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a C-contiguous array."""
    strides, product = [], 1
    for extent in reversed(shape):
        strides.append(product)
        product *= extent
    return tuple(reversed(strides))


class Array:
    """Memory of a CUDA device: the result for arrays of a library that cannot make any itself.

    Other libraries take it through DLPack or `__cuda_array_interface__`, without a copy.
    """

    def __init__(self, shape: Sequence[int], dtype: str, device: int, stream: int) -> None:
        """Allocate, in the order of `stream`; the content is arbitrary."""
        self.shape = tuple(shape)
        self.dtype = dtype
        self.device = device
        self.strides = row_major(self.shape)
        self.ndim = len(self.shape)
        self.stream = stream
        self._library = library()
        data = Pointer()
        self.nbytes = math.prod(self.shape) * ITEM_BYTES[dtype]
        self._library.check(self._library.allocate(self.nbytes, device, stream, ctypes.byref(data)))
        self.data = data.value or 0
        self.base: Array = self

    def __del__(self) -> None:
        """Free the memory, in the order of the stream."""
        if getattr(self, "data", 0) and self.base is self:
            self._library.release(self.data, self.device, self.stream)

    def view(self) -> View:
        """Where the elements lie."""
        return View(self.data, self.shape, self.strides, self.dtype, self.device, self)

    def permute(self, axes: Sequence[int]) -> Array:
        """The same memory with the axes in another order."""
        other = object.__new__(Array)
        other.__dict__.update(self.__dict__)
        other.shape = tuple(self.shape[i] for i in axes)
        other.strides = tuple(self.strides[i] for i in axes)
        other.base = self.base
        return other

    def synchronize(self) -> None:
        """Wait until the array is written."""
        self._library.check(self._library.synchronize(self.device, self.stream))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; AttributeError for bfloat16, which it has no name for."""
        if self.dtype not in _TYPESTR:
            raise AttributeError(f"__cuda_array_interface__ has no dtype {self.dtype}")
        return {
            "shape": self.shape,
            "strides": tuple(s * ITEM_BYTES[self.dtype] for s in self.strides),
            "typestr": _TYPESTR[self.dtype],
            "data": (self.data, False),
            "version": 3,
            "stream": self.stream or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return (kDLCUDA, the device's number)."""
        return _dlpack.CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        """Return a capsule that shares the memory, which is written by then."""
        self.synchronize()
        return _dlpack.capsule(self, self.data, self.shape, self.strides, self.dtype, self.device)


# ---- libraries -------------------------------------------------------------------------------


class Kind(Protocol):
    """A library of arrays."""

    name: str

    def view(self, array: Any) -> View:
        """Where an array on a device lies."""

    def stream(self, array: Any) -> int:
        """The stream in whose order work on the array belongs."""

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        """A new array on the device of `like`."""

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        """A view with its axes in another order."""

    def copy(self, array: Any) -> Any:
        """A copy in C order, as aligned as new arrays are."""

    def finish(self, array: Any, like: Any) -> Any:
        """What the caller gets for an array of `empty`, where `like` is what it passed."""


class Torch:
    """PyTorch"""

    name = "torch"

    def view(self, array: Any) -> View:
        """Where a tensor lies; one that is part of a graph is refused."""
        if array.requires_grad and sys.modules["torch"].is_grad_enabled():
            raise TypeError(
                "a tensor requires grad, which convolith would not record; pass tensor.detach()"
            )
        dtype = str(array.dtype).removeprefix("torch.")
        return View(
            array.data_ptr(),
            tuple(array.shape),
            array.stride(),
            dtype,
            array.device.index or 0,
            array,
        )

    def stream(self, array: Any) -> int:
        """Torch's current stream of the tensor's device."""
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        """A tensor from torch's caching allocator."""
        torch = sys.modules["torch"]
        try:
            return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=like.device)
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        """Tensor.permute"""
        return array.permute(*axes)

    def copy(self, array: Any) -> Any:
        """Tensor.clone"""
        return array.clone(memory_format=sys.modules["torch"].contiguous_format)

    def finish(self, array: Any, like: Any) -> Any:
        """The tensor."""
        return array


class Interface:
    """Any library whose arrays have `__cuda_array_interface__`."""

    name = "__cuda_array_interface__"

    def view(self, array: Any) -> View:
        """What the interface says."""
        if isinstance(array, Array):
            return array.view()
        told = array.__cuda_array_interface__
        dtype = _OF_TYPESTR.get(told["typestr"], told["typestr"])
        shape = tuple(told["shape"])
        strides = told.get("strides")
        item = ITEM_BYTES.get(dtype, 1)
        in_elements = row_major(shape) if strides is None else tuple(s // item for s in strides)
        if strides is not None and any(s % item for s in strides):
            raise TypeError(f"strides are {strides} bytes, no multiples of an element's {item}")
        device = getattr(array, "device", 0)
        device = getattr(device, "id", device)
        return View(
            told["data"][0],
            shape,
            in_elements,
            dtype,
            device if isinstance(device, int) else 0,
            array,
        )

    def stream(self, array: Any) -> int:
        """The stream that the interface names, else the default one."""
        if isinstance(array, Array):
            return array.stream
        return int(array.__cuda_array_interface__.get("stream") or 0)

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        """Memory of our own."""
        return Array(shape, dtype, self.view(like).device, self.stream(like))

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        """Array.permute, or the library's transpose."""
        return array.permute(axes) if isinstance(array, Array) else array.transpose(axes)

    def copy(self, array: Any) -> Any:
        """There is no way to copy such an array; a TypeError says so."""
        raise TypeError(
            f"a {type(array).__name__} has strides that kernels cannot walk, or does not begin at "
            "a multiple of 16 bytes; pass a contiguous copy"
        )

    def finish(self, array: Any, like: Any) -> Any:
        """The array."""
        return array


class CuPy(Interface):
    """CuPy"""

    name = "cupy"

    def stream(self, array: Any) -> int:
        """CuPy's current stream."""
        with array.device:
            return int(sys.modules["cupy"].cuda.get_current_stream().ptr)

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        """An array from CuPy's memory pool; its OutOfMemoryError is a MemoryError."""
        with like.device:
            return sys.modules["cupy"].empty(tuple(shape), dtype)

    def copy(self, array: Any) -> Any:
        """A copy by CuPy."""
        return array.copy()


class DLPack:
    """Any library whose arrays have `__dlpack__`: JAX, for one, whose streams are its own.

    What it has enqueued is waited for by the default stream, and calls wait for their result.
    """

    name = "dlpack"
    _DEFAULT_STREAM = 1  # the legacy default stream, as the protocol numbers it

    def view(self, array: Any) -> View:
        """What the capsule says."""
        if isinstance(array, Array):
            return array.view()
        capsule = array.__dlpack__(stream=self._DEFAULT_STREAM)
        return View(*_dlpack.describe(capsule), (array, capsule))

    def stream(self, array: Any) -> int:
        """The default stream."""
        return 0

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        """Memory of our own."""
        device = like.device if isinstance(like, Array) else like.__dlpack_device__()[1]
        return Array(shape, dtype, device, 0)

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        """Array.permute"""
        return array.permute(axes)

    def copy(self, array: Any) -> Any:
        """There is no way to copy such an array; a TypeError says so."""
        raise TypeError(
            f"a {type(array).__name__} has strides that kernels cannot walk, or does not begin at "
            "a multiple of 16 bytes; pass a contiguous copy"
        )

    def finish(self, array: Any, like: Any) -> Any:
        """An array of JAX for an array of JAX, else our own."""
        array.synchronize()
        if type(like).__module__.partition(".")[0] in ("jax", "jaxlib"):
            return sys.modules["jax"].dlpack.from_dlpack(array)
        return array


_TORCH, _CUPY, _INTERFACE, _DLPACK = Torch(), CuPy(), Interface(), DLPack()


def kind_of(array: Any) -> Kind | None:
    """The library of an array on a CUDA device; None for anything else."""
    if isinstance(array, Array):
        return _INTERFACE
    home = type(array).__module__.partition(".")[0]
    if home == "torch" or ((torch := sys.modules.get("torch")) and isinstance(array, torch.Tensor)):
        return _TORCH if array.is_cuda else None
    if home == "cupy":
        return _CUPY
    if home not in ("jax", "jaxlib") and hasattr(array, "__cuda_array_interface__"):
        return _INTERFACE
    if hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] == _dlpack.CUDA:
        return _DLPACK
    return None
