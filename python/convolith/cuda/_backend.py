"""What the functions of the package call for arrays on CUDA devices; `_core` is its counterpart."""

from __future__ import annotations

import ctypes
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from convolith import _core
from convolith.cuda import _arrays
from convolith.cuda._arrays import Kind, View
from convolith.cuda._library import (
    CandidateRecord,
    ConvArguments,
    Maps,
    Options,
    PlanRecord,
    Pointer,
    PoolRecord,
    library,
)

_BLOCK = 16  # bytes
_STOCHASTIC = 4  # PoolOp::stochastic
_MOST_CANDIDATES = 64


def spatial_first(layout: str, nd: int) -> range:
    """The array axes of the spatial axes, in an array with a batch axis."""
    return range(1, 1 + nd) if layout == "channels_last" else range(2, 2 + nd)


def maps_of(view: View, layout: str, nd: int) -> Maps | None:
    """Strides of feature maps, or None where kernels could not walk them.

    The spatial axes must collapse to one axis of pixels, and neighbouring channels (channels_last)
    or pixels must touch.
    """
    shape, strides = view.shape, view.strides
    if len(shape) == nd + 1:
        shape, strides = (1, *shape), (0, *strides)
    channel = len(shape) - 1 if layout == "channels_last" else 1
    pixels = 1
    pixel_stride = shape[channel] if layout == "channels_last" else 1
    for axis in reversed(spatial_first(layout, nd)):
        if shape[axis] == 1:
            continue
        if pixels == 1:
            pixel_stride = strides[axis]
        elif strides[axis] != pixels * pixel_stride:
            return None
        pixels *= shape[axis]
    last = layout == "channels_last"
    extent, innermost = (shape[channel], strides[channel]) if last else (pixels, pixel_stride)
    if extent > 1 and innermost != 1:
        return None
    return Maps(view.data, strides[0], 1 if last else strides[channel], pixel_stride)


def to_channels_last(view: View, nd: int) -> View:
    """A channels_first view with its channels moved behind the spatial axes."""
    leading = len(view.shape) - nd - 1
    return view.permuted((*range(leading), *range(leading + 1, leading + 1 + nd), leading))


def _lies_channels_last(view: View, nd: int) -> bool:
    """Whether the channels of a channels_first array touch, as in torch.channels_last."""
    channel = len(view.shape) - nd - 1
    return (
        len(view.shape) == nd + 2
        and view.shape[channel] > 1
        and view.strides[channel] == 1
        and math.prod(view.shape[channel + 1 :]) > 1
        and maps_of(view, "channels_first", nd) is None
        and maps_of(to_channels_last(view, nd), "channels_last", nd) is not None
    )


class _Handle:
    """A plan of the library, freed when nobody holds it."""

    def __init__(self) -> None:
        self.pointer = Pointer()
        self._free = library().free_plan

    def __del__(self) -> None:
        if self.pointer:
            self._free(self.pointer)


class DevicePlan:
    """`_core.Plan` for a CUDA device: an algorithm chosen for a problem, ready to run."""

    isa: str
    threads = 1

    def __init__(
        self,
        problem: _core.ConvProblem,
        algorithm: str = "auto",
        numerics: str = "fast",
        threads: int = 0,
        isa: str = "",
        workspace_limit: int | None = None,
        *,
        device: int = 0,
        packs_once: bool = True,
    ) -> None:
        """Choose among the algorithms of CUDA devices; `threads` and `isa` say nothing there."""
        self.problem = problem
        self.device = device
        self.packed: Any = None
        self.isa = "cuda"
        self._library = library()
        self._handle = _Handle()
        self._weight: int | None = None  # of a plan whose algorithm reads the weights as they are
        record = PlanRecord()
        options = _options(algorithm, numerics, workspace_limit, device, packs_once)
        self._library.check(
            self._library.plan(
                str(problem).encode(),
                ctypes.byref(options),
                ctypes.byref(self._handle.pointer),
                ctypes.byref(record),
            )
        )
        self.algorithm = record.algorithm.decode()
        self.workspace_bytes = record.workspace_bytes
        self.packed_bytes = record.packed_bytes
        self.tolerance = {"componentwise": record.componentwise, "uniform": record.uniform}
        self.flops = problem.flops

    def explain(self) -> str:
        """Which algorithms were considered or refused, why, and the predicted cost."""
        self._library.check(self._library.explain(self._handle.pointer))
        return self._library.text()

    def pack(self, weight: Any) -> DevicePlan:
        """Return the same plan with the weights packed inside."""
        problem = self.problem
        if problem.direction == "backward_weight":
            raise ValueError("a plan for backward_weight has no weights to pack")
        call = _Call(problem, self.device)
        kind = call.kind_of(weight, "weight")
        plan = object.__new__(DevicePlan)
        plan.__dict__.update(self.__dict__)
        data = call.whole(weight, problem.weight_shape, "weight")
        if self.packed_bytes == 0:
            plan.packed = call.kept[-1]
            plan._weight = data
        else:
            plan.packed = kind.empty((self.packed_bytes,), "uint8", weight)
            self._library.check(
                self._library.pack(
                    self._handle.pointer,
                    data,
                    kind.view(plan.packed).data,
                    self.device,
                    kind.stream(weight),
                )
            )
        return plan

    def execute(
        self,
        first: Any,
        second: Any,
        bias: Any = None,
        residual: Any = None,
        out: Any = None,
        names: tuple[str, str] | None = None,
    ) -> Any:
        """Run on (x, weight), (dy, weight) or (dy, x), as the problem's direction says."""
        problem = self.problem
        for_weight = problem.direction == "backward_weight"
        forward = problem.direction == "forward"
        first_name, second_name = names or (
            "x" if forward else "dy",
            "x" if for_weight else "weight",
        )
        call = _Call(problem, self.device)
        kind = call.kind_of(first, first_name)
        arguments = ConvArguments()
        source_shape = problem.x_shape if forward else problem.y_shape
        unbatched = problem.batch == 1 and len(first.shape) == problem.rank + 1
        cut = 1 if unbatched else 0
        source = call.maps(first, source_shape[cut:], first_name)
        setattr(arguments, "x" if forward else "y", source)
        packed: int | None = None
        if for_weight:
            arguments.x = call.maps(second, problem.x_shape[cut:], second_name)
        elif self.packed is None:
            arguments.weight = call.whole(second, problem.weight_shape, second_name)
        elif second is not None:
            raise ValueError("weight is given, but the plan has its weights packed; pass None")
        elif self.packed_bytes == 0:
            arguments.weight = self._weight
        else:
            packed = kind.view(self.packed).data
        result_shape = (
            problem.weight_shape
            if for_weight
            else (problem.y_shape if forward else problem.x_shape)[cut:]
        )
        channels = problem.out_channels if forward else problem.in_channels
        _require_presence(bias, problem.bias, "bias")
        if bias is not None:
            arguments.bias = call.whole(bias, (channels,), "bias")
        _require_presence(residual, problem.residual, "residual")
        if residual is not None:
            arguments.residual = call.maps(residual, result_shape, "residual")
        if out is None:
            result = kind.empty(result_shape, problem.dtype, first)
            target = kind.view(result)
        else:
            result = out
            target = call.target(out, result_shape)
        if for_weight:
            arguments.weight = target.data
        else:
            maps = maps_of(target, problem.data_format, problem.rank)
            if maps is None:
                raise ValueError(
                    f"out has strides {target.strides}, which kernels on a device cannot walk"
                )
            setattr(arguments, "y" if forward else "x", maps)
        scratch = self.workspace_bytes + (0 if self.packed is not None else self.packed_bytes)
        workspace = kind.empty((scratch,), "uint8", first) if scratch else None
        self._library.check(
            self._library.run(
                self._handle.pointer,
                ctypes.byref(arguments),
                packed,
                kind.view(workspace).data if workspace is not None else None,
                self.device,
                kind.stream(first),
            )
        )
        return result if out is not None else kind.finish(result, first)


def _options(
    algorithm: str, numerics: str, workspace_limit: int | None, device: int, packs_once: bool
) -> Options:
    limit = -1 if workspace_limit is None else workspace_limit
    return Options(algorithm.encode(), limit, numerics == "strict", packs_once, device)


def _require_presence(array: Any, wanted: bool, argument: str) -> None:
    if (array is None) == wanted:
        raise ValueError(
            f"{argument} is None, but the problem has one"
            if wanted
            else f"{argument} is given, but the problem has none"
        )


class _Call:
    """The arrays of one call, checked against its problem; `kept` keeps their memory alive."""

    def __init__(self, problem: _core.ConvProblem, device: int) -> None:
        self.problem = problem
        self.device = device
        self.kept: list[Any] = []
        self.inputs: list[View] = []

    def kind_of(self, array: Any, argument: str) -> Kind:
        kind = _arrays.kind_of(array)
        if kind is None:
            raise TypeError(
                f"{argument} is a {type(array).__name__}; the arrays of a call lie on one device"
            )
        return kind

    def view(self, array: Any, argument: str, contiguous: bool = False) -> View:
        kind = self.kind_of(array, argument)
        view = kind.view(array)
        if view.dtype != self.problem.dtype:
            raise TypeError(
                f"{argument} has dtype {view.dtype}; the problem has {self.problem.dtype}, and "
                "all floating arrays of a call share one dtype"
            )
        if view.device != self.device:
            raise ValueError(
                f"{argument} lies on CUDA device {view.device}; the call is for {self.device}"
            )
        self.inputs.append(view)
        if contiguous and not view.contiguous:
            view = kind.view(kind.copy(array))
        self.kept.append(view)
        return view

    def maps(self, array: Any, shape: Sequence[int], argument: str) -> Maps:
        view = self.view(array, argument)
        _require_shape(view, shape, argument)
        maps = maps_of(view, self.problem.data_format, self.problem.rank)
        if maps is None or not self._is_aligned(view, maps):
            kind = self.kind_of(array, argument)
            view = kind.view(kind.copy(array))
            self.kept.append(view)
            maps = maps_of(view, self.problem.data_format, self.problem.rank)
            assert maps is not None
        return maps

    def _is_aligned(self, view: View, maps: Maps) -> bool:
        """Whether pixels of whole blocks of 16 bytes begin at such blocks, as kernels read them."""
        item = _arrays.ITEM_BYTES[view.dtype]
        if self.problem.data_format == "channels_first" or view.shape[-1] * item % _BLOCK:
            return True
        strides = (maps.sample_stride, maps.pixel_stride)
        return view.data % _BLOCK == 0 and not any(s * item % _BLOCK for s in strides)

    def whole(self, array: Any, shape: Sequence[int], argument: str) -> int:
        view = self.view(array, argument, contiguous=True)
        _require_shape(view, shape, argument)
        return view.data

    def target(self, out: Any, shape: Sequence[int]) -> View:
        inputs = list(self.inputs)
        view = self.view(out, "out")
        _require_shape(view, shape, "out")
        for other in inputs:
            # Views with gaps may interleave, as channels of one array do.
            begin, end = view.bytes
            others = other.bytes
            if view.contiguous and other.contiguous and begin < others[1] and others[0] < end:
                raise ValueError("out shares elements with an input")
        if self.problem.direction == "backward_weight" and not view.contiguous:
            raise ValueError("out must be C-contiguous for the gradient of weights on a device")
        return view


def _require_shape(view: View, shape: Sequence[int], argument: str) -> None:
    if view.shape != tuple(shape):
        raise ValueError(f"{argument} has shape {view.shape}; it must be {tuple(shape)}")


class Backend:
    """The functions of `_core` that take arrays, for one CUDA device and library of arrays."""

    def __init__(self, kind: Kind, device: int) -> None:
        """Serve arrays of `kind` on `device`."""
        self.kind = kind
        self.device = device
        self._plans: OrderedDict[Any, DevicePlan] = OrderedDict()

    _MOST_PLANS = 256

    def common_dtype(self, optional: dict[str, Any] | None = None, /, **arrays: Any) -> str:
        """The dtype that the named arrays share; `optional` ones may be None."""
        found = ""
        first_name = ""
        present = {k: v for k, v in (optional or {}).items() if v is not None}
        for name, array in (arrays | present).items():
            kind = _arrays.kind_of(array)
            if kind is not self.kind:
                there = f"{self.kind.name} array on CUDA device {self.device}"
                raise TypeError(
                    f"{name} is a {type(array).__name__}; {first_name or 'x'} is a {there}, and "
                    "the arrays of a call are of one library and device"
                )
            dtype = kind.view(array).dtype
            if dtype not in _arrays.DTYPES:
                raise TypeError(
                    f"{name} has dtype {dtype}; supported on CUDA devices are "
                    + ", ".join(_arrays.DTYPES)
                )
            if found and dtype != found:
                raise TypeError(
                    f"{name} has dtype {dtype}; {first_name} has {found}, and all floating arrays "
                    "of a call share one dtype"
                )
            if not found:
                found, first_name = dtype, name
        return found

    def Plan(
        self,
        problem: _core.ConvProblem,
        algorithm: str = "auto",
        numerics: str = "fast",
        threads: int = 0,
        isa: str = "",
        workspace_limit: int | None = None,
    ) -> DevicePlan:
        """A plan for the device."""
        return DevicePlan(
            problem, algorithm, numerics, workspace_limit=workspace_limit, device=self.device
        )

    def convolve(
        self,
        problem: _core.ConvProblem,
        algorithm: str,
        numerics: str,
        threads: int,
        call: tuple[Any, ...],
        names: tuple[str, str] | None = None,
    ) -> Any:
        """Plan a call, or find its plan, and execute it."""
        first, second, bias, residual, out, _ = call
        nd = problem.rank
        permuted = problem.data_format == "channels_first" and _lies_channels_last(
            self.kind.view(first), nd
        )
        if permuted and out is None:
            return self._in_channels_last(problem, algorithm, numerics, call, names)
        return self._plan(problem, algorithm, numerics).execute(
            first, second, bias, residual, out, names
        )

    def _in_channels_last(
        self,
        problem: _core.ConvProblem,
        algorithm: str,
        numerics: str,
        call: tuple[Any, ...],
        names: tuple[str, str] | None,
    ) -> Any:
        """Arrays whose channels touch are computed as what they are; so lies the result."""
        first, second, bias, residual, _, _ = call
        nd = problem.rank
        back = (0, 1 + nd, *range(1, 1 + nd))
        forth = (0, *range(2, 2 + nd), 1)

        def moved(array: Any) -> Any:
            return array if array is None else self.kind.permute(array, forth)

        for_weight = problem.direction == "backward_weight"
        plan = self._plan(problem.replace(data_format="channels_last"), algorithm, numerics)
        second = moved(second) if for_weight else second
        result = plan.execute(moved(first), second, bias, moved(residual), None, names)
        return result if for_weight else self.kind.permute(result, back)

    def channel_sums(
        self, maps: Any, nd: int, data_format: str, argument: str = "dy", threads: int = 0
    ) -> Any:
        """The sums of feature maps over batch and space: the gradient of a bias."""
        view = self.kind.view(maps)
        if _lies_channels_last(view, nd) and data_format == "channels_first":
            view, data_format = to_channels_last(view, nd), "channels_last"
        strides = maps_of(view, data_format, nd)
        if strides is None:
            view = self.kind.view(self.kind.copy(maps))
            strides = maps_of(view, data_format, nd)
        shape = view.shape if len(view.shape) == nd + 2 else (1, *view.shape)
        channel = len(shape) - 1 if data_format == "channels_last" else 1
        channels = shape[channel]
        pixels = math.prod(shape[i] for i in spatial_first(data_format, nd))
        sums = self.kind.empty((channels,), view.dtype, maps)
        compiled = library()
        compiled.check(
            compiled.channel_sums(
                view.dtype.encode(),
                data_format.encode(),
                ctypes.byref(strides or Maps()),
                shape[0],
                channels,
                pixels,
                self.kind.view(sums).data,
                self.device,
                self.kind.stream(maps),
            )
        )
        return self.kind.finish(sums, maps)

    def _pool_maps(
        self, array: Any, shape: Sequence[int], dtype: str, problem: _core.PoolProblem, name: str
    ) -> tuple[Maps, Any]:
        """Strides of an array of a pooling, and what keeps its memory."""
        view = self.kind.view(array)
        if view.dtype != dtype:
            raise TypeError(f"{name} has dtype {view.dtype}; it must be {dtype}")
        _require_shape(view, shape, name)
        maps = maps_of(view, problem.data_format, problem.rank)
        if maps is None:
            view = self.kind.view(self.kind.copy(array))
            maps = maps_of(view, problem.data_format, problem.rank)
            assert maps is not None
        return maps, view

    def pool(
        self,
        problem: _core.PoolProblem,
        x: Any,
        uniforms: Any = None,
        return_indices: bool = False,
        threads: int = 0,
        isa: str = "",
    ) -> Any:
        """`_core.pool` on the device; stochastic pooling is the processor's."""
        if problem.numbers[0] == _STOCHASTIC:
            raise _core.UnsupportedError("stochastic pooling runs on the processor alone")
        unbatched = len(x.shape) == problem.rank + 1
        dtype = problem.dtype
        x_maps, kept = self._pool_maps(x, problem.x_shape(unbatched), dtype, problem, "x")
        y_shape = problem.y_shape(unbatched)
        y = self.kind.empty(y_shape, dtype, x)
        y_maps, _ = self._pool_maps(y, y_shape, dtype, problem, "y")
        indices = self.kind.empty(y_shape, "int64", x) if return_indices else None
        index_maps = Maps()
        if indices is not None:
            index_maps, _ = self._pool_maps(indices, y_shape, "int64", problem, "indices")
        compiled = library()
        compiled.check(
            compiled.pool(
                ctypes.byref(PoolRecord.of(problem)),
                ctypes.byref(x_maps),
                ctypes.byref(y_maps),
                ctypes.byref(index_maps),
                self.device,
                self.kind.stream(x),
            )
        )
        del kept
        result = self.kind.finish(y, x)
        return result if indices is None else (result, self.kind.finish(indices, x))

    def pool_backward(
        self,
        problem: _core.PoolProblem,
        dy: Any,
        x: Any,
        indices: Any = None,
        threads: int = 0,
        isa: str = "",
    ) -> Any:
        """`_core.pool_backward` on the device; an index outside of its window gets nothing."""
        if problem.numbers[0] == _STOCHASTIC:
            raise _core.UnsupportedError("stochastic pooling runs on the processor alone")
        unbatched = len(x.shape) == problem.rank + 1
        dtype, x_shape = problem.dtype, problem.x_shape(unbatched)
        y_shape = problem.y_shape(unbatched)
        x_maps, kept_x = self._pool_maps(x, x_shape, dtype, problem, "x")
        dy_maps, kept_dy = self._pool_maps(dy, y_shape, dtype, problem, "dy")
        index_maps, kept_indices = Maps(), None
        if indices is not None:
            index_maps, kept_indices = self._pool_maps(
                indices, y_shape, "int64", problem, "indices"
            )
        dx = self.kind.empty(x_shape, dtype, x)
        dx_maps, _ = self._pool_maps(dx, x_shape, dtype, problem, "dx")
        compiled = library()
        compiled.check(
            compiled.pool_backward(
                ctypes.byref(PoolRecord.of(problem)),
                ctypes.byref(dy_maps),
                ctypes.byref(x_maps),
                ctypes.byref(index_maps),
                ctypes.byref(dx_maps),
                self.device,
                self.kind.stream(x),
            )
        )
        del kept_x, kept_dy, kept_indices
        return self.kind.finish(dx, x)

    def _plan(self, problem: _core.ConvProblem, algorithm: str, numerics: str) -> DevicePlan:
        if algorithm == "fastest":
            raise ValueError("algorithm 'fastest' measures on the processor alone")
        key = (problem, algorithm, numerics)
        plan = self._plans.get(key)
        if plan is None:
            plan = DevicePlan(problem, algorithm, numerics, device=self.device, packs_once=False)
            if len(self._plans) >= self._MOST_PLANS:
                self._plans.popitem(last=False)
            self._plans[key] = plan
        else:
            self._plans.move_to_end(key)
        return plan


def algorithms(
    problem: _core.ConvProblem,
    numerics: str = "fast",
    workspace_limit: int | None = None,
    device: int = 0,
) -> list[dict[str, Any]]:
    """`_core.algorithms` for a CUDA device."""
    records = (CandidateRecord * _MOST_CANDIDATES)()
    count = ctypes.c_int()
    options = _options("auto", numerics, workspace_limit, device, True)
    compiled = library()
    compiled.check(
        compiled.candidates(
            str(problem).encode(),
            ctypes.byref(options),
            records,
            _MOST_CANDIDATES,
            ctypes.byref(count),
        )
    )
    result = []
    for record in records[: count.value]:
        yes = bool(record.supported)
        result.append(
            {
                "name": record.name.decode(),
                "summary": record.summary.decode(),
                "supported": yes,
                "reason": record.reason.decode(),
                "workspace_bytes": record.workspace_bytes if yes else None,
                "packed_bytes": record.packed_bytes if yes else None,
                "cost_seconds": record.cost_seconds if yes else None,
                "tolerance": {
                    "componentwise": record.componentwise,
                    "uniform": record.uniform,
                }
                if yes
                else None,
            }
        )
    return result


_backends: dict[tuple[str, int], Backend] = {}


def backend_of(array: Any) -> Backend | None:
    """The backend for an array on a CUDA device; None for anything else."""
    kind = _arrays.kind_of(array)
    if kind is None:
        return None
    key = (kind.name, kind.view(array).device)
    found = _backends.get(key)
    if found is None:
        library()  # or the reason why there is none
        found = _backends.setdefault(key, Backend(kind, key[1]))
    return found
