"""Pooling and its gradients.

Every pooling is a reduction over the windows of `_windows.Windows`; its gradient scatters back
to the elements that the windows read. Indices are int64, into the flattened spatial plane of
their channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _arguments, _windows
from ._arguments import FloatArray, Ints, Layout, OutputSize, Padding
from ._windows import Array, Axis, Indices, Mask, Windows

# --- what the calls have in common -----------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """The checked arguments of one pooling call: x as (N, C, *spatial), and its windows."""

    layout: Layout
    x: Array
    windows: Windows

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (*self.x.shape[:2], *self.windows.out)

    def read_dy(self, dy: FloatArray) -> Array:
        gradient: Array = self.layout.read("dy", dy, expected=self.y_shape)
        return gradient

    def write(self, array: Any) -> Any:
        return self.layout.write(array)

    def write_indices(self, indices: Indices) -> Any:
        """The padding's index, of a window with no element in bounds, is reported as 0."""
        return self.layout.write(np.where(indices < self.windows.size, indices, 0))


def _sliding(
    rank: int,
    data_format: str,
    arrays: dict[str, FloatArray],
    kernel_size: Ints,
    stride: Ints | None,
    padding: Padding,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> tuple[_Call, list[Axis]]:
    _arguments.check_arrays(**arrays)
    x = arrays["x"]
    layout = _arguments.layout(rank, data_format, "x", x.ndim)
    spatial = layout.canonical("x", x.shape)[2:]
    axes = _arguments.pool_axes(layout, spatial, kernel_size, stride, padding, dilation, ceil_mode)
    call = _Call(layout, layout.read("x", x), _arguments.pool_windows(spatial, axes))
    return call, axes


def _adaptive(
    rank: int, data_format: str, arrays: dict[str, FloatArray], output_size: OutputSize
) -> _Call:
    _arguments.check_arrays(**arrays)
    x = arrays["x"]
    layout = _arguments.layout(rank, data_format, "x", x.ndim)
    spatial = layout.canonical("x", x.shape)[2:]
    windows = _arguments.adaptive_windows(layout, spatial, output_size)
    return _Call(layout, layout.read("x", x), windows)


def _global(data_format: str, arrays: dict[str, FloatArray]) -> _Call:
    _arguments.check_arrays(**arrays)
    rank = _arguments.global_rank(data_format, arrays["x"].ndim)
    return _adaptive(rank, data_format, arrays, 1)


def _pick(values: Array, taps: Indices) -> Array:
    """values[..., taps]: one element of each window."""
    return np.take_along_axis(values, taps[..., None], axis=-1)[..., 0]


def _at(windows: Windows, taps: Indices) -> Indices:
    """Flat plane index of one tap of each window."""
    at = np.broadcast_to(windows.at, (*taps.shape, windows.at.shape[-1]))
    index: Indices = np.take_along_axis(at, taps[..., None], axis=-1)[..., 0]
    return index


def _last_nan(values: Array) -> tuple[Mask, Indices]:
    """Whether each window holds a NaN, and the tap of its last one."""
    nan: Mask = np.isnan(values)
    has_nan: Mask = np.logical_or.reduce(nan, axis=-1)
    return has_nan, nan.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1)


def _max_taps(windows: Windows, values: Array) -> Indices:
    """The tap that max pooling chooses: the last NaN, else the first of the greatest in bounds."""
    has_nan, last_nan = _last_nan(values)
    greatest = values.max(axis=-1, keepdims=True)
    first = np.argmax(windows.inside & (values == greatest), axis=-1)
    return np.where(has_nan, last_nan, first)


def _max(call: _Call) -> tuple[Array, Indices]:
    values = call.windows.gather(call.x, -math.inf)
    taps = _max_taps(call.windows, values)
    return _pick(values, taps), _at(call.windows, taps)


def _max_result(call: _Call, return_indices: bool) -> Any:
    y, index = _max(call)
    if _arguments.flag("return_indices", return_indices):
        return call.write(y), call.write_indices(index)
    return call.write(y)


def _max_gradient(call: _Call, dy: FloatArray, indices: Indices | None = None) -> Array:
    gradient = call.read_dy(dy)
    at = _max(call)[1]
    if indices is not None:
        windows = call.windows
        given = call.layout.read_indices("indices", indices, call.y_shape, windows.spatial)
        filled = windows.inside.any(axis=-1)
        if not ((given[..., None] == windows.at).any(axis=-1) | ~filled).all():
            raise ValueError("indices must be of elements of their windows")
        at = np.where(filled, given, windows.size)
    dx: Array = call.write(call.windows.scatter(at, gradient))
    return dx


def _mean(call: _Call, divisor: Any) -> Array:
    y: Array = call.write(call.windows.gather(call.x, 0.0).sum(axis=-1) / divisor)
    return y


def _mean_gradient(call: _Call, dy: FloatArray, divisor: Any) -> Array:
    share = (call.read_dy(dy) / divisor)[..., None]
    values = np.broadcast_to(share, (*share.shape[:-1], call.windows.at.shape[-1]))
    dx: Array = call.write(call.windows.scatter(call.windows.at, values))
    return dx


# --- max -------------------------------------------------------------------------------------


def _max_pool(
    rank: int,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D max pooling of x (N, C, *spatial); with return_indices, the pair (y, indices).

    A window that holds a NaN gives NaN, with the index of the last one; ties go to the first
    element in row-major window order; a window with no element in bounds gives -inf, index 0.
    """
    call, _ = _sliding(
        rank, data_format, {"x": x}, kernel_size, stride, padding, dilation, ceil_mode
    )
    return _max_result(call, return_indices)


def _max_pool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    indices: Indices | None = None,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D max pooling: dy goes to the element that the forward chose.

    return_indices changes nothing here: the forward's arguments can be passed as they are.
    indices are the forward's; None chooses anew.
    """
    call, _ = _sliding(
        rank, data_format, {"dy": dy, "x": x}, kernel_size, stride, padding, dilation, ceil_mode
    )
    _arguments.flag("return_indices", return_indices)
    return _max_gradient(call, dy, indices)


# --- average and sum -------------------------------------------------------------------------


def _divisor(
    call: _Call, axes: list[Axis], count_include_pad: bool, divisor_override: int | None
) -> Any:
    """Per output: the window clipped to the padded input, its elements in bounds, or given."""
    include = _arguments.flag("count_include_pad", count_include_pad)
    if divisor_override is not None:
        divisor = _arguments.integer("divisor_override", divisor_override)
        if divisor == 0:
            raise ValueError("divisor_override must not be 0")
        return divisor
    if not include:
        return call.windows.inside.sum(axis=-1)
    return math.prod(np.ix_(*(_windows.window_extent(axis) for axis in axes)))


def _avg_pool(
    rank: int,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D average pooling of x (N, C, *spatial).

    The divisor is the window's size clipped to the padded input; without count_include_pad,
    the number of its elements in bounds; or divisor_override, any integer but 0.
    """
    call, axes = _sliding(
        rank, data_format, {"x": x}, kernel_size, stride, padding, ceil_mode=ceil_mode
    )
    return _mean(call, _divisor(call, axes, count_include_pad, divisor_override))


def _avg_pool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D average pooling."""
    call, axes = _sliding(
        rank, data_format, {"dy": dy, "x": x}, kernel_size, stride, padding, ceil_mode=ceil_mode
    )
    divisor = _divisor(call, axes, count_include_pad, divisor_override)
    return _mean_gradient(call, dy, divisor)


def _sum_pool(
    rank: int,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D sum pooling of x (N, C, *spatial): average pooling without the divisor."""
    call, _ = _sliding(
        rank, data_format, {"x": x}, kernel_size, stride, padding, ceil_mode=ceil_mode
    )
    return _mean(call, 1)


def _sum_pool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D sum pooling."""
    call, _ = _sliding(
        rank, data_format, {"dy": dy, "x": x}, kernel_size, stride, padding, ceil_mode=ceil_mode
    )
    return _mean_gradient(call, dy, 1)


# --- Lp --------------------------------------------------------------------------------------


def _norm_type(value: Any) -> float:
    p = _arguments.real("norm_type", value)
    if not p > 0:
        raise ValueError(f"norm_type must be greater than 0, got {value}")
    return p


def _lp(values: Array, p: float) -> Array:
    """(sum |x|^p)^(1/p) over the last axis, scaled by the greatest |x| so as not to overflow."""
    magnitude = np.abs(values)
    top = magnitude.max(axis=-1)
    if p == math.inf:
        return np.asarray(top, dtype=np.float64)
    scaled = ((magnitude / top[..., None]) ** p).sum(axis=-1)
    norm: Array = np.where((top == 0) | np.isinf(top), top, top * scaled ** (1 / p))
    return norm


def _by_greatest(magnitudes: Array) -> Array:
    """Windows over their greatest element: for what depends on ratios alone, near the ends of the
    range too."""
    top = magnitudes.max(axis=-1, keepdims=True)
    return np.where((top > 0) & np.isfinite(top), magnitudes / top, magnitudes)


def _lp_pool(
    rank: int,
    x: FloatArray,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D Lp pooling of x (N, C, *spatial): (sum |x|^p)^(1/p), p = norm_type > 0.

    p = inf gives the greatest |x|. Padding adds nothing to the sum.
    """
    p = _norm_type(norm_type)
    call, _ = _sliding(
        rank, data_format, {"x": x}, kernel_size, stride, padding, ceil_mode=ceil_mode
    )
    y: Array = call.write(_lp(call.windows.gather(call.x, 0.0), p))
    return y


def _lp_pool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D Lp pooling: dy * sign(x) * (|x| / y)^(p-1); zero where x or y is 0.

    For p = inf, dy * sign(x) at the element that max pooling of |x| chooses.
    """
    p = _norm_type(norm_type)
    call, _ = _sliding(
        rank, data_format, {"dy": dy, "x": x}, kernel_size, stride, padding, ceil_mode=ceil_mode
    )
    gradient, windows = call.read_dy(dy), call.windows
    values = windows.gather(call.x, 0.0)
    if p == math.inf:
        taps = _max_taps(windows, np.abs(values))
        dx = windows.scatter(_at(windows, taps), gradient * np.sign(_pick(values, taps)))
    else:
        scaled = _by_greatest(np.abs(values))
        ratio = scaled / _lp(scaled, p)[..., None]
        slope = np.where(values == 0, 0.0, np.sign(values) * ratio ** (p - 1))
        dx = windows.scatter(windows.at, gradient[..., None] * slope)
    result: Array = call.write(dx)
    return result


# --- stochastic ------------------------------------------------------------------------------


def _stochastic_weights(windows: Windows, values: Array) -> Array:
    """Weights max(a, 0) of the elements in bounds, divided by the greatest of the window.

    All zero: every element in bounds weighs the same. Infinite: the infinite ones alone count.
    """
    weights = np.where(windows.inside, np.maximum(values, 0.0), 0.0)
    top = weights.max(axis=-1, keepdims=True)
    finite = np.where(top == 0, windows.inside, weights / top)
    return np.where(np.isinf(top), np.isinf(weights), finite)


def _draw(call: _Call, values: Array, rng: Any) -> Indices:
    """Plane index of the element drawn from each window, or of its last NaN."""
    draws = _arguments.generator(rng).random(call.layout.shape(call.y_shape))
    u = call.layout.read("rng", draws)[..., None]
    cumulative = np.cumsum(_stochastic_weights(call.windows, values), axis=-1)
    drawn = np.argmax(cumulative > u * cumulative[..., -1:], axis=-1)
    has_nan, last_nan = _last_nan(values)
    return _at(call.windows, np.where(has_nan, last_nan, drawn))


def _stochastic_pool(
    rank: int,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    *,
    training: bool = True,
    rng: int | np.random.Generator | None = None,
    return_indices: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D stochastic pooling of x (N, C, *spatial).

    An element a weighs max(a, 0); where all weights of a window are 0, its elements weigh the
    same; padding weighs nothing. In training, one uniform number u per output, drawn as
    numpy.random.default_rng(rng).random(y.shape), chooses the first element in row-major window
    order at which the cumulative weight exceeds u * total; return_indices gives (y, indices).
    Otherwise y is the mean with these weights. A NaN in the window gives NaN, with the index of
    the last one.
    Source: Zeiler & Fergus, "Stochastic pooling for regularization of deep CNNs", 2013.
    """
    call, _ = _sliding(rank, data_format, {"x": x}, kernel_size, stride, padding)
    both = _arguments.flag("return_indices", return_indices)
    values = call.windows.gather(call.x, 0.0)
    if _arguments.flag("training", training):
        index = _draw(call, values, rng)
        n, c = call.x.shape[:2]
        plane = call.x.reshape(n, c, call.windows.size)
        y = np.take_along_axis(plane, index.reshape(n, c, math.prod(call.windows.out)), axis=-1)
        y = y.reshape(call.y_shape)
        return (call.write(y), call.write_indices(index)) if both else call.write(y)
    if both:
        raise ValueError("return_indices needs training=True: the mean chooses no element")
    weights = _stochastic_weights(call.windows, values)
    probability = weights / weights.sum(axis=-1, keepdims=True)
    # An element of probability 0 counts as 0 even if it is -inf.
    mean = np.where(probability == 0, 0.0, probability * values).sum(axis=-1)
    return call.write(np.where(np.isnan(values).any(axis=-1), math.nan, mean))


def _stochastic_pool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    *,
    training: bool = True,
    rng: int | np.random.Generator | None = None,
    indices: Indices | None = None,
    return_indices: bool = False,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D stochastic pooling.

    In training dy goes to the chosen elements: the forward's `indices`, else those that `rng`
    draws again (the forward's seed, or a generator in the state it had then). Otherwise
    y = sum a^2 / sum a over the positive a, so dy/da = (2a - y) / sum a, and 0 elsewhere;
    where no element is positive, the mean's gradient. return_indices changes nothing here.
    """
    call, _ = _sliding(rank, data_format, {"dy": dy, "x": x}, kernel_size, stride, padding)
    _arguments.flag("return_indices", return_indices)
    gradient, windows = call.read_dy(dy), call.windows
    if _arguments.flag("training", training):
        if indices is not None:
            chosen = call.layout.read_indices("indices", indices, call.y_shape, windows.spatial)
        elif rng is not None:
            chosen = _draw(call, windows.gather(call.x, 0.0), rng)
        else:
            raise ValueError("in training, indices or rng must be given: those of the forward")
        result: Array = call.write(windows.scatter(chosen, gradient))
        return result
    values = windows.gather(call.x, 0.0)
    positive = _by_greatest(np.maximum(values, 0.0))
    total = positive.sum(axis=-1, keepdims=True)
    y = (positive * positive).sum(axis=-1, keepdims=True) / total
    slope = np.where(positive == 0, 0.0, (2 * positive - y) / total)
    count = windows.inside.sum(axis=-1)[..., None]
    slope = np.where(total == 0, 1 / count, slope)
    slope = np.where(np.isnan(total), math.nan, slope)
    result = call.write(windows.scatter(windows.at, gradient[..., None] * slope))
    return result


# --- adaptive and global ---------------------------------------------------------------------


def _adaptive_avg_pool(
    rank: int,
    x: FloatArray,
    output_size: OutputSize,
    *,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D average pooling of x (N, C, *spatial) to `output_size`.

    Output i averages [floor(i*n/o), ceil((i+1)*n/o)); None keeps an axis as it is.
    """
    call = _adaptive(rank, data_format, {"x": x}, output_size)
    return _mean(call, call.windows.inside.sum(axis=-1))


def _adaptive_avg_pool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    output_size: OutputSize,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D adaptive average pooling."""
    call = _adaptive(rank, data_format, {"dy": dy, "x": x}, output_size)
    return _mean_gradient(call, dy, call.windows.inside.sum(axis=-1))


def _adaptive_max_pool(
    rank: int,
    x: FloatArray,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D max pooling of x (N, C, *spatial) to `output_size`; or the pair (y, indices).

    Windows as in adaptive average pooling, NaN and ties as in max pooling.
    """
    return _max_result(_adaptive(rank, data_format, {"x": x}, output_size), return_indices)


def _adaptive_max_pool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    indices: Indices | None = None,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D adaptive max pooling; arguments as in `max_pool{rank}d_backward`."""
    _arguments.flag("return_indices", return_indices)
    call = _adaptive(rank, data_format, {"dy": dy, "x": x}, output_size)
    return _max_gradient(call, dy, indices)


@_arguments.silent
def global_avg_pool(x: FloatArray, *, data_format: str = "channels_first") -> Array:
    """Mean of every channel: (N, C, *spatial) -> (N, C, 1, ..., 1).

    x of rank 3, 4 or 5 is a batch, of rank 2 one sample; a single sample of another rank needs
    the data_format that says so, such as "NCHW".
    """
    call = _global(data_format, {"x": x})
    return _mean(call, call.windows.size)


@_arguments.silent
def global_avg_pool_backward(
    dy: FloatArray, x: FloatArray, *, data_format: str = "channels_first"
) -> Array:
    """Gradient of global average pooling."""
    call = _global(data_format, {"dy": dy, "x": x})
    return _mean_gradient(call, dy, call.windows.size)


@_arguments.silent
def global_max_pool(x: FloatArray, *, data_format: str = "channels_first") -> Array:
    """Greatest element of every channel: (N, C, *spatial) -> (N, C, 1, ..., 1).

    NaN and ties as in max pooling, ranks as in global average pooling.
    """
    y: Array = _max_result(_global(data_format, {"x": x}), False)
    return y


@_arguments.silent
def global_max_pool_backward(
    dy: FloatArray, x: FloatArray, *, data_format: str = "channels_first"
) -> Array:
    """Gradient of global max pooling."""
    return _max_gradient(_global(data_format, {"dy": dy, "x": x}), dy)


# --- max unpooling ---------------------------------------------------------------------------


def _unpooling(
    rank: int,
    data_format: str,
    arrays: dict[str, FloatArray],
    indices: Indices,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Padding,
    output_size: OutputSize,
) -> tuple[Layout, tuple[int, ...], Array, Indices]:
    """(layout, extents written, x (N, C, points), indices (N, C, points))."""
    _arguments.check_arrays(**arrays)
    x = arrays["x"]
    layout = _arguments.layout(rank, data_format, "x", x.ndim)
    n, c, *spatial = layout.canonical("x", x.shape)
    size = _arguments.unpool_size(layout, spatial, kernel_size, stride, padding, output_size)
    index = layout.read_indices("indices", indices, (n, c, *spatial), size)
    points = (n, c, math.prod(spatial))
    return layout, size, layout.read("x", x).reshape(points), index.reshape(points)


def _max_unpool(
    rank: int,
    x: FloatArray,
    indices: Indices,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    output_size: OutputSize = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D max unpooling: zeros, with x (N, C, *spatial) written at max pooling's indices.

    The result has the extents (n-1)*stride + kernel - before - after, n*stride for "same", or
    output_size (per axis, or a whole shape of which the spatial extents count), which may
    differ from them by less than the stride. An index out of range is a ValueError; of equal
    indices the last one wins.
    """
    layout, size, values, index = _unpooling(
        rank, data_format, {"x": x}, indices, kernel_size, stride, padding, output_size
    )
    y = np.zeros((*values.shape[:2], math.prod(size)))
    np.put_along_axis(y, index, values, axis=-1)
    result: Array = layout.write(y.reshape(*values.shape[:2], *size))
    return result


def _max_unpool_backward(
    rank: int,
    dy: FloatArray,
    x: FloatArray,
    indices: Indices,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    output_size: OutputSize = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of {rank}-D max unpooling: dy at the indices."""
    layout, size, values, index = _unpooling(
        rank, data_format, {"dy": dy, "x": x}, indices, kernel_size, stride, padding, output_size
    )
    n, c = values.shape[:2]
    gradient = layout.read("dy", dy, expected=(n, c, *size)).reshape(n, c, math.prod(size))
    taken = np.take_along_axis(gradient, index, axis=-1)
    shape = layout.canonical("x", x.shape)
    result: Array = layout.write(taken.reshape(shape))
    return result


# --- public names ----------------------------------------------------------------------------

_for_ranks = _arguments.for_ranks

max_pool1d, max_pool2d, max_pool3d = _for_ranks("max_pool{rank}d", _max_pool)
max_pool1d_backward, max_pool2d_backward, max_pool3d_backward = _for_ranks(
    "max_pool{rank}d_backward", _max_pool_backward
)
avg_pool1d, avg_pool2d, avg_pool3d = _for_ranks("avg_pool{rank}d", _avg_pool)
avg_pool1d_backward, avg_pool2d_backward, avg_pool3d_backward = _for_ranks(
    "avg_pool{rank}d_backward", _avg_pool_backward
)
sum_pool1d, sum_pool2d, sum_pool3d = _for_ranks("sum_pool{rank}d", _sum_pool)
sum_pool1d_backward, sum_pool2d_backward, sum_pool3d_backward = _for_ranks(
    "sum_pool{rank}d_backward", _sum_pool_backward
)
lp_pool1d, lp_pool2d, lp_pool3d = _for_ranks("lp_pool{rank}d", _lp_pool)
lp_pool1d_backward, lp_pool2d_backward, lp_pool3d_backward = _for_ranks(
    "lp_pool{rank}d_backward", _lp_pool_backward
)
stochastic_pool1d, stochastic_pool2d, stochastic_pool3d = _for_ranks(
    "stochastic_pool{rank}d", _stochastic_pool
)
stochastic_pool1d_backward, stochastic_pool2d_backward, stochastic_pool3d_backward = _for_ranks(
    "stochastic_pool{rank}d_backward", _stochastic_pool_backward
)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = _for_ranks(
    "adaptive_avg_pool{rank}d", _adaptive_avg_pool
)
(
    adaptive_avg_pool1d_backward,
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool3d_backward,
) = _for_ranks("adaptive_avg_pool{rank}d_backward", _adaptive_avg_pool_backward)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = _for_ranks(
    "adaptive_max_pool{rank}d", _adaptive_max_pool
)
(
    adaptive_max_pool1d_backward,
    adaptive_max_pool2d_backward,
    adaptive_max_pool3d_backward,
) = _for_ranks("adaptive_max_pool{rank}d_backward", _adaptive_max_pool_backward)
max_unpool1d, max_unpool2d, max_unpool3d = _for_ranks("max_unpool{rank}d", _max_unpool)
max_unpool1d_backward, max_unpool2d_backward, max_unpool3d_backward = _for_ranks(
    "max_unpool{rank}d_backward", _max_unpool_backward
)
