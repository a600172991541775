"""Normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convolith import _arguments
from convolith._arguments import Activation
from convolith.autograd import _kernels, _table
from convolith.autograd._tensor import Tensor
from convolith.autograd.functional._convolution import in_epilogue
from convolith.autograd.functional._elementwise import activate


def _channels(x: Any, data_format: str) -> tuple[int, tuple[int, ...]]:
    """The channel axis of (batch, channels, *spatial), and the axes besides."""
    nd = x.ndim - 2
    if nd < 0:
        raise ValueError(f"x has {x.ndim} axes; it must have 2 to 5")
    axis = _kernels.channel_axis(x.ndim, nd, data_format) if nd else 1
    return axis, tuple(i for i in range(x.ndim) if i != axis)


def _beside(vector: Any, axis: int, ndim: int) -> Any:
    """A vector along one axis."""
    return _table.reshape(vector, (*[1] * axis, -1, *[1] * (ndim - axis - 1)))


def _scaled(y: Any, weight: Any, bias: Any, axis: int) -> Tensor:
    """weight * y + bias, both along one axis."""
    if weight is not None:
        y = _table.multiply(y, _beside(weight, axis, y.ndim))
    if bias is not None:
        y = _table.add(y, _beside(bias, axis, y.ndim))
    scaled: Tensor = y
    return scaled


def batch_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation = None,
    residual: Any = None,
    data_format: str = "channels_first",
) -> Tensor:
    """activation(weight * (x - mean) / sqrt(variance + eps) + bias + residual), per channel.

    Source: Ioffe & Szegedy, arXiv:1502.03167.

    Args:
        x: (batch, channels, *spatial), or with the channels last in channels_last.
        running_mean, running_var: (channels,). In training they move towards the batch's mean and
            unbiased variance; else they are what is used.
        weight, bias: (channels,), or None.
        training: Use the mean and variance of the batch. Without running statistics they are used
            in any case.
        momentum: The share of the batch in the running statistics.
        eps: Added to the variance.
        activation: None, "relu", ..., as in `conv2d`.
        residual: Added before the activation; of the shape of x.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".

    Returns:
        A Tensor of the shape of x.

    Raises:
        ValueError: A single element per channel in training, or shapes that do not fit.
    """
    fused = in_epilogue(activation, x, weight, bias, residual)
    y = _table.batch_norm(
        x,
        weight,
        bias,
        residual,
        (_array(running_mean), _array(running_var)),
        training or running_mean is None,
        momentum,
        eps,
        activation if fused else None,
        data_format,
    )
    if training:
        for running in (running_mean, running_var):
            if isinstance(running, Tensor):
                running.changed_in_place()
    return y if fused else activate(y, activation)


def _array(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


def group_norm(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    data_format: str = "channels_first",
) -> Tensor:
    """Every sample's groups of channels normalized, then scaled per channel.

    Source: Wu & He, arXiv:1803.08494.

    Args:
        x: (batch, channels, *spatial), or with the channels last in channels_last.
        num_groups: How many groups the channels make; it divides their number.
        weight, bias: (channels,), or None.
        eps: Added to the variance.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".
    """
    axis, _ = _channels(x, data_format)
    channels = x.shape[axis]
    groups = _arguments.integer(num_groups, "num_groups")
    if groups < 1 or channels % groups:
        raise ValueError(f"num_groups is {groups}; it must divide the {channels} channels")
    split = (*x.shape[:axis], groups, channels // groups, *x.shape[axis + 1 :])
    axes = tuple(i for i in range(1, x.ndim + 1) if i != axis)
    y = _table.reshape(_table.normalize(_table.reshape(x, split), axes, eps), x.shape)
    return _scaled(y, weight, bias, axis)


def instance_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    data_format: str = "channels_first",
) -> Tensor:
    """Every sample's channels normalized, then scaled per channel.

    Source: Ulyanov et al., arXiv:1607.08022.

    Args:
        x: (batch, channels, *spatial), or with the channels last in channels_last.
        weight, bias: (channels,), or None.
        eps: Added to the variance.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".
    """
    axis, others = _channels(x, data_format)
    return _scaled(_table.normalize(x, others[1:], eps), weight, bias, axis)


def layer_norm(
    x: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """The last axes normalized together, then scaled element by element.

    Source: Ba et al., arXiv:1607.06450.

    Args:
        x: Any shape that ends with normalized_shape.
        normalized_shape: Extents of the last axes.
        weight, bias: Of shape normalized_shape, or None.
        eps: Added to the variance.
    """
    extents = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not extents or x.shape[-len(extents) :] != extents:
        raise ValueError(f"x has shape {x.shape}; it must end with normalized_shape {extents}")
    y = _table.normalize(x, tuple(range(x.ndim - len(extents), x.ndim)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def local_response_norm(
    x: Any,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    data_format: str = "channels_first",
) -> Tensor:
    """x / (k + alpha * mean of the squares of neighbouring channels) ** beta.

    Source: Krizhevsky et al., NIPS 2012, section 3.3, whose alpha is alpha / size here, as in
    torch.

    Args:
        x: (batch, channels, *spatial), or with the channels last in channels_last.
        size: How many channels are neighbours, size // 2 of them before.
        alpha, beta, k: As above.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".
    """
    if _arguments.integer(size, "size") < 1:
        raise ValueError(f"size is {size}; it must be at least 1")
    axis, _ = _channels(x, data_format)
    channels = x.shape[axis]
    margins = [(0, 0)] * x.ndim
    margins[axis] = (size // 2, (size - 1) // 2)
    squares = _table.pad(x * x, tuple(margins), 0.0)
    before = (slice(None),) * axis
    total = squares[(*before, slice(channels))]
    for i in range(1, size):
        total = total + squares[(*before, slice(i, i + channels))]
    return _table.divide(x, (total * (alpha / size) + k) ** beta)
