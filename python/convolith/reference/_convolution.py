"""Convolution, transposed convolution and their gradients.

With x_pad the padded input, for every group (its index left out) and every axis at once,

    y[n, k, o]      = sum over c, t of  weight[k, c, t] * x_pad[n, c, o*stride + t*dilation]
    dx_pad[n, c, p] = sum over k and o*stride + t*dilation == p of  weight[k, c, t] * dy[n, k, o]
    dweight[k, c, t] = sum over n, o of  dy[n, k, o] * x_pad[n, c, o*stride + t*dilation]

and dx is dx_pad folded back by the adjoint of padding. Transposed convolution is dx.
Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import _activations, _arguments, _windows
from ._activations import Activation
from ._arguments import ConvProblem, FloatArray, Ints, Padding
from ._windows import Array

# --- the three products ----------------------------------------------------------------------


def _by_group(a: Array, groups: int) -> Array:
    """(N, C, *spatial) -> (N, groups, C/groups, *spatial)."""
    n, c, *spatial = a.shape
    return a.reshape(n, groups, c // groups, *spatial)


def _flat(a: Array) -> Array:
    """(N, groups, C/groups, *spatial) -> (N, groups, C/groups, points)."""
    return a.reshape(*a.shape[:3], int(np.prod(a.shape[3:])))


def _weights_by_group(weight: Array, groups: int) -> Array:
    """(K, C/groups, *kernel) -> (groups, K/groups, C/groups, *kernel)."""
    k, c, *kernel = weight.shape
    return weight.reshape(groups, k // groups, c, *kernel)


def _taps(p: ConvProblem) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """For every kernel tap, its index into the weights and that of the padded elements it reads."""
    for t in np.ndindex(*(axis.kernel for axis in p.axes)):
        yield (..., *t), (..., *map(_windows.tap_slice, p.axes, t))


def _forward(p: ConvProblem, x: Array, weight: Array) -> Array:
    x_pad = _by_group(_windows.pad(x, p.axes, p.padding_mode), p.groups)
    w = _weights_by_group(weight, p.groups)
    y = np.zeros((p.batch, p.groups, p.out_channels // p.groups, *(a.out for a in p.axes)))
    for t, seen in _taps(p):
        y += np.matmul(w[t], _flat(x_pad[seen])).reshape(y.shape)
    return y.reshape(p.y_shape)


def _backward_input(p: ConvProblem, dy: Array, weight: Array) -> Array:
    dy_flat = _flat(_by_group(dy, p.groups))
    w = _weights_by_group(weight, p.groups)
    channels = p.in_channels // p.groups
    padded = tuple(axis.before + axis.size + axis.after for axis in p.axes)
    dx_pad = np.zeros((p.batch, p.groups, channels, *padded))
    for t, seen in _taps(p):
        product = np.matmul(w[t].swapaxes(1, 2), dy_flat)
        dx_pad[seen] += product.reshape(dx_pad[seen].shape)
    return _windows.fold(dx_pad.reshape(p.batch, p.in_channels, *padded), p.axes, p.padding_mode)


def _backward_weight(p: ConvProblem, dy: Array, x: Array) -> Array:
    x_pad = _by_group(_windows.pad(x, p.axes, p.padding_mode), p.groups)
    dy_flat = _flat(_by_group(dy, p.groups))
    c = p.in_channels // p.groups
    dw = np.zeros((p.out_channels, c, *(axis.kernel for axis in p.axes)))
    by_group = _weights_by_group(dw, p.groups)
    for t, seen in _taps(p):
        by_group[t] = np.matmul(dy_flat, _flat(x_pad[seen]).swapaxes(2, 3)).sum(axis=0)
    return dw


def _epilogue(
    layout: _arguments.Layout, y: Array, bias: Any, residual: Any, activation: Activation
) -> Array:
    """activation(y + bias + residual), in the caller's layout."""
    if bias is not None:
        y += _arguments.check_bias(bias, y.shape[1]).reshape(-1, *(1,) * layout.nd)
    if residual is not None:
        y += layout.read("residual", residual, expected=y.shape)
    if activation is not None:
        y = _activations.parse(activation)[0](y)
    result: Array = layout.write(y)
    return result


def _bias_gradient(dy: Array) -> Array:
    return np.asarray(dy.sum(axis=(0, *range(2, dy.ndim))))


# --- convolution -----------------------------------------------------------------------------


def _conv(
    rank: int,
    x: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: FloatArray | None = None,
) -> Array:
    """{rank}-D cross-correlation: activation(x * weight + bias + residual).

    x is (N, C, *spatial) or, in channels_last, (N, *spatial, C), without N for one sample;
    weight (K, C/groups, *kernel), bias (K,), residual shaped as the result (N, K, *out) with
    out = floor((n + before + after - dilation*(k-1) - 1) / stride) + 1.
    Raises TypeError or ValueError, naming the argument.
    """
    _arguments.check_arrays(x=x, weight=weight, bias=bias, residual=residual)
    layout = _arguments.layout(rank, data_format, "x", x.ndim)
    shape = layout.canonical("x", x.shape)
    p = _arguments.conv_problem(
        layout, shape, weight.shape, stride, padding, dilation, groups, padding_mode
    )
    y = _forward(p, layout.read("x", x), np.asarray(weight, dtype=np.float64))
    return _epilogue(layout, y, bias, residual, activation)


conv1d, conv2d, conv3d = _arguments.for_ranks("conv{rank}d", _conv)


@_arguments.silent
def conv_backward_input(
    dy: FloatArray,
    weight: FloatArray,
    input_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
) -> Array:
    """Gradient of a convolution with respect to its input, of shape input_shape.

    dy is shaped as the convolution's result; input_shape follows data_format.
    """
    _arguments.check_arrays(dy=dy, weight=weight)
    x_shape = _arguments.shape_argument("input_shape", input_shape)
    nd = _arguments.spatial_rank("weight", weight.ndim)
    layout = _arguments.layout(nd, data_format, "input_shape", len(x_shape))
    shape = layout.canonical("input_shape", x_shape)
    p = _arguments.conv_problem(
        layout, shape, weight.shape, stride, padding, dilation, groups, padding_mode
    )
    gradient = layout.read("dy", dy, expected=p.y_shape)
    result: Array = layout.write(_backward_input(p, gradient, np.asarray(weight, dtype=np.float64)))
    return result


@_arguments.silent
def conv_backward_weight(
    dy: FloatArray,
    x: FloatArray,
    weight_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    bias_grad: bool = False,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
) -> Any:
    """Gradient of a convolution with respect to its weights, of shape weight_shape.

    With bias_grad, the pair (dweight, dbias).
    """
    _arguments.check_arrays(dy=dy, x=x)
    w_shape = _arguments.shape_argument("weight_shape", weight_shape)
    nd = _arguments.spatial_rank("weight_shape", len(w_shape))
    layout = _arguments.layout(nd, data_format, "x", x.ndim)
    shape = layout.canonical("x", x.shape)
    p = _arguments.conv_problem(
        layout, shape, w_shape, stride, padding, dilation, groups, padding_mode
    )
    gradient = layout.read("dy", dy, expected=p.y_shape)
    dw = _backward_weight(p, gradient, layout.read("x", x))
    both = _arguments.flag("bias_grad", bias_grad)
    return (dw, _bias_gradient(gradient)) if both else dw


# --- transposed convolution ------------------------------------------------------------------


def _conv_transpose(
    rank: int,
    x: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: FloatArray | None = None,
) -> Array:
    """{rank}-D transposed convolution: the adjoint of the convolution with these parameters.

    x is (N, C, *n), weight (C, K/groups, *kernel), bias (K,); the result is (N, K, *m) with
    m = (n-1)*stride - before - after + dilation*(k-1) + output_padding + 1, or output_size.
    "same" is the adjoint of "same" on n*stride elements; padding modes other than zeros fold
    the cropped margins back into the result. output_size is per axis, or a whole shape of
    which the spatial extents count.
    """
    _arguments.check_arrays(x=x, weight=weight, bias=bias, residual=residual)
    layout = _arguments.layout(rank, data_format, "x", x.ndim)
    p = _arguments.transposed_problem(
        layout,
        layout.canonical("x", x.shape),
        weight.shape,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        output_size,
        padding_mode,
    )
    y = _backward_input(p, layout.read("x", x), np.asarray(weight, dtype=np.float64))
    return _epilogue(layout, y, bias, residual, activation)


conv_transpose1d, conv_transpose2d, conv_transpose3d = _arguments.for_ranks(
    "conv_transpose{rank}d", _conv_transpose
)


@_arguments.silent
def conv_transpose_backward_input(
    dy: FloatArray,
    weight: FloatArray,
    input_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints | None = None,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
) -> Array:
    """Gradient of a transposed convolution with respect to its input, of shape input_shape.

    That is a convolution of dy. Without output_padding and output_size, dy's shape tells them.
    """
    _arguments.check_arrays(dy=dy, weight=weight)
    x_shape = _arguments.shape_argument("input_shape", input_shape)
    nd = _arguments.spatial_rank("weight", weight.ndim)
    layout = _arguments.layout(nd, data_format, "input_shape", len(x_shape))
    from_dy = output_padding is None and output_size is None
    if from_dy:
        layout.canonical("dy", dy.shape)
    p = _arguments.transposed_problem(
        layout,
        layout.canonical("input_shape", x_shape),
        weight.shape,
        stride,
        padding,
        0 if output_padding is None else output_padding,
        groups,
        dilation,
        dy.shape if from_dy else output_size,
        padding_mode,
        "dy's extent" if from_dy else "output_size",
    )
    gradient = layout.read("dy", dy, expected=p.x_shape)
    result: Array = layout.write(_forward(p, gradient, np.asarray(weight, dtype=np.float64)))
    return result


@_arguments.silent
def conv_transpose_backward_weight(
    dy: FloatArray,
    x: FloatArray,
    weight_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints | None = None,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    bias_grad: bool = False,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
) -> Any:
    """Gradient of a transposed convolution with respect to its weights, of shape weight_shape.

    With bias_grad, the pair (dweight, dbias). Without output_padding and output_size, dy's
    shape tells them.
    """
    _arguments.check_arrays(dy=dy, x=x)
    w_shape = _arguments.shape_argument("weight_shape", weight_shape)
    nd = _arguments.spatial_rank("weight_shape", len(w_shape))
    layout = _arguments.layout(nd, data_format, "x", x.ndim)
    from_dy = output_padding is None and output_size is None
    if from_dy:
        layout.canonical("dy", dy.shape)
    p = _arguments.transposed_problem(
        layout,
        layout.canonical("x", x.shape),
        w_shape,
        stride,
        padding,
        0 if output_padding is None else output_padding,
        groups,
        dilation,
        dy.shape if from_dy else output_size,
        padding_mode,
        "dy's extent" if from_dy else "output_size",
    )
    gradient = layout.read("dy", dy, expected=p.x_shape)
    dw = _backward_weight(p, layout.read("x", x), gradient)
    both = _arguments.flag("bias_grad", bias_grad)
    return (dw, _bias_gradient(gradient)) if both else dw


# --- flipped kernels -------------------------------------------------------------------------


def flip(weight: FloatArray) -> Array:
    """Weights with every spatial axis reversed: conv(x, flip(w)) is the convolution of
    mathematics and signal processing, conv(x, w) the cross-correlation of deep learning."""
    _arguments.check_arrays(weight=weight)
    nd = _arguments.spatial_rank("weight", weight.ndim)
    return np.array(np.flip(weight, axis=tuple(range(2, 2 + nd))), dtype=np.float64, order="C")
