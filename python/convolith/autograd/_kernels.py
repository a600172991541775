"""What operations compute, on arrays: the one place through which autograd reaches kernels.

Results are the same bits for any number of threads: those of the library's kernels are, its matrix
product among them, and what NumPy adds runs in one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from convolith import (
    _activations,
    _arguments,
    _config,
    _convolution,
    _core,
    _linear,
    _losses,
    _normalization,
    _pooling,
)
from convolith._arguments import Array

Window = dict[str, Any]

# ---- convolution: {rank: function} ---------------------------------------------------------------

_CONV = {1: _convolution.conv1d, 2: _convolution.conv2d, 3: _convolution.conv3d}
_CONV_TRANSPOSE = {
    1: _convolution.conv_transpose1d,
    2: _convolution.conv_transpose2d,
    3: _convolution.conv_transpose3d,
}


def conv(
    x: Array,
    weight: Array,
    bias: Array | None,
    residual: Array | None,
    window: Window,
    activation: Any,
) -> Array:
    """Convolution with its epilogue; the rank is that of the weights."""
    return _CONV[weight.ndim - 2](
        x, weight, bias, activation=activation, residual=residual, **window
    )


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None,
    residual: Array | None,
    window: Window,
    activation: Any,
) -> Array:
    """Transposed convolution with its epilogue."""
    return _CONV_TRANSPOSE[weight.ndim - 2](
        x, weight, bias, activation=activation, residual=residual, **window
    )


def conv_backward_input(
    dy: Array, weight: Array, residual: Array | None, shape: tuple[int, ...], window: Window
) -> Array:
    """Gradient of a convolution's input, and what is added to it."""
    return _convolution.conv_backward_input(dy, weight, shape, residual=residual, **window)


def conv_backward_weight(dy: Array, x: Array, shape: tuple[int, ...], window: Window) -> Array:
    """Gradient of a convolution's weights."""
    dweight: Array = _convolution.conv_backward_weight(dy, x, shape, **window)
    return dweight


def conv_transpose_backward_input(
    dy: Array, weight: Array, shape: tuple[int, ...], window: Window
) -> Array:
    """Gradient of a transposed convolution's input."""
    return _convolution.conv_transpose_backward_input(dy, weight, shape, **window)


def conv_transpose_backward_weight(
    dy: Array, x: Array, shape: tuple[int, ...], window: Window
) -> Array:
    """Gradient of a transposed convolution's weights."""
    dweight: Array = _convolution.conv_transpose_backward_weight(dy, x, shape, **window)
    return dweight


def channel_axis(ndim: int, nd: int, data_format: str) -> int:
    """The axis of the channels of maps with nd spatial axes, with or without a batch axis."""
    last = _arguments.data_format(data_format, nd) == "channels_last"
    return ndim - 1 if last else ndim - 1 - nd


def spatial_axes(ndim: int, nd: int, data_format: str) -> tuple[int, ...]:
    """The spatial axes of maps."""
    last = _arguments.data_format(data_format, nd) == "channels_last"
    return tuple(range(ndim - 1 - nd, ndim - 1) if last else range(ndim - nd, ndim))


def channel_sums(maps: Array, nd: int, data_format: str) -> Array:
    """Sums over all axes but the channels: the gradient of a bias."""
    layout = _arguments.data_format(data_format, nd)
    return _core.channel_sums(maps, nd, layout, "dy", _config.get_num_threads())


# ---- pooling: the functions by name --------------------------------------------------------------


def pool(x: Array, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Array:
    """The pooling of that name."""
    y: Array = getattr(_pooling, name)(x, *arguments, **options)
    return y


def pool_backward(
    dy: Array, x: Array, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Array:
    """The gradient of the pooling of that name."""
    dx: Array = getattr(_pooling, f"{name}_backward")(dy, x, *arguments, **options)
    return dx


def linear_pool_backward(
    dy: Array,
    shape: tuple[int, ...],
    name: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> Array:
    """The gradient of a pooling that is linear, where x counts for its shape alone."""
    return pool_backward(dy, np.empty(shape, dy.dtype), name, arguments, options)


def pool_with_indices(
    x: Array, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Array, Array]:
    """A pooling that chooses elements, and where they are in the plane."""
    pair: tuple[Array, Array] = getattr(_pooling, name)(
        x, *arguments, return_indices=True, **options
    )
    return pair


def max_pool_backward(
    dy: Array,
    indices: Array,
    shape: tuple[int, ...],
    name: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> Array:
    """The gradient of a max pooling whose indices are known."""
    x = np.empty(shape, dy.dtype)  # counts for its shape alone
    dx: Array = getattr(_pooling, f"{name}_backward")(dy, x, *arguments, indices=indices, **options)
    return dx


def _planes(maps: Array, axes: Sequence[int]) -> Array:
    """Spatial axes flattened and put last."""
    first = [axis for axis in range(maps.ndim) if axis not in axes]
    moved = maps.transpose(*first, *axes)
    return moved.reshape(*moved.shape[: len(first)], -1)


def gather(x: Array, indices: Array, axes: tuple[int, ...]) -> Array:
    """The elements of every plane (its axes flattened) at the indices; of the indices' shape."""
    found = np.take_along_axis(_planes(x, axes), _planes(indices, axes), -1)
    first = [axis for axis in range(x.ndim) if axis not in axes]
    extents = [indices.shape[axis] for axis in (*first, *axes)]
    back = np.argsort([*first, *axes])
    return np.ascontiguousarray(found.reshape(extents).transpose(*back))


def scatter(g: Array, indices: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """The adjoint of `gather`: elements added at the indices, into zeros of a shape."""
    first = [axis for axis in range(len(shape)) if axis not in axes]
    plane = math.prod(shape[axis] for axis in axes)
    values, where = _planes(g, axes), _planes(indices, axes)
    rows = math.prod(values.shape[:-1])
    flat = np.zeros(rows * plane, g.dtype)
    offsets = plane * np.arange(rows)[:, None]
    np.add.at(flat, (where.reshape(rows, -1) + offsets).ravel(), values.ravel())
    extents = [shape[axis] for axis in (*first, *axes)]
    back = np.argsort([*first, *axes])
    return np.ascontiguousarray(flat.reshape(extents).transpose(*back))


# ---- sums of two ---------------------------------------------------------------------------------


def _in_step(a: Any, b: Any) -> bool:
    """Whether two arrays are so large and alike that threads had better walk along them."""
    large = 1 << 16
    return (
        isinstance(a, np.ndarray)
        and isinstance(b, np.ndarray)
        and a.size >= large
        and a.shape == b.shape
        and a.dtype == b.dtype
        and a.dtype.name in ("float32", "float64")
        and a.flags.c_contiguous
        and b.flags.c_contiguous
    )


def add(a: Any, b: Any, *, out: Array | None = None) -> Any:
    """a + b; `out` may be a."""
    if _in_step(a, b):
        return _activations.activation(a, None, residual=b, out=out)
    return np.add(a, b, out=out)


# ---- matrix product ------------------------------------------------------------------------------


def matmul(a: Array, b: Array, transpose_a: bool, transpose_b: bool) -> Array:
    """Product of matrices, or of stacks of them."""
    return _linear.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def linear(x: Array, weight: Array, bias: Array | None, activation: Any) -> Array:
    """activation(x @ weight.T + bias)."""
    return _linear.matmul(x, weight, transpose_b=True, bias=bias, activation=activation)


# ---- activations ---------------------------------------------------------------------------------


def activate(x: Array, activation: Any) -> Array:
    """An activation, element by element."""
    return _activations.activation(x, activation)


def slope_at_input(dy: Array, x: Array, activation: Any) -> Array:
    """dy times the slope of an activation at x."""
    return _activations.activation_backward(dy, x, activation)


def slope_at_result(dy: Array, y: Array, activation: Any) -> Array:
    """dy times the slope of an activation where its result is y."""
    return _activations.activation_backward(dy, None, activation, y=y)


def power(a: Array, b: Array) -> Array:
    """a to the power of b."""
    return np.asarray(a**b)


# Coefficients of the rational approximations of erf and erfc: W. J. Cody, Rational Chebyshev
# approximations for the error function, Math. Comp. 23 (1969). Highest powers come first.
_ERF = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
_ERFC = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip
_ERFC_BEYOND_4 = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3),
)  # fmt: skip


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    above, below = coefficients
    return np.asarray(np.polyval(above, x) / np.polyval(below, x))


def erf(x: Array) -> Array:
    """The error function."""
    x64 = x.astype(np.float64)
    a = np.abs(x64)
    small = np.minimum(a, 0.46875)
    middle = np.clip(a, 0.46875, 4)
    large = np.clip(a, 4, 6)  # erf(6) rounds to 1
    inverse = 1 / large**2
    tail = (
        np.exp(-(large**2))
        / large
        * (1 / math.sqrt(math.pi) - inverse * _ratio(_ERFC_BEYOND_4, inverse))
    )
    result = np.where(
        a <= 0.46875,
        small * _ratio(_ERF, small**2),
        1 - np.where(a <= 4, np.exp(-(middle**2)) * _ratio(_ERFC, middle), tail),
    )
    return np.copysign(np.where(np.isnan(a), np.nan, result), x64).astype(x.dtype)


# ---- reductions and shapes -----------------------------------------------------------------------


def total(x: Array, axis: Any, keepdims: bool) -> Array:
    """Sum."""
    return np.asarray(x.sum(axis, keepdims=keepdims))


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting: sums over the axes along which `shape` is shorter."""
    more = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < more or (shape[i - more] == 1 and x.shape[i] != 1))
    return np.add.reduce(x, axis=axes, keepdims=True).reshape(shape)


def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Broadcasting, a view that cannot be written."""
    return np.broadcast_to(x, shape)


def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    """Other extents, the same elements in row-major order."""
    return x.reshape(shape)


def transpose(x: Array, axes: tuple[int, ...] | None) -> Array:
    """Axes in another order."""
    return x.transpose(axes)


def cast(x: Array, dtype: Any) -> Array:
    """Another dtype."""
    return x.astype(dtype)


def take(x: Array, index: Any) -> Array:
    """x[index]."""
    return np.asarray(x[index])


def put(g: Array, shape: tuple[int, ...], index: Any) -> Array:
    """The adjoint of `take`: elements added at an index, into zeros of a shape."""
    result = np.zeros(shape, g.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(
        part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        for part in parts
    ):
        result[index] = g
    else:
        np.add.at(result, index, g)
    return result


def replaced(x: Array, value: Array, index: Any) -> Array:
    """A copy of x with other elements at an index."""
    result = x.copy()
    result[index] = value
    return result


def concat(arrays: Sequence[Array], axis: int, sizes: Sequence[int]) -> Array:
    """Arrays one after the other along an axis; sizes are theirs there."""
    return np.concatenate(arrays, axis=axis)


def pad(x: Array, widths: tuple[tuple[int, int], ...], value: float) -> Array:
    """A constant around x."""
    shape = [n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)]
    result = np.full(shape, value, x.dtype)
    result[inner(x.shape, widths)] = x
    return result


def inner(shape: tuple[int, ...], widths: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    """Where x is in the padded array."""
    return tuple(slice(b, b + n) for n, (b, _) in zip(shape, widths, strict=True))


# ---- norms and softmax ---------------------------------------------------------------------------


def normalize(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    """(x - mean) / sqrt(variance + eps) over the axes, and 1 / sqrt(variance + eps)."""
    centred = x - x.mean(axes, keepdims=True)
    variance = np.multiply(centred, centred).mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(variance + x.dtype.type(eps))
    centred *= inverse
    return centred, inverse


def batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    residual: Array | None,
    running: tuple[Array | None, Array | None],
    training: bool,
    momentum: float,
    eps: float,
    activation: Any,
    data_format: str,
) -> tuple[Array, tuple[Array, Array, bool]]:
    """Batch norm with its epilogue; the mean and 1 / sqrt(variance + eps) that it used, and whether
    a residual was added."""
    y, mean, inverse = _normalization.batch_norm(
        x,
        *running,
        weight,
        bias,
        training,
        momentum,
        eps,
        activation=activation,
        residual=residual,
        data_format=data_format,
        return_stats=True,
    )
    return y, (mean, inverse, residual is not None)


def batch_norm_backward(
    dy: Array,
    x: Array,
    y: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    inverse: Array,
    added: bool,
    training: bool,
    activation: Any,
    data_format: str,
) -> tuple[Array, ...]:
    """Gradients of batch norm's input, weight, bias and, where one was added, residual."""
    return _normalization.batch_norm_backward(
        dy,
        x,
        weight,
        mean,
        inverse,
        y=y if added and activation is not None else None,
        bias=bias,
        activation=activation,
        training=training,
        residual_grad=added,
        data_format=data_format,
    )


softmax, softmax_backward = _losses.softmax, _losses.softmax_backward
log_softmax, log_softmax_backward = _losses.log_softmax, _losses.log_softmax_backward


def cross_entropy(logits: Array, target: Array, options: dict[str, Any]) -> Array:
    """The loss of logits (batch, classes, ...) against class indices."""
    return _losses.cross_entropy(logits, target, **options)


def cross_entropy_backward(
    dy: Array, logits: Array, target: Array, options: dict[str, Any]
) -> Array:
    """The gradient of the logits."""
    return _losses.cross_entropy_backward(dy, logits, target, **options)


def target_shares(
    target: Array, shape: tuple[int, ...], dtype: Any, options: dict[str, Any]
) -> tuple[Array, float]:
    """How much each class counts at each place, in the shape of the logits; and the divisor.

    The loss is minus the sum of the shares times the logarithms of the probabilities.
    """
    classes, smoothing = shape[1], options["label_smoothing"]
    weight = options["weight"]
    weights = np.ones(classes, dtype) if weight is None else weight
    ignored = target == options["ignore_index"]
    known = np.where(ignored, 0, target)
    shares = np.zeros((*target.shape, classes), dtype)
    np.put_along_axis(shares, known[..., None], 1 - smoothing, -1)
    shares = (shares + dtype.type(smoothing / classes)) * weights
    shares[ignored] = 0
    divisor = float(weights[known][~ignored].sum()) if options["reduction"] == "mean" else 1.0
    return np.moveaxis(shares, -1, 1), divisor


# ---- resampling ----------------------------------------------------------------------------------


def resample(x: Array, size: int, axis: int, low: Array, high: Array, fraction: Array) -> Array:
    """(1 - fraction) * x[low] + fraction * x[high] along an axis; size is that of x there."""
    f = _along(fraction, axis, x)
    return np.asarray(np.take(x, low, axis) * (1 - f) + np.take(x, high, axis) * f)


def resample_backward(
    dy: Array, size: int, axis: int, low: Array, high: Array, fraction: Array
) -> Array:
    """The adjoint of `resample`."""
    shape = list(dy.shape)
    shape[axis] = size
    dx = np.zeros(shape, dy.dtype)
    f = _along(fraction, axis, dy)
    rows = np.moveaxis(dx, axis, 0)
    np.add.at(rows, low, np.moveaxis(dy * (1 - f), axis, 0))
    np.add.at(rows, high, np.moveaxis(dy * f, axis, 0))
    return dx


def _along(values: Array, axis: int, like: Array) -> Array:
    extents = [1] * like.ndim
    extents[axis] = len(values)
    return values.reshape(extents).astype(like.dtype)
