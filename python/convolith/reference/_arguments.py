"""Validation: the arguments of the reference are checked here, and trusted below."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, SupportsIndex, TypeVar

import numpy as np
import numpy.typing as npt

from . import _windows
from ._windows import Array, Axis, Indices, Windows

Ints = SupportsIndex | Sequence[SupportsIndex] | npt.NDArray[np.integer[Any]]
Padding = str | Ints | Sequence[Sequence[SupportsIndex]]
OutputSize = SupportsIndex | Sequence[SupportsIndex | None] | None
FloatArray = npt.NDArray[np.floating[Any]]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_ALIASES = {
    "NCL": (1, False),
    "NCHW": (2, False),
    "NCDHW": (3, False),
    "NLC": (1, True),
    "NHWC": (2, True),
    "NDHWC": (3, True),
}
_INT64 = np.iinfo(np.int64)

P = ParamSpec("P")
R = TypeVar("R")


def silent(function: Callable[P, R]) -> Callable[P, R]:
    """Run without floating-point warnings: NaN and infinity are values here, not accidents."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return wrapper


def for_ranks(
    name: str, function: Callable[Concatenate[int, P], R]
) -> tuple[Callable[P, R], Callable[P, R], Callable[P, R]]:
    """The public 1-D, 2-D and 3-D functions of one that takes the spatial rank first.

    "{rank}" in `name` and in the docstring becomes the rank.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    signature = inspect.Signature(
        parameters, return_annotation=inspect.signature(function).return_annotation
    )

    def bind(rank: int) -> Callable[P, R]:
        def bound(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(rank, *args, **kwargs)

        bound.__name__ = bound.__qualname__ = name.format(rank=rank)
        bound.__doc__ = (function.__doc__ or "").replace("{rank}", str(rank))
        bound.__module__ = function.__module__
        bound.__annotations__ = {k: v for k, v in function.__annotations__.items() if k != "rank"}
        bound.__dict__["__signature__"] = signature
        return silent(bound)

    return bind(1), bind(2), bind(3)


# --- numbers ---------------------------------------------------------------------------------


def integer(name: str, value: Any, minimum: int = _INT64.min) -> int:
    """What operator.index takes, except bool."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got the bool {value}")
    try:
        number = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be an integer, got {kind} {value!r}") from None
    if not _INT64.min <= number <= _INT64.max:
        raise OverflowError(f"{name} is {number}, which does not fit in 64 bits")
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__} {value!r}")
    return bool(value)


def real(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__} {value!r}")
    return float(value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _spread(name: str, value: Any, nd: int) -> list[Any]:
    """One entry per axis; a single entry serves all axes."""
    entries = list(value) if _is_sequence(value) else [value]
    if len(entries) == 1:
        entries *= nd
    if len(entries) != nd:
        wanted = "1 entry" if nd == 1 else f"1 or {nd} entries"
        raise ValueError(f"{name} must have {wanted}, got {len(entries)}: {value!r}")
    return entries


def generator(rng: Any) -> np.random.Generator:
    if not (rng is None or isinstance(rng, np.random.Generator)):
        try:
            rng = integer("rng", rng, 0)
        except TypeError:
            kind = type(rng).__name__
            raise TypeError(
                f"rng must be None, an integer seed or a numpy.random.Generator, got {kind}"
            ) from None
    return np.random.default_rng(rng)


def per_axis(name: str, value: Any, nd: int, minimum: int = 1) -> tuple[int, ...]:
    return tuple(integer(name, entry, minimum) for entry in _spread(name, value, nd))


def _padding(value: Any, nd: int) -> str | list[tuple[int, int]]:
    """ "same" and "same_lower" stay words; everything else becomes (before, after) per axis."""
    if isinstance(value, str):
        if value == "valid":
            return [(0, 0)] * nd
        if value not in ("same", "same_lower"):
            raise ValueError(f"padding must be 'valid', 'same' or 'same_lower', got {value!r}")
        return value
    entries = _spread("padding", value, nd)
    if not any(_is_sequence(entry) for entry in entries):
        return [(p, p) for p in (integer("padding", entry, 0) for entry in entries)]
    pairs = []
    for entry in entries:
        if not _is_sequence(entry) or len(entry) != 2:
            raise ValueError(f"padding must be one (before, after) pair per axis, got {value!r}")
        before, after = (integer("padding", p, 0) for p in entry)
        pairs.append((before, after))
    return pairs


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {type(value).__name__} {value!r}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


# --- arrays ----------------------------------------------------------------------------------


def _check_ndarray(name: str, value: Any, dtypes: tuple[type, ...]) -> None:
    names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a numpy.ndarray of {names}, got {type(value).__name__}")
    if value.dtype.type not in dtypes or not value.dtype.isnative:
        raise TypeError(f"{name} must be of dtype {names} (native byte order), got {value.dtype}")


def check_arrays(**arrays: Any) -> None:
    """Floating arrays of one call: plain, native, of one dtype. bias and residual may be None."""
    given = {
        name: array
        for name, array in arrays.items()
        if array is not None or name not in ("bias", "residual")
    }
    for name, array in given.items():
        _check_ndarray(name, array, (np.float32, np.float64))
    if len({array.dtype for array in given.values()}) > 1:
        dtypes = ", ".join(f"{name} {array.dtype}" for name, array in given.items())
        raise TypeError(f"all floating arrays must share one dtype, got {dtypes}")


@dataclass(frozen=True)
class Layout:
    """How the arrays of one call are laid out. Internally everything is (N, C, *spatial)."""

    nd: int
    channels_last: bool
    batched: bool

    def axis(self, spatial: int) -> int:
        """The caller's number of a spatial axis, for messages."""
        return spatial + int(self.batched) + int(not self.channels_last)

    def canonical(self, name: str, shape: Sequence[int]) -> tuple[int, ...]:
        """The caller's shape -> (N, C, *spatial)."""
        if len(shape) != self.nd + 1 + int(self.batched):
            rank = self.nd + 1 + int(self.batched)
            raise ValueError(f"{name} must have rank {rank} here, got shape {tuple(shape)}")
        batch, rest = (shape[0], shape[1:]) if self.batched else (1, shape)
        channels, spatial = (rest[-1], rest[:-1]) if self.channels_last else (rest[0], rest[1:])
        if channels < 1 or min(spatial) < 1:
            raise ValueError(f"{name} has an empty channel or spatial axis: shape {tuple(shape)}")
        return (batch, channels, *spatial)

    def shape(self, canonical: Sequence[int]) -> tuple[int, ...]:
        """(N, C, *spatial) -> the caller's shape."""
        batch, channels, *spatial = canonical
        rest = (*spatial, channels) if self.channels_last else (channels, *spatial)
        return (batch, *rest) if self.batched else rest

    def read(self, name: str, array: Any, expected: Sequence[int] | None = None) -> Any:
        """The caller's array as (N, C, *spatial); `expected` is that shape, where it is known."""
        if expected is not None and array.shape != self.shape(expected):
            raise ValueError(f"{name} must have shape {self.shape(expected)}, got {array.shape}")
        self.canonical(name, array.shape)
        array = np.asarray(array)
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(np.float64)
        array = array if self.batched else array[None]
        return np.moveaxis(array, -1, 1) if self.channels_last else array

    def write(self, array: npt.NDArray[Any]) -> Any:
        """(N, C, *spatial) -> a new C-contiguous array laid out as the caller's."""
        array = np.moveaxis(array, 1, -1) if self.channels_last else array
        return np.array(array if self.batched else array[0], order="C")

    def read_indices(
        self, name: str, array: Any, expected: Sequence[int], spatial: Sequence[int]
    ) -> Indices:
        """Indices into flattened planes of extents `spatial`."""
        _check_ndarray(name, array, (np.int64,))
        indices: Indices = self.read(name, array, expected)
        size = math.prod(spatial)
        if indices.size and not 0 <= indices.min() <= indices.max() < size:
            raise ValueError(
                f"{name} must lie in 0..{size - 1}, the flattened plane {tuple(spatial)}, "
                f"got {indices.min()}..{indices.max()}"
            )
        return indices


def layout(nd: int, data_format: Any, name: str, rank: int) -> Layout:
    """The layout of a call whose array (or shape argument) `name` has the given rank."""
    formats = ["channels_first", "channels_last"]
    formats += [alias for alias, (alias_nd, _) in _ALIASES.items() if alias_nd == nd]
    choice("data_format", data_format, formats)
    if rank not in (nd + 1, nd + 2):
        raise ValueError(
            f"{name} must have rank {nd + 2}, or {nd + 1} for one sample without a batch axis; "
            f"got rank {rank}"
        )
    channels_last = data_format == "channels_last" or _ALIASES.get(data_format, (0, False))[1]
    return Layout(nd, channels_last, rank == nd + 2)


def global_rank(data_format: Any, rank: int) -> int:
    """Spatial rank for global pooling: the alias's, else that of a batch of this rank."""
    choice("data_format", data_format, ("channels_first", "channels_last", *_ALIASES))
    if data_format in _ALIASES:
        return _ALIASES[data_format][0]
    if not 2 <= rank <= 5:
        raise ValueError(f"x must have rank 2 to 5, got rank {rank}")
    return max(1, rank - 2)


# --- geometry --------------------------------------------------------------------------------


def _check_extent(name: str, value: int, axis: int) -> None:
    if value > _INT64.max:
        raise OverflowError(f"{name} {value} on axis {axis} does not fit in 64 bits")


def _kernel_text(kernel: int, dilation: int) -> str:
    effective = _windows.effective_kernel(kernel, dilation)
    return f"kernel {kernel}" + (
        f" (dilation {dilation}: effective {effective})" if dilation > 1 else ""
    )


def _window(
    number: int,
    n: int,
    kernel: int,
    stride: int,
    dilation: int,
    padding: str | tuple[int, int],
    ceil_mode: bool = False,
) -> Axis:
    """The windows along the caller's axis `number` of extent n."""
    effective = _windows.effective_kernel(kernel, dilation)
    _check_extent("effective kernel", effective, number)
    if isinstance(padding, str):
        before, after = _windows.same_padding(n, effective, stride, padding == "same_lower")
    else:
        before, after = padding
    padded = n + before + after
    _check_extent("padded input", padded, number)
    out = _windows.output_size(n, effective, stride, before, after, ceil_mode)
    if out < 1:
        raise ValueError(
            f"{_kernel_text(kernel, dilation)} is larger than padded input {padded} "
            f"on axis {number}"
        )
    return Axis(n, kernel, stride, dilation, before, after, out)


@dataclass(frozen=True)
class ConvProblem:
    """A (forward) convolution: x (N, C, *size) with weight (K, C/groups, *kernel) -> y."""

    layout: Layout
    batch: int
    in_channels: int
    out_channels: int
    groups: int
    axes: tuple[Axis, ...]
    padding_mode: str

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.batch, self.in_channels, *(axis.size for axis in self.axes))

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.batch, self.out_channels, *(axis.out for axis in self.axes))


def spatial_rank(name: str, weight_rank: int) -> int:
    if not 3 <= weight_rank <= 5:
        raise ValueError(f"{name} must have rank 3, 4 or 5, got rank {weight_rank}")
    return weight_rank - 2


def shape_argument(name: str, value: Any) -> tuple[int, ...]:
    if not _is_sequence(value):
        raise TypeError(f"{name} must be a sequence of integers, got {type(value).__name__}")
    return tuple(integer(name, entry, 0) for entry in value)


def _channels(
    weight_shape: Sequence[int], channels: int, groups: Any, nd: int, transposed: bool
) -> tuple[int, int, int]:
    """(C, K, groups) of the forward convolution, from the weights and the input's channels.

    Transposed weights (in, out/groups, *kernel) are the forward's (K, C/groups, *kernel).
    """
    groups = integer("groups", groups, 1)
    if len(weight_shape) != nd + 2:
        raise ValueError(f"weight must have rank {nd + 2}, got shape {tuple(weight_shape)}")
    if min(weight_shape) < 1:
        raise ValueError(f"weight has an empty axis: shape {tuple(weight_shape)}")
    k, c = weight_shape[0], weight_shape[1] * groups
    if k % groups:
        raise ValueError(f"groups {groups} does not divide weight.shape[0] = {k}")
    if transposed and channels != k:
        raise ValueError(f"input has {channels} channels, but weight.shape[0] is {k}")
    if not transposed and channels % groups:
        raise ValueError(f"groups {groups} does not divide the input's {channels} channels")
    if not transposed and channels != c:
        raise ValueError(
            f"input has {channels} channels, but weight.shape[1] * groups is "
            f"{weight_shape[1]} * {groups} = {c}"
        )
    return c, k, groups


def _check_padding_mode(axes: Sequence[Axis], mode: Any, layout: Layout) -> str:
    choice("padding_mode", mode, PADDING_MODES)
    for i, axis in enumerate(axes):
        largest = max(axis.before, axis.after)
        limit = {"reflect": axis.size - 1, "circular": axis.size}.get(mode, largest)
        if largest > limit:
            raise ValueError(
                f"{mode} padding {largest} is more than {limit} on axis {layout.axis(i)} "
                f"of extent {axis.size}"
            )
    return str(mode)


def conv_problem(
    layout: Layout,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
) -> ConvProblem:
    """The problem of a convolution of x_shape = (N, C, *spatial)."""
    nd = layout.nd
    batch, channels, *spatial = x_shape
    c, k, groups = _channels(weight_shape, channels, groups, nd, transposed=False)
    strides, dilations = per_axis("stride", stride, nd), per_axis("dilation", dilation, nd)
    pads = _padding(padding, nd)
    axes = tuple(
        _window(
            layout.axis(i),
            spatial[i],
            weight_shape[2 + i],
            strides[i],
            dilations[i],
            pads if isinstance(pads, str) else pads[i],
        )
        for i in range(nd)
    )
    mode = _check_padding_mode(axes, padding_mode, layout)
    return ConvProblem(layout, batch, c, k, groups, axes, mode)


def _spatial_of(name: str, value: Any, layout: Layout) -> tuple[int, ...]:
    """An output_size: per axis, or a whole shape, of which the spatial extents count."""
    if _is_sequence(value) and len(value) == layout.nd + 1 + int(layout.batched):
        start = layout.axis(0)
        value = value[start : start + layout.nd]
    return per_axis(name, value, layout.nd)


def transposed_problem(
    layout: Layout,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    output_size: Any,
    padding_mode: Any,
    size_name: str = "output_size",
) -> ConvProblem:
    """The convolution whose adjoint maps x_shape = (N, K, *n) to the transposed output."""
    nd = layout.nd
    batch, channels, *spatial = x_shape
    c, k, groups = _channels(weight_shape, channels, groups, nd, transposed=True)
    strides, dilations = per_axis("stride", stride, nd), per_axis("dilation", dilation, nd)
    extras = per_axis("output_padding", output_padding, nd, minimum=0)
    pads = _padding(padding, nd)
    sizes = None if output_size is None else _spatial_of(size_name, output_size, layout)
    if sizes is not None and any(extras):
        raise ValueError(f"give output_size {sizes} or output_padding {extras}, not both")

    axes = []
    for i, (n, s, d) in enumerate(zip(spatial, strides, dilations, strict=True)):
        number, kernel = layout.axis(i), weight_shape[2 + i]
        effective = _windows.effective_kernel(kernel, d)
        if isinstance(pads, str):
            # The adjoint of "same" on m elements, ceil(m/s) == n: m = n*s unless output_size says.
            if extras[i]:
                raise ValueError(
                    f"output_padding must be 0 with padding {pads!r}, got {extras[i]} on axis "
                    f"{number}: use output_size"
                )
            low, high = (n - 1) * s + 1, n * s
            m = high if sizes is None else sizes[i]
            before, after = _windows.same_padding(m, effective, s, pads == "same_lower")
        else:
            before, after = pads[i]
            low = (n - 1) * s - before - after + effective
            high = low + max(s, d) - 1
            m = low + extras[i] if sizes is None else sizes[i]
            if extras[i] >= max(s, d):
                raise ValueError(
                    f"output_padding {extras[i]} must be smaller than stride {s} or than "
                    f"dilation {d} on axis {number}"
                )
        if not low <= m <= high:
            raise ValueError(f"{size_name} must lie in {low}..{high} on axis {number}, got {m}")
        _check_extent("output", m + before + after, number)
        if m < 1:
            raise ValueError(
                f"output extent {m} on axis {number} must be at least 1: input {n}, stride {s}, "
                f"padding ({before}, {after}), {_kernel_text(kernel, d)}"
            )
        axes.append(Axis(m, kernel, s, d, before, after, n))
    mode = _check_padding_mode(axes, padding_mode, layout)
    return ConvProblem(layout, batch, c, k, groups, tuple(axes), mode)


def pool_axes(
    layout: Layout,
    spatial: Sequence[int],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: Any = False,
) -> list[Axis]:
    """Sliding pooling windows; explicit padding is at most half the effective kernel."""
    nd = layout.nd
    kernels = per_axis("kernel_size", kernel_size, nd)
    strides = kernels if stride is None else per_axis("stride", stride, nd)
    dilations = per_axis("dilation", dilation, nd)
    pads = _pool_padding(layout, padding, kernels, dilations)
    ceil = flag("ceil_mode", ceil_mode)
    return [
        _window(
            layout.axis(i),
            spatial[i],
            kernels[i],
            strides[i],
            dilations[i],
            pads if isinstance(pads, str) else pads[i],
            ceil,
        )
        for i in range(nd)
    ]


def _pool_padding(
    layout: Layout, padding: Any, kernels: Sequence[int], dilations: Sequence[int]
) -> str | list[tuple[int, int]]:
    pads = _padding(padding, layout.nd)
    if not isinstance(pads, str):
        for i, (pair, kernel, dilation) in enumerate(zip(pads, kernels, dilations, strict=True)):
            if max(pair) > _windows.effective_kernel(kernel, dilation) // 2:
                raise ValueError(
                    f"padding {pair} on axis {layout.axis(i)} must be at most half the "
                    f"{_kernel_text(kernel, dilation)}"
                )
    return pads


def pool_windows(spatial: Sequence[int], axes: Sequence[Axis]) -> Windows:
    return Windows(spatial, [_windows.window_source(axis) for axis in axes])


def adaptive_windows(layout: Layout, spatial: Sequence[int], output_size: Any) -> Windows:
    entries = _spread("output_size", output_size, layout.nd)
    outs = [
        n if entry is None else integer("output_size", entry, 1)
        for n, entry in zip(spatial, entries, strict=True)
    ]
    return Windows(
        spatial, [_windows.adaptive_source(n, o) for n, o in zip(spatial, outs, strict=True)]
    )


def unpool_size(
    layout: Layout,
    spatial: Sequence[int],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Any,
) -> tuple[int, ...]:
    """Extents that max unpooling writes: (n-1)*s + k - before - after, or n*s for "same".

    `output_size` may differ from it by less than the stride.
    """
    nd = layout.nd
    kernels = per_axis("kernel_size", kernel_size, nd)
    strides = kernels if stride is None else per_axis("stride", stride, nd)
    pads = _pool_padding(layout, padding, kernels, (1,) * nd)
    sizes = []
    for i, (n, k, s) in enumerate(zip(spatial, kernels, strides, strict=True)):
        size = n * s if isinstance(pads, str) else (n - 1) * s + k - sum(pads[i])
        _check_extent("output", size, layout.axis(i))
        sizes.append(size)
    if output_size is not None:
        given = _spatial_of("output_size", output_size, layout)
        for i, (size, m, s) in enumerate(zip(sizes, given, strides, strict=True)):
            if abs(m - size) >= s:
                raise ValueError(
                    f"output_size must lie in {max(1, size - s + 1)}..{size + s - 1} on axis "
                    f"{layout.axis(i)}, got {m}"
                )
        return given
    if min(sizes) < 1:
        raise ValueError(f"output extents {tuple(sizes)} must be at least 1")
    return tuple(sizes)


def check_bias(bias: Any, channels: int) -> Array:
    if bias.shape != (channels,):
        raise ValueError(f"bias must have shape ({channels},), got {bias.shape}")
    return np.asarray(bias, dtype=np.float64)
