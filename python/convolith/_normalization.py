"""Batch normalization and its gradients."""

from __future__ import annotations

from typing import Any

from convolith import _arguments, _core
from convolith._arguments import Activation, Array


def _format(data_format: str) -> tuple[str, int]:
    """The layout, and the number of spatial axes that an alias tells; -1 if it tells none."""
    if data_format == "channels_first" or data_format == "channels_last":
        return data_format, -1
    nd = _arguments.format_rank(data_format)
    layout = _arguments.data_format(data_format, -1 if nd is None else nd)
    return layout, -1 if nd is None else nd


def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    residual: Array | None = None,
    data_format: str = "channels_first",
    return_stats: bool = False,
    out: Array | None = None,
) -> Any:
    """Batch normalization: activation((x - mean) / sqrt(var + eps) * weight + bias + residual).

    Ioffe & Szegedy, "Batch normalization" (ICML 2015). With training, mean and (biased) variance
    are those of each channel over batch and space, and the running statistics become
    (1 - momentum) * running + momentum * statistic in place, with the unbiased variance. Moments
    are summed about a shift and merged in float64 (Chan, Golub & LeVeque, 1979).

    Args:
        x: (batch, channels, ...) with up to three spatial axes, or with the channels last in
            channels_last. float32 or float64, any strides. One sample without a batch axis takes
            an alias as data_format, which tells the number of spatial axes.
        running_mean, running_var: (channels,), or both None with training. With training they
            are changed in place, and must be contiguous and writable.
        weight, bias: (channels,); None for 1 and 0.
        training: Whether to use the batch's statistics; else the running ones.
        momentum: Share of the batch's statistics in the running ones.
        eps: Added to the variance; at least 0.
        activation: None, a name as in `activation`, or ("leaky_relu", slope).
        residual: Of x's shape; added before the activation.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".
        return_stats: Also return mean and 1 / sqrt(var + eps), which the gradient needs.
        out: An array of x's shape and dtype to write, which overlaps no input.

    Returns:
        The result in the data format of x, or (result, mean, inv_std).

    Raises:
        TypeError: An argument of a wrong type or dtype.
        ValueError: Shapes that do not fit, missing statistics, or training on a single value a
            channel; the message has the numbers.
    """
    name, slope = _arguments.activation(activation)
    layout, nd = _format(data_format)
    return _core.batch_norm(
        x,
        running_mean,
        running_var,
        weight,
        bias,
        _arguments.flag(training, "training"),
        _arguments.real(momentum, "momentum"),
        _arguments.real(eps, "eps"),
        name,
        slope,
        residual,
        layout,
        nd,
        _arguments.flag(return_stats, "return_stats"),
        out,
    )


def batch_norm_backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    inv_std: Array,
    *,
    y: Array | None = None,
    bias: Array | None = None,
    activation: Activation = None,
    training: bool = True,
    residual_grad: bool = False,
    data_format: str = "channels_first",
) -> tuple[Array, ...]:
    """Gradients of `batch_norm`.

    Args:
        dy: Gradient of the result, of x's shape.
        x, weight: The forward's.
        mean, inv_std: What the forward's `return_stats` gave.
        y: The forward's result, from which the activation's derivative follows: that of relu,
            relu6, leaky_relu with a slope of at least 0, tanh and sigmoid. None takes it from x,
            weight and bias, for every activation; that spares memory traffic, but is right only
            where no residual was added.
        bias: The forward's; read where y is None.
        activation: The forward's.
        training: Whether the statistics were the batch's, through which gradient flows too.
        residual_grad: Also return the gradient of the residual.
        data_format: As in `batch_norm`.

    Returns:
        (dx, dweight, dbias), or (dx, dweight, dbias, dresidual).

    Raises:
        ValueError: Also for an activation that y cannot serve, or no y beside residual_grad.
    """
    name, slope = _arguments.activation(activation)
    layout, nd = _format(data_format)
    return _core.batch_norm_backward(
        dy,
        x,
        weight,
        mean,
        inv_std,
        y,
        bias,
        name,
        slope,
        _arguments.flag(training, "training"),
        _arguments.flag(residual_grad, "residual_grad"),
        layout,
        nd,
    )
