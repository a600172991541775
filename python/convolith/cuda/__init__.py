"""Convolution on CUDA devices.

`cl.conv2d` and the other functions take arrays on a device, of any library that has DLPack or
`__cuda_array_interface__` (torch, CuPy, JAX), without a copy, in the order of the caller's stream,
and return arrays of the same library. This needs a build with CONVOLITH_CUDA=ON; without one, or
without a driver, the rest of the library works all the same.
"""

from __future__ import annotations

import ctypes
from typing import Any, Literal, overload

from convolith.cuda import _library
from convolith.cuda._arrays import Array
from convolith.cuda._library import DeviceError, NotAvailableError

__all__ = [
    "Array",
    "DeviceError",
    "NotAvailableError",
    "devices",
    "is_available",
    "show_config",
]


def is_available() -> bool:
    """Whether this build has a CUDA part, and there is a driver and a device for it."""
    return not _why_not()


def _why_not() -> str:
    try:
        compiled = _library.library()
    except NotAvailableError as error:
        return str(error)
    return "" if compiled.devices() > 0 else compiled.text()


def devices() -> list[dict[str, Any]]:
    """Name, compute capability and multiprocessors of every device.

    Raises:
        NotAvailableError: There is none; the message says why.
    """
    if reason := _why_not():
        raise NotAvailableError(reason)
    compiled = _library.library()
    result = []
    for index in range(compiled.devices()):
        record = _library.DeviceRecord()
        compiled.check(compiled.device(index, ctypes.byref(record)))
        result.append(
            {
                "name": record.name.decode(),
                "compute_capability": f"{record.major}.{record.minor}",
                "multiprocessors": record.multiprocessors,
            }
        )
    return result


@overload
def show_config(mode: Literal["print"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "print") -> dict[str, Any] | None:
    """Print what the CUDA part is and finds: versions and devices, or why there is none.

    Args:
        mode: "print", or "dicts" to return {name: value}.
    """
    config: dict[str, Any] = {"built": True, "available": not (reason := _why_not())}
    try:
        compiled = _library.library()
    except NotAvailableError:
        config["built"] = False
    else:
        driver, runtime = ctypes.c_int(), ctypes.c_int()
        compiled.versions(ctypes.byref(driver), ctypes.byref(runtime))
        for name, number in (("driver", driver.value), ("runtime", runtime.value)):
            config[name] = f"{number // 1000}.{number % 1000 // 10}"
    if reason:
        config["reason"] = reason
    else:
        config["devices"] = devices()
    if mode == "dicts":
        return config
    if mode != "print":
        raise ValueError(f"mode is {mode!r}; it must be 'print' or 'dicts'")
    for name, value in config.items():
        if name == "devices":
            for number, device in enumerate(value):
                text = ", ".join(f"{k} {v}" for k, v in device.items() if k != "name")
                print(f"{f'device {number}':<18}{device['name']}, {text}".replace("_", " "))
        else:
            print(f"{name:<18}{value}")
    return None
