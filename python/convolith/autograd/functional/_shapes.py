"""Shapes, joins, margins and resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convolith import _arguments
from convolith._arguments import Array, Ints
from convolith.autograd import _kernels, _table
from convolith.autograd._tensor import Tensor
from convolith.autograd.functional._reductions import axes_of


def reshape(x: Any, shape: Ints) -> Tensor:
    """Other extents for the same elements in row-major order.

    Args:
        x: Any shape.
        shape: The extents; one may be -1, which stands for what is left.
    """
    extents = (shape,) if not _arguments.is_sequence(shape) else tuple(shape)  # type: ignore[arg-type]
    return _table.reshape(x, tuple(_arguments.integer(n, "shape") for n in extents))


def flatten(x: Any, start_axis: int = 1) -> Tensor:
    """All axes from start_axis on become one.

    Args:
        x: Any shape.
        start_axis: The first of them; 1 keeps the batch axis.
    """
    first = axes_of(start_axis, x.ndim)[0]
    return _table.reshape(x, (*x.shape[:first], -1 if x.size else int(np.prod(x.shape[first:]))))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Axes in another order, a view.

    Args:
        x: Any shape.
        axes: The axes of x in the result's order; None reverses them.
    """
    if axes is None:
        return _table.transpose(x, None)
    order = axes_of(axes, x.ndim)
    if len(order) != x.ndim:
        raise ValueError(f"axes is {tuple(axes)}; it must name each of the {x.ndim} axes")
    return _table.transpose(x, order)


def broadcast_to(x: Any, shape: Ints) -> Tensor:
    """x repeated to a shape as NumPy broadcasts, a view that cannot be written."""
    return _table.broadcast_to(x, _arguments.shape(shape, "shape"))


def concat(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors one after the other along an axis.

    Args:
        tensors: One or more, equal in all extents but that of the axis.
        axis: The axis.
    """
    if not tensors:
        raise ValueError("tensors is empty; it must have one or more")
    position = axes_of(axis, tensors[0].ndim)[0]
    sizes = tuple(t.shape[position] for t in tensors)
    return _table.concat(*tensors, position, sizes)


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis.

    Args:
        tensors: One or more.
        axis: Where the new axis stands in the result.
    """
    if not tensors:
        raise ValueError("tensors is empty; it must have one or more")
    position = axes_of(axis, tensors[0].ndim + 1)[0]

    def widened(t: Any) -> Tensor:
        return _table.reshape(t, (*t.shape[:position], 1, *t.shape[position:]))

    return concat([widened(t) for t in tensors], position)


_PAD_MODES = ("constant", "reflect", "replicate", "circular")


def pad(x: Any, widths: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Margins around x.

    Args:
        x: Any shape.
        widths: One (before, after) pair for each axis, in the order of the axes.
        mode: "constant", "reflect", "replicate" or "circular".
        value: What a constant margin holds.

    Raises:
        ValueError: A margin that is negative, or wider than the mode can fill.
    """
    pairs = _arguments.padding(list(widths), x.ndim, "widths")
    assert not isinstance(pairs, str)
    if any(n < 0 for pair in pairs for n in pair):
        raise ValueError(f"widths is {pairs}; no margin may be negative")
    if mode not in _PAD_MODES:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(_PAD_MODES)}")
    if mode == "constant":
        return _table.pad(x, pairs, value)
    y = x if isinstance(x, Tensor) else Tensor(x)
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            source = _source(y.shape[axis], before, after, mode)
            y = _table.take(y, (slice(None),) * axis + (source,))
    return y


def _source(extent: int, before: int, after: int, mode: str) -> Array:
    """The element that each element of a padded axis repeats."""
    at = np.arange(-before, extent + after)
    most = {"reflect": extent - 1, "circular": extent, "replicate": max(before, after)}[mode]
    if max(before, after) > most or not extent:
        raise ValueError(f"widths has {(before, after)}; {mode} of {extent} elements gives {most}")
    if mode == "circular":
        return at % extent
    if mode == "replicate":
        return np.clip(at, 0, extent - 1)
    return np.asarray(extent - 1 - np.abs(extent - 1 - np.abs(at)))


def upsample(
    x: Any,
    size: Ints | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
    *,
    data_format: str = "channels_first",
) -> Tensor:
    """Maps resampled to other extents.

    Args:
        x: (batch, channels, *spatial), or with the channels last in channels_last.
        size: The extents, one integer or one per spatial axis; or else
        scale_factor: How much greater they are; the result is rounded down.
        mode: "nearest": output i repeats the input floor(i * in / out). "linear" (of any rank, also
            by the names "bilinear" and "trilinear"): between the inputs beside
            (i + 0.5) * in / out - 0.5, or i * (in - 1) / (out - 1) with align_corners.
        align_corners: The first and last elements of input and output stand at one place.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".

    Returns:
        The result in the data format of x.
    """
    nd = x.ndim - 2
    if not 1 <= nd <= 3:
        raise ValueError(f"x has {x.ndim} axes; it must have 3, 4 or 5")
    if mode not in ("nearest", "linear", "bilinear", "trilinear"):
        raise ValueError(f"mode is {mode!r}; it must be 'nearest', 'linear', 'bilinear', ...")
    axes = _kernels.spatial_axes(x.ndim, nd, data_format)
    before = [x.shape[axis] for axis in axes]
    if (size is None) == (scale_factor is None):
        raise ValueError("give either size or scale_factor")
    if size is not None:
        after = list(_arguments.integers(size, nd, "size"))
    elif scale_factor is not None:
        factors = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor] * nd
        if len(factors) != nd:
            raise ValueError(f"scale_factor is {scale_factor}; it must have {nd} values")
        after = [
            int(n * _arguments.real(f, "scale_factor"))
            for n, f in zip(before, factors, strict=True)
        ]
    if min(after) < 1:
        raise ValueError(f"the result's extents would be {after}; all must be at least 1")
    y = x if isinstance(x, Tensor) else Tensor(x)
    if mode == "nearest" and all(m % n == 0 for n, m in zip(before, after, strict=True)):
        factor = tuple(m // n for n, m in zip(before, after, strict=True))
        return _repeated(y, factor, nd, data_format)
    for axis, n, m in zip(axes, before, after, strict=True):
        if n != m:
            y = _table.resample(y, n, axis, *_neighbours(n, m, mode, align_corners))
    return y


def _repeated(x: Tensor, factor: tuple[int, ...], nd: int, data_format: str) -> Tensor:
    """Every element becomes a block: the adjoint of summing over blocks."""
    axes = _kernels.spatial_axes(x.ndim, nd, data_format)
    shape = list(x.shape)
    for axis, f in zip(axes, factor, strict=True):
        shape[axis] *= f
    options = {"data_format": data_format}
    return _table.linear_pool_backward(
        x, tuple(shape), f"sum_pool{nd}d", (factor, factor, 0, False), options
    )


def _neighbours(n: int, m: int, mode: str, align_corners: bool) -> tuple[Array, Array, Array]:
    """For each of m outputs the two inputs beside it, and how far it is from the first."""
    i = np.arange(m)
    if mode == "nearest":
        low = i * n // m
        return low, low, np.zeros(m)
    if align_corners:
        at = i * ((n - 1) / (m - 1)) if m > 1 else np.zeros(m)
    else:
        at = np.maximum((i + 0.5) * (n / m) - 0.5, 0)
    low = np.minimum(at.astype(np.int64), n - 1)
    return low, np.minimum(low + 1, n - 1), at - low
