"""Pooling. Arguments and errors are those of the package's functions on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolith import _arguments
from convolith._arguments import Ints, Padding
from convolith._pooling import OutputSize
from convolith._ranks import for_ranks
from convolith.autograd import _kernels, _table
from convolith.autograd._mode import is_recording
from convolith.autograd._tensor import Tensor
from convolith.autograd.functional._elementwise import abs, relu, where


def _values(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def _axes(x: Any, nd: int, data_format: str) -> tuple[int, ...]:
    return _kernels.spatial_axes(x.ndim, nd, data_format)


def _with_indices(x: Any, nd: int, name: str, arguments: Any, options: Any) -> Any:
    """The elements that a kernel chose, and where they are."""
    indices = _kernels.pool_with_indices(_values(x), name, arguments, options)[1]
    chosen = _table.gather(x, indices, _axes(x, nd, options["data_format"]))
    return chosen, Tensor(indices)


def _greatest(x: Any, name: str, arguments: Any, options: Any) -> Tensor:
    """Max pooling, which remembers where its elements were if a gradient will ask."""
    if isinstance(x, Tensor) and x.requires_grad and is_recording():
        return _table.max_pool(x, name, arguments, options)
    return Tensor(_kernels.pool(_values(x), name, arguments, options))


def _max_pool(
    nd: int,
    x: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D max pooling; see `convolith.max_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last.
        kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format: As there.

    Returns:
        The result; with return_indices the pair (result, indices).
    """
    name, options = f"max_pool{nd}d", {"data_format": data_format}
    arguments = (kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        return _with_indices(x, nd, name, arguments, options)
    return _greatest(x, name, arguments, options)


def _avg_pool(
    nd: int,
    x: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "channels_first",
) -> Tensor:
    """{rank}-D average pooling; see `convolith.avg_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last.
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, data_format:
            As there.
    """
    arguments = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _table.linear_pool(x, f"avg_pool{nd}d", arguments, {"data_format": data_format})


def _sum_pool(
    nd: int,
    x: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    data_format: str = "channels_first",
) -> Tensor:
    """{rank}-D sum pooling; see `convolith.sum_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last.
        kernel_size, stride, padding, ceil_mode, data_format: As there.
    """
    arguments = (kernel_size, stride, padding, ceil_mode)
    return _table.linear_pool(x, f"sum_pool{nd}d", arguments, {"data_format": data_format})


def _lp_pool(
    nd: int,
    x: Any,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    data_format: str = "channels_first",
) -> Tensor:
    """{rank}-D Lp pooling; see `convolith.lp_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last.
        norm_type, kernel_size, stride, ceil_mode, padding, data_format: As there.
    """
    if norm_type == float("inf"):
        # Only a window that ends in the margin has no element: there |x| would give -inf.
        pooled = _max_pool(
            nd, abs(x), kernel_size, stride, padding, 1, ceil_mode, data_format=data_format
        )
        return where(pooled.data < 0, 0, pooled)
    arguments = (norm_type, kernel_size, stride, ceil_mode)
    options = {"padding": padding, "data_format": data_format}
    return _table.lp_pool(x, f"lp_pool{nd}d", arguments, options)


def _stochastic_pool(
    nd: int,
    x: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    *,
    training: bool = True,
    rng: int | np.random.Generator | None = None,
    return_indices: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D stochastic pooling; see `convolith.stochastic_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last.
        kernel_size, stride, padding, training, rng, return_indices, data_format: As there.

    Returns:
        The result; with return_indices the pair (result, indices).
    """
    if training:
        name, arguments = f"stochastic_pool{nd}d", (kernel_size, stride, padding)
        options = {"rng": rng, "data_format": data_format}
        y, indices = _with_indices(x, nd, name, arguments, options)
        return (y, indices) if return_indices else y
    if return_indices:
        raise ValueError("return_indices is True and training is False; no element is chosen")
    # The mean weighted by max(x, 0), and the plain mean where no element is positive.
    positive = relu(x)
    window = (kernel_size, stride, padding)
    options = {"data_format": data_format}
    weights = _table.linear_pool(positive, f"sum_pool{nd}d", (*window, False), options)
    squares = _table.linear_pool(positive * positive, f"sum_pool{nd}d", (*window, False), options)
    plain = _table.linear_pool(x, f"avg_pool{nd}d", (*window, False, False, None), options)
    some = weights.data > 0
    return where(some, squares / where(some, weights, 1), plain)


def _adaptive_avg_pool(
    nd: int, x: Any, output_size: OutputSize, *, data_format: str = "channels_first"
) -> Tensor:
    """{rank}-D average pooling to a given extent; see `convolith.adaptive_avg_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last.
        output_size, data_format: As there.
    """
    options = {"data_format": data_format}
    return _table.linear_pool(x, f"adaptive_avg_pool{nd}d", (output_size,), options)


def _adaptive_max_pool(
    nd: int,
    x: Any,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D max pooling to a given extent; see `convolith.adaptive_max_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last.
        output_size, return_indices, data_format: As there.

    Returns:
        The result; with return_indices the pair (result, indices).
    """
    name, options = f"adaptive_max_pool{nd}d", {"data_format": data_format}
    if return_indices:
        return _with_indices(x, nd, name, (output_size,), options)
    return _greatest(x, name, (output_size,), options)


def _rank(x: Any, data_format: str) -> int:
    nd = _arguments.format_rank(data_format)
    return max(1, x.ndim - 2) if nd is None else nd


def global_avg_pool(x: Any, *, data_format: str = "channels_first") -> Tensor:
    """Mean of every channel; see `convolith.global_avg_pool`.

    Args:
        x, data_format: As there.
    """
    return _adaptive_avg_pool(_rank(x, data_format), x, 1, data_format=data_format)


def global_max_pool(x: Any, *, data_format: str = "channels_first") -> Tensor:
    """Greatest element of every channel; see `convolith.global_max_pool`.

    Args:
        x, data_format: As there.
    """
    pooled: Tensor = _adaptive_max_pool(_rank(x, data_format), x, 1, data_format=data_format)
    return pooled


def _max_unpool(
    nd: int,
    x: Any,
    indices: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    output_size: Ints | None = None,
    *,
    data_format: str = "channels_first",
) -> Tensor:
    """{rank}-D max unpooling; see `convolith.max_unpool{rank}d`.

    Args:
        x: Pooled elements (batch, channels, {spatial}), or with the channels last in
            channels_last.
        indices, kernel_size, stride, padding, output_size, data_format: As there.
    """
    arguments = (kernel_size, stride, padding, output_size)
    options = {"data_format": data_format}
    axes = _axes(x, nd, data_format)
    return _table.max_unpool(x, _values(indices), axes, f"max_unpool{nd}d", arguments, options)


max_pool1d, max_pool2d, max_pool3d = for_ranks("max_pool{rank}d", _max_pool)
avg_pool1d, avg_pool2d, avg_pool3d = for_ranks("avg_pool{rank}d", _avg_pool)
sum_pool1d, sum_pool2d, sum_pool3d = for_ranks("sum_pool{rank}d", _sum_pool)
lp_pool1d, lp_pool2d, lp_pool3d = for_ranks("lp_pool{rank}d", _lp_pool)
stochastic_pool1d, stochastic_pool2d, stochastic_pool3d = for_ranks(
    "stochastic_pool{rank}d", _stochastic_pool
)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = for_ranks(
    "adaptive_avg_pool{rank}d", _adaptive_avg_pool
)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = for_ranks(
    "adaptive_max_pool{rank}d", _adaptive_max_pool
)
max_unpool1d, max_unpool2d, max_unpool3d = for_ranks("max_unpool{rank}d", _max_unpool)
