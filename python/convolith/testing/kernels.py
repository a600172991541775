"""Kernels under test: Python callables, on NumPy arrays or on those of another library."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convolith.testing.family import Call, Family
from convolith.testing.problem import Problem

Array = npt.NDArray[Any]


class Skip(Exception):
    """Raised by a kernel, or an adapter, for a problem that it does not serve; says why."""


class Kernel(Protocol):
    """What a check runs."""

    name: str
    takes_out: bool
    """Whether it writes into arrays that it is given."""
    takes_strides: bool
    """Whether it takes arrays that are not contiguous."""

    def reproducer(self, problem: Problem) -> str:
        """One line that runs this problem alone."""

    def run(
        self, family: Family, problem: Problem, call: Call, outs: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """The results; raises Skip for a problem that it does not serve."""


class PythonKernel:
    """A callable with the signature of the convolith function."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        out: bool | None = None,
        array_module: Any = None,
        device: str | None = None,
    ) -> None:
        """`out`, `array_module` and `device` are those of `check`."""
        self.function = function
        self.name = name_of(function)
        self.options = option_names(function)
        if isinstance(array_module, str):
            array_module = importlib.import_module(array_module)
        self.module, self.device = array_module, device
        takes = has_parameter(function, "out") if out is None else out
        self.takes_out = takes and array_module is None
        self.takes_strides = array_module is None

    def reproducer(self, problem: Problem) -> str:
        """A call of `check`."""
        name = self.name.replace("<locals>.", "")
        return f"convolith.testing.check({name}, problems=[{str(problem)!r}])"

    def run(
        self, family: Family, problem: Problem, call: Call, outs: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """Convert, call, convert back."""
        for option in call.options:
            if self.options is not None and option not in self.options:
                raise Skip(f"the kernel has no argument {option!r}")
        if self.module is not None:
            call = call.map_arrays(self.convert)
        options = dict(call.options)
        if self.takes_out and len(outs) == 1:
            options["out"] = outs[0]
            result = self.function(*call.args, **options)
            return (outs[0],) if result is None else (to_numpy(result),)
        result = self.function(*call.args, **options)
        results = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(to_numpy(r) for r in results)

    def convert(self, array: Array) -> Any:
        """An array of the kernel's library with the same numbers."""
        name = self.module.__name__.partition(".")[0]
        if name == "torch":
            tensor = self.module.from_numpy(np.ascontiguousarray(array))
            return tensor.to(self.device) if self.device else tensor
        if name == "cupy" or not hasattr(self.module, "from_dlpack"):
            return self.module.asarray(array)
        converted = self.module.from_dlpack(array)
        if self.device and name == "jax":
            jax = importlib.import_module("jax")
            return jax.device_put(converted, jax.devices(self.device)[0])
        return converted


def name_of(function: Any) -> str:
    """What to call a callable in messages."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return str(getattr(function, "__qualname__", None) or type(function).__name__)


def has_parameter(function: Callable[..., Any], name: str) -> bool:
    """Whether a callable has a parameter of this name; False if that cannot be told."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def option_names(function: Callable[..., Any]) -> frozenset[str] | None:
    """Names that can be given by keyword; None if that cannot be told, or any can be."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(p.name for p in parameters if p.kind in by_name)


def to_numpy(result: Any) -> Array:
    """The NumPy array of a result, from whichever library and device."""
    if isinstance(result, (np.ndarray, np.generic)):
        return np.asarray(result)
    if hasattr(result, "detach"):  # torch
        return np.asarray(result.detach().cpu().numpy())
    if hasattr(result, "get") and hasattr(result, "__cuda_array_interface__"):  # CuPy
        return np.asarray(result.get())
    if hasattr(result, "__array__"):  # JAX, from any device
        return np.asarray(result)
    if hasattr(result, "__dlpack__"):
        return np.asarray(np.from_dlpack(result))
    return np.asarray(result)
