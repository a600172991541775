"""Where a call is computed: by the processor, or by the device that its arrays lie on."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolith import _core


def of(array: Any) -> Any:
    """`_core`, or what stands for it on the CUDA device of an array."""
    if isinstance(array, np.ndarray) or not _may_be_on_device(array):
        return _core
    from convolith.cuda import _backend

    return _backend.backend_of(array) or _core


def _may_be_on_device(array: Any) -> bool:
    return hasattr(array, "__dlpack_device__") or hasattr(array, "__cuda_array_interface__")


def copy_of(array: Any) -> Any:
    """A copy where the array's own library makes one; an array of a device may stay itself."""
    copy = getattr(array, "copy", None) or getattr(array, "clone", None)
    return array if copy is None else copy()
