"""The table: every differentiable operation, and its gradients in terms of the others.

`Operation` tells how to read a line: the function on arrays, then for each input its gradient,
whose parameters say what it wants to see (g is the gradient of the result y).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from convolith.autograd import _kernels as k
from convolith.autograd._mode import mode
from convolith.autograd._operation import Operation
from convolith.autograd._tensor import Tensor, new_tensor

# ---- elementwise; broadcasting is undone by the walk ------------------------------------------

add: Operation = Operation("add", k.add, a=lambda g: g, b=lambda g: g)
subtract: Operation = Operation("subtract", np.subtract, a=lambda g: g, b=lambda g: -g)
multiply: Operation = Operation("multiply", np.multiply, a=lambda g, b: g * b, b=lambda g, a: g * a)
divide: Operation = Operation(
    "divide", np.divide, a=lambda g, b: g / b, b=lambda g, b, y: -g * y / b
)
negative: Operation = Operation("negative", np.negative, x=lambda g: -g)
power: Operation = Operation(
    "power",
    k.power,
    a=lambda g, a, b: g * b * a ** _exponent_less_one(b),
    b=lambda g, a, y: g * y * log(_where_positive(a)),
)
exp: Operation = Operation("exp", np.exp, x=lambda g, y: g * y)
log: Operation = Operation("log", np.log, x=lambda g, x: g / x)
sqrt: Operation = Operation("sqrt", np.sqrt, x=lambda g, y: g / (2 * y))
erf: Operation = Operation("erf", k.erf, x=lambda g, x: g * exp(-x * x) * (2 / math.sqrt(math.pi)))
absolute: Operation = Operation("abs", np.absolute, x=lambda g, x: g * np.sign(x.data))
maximum: Operation = Operation(
    "maximum",
    np.maximum,
    a=lambda g, a, b: g * _preference(a, b),
    b=lambda g, a, b: g * _preference(b, a),
)
minimum: Operation = Operation(
    "minimum",
    np.minimum,
    a=lambda g, a, b: g * _preference(b, a),
    b=lambda g, a, b: g * _preference(a, b),
)
where: Operation = Operation(
    "where",
    lambda condition, a, b: np.where(condition, a, b),
    condition=None,
    a=lambda g, condition: where(condition, g, 0),
    b=lambda g, condition: where(condition, 0, g),
)
clip: Operation = Operation(
    "clip",
    lambda x, low, high: np.clip(x, low, high),
    x=lambda g, x, low, high: g * _within(x, low, high),
)
cast: Operation = Operation("cast", k.cast, x=lambda g: g)

# ---- activations ---------------------------------------------------------------------------------

# Of these the slope follows from the result y, and the input need not be kept.
from_result: Operation = Operation(
    "activation",
    k.activate,
    x=lambda g, y, activation: _at_result(g, y, activation),
)
from_input: Operation = Operation(
    "activation",
    k.activate,
    x=lambda g, x, activation: _at_input(g, x, activation),
)
slope_at_result: Operation = Operation(
    "activation_backward",
    k.slope_at_result,
    dy=lambda g, y, activation: slope_at_result(g, y, activation),
)
slope_at_input: Operation = Operation(
    "activation_backward",
    k.slope_at_input,
    dy=lambda g, x, activation: slope_at_input(g, x, activation),
)
hardswish_slope: Operation = Operation(
    "hardswish_slope",
    lambda x: k.slope_at_input(np.ones_like(x), x, "hardswish"),
    x=lambda g, x: g * ((abs(x.data) < 3) / x.dtype.type(3)),
)

# ---- convolution: the three directions are each other's gradients ------------------------------


conv: Operation = Operation(
    "conv",
    k.conv,
    before=lambda g, y, activation: _at_result(g, y, activation),
    x=lambda g, weight, so_far, shape, window: conv_backward_input(
        g, weight, so_far, shape, window
    ),
    weight=lambda g, x, shape, window: conv_backward_weight(g, x, shape, window),
    bias=lambda g, weight, window: channel_sums(g, weight.ndim - 2, window["data_format"]),
    residual=lambda g: g,
)
conv_backward_input: Operation = Operation(
    "conv_backward_input",
    k.conv_backward_input,
    dy=lambda g, weight, window: conv(g, weight, None, None, window, None),
    weight=lambda g, dy, shape, window: conv_backward_weight(dy, g, shape, window),
    residual=lambda g: g,
)
conv_backward_weight: Operation = Operation(
    "conv_backward_weight",
    k.conv_backward_weight,
    dy=lambda g, x, window: conv(x, g, None, None, window, None),
    x=lambda g, dy, so_far, shape, window: conv_backward_input(dy, g, so_far, shape, window),
)
conv_transpose: Operation = Operation(
    "conv_transpose",
    k.conv_transpose,
    before=lambda g, y, activation: _at_result(g, y, activation),
    x=lambda g, weight, shape, window: conv_transpose_backward_input(g, weight, shape, window),
    weight=lambda g, x, shape, window: conv_transpose_backward_weight(g, x, shape, window),
    bias=lambda g, weight, window: channel_sums(g, weight.ndim - 2, window["data_format"]),
    residual=lambda g: g,
)
conv_transpose_backward_input: Operation = Operation(
    "conv_transpose_backward_input",
    k.conv_transpose_backward_input,
    dy=lambda g, weight, window: conv_transpose(g, weight, None, None, window, None),
    weight=lambda g, dy, shape, window: conv_transpose_backward_weight(dy, g, shape, window),
)
conv_transpose_backward_weight: Operation = Operation(
    "conv_transpose_backward_weight",
    k.conv_transpose_backward_weight,
    dy=lambda g, x, window: conv_transpose(x, g, None, None, window, None),
    x=lambda g, dy, shape, window: conv_transpose_backward_input(dy, g, shape, window),
)
channel_sums: Operation = Operation(
    "channel_sums",
    k.channel_sums,
    maps=lambda g, shape, nd, data_format: _per_channel(g, shape, nd, data_format),
)

# ---- matrix product ------------------------------------------------------------------------------

matmul: Operation = Operation(
    "matmul",
    k.matmul,
    a=lambda g, b, transpose_a, transpose_b: (
        matmul(b, g, transpose_b, True) if transpose_a else matmul(g, b, False, not transpose_b)
    ),
    b=lambda g, a, transpose_a, transpose_b: (
        matmul(g, a, True, transpose_a) if transpose_b else matmul(a, g, not transpose_a, False)
    ),
)
linear: Operation = Operation(
    "linear",
    k.linear,
    before=lambda g, y, activation: _at_result(g, y, activation),
    x=lambda g, weight: matmul(g, weight, False, False),
    weight=lambda g, x: matmul(g, x, True, False),
    bias=lambda g: total(g, 0, False),
)

# ---- pooling -------------------------------------------------------------------------------------

max_pool: Operation = Operation(
    "max_pool",
    k.pool_with_indices,
    extras=("indices",),
    x=lambda g, indices, shape, name, arguments, options: max_pool_backward(
        g, indices, shape, name, arguments, options
    ),
)
max_pool_backward: Operation = Operation(
    "max_pool_backward",
    k.max_pool_backward,
    dy=lambda g, indices, name, options: gather(
        g, indices, k.spatial_axes(g.ndim, int(name[-2]), options["data_format"])
    ),
)
linear_pool: Operation = Operation(
    "linear_pool",
    k.pool,
    x=lambda g, shape, name, arguments, options: linear_pool_backward(
        g, shape, name, arguments, options
    ),
)
linear_pool_backward: Operation = Operation(
    "linear_pool_backward",
    k.linear_pool_backward,
    dy=lambda g, name, arguments, options: linear_pool(g, name, arguments, options),
)
lp_pool: Operation = Operation(
    "lp_pool",
    k.pool,
    x=lambda g, x, y, name, arguments, options: _lp_gradient(g, x, y, name, arguments, options),
)
lp_pool_backward: Operation = Operation("lp_pool_backward", k.pool_backward, dy=None, x=None)
gather: Operation = Operation(
    "gather", k.gather, x=lambda g, indices, shape, axes: scatter(g, indices, shape, axes)
)
scatter: Operation = Operation(
    "scatter", k.scatter, x=lambda g, indices, axes: gather(g, indices, axes)
)
max_unpool: Operation = Operation(
    "max_unpool",
    lambda x, indices, axes, name, arguments, options: k.pool(
        x, name, (indices, *arguments), options
    ),
    x=lambda g, indices, axes: gather(g, indices, axes),
)

# ---- reductions ----------------------------------------------------------------------------------

total: Operation = Operation(
    "sum", k.total, x=lambda g, shape, axis, keepdims: _spread(g, shape, axis, keepdims)
)
sum_to: Operation = Operation("sum_to", k.sum_to, x=lambda g, shape: broadcast_to(g, shape))
broadcast_to: Operation = Operation(
    "broadcast_to", k.broadcast_to, view=True, x=lambda g, shape: sum_to(g, shape)
)
largest: Operation = Operation(
    "max",
    lambda x, axis, keepdims: np.asarray(x.max(axis, keepdims=keepdims)),
    x=lambda g, x, y, axis, keepdims: _to_extremes(g, x, y, axis, keepdims),
)
smallest: Operation = Operation(
    "min",
    lambda x, axis, keepdims: np.asarray(x.min(axis, keepdims=keepdims)),
    x=lambda g, x, y, axis, keepdims: _to_extremes(g, x, y, axis, keepdims),
)

# ---- shapes --------------------------------------------------------------------------------------

reshape: Operation = Operation(
    "reshape", k.reshape, view=True, x=lambda g, shape: reshape(g, shape)
)
transpose: Operation = Operation(
    "transpose", k.transpose, view=True, x=lambda g, axes: transpose(g, _inverse(axes))
)
take: Operation = Operation(
    "take", k.take, view=True, x=lambda g, shape, index: put(g, shape, index)
)
put: Operation = Operation("put", k.put, x=lambda g, index: take(g, index))
replaced: Operation = Operation(
    "replaced",
    k.replaced,
    x=lambda g, value, index: replaced(g, 0, index),
    value=lambda g, index: take(g, index),
)
concat: Operation = Operation(
    "concat",
    k.concat,
    together=lambda g, axis, sizes: _split(g, axis, sizes),
)
pad: Operation = Operation("pad", k.pad, x=lambda g, shape, widths: take(g, k.inner(shape, widths)))
resample: Operation = Operation(
    "resample",
    k.resample,
    x=lambda g, size, axis, low, high, fraction: resample_backward(
        g, size, axis, low, high, fraction
    ),
)
resample_backward: Operation = Operation(
    "resample_backward",
    k.resample_backward,
    dy=lambda g, size, axis, low, high, fraction: resample(g, size, axis, low, high, fraction),
)

# ---- norms and softmax ---------------------------------------------------------------------------

normalize: Operation = Operation(
    "normalize",
    k.normalize,
    extras=("inverse",),
    x=lambda g, x, y, inverse, axes, eps: _normalize_gradient(g, x, y, inverse, axes, eps),
)
batch_norm: Operation = Operation(
    "batch_norm",
    k.batch_norm,
    inputs=("x", "weight", "bias", "residual"),
    extras=("statistics",),
    together=lambda g, x, y, weight, bias, statistics, training, eps, activation, data_format: (
        _batch_norm_gradients(
            g, x, y, weight, bias, statistics, training, eps, activation, data_format
        )
    ),
)
softmax: Operation = Operation(
    "softmax",
    k.softmax,
    x=lambda g, y, axis: (
        (g - total(g * y, axis, True)) * y
        if mode.recording
        else _unrecorded(k.softmax_backward, g, y, axis)
    ),
)
log_softmax: Operation = Operation(
    "log_softmax",
    k.log_softmax,
    x=lambda g, y, axis: (
        g - exp(y) * total(g, axis, True)
        if mode.recording
        else _unrecorded(k.log_softmax_backward, g, y, axis)
    ),
)
cross_entropy: Operation = Operation(
    "cross_entropy",
    k.cross_entropy,
    logits=lambda g, logits, target, options: (
        _cross_entropy_gradient(g, logits, target, options)
        if mode.recording
        else _unrecorded(k.cross_entropy_backward, g, logits, target, options)
    ),
)

# ---- what is longer than a line --------------------------------------------------------------


def _exponent_less_one(b: Any) -> Any:
    """b - 1; for the constant 0, whose gradient is 0 even where a is, any power that is finite."""
    return 1 if isinstance(b, (int, float)) and b == 0 else b - 1


def _where_positive(a: Any) -> Any:
    """a, and 1 where it is not positive: 0 ** b has no slope along b."""
    values = a.data if isinstance(a, Tensor) else a
    return where(values > 0, a, 1)


def _preference(a: Any, b: Any) -> Any:
    """1 where a > b, a half where both are equal."""
    x, y = (v.data if isinstance(v, Tensor) else v for v in (a, b))
    like = x if isinstance(x, np.ndarray) else y
    return ((x > y) + 0.5 * (x == y)).astype(like.dtype)


def _within(x: Tensor, low: float | None, high: float | None) -> Any:
    inside = np.ones(x.shape, bool) if low is None else x.data >= low
    return inside if high is None else inside & (x.data <= high)


def _unrecorded(kernel: Callable[..., Any], *arguments: Any) -> Tensor:
    """A kernel's result, for gradients that need none themselves."""
    return new_tensor(kernel(*[a.data if isinstance(a, Tensor) else a for a in arguments]))


# Activations whose slope follows from their result; of those that curve, how.
FROM_RESULT = frozenset(("relu", "relu6", "leaky_relu", "tanh", "sigmoid"))
_CURVED: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: y * (1 - y),
}


def _at_result(g: Tensor, y: Tensor, activation: Any) -> Tensor:
    """The gradient of what went into an activation, from that of its result y."""
    if activation is None:
        return g
    if mode.recording and activation in _CURVED:
        return g * _CURVED[activation](y)
    return slope_at_result(g, y.data, activation)


def _at_input(g: Tensor, x: Tensor, activation: Any) -> Tensor:
    """The gradient of what went into an activation, x."""
    if mode.recording and activation == "silu":
        s = from_result(x, "sigmoid")
        return multiply(g, s * (1 + x * (1 - s)))
    if mode.recording and activation == "hardswish":
        return g * hardswish_slope(x)
    return slope_at_input(g, x.data, activation)


def _per_channel(g: Tensor, shape: tuple[int, ...], nd: int, data_format: str) -> Tensor:
    """One element for each channel, spread over maps."""
    extents = [1] * len(shape)
    axis = k.channel_axis(len(shape), nd, data_format)
    extents[axis] = shape[axis]
    return broadcast_to(reshape(g, tuple(extents)), shape)


def _with_axes(g: Tensor, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Tensor:
    """The result of a reduction with the axes that it lost, of extent 1."""
    if keepdims:
        return g
    axes = range(len(shape)) if axis is None else (axis if isinstance(axis, tuple) else (axis,))
    lost = {a % len(shape) for a in axes}
    return reshape(g, tuple([1 if i in lost else n for i, n in enumerate(shape)]))


def _spread(g: Tensor, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Tensor:
    return broadcast_to(_with_axes(g, shape, axis, keepdims), shape)


def _to_extremes(g: Tensor, x: Tensor, y: Tensor, axis: Any, keepdims: bool) -> Tensor:
    """Shared evenly among the elements that are the greatest, or least."""
    chosen = x.data == _with_axes(y, x.shape, axis, keepdims).data
    share = chosen / chosen.sum(axis, keepdims=True, dtype=x.dtype)
    return multiply(_with_axes(g, x.shape, axis, keepdims), share.astype(x.dtype))


def _inverse(axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if axes is None else tuple(int(i) for i in np.argsort(axes))


def _split(g: Tensor, axis: int, sizes: tuple[int, ...]) -> list[Tensor]:
    ends = np.cumsum(sizes)
    before = (slice(None),) * axis
    return [
        take(g, (*before, slice(int(end) - n, int(end))))
        for n, end in zip(sizes, ends, strict=True)
    ]


def _lp_gradient(
    g: Tensor, x: Tensor, y: Tensor, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Tensor:
    """dx = sign(x) |x|^(p-1) times the sum of g y^(1-p) over the windows of x."""
    if not mode.recording:
        return lp_pool_backward(g, x, name, arguments, options)
    p, kernel, stride, ceil_mode = arguments
    of_sums = (kernel, stride, options["padding"], ceil_mode)
    layout = {"data_format": options["data_format"]}
    shares = g * where(y.data > 0, y, 1) ** (1 - p)
    sums = linear_pool_backward(shares, x.shape, name.replace("lp", "sum"), of_sums, layout)
    size = absolute(where(x.data == 0, 1, x)) ** (p - 1)
    return multiply(sums, size * np.sign(x.data))


def _normalize_gradient(
    g: Tensor, x: Tensor, y: Tensor, inverse: Any, axes: tuple[int, ...], eps: float
) -> Tensor:
    """(g - mean(g) - y mean(g y)) / sqrt(variance + eps)."""
    share = 1 / math.prod(x.shape[axis] for axis in axes)

    def mean(t: Tensor) -> Tensor:
        return total(t, axes, True) * share

    if mode.recording:  # its dependence on x counts
        centred = x - mean(x)
        inverse = (mean(centred * centred) + eps) ** -0.5
    return multiply(g - mean(g) - y * mean(g * y), inverse)


def _batch_norm_gradients(
    g: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Any,
    bias: Any,
    statistics: tuple[Any, Any, bool],
    training: bool,
    eps: float,
    activation: Any,
    data_format: str,
) -> tuple[Any, ...]:
    """Gradients of x, weight, bias and, where one was added, residual."""
    mean, inverse, added = statistics
    if not mode.recording:
        values = (g, x, y, weight, bias, mean, inverse, added, training, activation, data_format)
        arrays: list[Any] = [v.data if isinstance(v, Tensor) else v for v in values]
        found: tuple[Any, ...] = tuple(map(new_tensor, k.batch_norm_backward(*arrays)))
        return found if added else (*found, None)
    g = _at_result(g, y, activation)
    nd = max(x.ndim - 2, 0)
    axis = k.channel_axis(x.ndim, nd, data_format) if nd else 1
    others = tuple(i for i in range(x.ndim) if i != axis)

    def beside(vector: Any) -> Tensor:
        return reshape(vector, tuple([-1 if i == axis else 1 for i in range(x.ndim)]))

    if training:
        normal = normalize(x, others, eps)
        slope = 1.0 if weight is None else beside(weight)
        dx = _normalize_gradient(g * slope, x, normal, None, others, eps)
    else:
        normal = (x - beside(mean)) * beside(inverse)
        dx = g * beside(inverse if weight is None else weight * inverse)
    return dx, total(g * normal, others, False), total(g, others, False), g


def _cross_entropy_gradient(
    g: Tensor, logits: Tensor, target: Any, options: dict[str, Any]
) -> Tensor:
    """softmax(logits) times the sum of the shares, less the shares."""
    shares, divisor = k.target_shares(target, logits.shape, logits.dtype, options)
    g = g / divisor
    if options["reduction"] == "none":
        g = reshape(g, (g.shape[0], 1, *g.shape[1:]))
    return multiply(g, softmax(logits, 1) * shares.sum(1, keepdims=True) - shares)
