"""Batch normalization: the formulas, over all axes but the channels'."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _arguments
from ._activations import Activation, activate, activation_backward
from ._arguments import FloatArray
from ._windows import Array


def _channel_axis(x: FloatArray, data_format: str) -> int:
    """An alias tells the number of spatial axes, so that the batch axis may be missing."""
    alias = data_format not in ("channels_first", "channels_last")
    nd = _arguments.global_rank(data_format, x.ndim) if alias else x.ndim - 2
    layout = _arguments.layout(nd, data_format, "x", x.ndim)
    return x.ndim - 1 if layout.channels_last else int(layout.batched)


def _spread(vector: Any, x: FloatArray, axis: int, default: float) -> Array:
    """A value for each channel, shaped to broadcast against x."""
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    if vector is None:
        return np.full(shape, default)
    if vector.shape != (x.shape[axis],):
        raise ValueError(
            f"a vector of channels must have shape ({x.shape[axis]},), got {vector.shape}"
        )
    return np.asarray(vector, np.float64).reshape(shape)


@_arguments.silent
def batch_norm(
    x: FloatArray,
    running_mean: FloatArray | None,
    running_var: FloatArray | None,
    weight: FloatArray | None = None,
    bias: FloatArray | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    residual: FloatArray | None = None,
    data_format: str = "channels_first",
    return_stats: bool = False,
) -> Any:
    """activation((x - mean) / sqrt(var + eps) * weight + bias + residual), of each channel.

    With training the mean and the biased variance are x's own, and the running statistics are
    updated in place with the unbiased one. With return_stats (y, mean, 1 / sqrt(var + eps)).
    """
    _arguments.check_arrays(x=x, bias=bias, residual=residual)
    axis = _channel_axis(x, data_format)
    others = tuple(i for i in range(x.ndim) if i != axis)
    x64 = x.astype(np.float64)
    if (running_mean is None) != (running_var is None):
        raise ValueError("one of running_mean and running_var is None; give both or neither")
    if _arguments.flag("training", training):
        count = x.size // x.shape[axis]
        if count < 2:
            raise ValueError(f"x has {count} values a channel; training takes at least 2")
        mean, var = x64.mean(axis=others), x64.var(axis=others)
        if running_mean is not None and running_var is not None:
            running_mean[...] = (1 - momentum) * running_mean.astype(np.float64) + momentum * mean
            unbiased = var * (count / (count - 1))
            running_var[...] = (1 - momentum) * running_var.astype(np.float64) + momentum * unbiased
    else:
        if running_mean is None or running_var is None:
            raise ValueError("without training the running statistics must be given")
        mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
    inv_std = 1 / np.sqrt(var + eps)
    y = (x64 - _spread(mean, x, axis, 0)) * _spread(inv_std, x, axis, 1)
    y = y * _spread(weight, x, axis, 1) + _spread(bias, x, axis, 0)
    if residual is not None:
        y = y + residual
    y = activate(y, activation)
    return (y, mean, inv_std) if return_stats else y


@_arguments.silent
def batch_norm_backward(
    dy: FloatArray,
    x: FloatArray,
    weight: FloatArray | None,
    mean: FloatArray,
    inv_std: FloatArray,
    *,
    y: FloatArray | None = None,
    bias: FloatArray | None = None,
    activation: Activation = None,
    training: bool = True,
    residual_grad: bool = False,
    data_format: str = "channels_first",
) -> tuple[Array, ...]:
    """(dx, dweight, dbias), and the gradient of the residual where asked for.

    y is the forward's result, from which the activation's derivative follows; without it, it
    follows from x, weight and bias, if there was no residual. With training the statistics depend
    on x, and dx is orthogonal to them.
    """
    _arguments.check_arrays(dy=dy, x=x)
    axis = _channel_axis(x, data_format)
    others = tuple(i for i in range(x.ndim) if i != axis)
    g = dy.astype(np.float64)
    scale = _spread(inv_std, x, axis, 1)
    normal = (x.astype(np.float64) - _spread(mean, x, axis, 0)) * scale
    if activation is not None and y is not None:
        g = activation_backward(g, None, activation, y=y.astype(np.float64))
    elif activation is not None:
        if residual_grad:
            raise ValueError("where a residual was added the activation's derivative needs y")
        mapped = normal * _spread(weight, x, axis, 1) + _spread(bias, x, axis, 0)
        g = activation_backward(g, mapped, activation)
    dbias, dweight = g.sum(axis=others), (g * normal).sum(axis=others)
    dx = g
    if _arguments.flag("training", training):
        count = x.size // x.shape[axis]
        dx = g - (_spread(dbias, x, axis, 0) + normal * _spread(dweight, x, axis, 0)) / count
    dx = dx * scale * _spread(weight, x, axis, 1)
    return (dx, dweight, dbias, g) if residual_grad else (dx, dweight, dbias)
