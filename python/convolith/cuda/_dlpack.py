"""DLPack capsules, read and made: https://dmlc.github.io/dlpack/latest/c_api.html."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any, ClassVar

CUDA = 2  # kDLCUDA
_INT, _UINT, _FLOAT, _BFLOAT = 0, 1, 2, 4
_CODES = {
    "float16": (_FLOAT, 16),
    "float32": (_FLOAT, 32),
    "float64": (_FLOAT, 64),
    "bfloat16": (_BFLOAT, 16),
    "int64": (_INT, 64),
    "uint8": (_UINT, 8),
}
_NAMES = {code: name for name, code in _CODES.items()}


class _Tensor(ctypes.Structure):
    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_: ClassVar = [
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]


_python = ctypes.pythonapi
_get_pointer = _python.PyCapsule_GetPointer
_get_pointer.argtypes, _get_pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = _python.PyCapsule_New
_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _Destructor]
_new.restype = ctypes.py_object
# A capsule that is being destroyed has no references left: its address must not become an object.
_is_valid = _python.PyCapsule_IsValid
_is_valid.argtypes, _is_valid.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_int
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)
_NAME = b"dltensor"  # a consumer renames the capsule


def describe(capsule: Any) -> tuple[int, tuple[int, ...], tuple[int, ...], str, int]:
    """Address, shape, strides in elements, dtype and device of a capsule's tensor."""
    tensor = ctypes.cast(_get_pointer(capsule, _NAME), ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        strides = tuple(tensor.strides[: tensor.ndim])
    else:
        from convolith.cuda._arrays import row_major

        strides = row_major(shape)
    code = (tensor.code, tensor.bits)
    dtype = _NAMES.get(code, f"DLPack type {code}") if tensor.lanes == 1 else "a vector type"
    return (tensor.data or 0) + tensor.byte_offset, shape, strides, dtype, tensor.device_id


_exported: dict[int, tuple[Any, ...]] = {}  # what lives until a consumer calls the deleter
_numbers = itertools.count(1)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[misc]
def _delete(managed: int) -> None:
    key = ctypes.cast(managed, ctypes.POINTER(_Managed)).contents.context
    _exported.pop(key or 0, None)


@_Destructor  # type: ignore[misc]
def _destroy(capsule: int) -> None:
    if _is_valid(capsule, _NAME):  # nobody consumed it
        _delete(_pointer_at(capsule, _NAME))


def capsule(
    owner: Any,
    data: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: str,
    device: int,
) -> Any:
    """A capsule of memory that `owner` keeps alive."""
    number = next(_numbers)
    extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    steps = (ctypes.c_int64 * max(1, len(strides)))(*strides)
    code, bits = _CODES[dtype]
    managed = _Managed(
        _Tensor(data, CUDA, device, len(shape), code, bits, 1, extents, steps, 0),
        number,
        ctypes.cast(_delete, ctypes.c_void_p),
    )
    _exported[number] = (owner, extents, steps, managed)
    return _new(ctypes.addressof(managed), _NAME, _destroy)
