"""Pooling and its gradients, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from convolith import _arguments, _backends, _config, _core
from convolith._arguments import Array, Ints, Padding
from convolith._ranks import for_ranks

OutputSize = SupportsIndex | Sequence[SupportsIndex | None] | None

# ---- what the calls have in common -----------------------------------------------------------


# Problems of the last calls, by how the calls were spelled: making one costs more than small work.
_problems: dict[tuple[Any, ...], _core.PoolProblem] = {}
_MOST_PROBLEMS = 256


def _remember(key: tuple[Any, ...], problem: _core.PoolProblem) -> None:
    text = key[-1]
    if len(text) < 200 and "<" not in text and "array" not in text:
        if len(_problems) >= _MOST_PROBLEMS:
            _problems.clear()
        _problems[key] = problem


def _sliding(
    op: str,
    nd: int,
    x: Array,
    dy: Array | None,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Padding,
    dilation: Ints,
    ceil_mode: bool,
    data_format: str,
    **options: Any,
) -> _core.PoolProblem:
    dtype = _backends.of(x).common_dtype({"dy": dy}, x=x)
    # Texts tell 1 from True, and from objects that could change, which have no text of their own.
    text = repr((kernel_size, stride, padding, dilation, ceil_mode, data_format, options))
    key = (op, nd, x.shape, dtype, text)
    if (known := _problems.get(key)) is not None:
        return known
    kernel = _arguments.integers(kernel_size, nd, "kernel_size")
    problem = _core.make_pool(
        op,
        nd,
        x.shape,
        dtype,
        _arguments.data_format(data_format, nd),
        kernel,
        kernel if stride is None else _arguments.integers(stride, nd, "stride"),
        _arguments.padding(padding, nd),
        _arguments.integers(dilation, nd, "dilation"),
        _arguments.flag(ceil_mode, "ceil_mode"),
        **options,
    )
    _remember(key, problem)
    return problem


def _adaptive(
    op: str, nd: int, x: Array, dy: Array | None, output_size: OutputSize, data_format: str
) -> _core.PoolProblem:
    dtype = _backends.of(x).common_dtype({"dy": dy}, x=x)
    text = repr((output_size, data_format))
    key = (op, nd, x.shape, dtype, text)
    if (known := _problems.get(key)) is not None:
        return known
    layout = _arguments.data_format(data_format, nd)
    extents = x.shape[-1 - nd : -1] if layout == "channels_last" else x.shape[x.ndim - nd :]
    sizes: Sequence[SupportsIndex | None]
    if output_size is None or not _arguments.is_sequence(output_size):
        sizes = [output_size] * nd  # type: ignore[list-item]
    else:
        sizes = list(output_size)  # type: ignore[arg-type]
        if len(sizes) == 1:
            sizes *= nd
    if len(sizes) != nd:
        raise ValueError(f"output_size is {output_size!r}; it must have {nd} values")
    wanted = tuple(
        extent if size is None else _arguments.integer(size, "output_size")
        for size, extent in zip(sizes, extents, strict=False)
    )
    problem = _core.make_adaptive_pool(op, nd, x.shape, dtype, layout, wanted)
    _remember(key, problem)
    return problem


def _global(op: str, x: Array, dy: Array | None, data_format: str) -> _core.PoolProblem:
    dtype = _backends.of(x).common_dtype({"dy": dy}, x=x)
    key = (op, x.shape, dtype, repr(data_format))
    if (known := _problems.get(key)) is not None:
        return known
    nd = _arguments.format_rank(data_format)
    if nd is None:
        if not 2 <= x.ndim <= 5:
            raise ValueError(f"x has {x.ndim} axes; it must have 2 to 5")
        nd = max(1, x.ndim - 2)
    problem = _adaptive(op, nd, x, dy, 1, data_format)
    _remember(key, problem)
    return problem


def _forward(problem: _core.PoolProblem, x: Array, return_indices: bool = False) -> Any:
    both = _arguments.flag(return_indices, "return_indices")
    return _backends.of(x).pool(problem, x, None, both, _config.get_num_threads())


def _backward(
    problem: _core.PoolProblem,
    dy: Array,
    x: Array,
    return_indices: bool = False,
    indices: Array | None = None,
) -> Array:
    _arguments.flag(return_indices, "return_indices")
    dx: Array = _backends.of(x).pool_backward(problem, dy, x, indices, _config.get_num_threads())
    return dx


# ---- max -------------------------------------------------------------------------------------


def _max_pool(
    nd: int,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D max pooling: the greatest element of every window.

    Padding counts as -inf. A NaN in a window makes its result NaN, with the index of the last
    one; ties go to the first element in row-major window order, also between 0.0 and -0.0; a
    window with no element in bounds gives -inf and index 0.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        kernel_size: Extent of the window, one integer or one per axis.
        stride: Distance between windows; None takes kernel_size.
        padding: One integer, one per axis, one (before, after) pair per axis, "valid", "same" or
            "same_lower". Numbers are at most half the effective kernel.
        dilation: Distance between the elements of a window.
        ceil_mode: Also pool windows that only begin within the input or its leading padding.
        return_indices: Also return where each element was.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".

    Returns:
        The result in the data format of x; with return_indices the pair (result, indices) of
        one shape, where int64 indices count the pixels of the flattened spatial plane.

    Raises:
        TypeError: An argument of a wrong type or dtype.
        ValueError: Windows that do not fit; the message names the argument and the numbers.
        OverflowError, MemoryError: Extents beyond 64 bits, or more memory than there is.
    """
    problem = _sliding(
        "max", nd, x, None, kernel_size, stride, padding, dilation, ceil_mode, data_format
    )
    return _forward(problem, x, return_indices)


def _max_pool_backward(
    nd: int,
    dy: Array,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    indices: Array | None = None,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `max_pool{rank}d`: dy goes to the element that the forward chose.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input.
        kernel_size, stride, padding, dilation, ceil_mode, data_format: As in `max_pool{rank}d`.
        return_indices: Changes nothing here.
        indices: What the forward's return_indices gave; then the choice is not made anew, and
            only the shape of x counts.

    Returns:
        The gradient of x, of its shape; zero where no window chose an element.

    Raises:
        ValueError: Also for an index that is no element of its window.
    """
    problem = _sliding(
        "max", nd, x, dy, kernel_size, stride, padding, dilation, ceil_mode, data_format
    )
    return _backward(problem, dy, x, return_indices, indices)


# ---- average and sum -------------------------------------------------------------------------


def _average_problem(
    nd: int,
    x: Array,
    dy: Array | None,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    data_format: str,
) -> _core.PoolProblem:
    if divisor_override is not None:
        divisor_override = _arguments.integer(divisor_override, "divisor_override")
    return _sliding(
        "average",
        nd,
        x,
        dy,
        kernel_size,
        stride,
        padding,
        1,
        ceil_mode,
        data_format,
        count_include_pad=_arguments.flag(count_include_pad, "count_include_pad"),
        divisor_override=divisor_override,
    )


def _avg_pool(
    nd: int,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D average pooling: the sum of every window over a divisor.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        kernel_size, stride, padding, ceil_mode, data_format: As in `max_pool{rank}d`.
        count_include_pad: Divide by the window's size clipped to the padded input; otherwise by
            the number of its elements in bounds.
        divisor_override: Divide by this integer instead; any but 0.

    Returns:
        The result in the data format of x.
    """
    problem = _average_problem(
        nd,
        x,
        None,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        data_format,
    )
    y: Array = _forward(problem, x)
    return y


def _avg_pool_backward(
    nd: int,
    dy: Array,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `avg_pool{rank}d`.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input; its shape counts.
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, data_format:
            As in `avg_pool{rank}d`.

    Returns:
        The gradient of x, of its shape; zero where no window touched it.
    """
    problem = _average_problem(
        nd,
        x,
        dy,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        data_format,
    )
    return _backward(problem, dy, x)


def _sum_pool(
    nd: int,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D sum pooling: the sum of every window.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        kernel_size, stride, padding, ceil_mode, data_format: As in `max_pool{rank}d`.

    Returns:
        The result in the data format of x.
    """
    problem = _sliding("sum", nd, x, None, kernel_size, stride, padding, 1, ceil_mode, data_format)
    y: Array = _forward(problem, x)
    return y


def _sum_pool_backward(
    nd: int,
    dy: Array,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `sum_pool{rank}d`.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input; its shape counts.
        kernel_size, stride, padding, ceil_mode, data_format: As in `max_pool{rank}d`.

    Returns:
        The gradient of x, of its shape; zero where no window touched it.
    """
    problem = _sliding("sum", nd, x, dy, kernel_size, stride, padding, 1, ceil_mode, data_format)
    return _backward(problem, dy, x)


# ---- lp --------------------------------------------------------------------------------------


def _norm_type(value: float) -> float:
    norm_type = _arguments.real(value, "norm_type")
    if not norm_type > 0:
        raise ValueError(f"norm_type is {value!r}; it must be greater than 0")
    return norm_type


def _lp_pool(
    nd: int,
    x: Array,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D Lp pooling: (sum |x|^p)^(1/p) of every window, p = norm_type.

    The sum neither overflows nor underflows: it is scaled by the window's greatest |x|.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        norm_type: The exponent, greater than 0; infinity gives the greatest |x|.
        kernel_size, stride, padding, ceil_mode, data_format: As in `max_pool{rank}d`; padding
            adds nothing to the sum.

    Returns:
        The result in the data format of x.
    """
    problem = _sliding(
        "lp",
        nd,
        x,
        None,
        kernel_size,
        stride,
        padding,
        1,
        ceil_mode,
        data_format,
        norm_type=_norm_type(norm_type),
    )
    y: Array = _forward(problem, x)
    return y


def _lp_pool_backward(
    nd: int,
    dy: Array,
    x: Array,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `lp_pool{rank}d`: dy * sign(x) * (|x| / y)^(p - 1), and zero where x is zero.

    For p = inf, dy * sign(x) at the element that max pooling of |x| chooses.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input.
        norm_type, kernel_size, stride, ceil_mode, padding, data_format: As in `lp_pool{rank}d`.

    Returns:
        The gradient of x, of its shape; zero where no window touched it.
    """
    problem = _sliding(
        "lp",
        nd,
        x,
        dy,
        kernel_size,
        stride,
        padding,
        1,
        ceil_mode,
        data_format,
        norm_type=_norm_type(norm_type),
    )
    return _backward(problem, dy, x)


# ---- stochastic ------------------------------------------------------------------------------


def _draw(problem: _core.PoolProblem, x: Array, rng: Any, nd: int) -> tuple[Array, Array]:
    """Result and indices of a stochastic pooling with one uniform number per output."""
    if rng is not None and not isinstance(rng, np.random.Generator):
        rng = _arguments.integer(rng, "rng")
        if rng < 0:
            raise ValueError(f"rng is {rng}; a seed must be at least 0")
    uniforms = np.random.default_rng(rng).random(problem.y_shape(x.ndim == nd + 1))
    y, indices = _core.pool(problem, x, uniforms, True, _config.get_num_threads())
    return y, indices


def _stochastic_pool(
    nd: int,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    *,
    training: bool = True,
    rng: int | np.random.Generator | None = None,
    return_indices: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D stochastic pooling: an element of every window, drawn with odds of max(x, 0).

    Where no element of a window is positive, all have the same odds; padding is never drawn. A
    NaN in a window makes its result NaN, with the index of the last one. Each output takes one
    number u of `numpy.random.default_rng(rng).random(result.shape)` and the first element, in
    row-major window order, at which the cumulative weight exceeds u times the total.

    Source: Zeiler & Fergus, Stochastic pooling for regularization of deep convolutional neural
    networks, arXiv:1301.3557.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        kernel_size, stride, padding, data_format: As in `max_pool{rank}d`.
        training: Draw; otherwise return the mean weighted by the odds.
        rng: A seed, a generator (which advances), or None for unpredictable numbers.
        return_indices: Also return which elements were drawn.

    Returns:
        The result in the data format of x; with return_indices the pair (result, indices).
    """
    problem = _sliding(
        "stochastic", nd, x, None, kernel_size, stride, padding, 1, False, data_format
    )
    both = _arguments.flag(return_indices, "return_indices")
    if not _arguments.flag(training, "training"):
        if both:
            raise ValueError(
                "return_indices is True and training is False; the mean chooses no element"
            )
        return _forward(problem, x)
    y, indices = _draw(problem, x, rng, nd)
    return (y, indices) if both else y


def _stochastic_pool_backward(
    nd: int,
    dy: Array,
    x: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    *,
    training: bool = True,
    rng: int | np.random.Generator | None = None,
    indices: Array | None = None,
    return_indices: bool = False,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `stochastic_pool{rank}d`: dy goes to the elements that were drawn.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input.
        kernel_size, stride, padding, training, data_format: As in `stochastic_pool{rank}d`.
        rng: The forward's seed, or a generator in the state that it had then; read only where
            there are no indices.
        indices: What the forward returned with return_indices.
        return_indices: Changes nothing here.

    Returns:
        The gradient of x, of its shape; zero where no window touched it.
    """
    problem = _sliding("stochastic", nd, x, dy, kernel_size, stride, padding, 1, False, data_format)
    _arguments.flag(return_indices, "return_indices")
    if not _arguments.flag(training, "training"):
        return _backward(problem, dy, x)
    if indices is None:
        if rng is None:
            raise ValueError("indices and rng are None; training needs those of the forward")
        indices = _draw(problem, x, rng, nd)[1]
    return _core.pool_backward(problem, dy, x, indices, _config.get_num_threads())


# ---- adaptive and global ---------------------------------------------------------------------


def _adaptive_avg_pool(
    nd: int, x: Array, output_size: OutputSize, *, data_format: str = "channels_first"
) -> Array:
    """{rank}-D average pooling to a given extent.

    Of n inputs and m outputs, output i averages [floor(i * n / m), ceil((i + 1) * n / m)).

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        output_size: Spatial extents of the result, one integer or one per axis; None keeps one.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".

    Returns:
        The result in the data format of x.
    """
    y: Array = _forward(_adaptive("average", nd, x, None, output_size, data_format), x)
    return y


def _adaptive_avg_pool_backward(
    nd: int, dy: Array, x: Array, output_size: OutputSize, *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `adaptive_avg_pool{rank}d`.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input; its shape counts.
        output_size, data_format: As in `adaptive_avg_pool{rank}d`.

    Returns:
        The gradient of x, of its shape.
    """
    return _backward(_adaptive("average", nd, x, dy, output_size, data_format), dy, x)


def _adaptive_max_pool(
    nd: int,
    x: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """{rank}-D max pooling to a given extent, with the windows of `adaptive_avg_pool{rank}d`.

    Args:
        x: Input (batch, channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        output_size, data_format: As in `adaptive_avg_pool{rank}d`.
        return_indices: Also return where each element was, as `max_pool{rank}d` does.

    Returns:
        The result in the data format of x; with return_indices the pair (result, indices).
    """
    problem = _adaptive("max", nd, x, None, output_size, data_format)
    return _forward(problem, x, return_indices)


def _adaptive_max_pool_backward(
    nd: int,
    dy: Array,
    x: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    indices: Array | None = None,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `adaptive_max_pool{rank}d`.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input.
        output_size, data_format: As in `adaptive_avg_pool{rank}d`.
        return_indices: Changes nothing here.
        indices: What the forward's return_indices gave; then the choice is not made anew, and
            only the shape of x counts.

    Returns:
        The gradient of x, of its shape.

    Raises:
        ValueError: Also for an index that is no element of its window.
    """
    problem = _adaptive("max", nd, x, dy, output_size, data_format)
    return _backward(problem, dy, x, return_indices, indices)


def global_avg_pool(x: Array, *, data_format: str = "channels_first") -> Array:
    """Mean of every channel.

    Args:
        x: Input of rank 3 to 5: (batch, channels, *spatial), or with the channels last in
            channels_last. Rank 2 is one sample; one sample of another rank needs a data_format
            that tells the rank, such as "NCHW".
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".

    Returns:
        The result in the data format of x, every spatial extent 1.
    """
    y: Array = _forward(_global("average", x, None, data_format), x)
    return y


def global_avg_pool_backward(dy: Array, x: Array, *, data_format: str = "channels_first") -> Array:
    """Gradient of `global_avg_pool`.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input; its shape counts.
        data_format: As in `global_avg_pool`.

    Returns:
        The gradient of x, of its shape.
    """
    return _backward(_global("average", x, dy, data_format), dy, x)


def global_max_pool(x: Array, *, data_format: str = "channels_first") -> Array:
    """Greatest element of every channel; NaN as in `max_pool2d`.

    Args:
        x, data_format: As in `global_avg_pool`.

    Returns:
        The result in the data format of x, every spatial extent 1.
    """
    y: Array = _forward(_global("max", x, None, data_format), x)
    return y


def global_max_pool_backward(dy: Array, x: Array, *, data_format: str = "channels_first") -> Array:
    """Gradient of `global_max_pool`.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input.
        data_format: As in `global_avg_pool`.

    Returns:
        The gradient of x, of its shape.
    """
    return _backward(_global("max", x, dy, data_format), dy, x)


# ---- max unpooling ---------------------------------------------------------------------------


def _unpool_problem(
    nd: int,
    x: Array,
    dy: Array | None,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Padding,
    output_size: Ints | None,
    data_format: str,
) -> _core.UnpoolProblem:
    dtype = _core.common_dtype({"dy": dy}, x=x)
    layout = _arguments.data_format(data_format, nd)
    kernel = _arguments.integers(kernel_size, nd, "kernel_size")
    sizes: Any = output_size
    if _arguments.is_sequence(sizes) and len(sizes) == x.ndim:
        sizes = sizes[-1 - nd : -1] if layout == "channels_last" else sizes[-nd:]
    return _core.make_unpool(
        nd,
        x.shape,
        dtype,
        layout,
        kernel,
        kernel if stride is None else _arguments.integers(stride, nd, "stride"),
        _arguments.padding(padding, nd),
        None if sizes is None else _arguments.integers(sizes, nd, "output_size"),
    )


def _max_unpool(
    nd: int,
    x: Array,
    indices: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    output_size: Ints | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """{rank}-D max unpooling: zeros, with x written where its indices say.

    Of several equal indices in a channel the last one in row-major order wins.

    Args:
        x: Pooled elements (batch, channels, {spatial}), or with the channels last in
            channels_last; without the batch axis for one sample.
        indices: Of the shape of x, int64: pixels of the flattened plane of the result, as
            `max_pool{rank}d` returns them.
        kernel_size, stride, padding: Those of the pooling. They give the extents
            (n - 1) * stride + kernel_size - before - after, or n * stride with "same".
        output_size: Extents of the result, which may differ from those by less than the stride;
            one per axis, or a whole shape.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".

    Returns:
        The result in the data format of x.

    Raises:
        ValueError: Also for an index that lies outside the result's plane.
    """
    problem = _unpool_problem(nd, x, None, kernel_size, stride, padding, output_size, data_format)
    return _core.unpool(problem, x, indices, _config.get_num_threads())


def _max_unpool_backward(
    nd: int,
    dy: Array,
    x: Array,
    indices: Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Padding = 0,
    output_size: Ints | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `max_unpool{rank}d`: the elements of dy at the indices.

    Args:
        dy: Gradient of the result, of its shape.
        x: The forward's input; its shape counts.
        indices, kernel_size, stride, padding, output_size, data_format: As in
            `max_unpool{rank}d`.

    Returns:
        The gradient of x, of its shape.
    """
    problem = _unpool_problem(nd, x, dy, kernel_size, stride, padding, output_size, data_format)
    return _core.unpool_backward(problem, dy, x, indices, _config.get_num_threads())


# ---- public names ----------------------------------------------------------------------------

max_pool1d, max_pool2d, max_pool3d = for_ranks("max_pool{rank}d", _max_pool)
max_pool1d_backward, max_pool2d_backward, max_pool3d_backward = for_ranks(
    "max_pool{rank}d_backward", _max_pool_backward
)
avg_pool1d, avg_pool2d, avg_pool3d = for_ranks("avg_pool{rank}d", _avg_pool)
avg_pool1d_backward, avg_pool2d_backward, avg_pool3d_backward = for_ranks(
    "avg_pool{rank}d_backward", _avg_pool_backward
)
sum_pool1d, sum_pool2d, sum_pool3d = for_ranks("sum_pool{rank}d", _sum_pool)
sum_pool1d_backward, sum_pool2d_backward, sum_pool3d_backward = for_ranks(
    "sum_pool{rank}d_backward", _sum_pool_backward
)
lp_pool1d, lp_pool2d, lp_pool3d = for_ranks("lp_pool{rank}d", _lp_pool)
lp_pool1d_backward, lp_pool2d_backward, lp_pool3d_backward = for_ranks(
    "lp_pool{rank}d_backward", _lp_pool_backward
)
stochastic_pool1d, stochastic_pool2d, stochastic_pool3d = for_ranks(
    "stochastic_pool{rank}d", _stochastic_pool
)
stochastic_pool1d_backward, stochastic_pool2d_backward, stochastic_pool3d_backward = for_ranks(
    "stochastic_pool{rank}d_backward", _stochastic_pool_backward
)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = for_ranks(
    "adaptive_avg_pool{rank}d", _adaptive_avg_pool
)
adaptive_avg_pool1d_backward, adaptive_avg_pool2d_backward, adaptive_avg_pool3d_backward = (
    for_ranks("adaptive_avg_pool{rank}d_backward", _adaptive_avg_pool_backward)
)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = for_ranks(
    "adaptive_max_pool{rank}d", _adaptive_max_pool
)
adaptive_max_pool1d_backward, adaptive_max_pool2d_backward, adaptive_max_pool3d_backward = (
    for_ranks("adaptive_max_pool{rank}d_backward", _adaptive_max_pool_backward)
)
max_unpool1d, max_unpool2d, max_unpool3d = for_ranks("max_unpool{rank}d", _max_unpool)
max_unpool1d_backward, max_unpool2d_backward, max_unpool3d_backward = for_ranks(
    "max_unpool{rank}d_backward", _max_unpool_backward
)
