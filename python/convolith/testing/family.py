"""What every family of operations says of its problems: operands, truth, smaller problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convolith import reference
from convolith.testing import bounds
from convolith.testing.bounds import ToleranceRule
from convolith.testing.data import Draw
from convolith.testing.problem import Problem

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Call:
    """The arguments of a call: arrays and shapes by position, the rest by keyword.

    Options that have their default are left out, so that a kernel need not know them.
    """

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    """Options whose arrays the operation changes in place."""

    def map_arrays(self, function: Callable[[Array], Any]) -> Call:
        """The same call with every array replaced."""

        def apply(value: Any) -> Any:
            return function(value) if isinstance(value, np.ndarray) else value

        return Call(
            tuple(apply(value) for value in self.args),
            {name: apply(value) for name, value in self.options.items()},
            self.changes,
        )

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Every array, with a name for messages."""
        for place, value in enumerate(self.args, start=1):
            if isinstance(value, np.ndarray):
                yield f"argument {place}", value
        for name, value in self.options.items():
            if isinstance(value, np.ndarray):
                yield name, value


@dataclass(frozen=True)
class Truth:
    """What the results must be.

    `bounds` are None for what must be equal; `index`, where it is not None, has the positions of
    the one result at which it is known.
    """

    values: tuple[Array, ...]
    bounds: tuple[Array | None, ...]
    scale: tuple[Array, ...] = ()
    """Bounds in whose units an error is told; of rounding also where equality is asked for."""
    index: tuple[Array, ...] | None = None
    shape: tuple[int, ...] | None = None
    signed_zeros: bool = False


@dataclass(frozen=True)
class Settings:
    """What a kernel promises of its arithmetic."""

    tolerance: ToleranceRule | None = None
    unit_roundoff: float | None = None
    strict: bool = True

    def u(self, problem: Problem) -> float:
        """The unit roundoff of the kernel's arithmetic."""
        return self.unit_roundoff or bounds.unit_roundoff(problem.dtype)


def in_double(array: Array) -> Array:
    """What the reference takes: float64, or indices as they are."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def run_reference(name: str, call: Call) -> tuple[Array, ...]:
    """Results of the reference; also the arrays that the call changes in place."""
    double = call.map_arrays(in_double)
    with np.errstate(all="ignore"):
        result = getattr(reference, name)(*double.args, **double.options)
    results = result if isinstance(result, tuple) else (result,)
    return (*map(np.asarray, results), *(double.options[name] for name in call.changes))


class Family:
    """Operations that have their geometry and their bounds in common."""

    directions: tuple[str, ...] = ("forward", "backward")

    def function(self, problem: Problem) -> str:
        """The name of the function in convolith and in its reference."""
        return problem.op if problem.direction == "forward" else f"{problem.op}_backward"

    def call(self, problem: Problem, draw: Draw) -> Call:
        """Operands and options; ValueError for a problem that makes no sense."""
        raise NotImplementedError

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """What the call must give."""
        raise NotImplementedError

    def smaller(self, problem: Problem) -> Iterator[Problem]:
        """Simpler problems, the greatest steps first; some may make no sense."""
        yield from smaller_geometry(problem)


def truth_of(
    problem: Problem, values: tuple[Array, ...], scale: tuple[Array, ...], exact: bool
) -> Truth:
    """Equality if the data and the operation allow it, otherwise the bounds."""
    limits: tuple[Array | None, ...] = (None,) * len(values) if exact else scale
    return Truth(values, limits, scale)


def stays_exact(problem: Problem, magnitude: Array, u: float) -> bool:
    """Whether sums of these magnitudes of the problem's integers are exact in any order."""
    if problem.data == "normal":
        return False
    finite = magnitude[np.isfinite(magnitude)]
    if problem.data in ("huge", "tiny", "subnormal"):
        return True
    return bool(np.max(finite, initial=0.0) <= 1 / u)


def smaller_geometry(problem: Problem) -> Iterator[Problem]:
    """Fewer samples and channels, extents, simpler windows, fewer options."""
    geometry = dict(problem.geometry)
    if problem.data not in ("integers",):
        yield problem.replace(data="integers")
    for name, value in geometry.items():
        needed = name == "norm_type" or name == problem.op
        if not needed and (
            value is True or name in ("padding_mode", "activation", "label_smoothing")
        ):
            yield problem.replace(**{name: None})
    if "output_padding" in geometry:
        yield problem.replace(output_padding=None)
    if problem.groups > 1 and problem.in_channels and problem.out_channels:
        for g in {1, problem.groups // 2}:
            share = problem.groups / g
            yield problem.replace(
                groups=g,
                in_channels=int(problem.in_channels / share),
                out_channels=int(problem.out_channels / share),
            )
    for name in ("batch", "in_channels", "out_channels", "rows", "columns", "inner"):
        value = geometry.get(name)
        if isinstance(value, int) and value > 1:
            step = problem.groups if name in ("in_channels", "out_channels") else 1
            for n in dict.fromkeys((step, value // 2 // step * step, value - step)):
                if 0 < n < value:
                    yield problem.replace(**{name: n})
    for name, least in (("stride", 1), ("dilation", 1), ("kernel", 1), ("input", 1)):
        value = geometry.get(name)
        if isinstance(value, tuple):
            yield from _smaller_axes(problem, name, value, least)
    for name in ("output_size", "shape"):
        if isinstance(geometry.get(name), tuple):
            yield from _smaller_axes(problem, name, geometry[name], 1)
    padding = geometry.get("padding")
    if padding is not None:
        yield problem.replace(padding=0)
    if isinstance(padding, tuple):
        for axis, pair in enumerate(padding):
            for side in (0, 1):
                if pair[side]:
                    for amount in dict.fromkeys((0, pair[side] - 1)):
                        fewer = tuple(amount if j == side else p for j, p in enumerate(pair))
                        yield problem.replace(
                            padding=(*padding[:axis], fewer, *padding[axis + 1 :])
                        )
    if problem.data_format != "channels_first":
        yield problem.replace(data_format="channels_first")
    if problem.seed:
        yield problem.replace(seed=0)


def _smaller_axes(
    problem: Problem, name: str, value: tuple[int, ...], least: int
) -> Iterator[Problem]:
    for axis, extent in enumerate(value):
        for n in dict.fromkeys((least, extent // 2, extent - 1)):
            if least <= n < extent:
                yield problem.replace(**{name: (*value[:axis], n, *value[axis + 1 :])})


def maps(problem: Problem, channels: int, spatial: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of feature maps in the problem's data format."""
    batch = () if problem.unbatched else (problem.batch,)
    if problem.data_format == "channels_last":
        return (*batch, *spatial, channels)
    return (*batch, channels, *spatial)
