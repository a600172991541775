"""Convolution, transposed convolution and matrix product."""

from __future__ import annotations

from typing import Any

from convolith._arguments import Activation, Ints, Padding
from convolith._ranks import for_ranks
from convolith.autograd import _table
from convolith.autograd._mode import mode
from convolith.autograd._tensor import Tensor
from convolith.autograd.functional._elementwise import activate


def in_epilogue(activation: Activation, *inputs: Any) -> bool:
    """Whether a kernel may apply an activation: its slope must follow from its result.

    Without a record there is no gradient, and every activation may be.
    """
    if activation is None:
        return True
    if isinstance(activation, tuple):
        return activation[1] >= 0 or not mode.recording
    return activation in _table.FROM_RESULT or not (
        mode.recording and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    )


def _conv(
    nd: int,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: Any = None,
) -> Tensor:
    """{rank}-D convolution: activation(conv(x, weight) + bias + residual).

    Arguments and errors are those of `convolith.conv{rank}d`; x, weight, bias and residual have
    gradients.

    Args:
        x: Input (batch, in_channels, {spatial}), or with the channels last in channels_last.
        weight: (out_channels, in_channels / groups, *kernel) in both data formats.
        bias: (out_channels,).
        stride, padding, dilation, groups, data_format, padding_mode: The window.
        activation: As in `convolith.conv{rank}d`. The kernel applies it where a gradient does
            not need what went into it.
        residual: Added before the activation; of the result's shape.

    Returns:
        (batch, out_channels, {spatial}) in the data format of x.
    """
    _require_rank(nd, weight)
    window = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "data_format": data_format,
        "padding_mode": padding_mode,
    }
    if in_epilogue(activation, x, weight, bias, residual):
        return _table.conv(x, weight, bias, residual, window, activation)
    return activate(_table.conv(x, weight, bias, residual, window, None), activation)


def _require_rank(nd: int, weight: Any) -> None:
    if weight.ndim != nd + 2:
        raise ValueError(f"weight has {weight.ndim} axes; it must have {nd + 2}")


def _conv_transpose(
    nd: int,
    x: Any,
    weight: Any,
    bias: Any = None,
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
    residual: Any = None,
) -> Tensor:
    """{rank}-D transposed convolution: the adjoint of a convolution, with an epilogue.

    Arguments and errors are those of `convolith.conv_transpose{rank}d`; x, weight, bias and
    residual have gradients.

    Args:
        x: Input (batch, in_channels, {spatial}), or with the channels last in channels_last.
        weight: (in_channels, out_channels / groups, *kernel) in both data formats.
        bias: (out_channels,).
        stride, padding, output_padding, groups, dilation, output_size, data_format, padding_mode:
            As in `convolith.conv_transpose{rank}d`.
        activation, residual: As in `conv{rank}d`.

    Returns:
        (batch, out_channels, {spatial}) in the data format of x.
    """
    _require_rank(nd, weight)
    window = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "groups": groups,
        "dilation": dilation,
        "output_size": output_size,
        "data_format": data_format,
        "padding_mode": padding_mode,
    }
    if in_epilogue(activation, x, weight, bias, residual):
        return _table.conv_transpose(x, weight, bias, residual, window, activation)
    return activate(_table.conv_transpose(x, weight, bias, residual, window, None), activation)


conv1d, conv2d, conv3d = for_ranks("conv{rank}d", _conv)
conv_transpose1d, conv_transpose2d, conv_transpose3d = for_ranks(
    "conv_transpose{rank}d", _conv_transpose
)


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product, by the library's own GEMM: the same bits for any number of threads.

    Args:
        a, b: As in numpy.matmul: matrices, vectors, or stacks of matrices, whose leading axes are
            broadcast.

    Returns:
        The product.

    Raises:
        ValueError: Extents that do not fit together.
    """
    a, b = (v if isinstance(v, Tensor) else Tensor(v) for v in (a, b))
    if not a.ndim or not b.ndim:
        raise ValueError(f"a has {a.ndim} axes and b has {b.ndim}; both need one or more")
    left = a.reshape(1, -1) if a.ndim == 1 else a
    right = b.reshape(-1, 1) if b.ndim == 1 else b
    product = _table.matmul(left, right, False, False)
    if a.ndim == 1 or b.ndim == 1:
        shape = product.shape
        shape = shape[:-2] + shape[-2 + (a.ndim == 1) : len(shape) - (b.ndim == 1)]
        return _table.reshape(product, shape)
    return product


def linear(x: Any, weight: Any, bias: Any = None, *, activation: Activation = None) -> Tensor:
    """activation(x @ weight.T + bias), by the library's own kernels.

    Args:
        x: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features,).
        activation: As in `conv2d`.

    Returns:
        (..., out_features).

    Raises:
        ValueError: Extents that do not fit together.
    """
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"x has shape {x.shape} and weight {weight.shape}; they must be (..., in_features) and "
            "(out_features, in_features)"
        )
    rows = x if x.ndim == 2 else _table.reshape(x, (-1, x.shape[-1]))
    if in_epilogue(activation, x, weight, bias):
        y = _table.linear(rows, weight, bias, activation)
    else:
        y = activate(_table.linear(rows, weight, bias, None), activation)
    return y if x.ndim == 2 else _table.reshape(y, (*x.shape[:-1], weight.shape[0]))
