"""Convolution and transposed convolution with their gradients, on NumPy arrays."""

from __future__ import annotations

from typing import Any

from convolith import _arguments, _autotune, _backends, _config, _core
from convolith._arguments import Activation, Array, Ints, Padding
from convolith._ranks import for_ranks


def problem_options(
    nd: int,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
    data_format: str,
    padding_mode: str,
    *,
    bias: bool = False,
    residual: bool = False,
    activation: Activation = None,
) -> dict[str, Any]:
    """Keyword arguments of the core's problem makers."""
    activation_name, slope = _arguments.activation(activation)
    return {
        "stride": _arguments.integers(stride, nd, "stride"),
        "padding": _arguments.padding(padding, nd),
        "dilation": _arguments.integers(dilation, nd, "dilation"),
        "groups": _arguments.integer(groups, "groups"),
        "data_format": _arguments.data_format(data_format, nd),
        "padding_mode": _arguments.choice(padding_mode, "padding_mode"),
        "bias": bias,
        "residual": residual,
        "activation": activation_name,
        "slope": slope,
    }


Call = tuple[Any, Any, Any, Any, Any, tuple[Any, ...]]
"""The first and second array, bias, residual and out of a call, and all that it says besides.

`_core.repeat` knows the plans of the last calls by what they said and the arrays' shapes and
dtypes; a call that it does not know is checked, planned and handed to `_run`.
"""


def _run(
    problem: _core.ConvProblem,
    algorithm: str,
    numerics: str | None,
    call: Call,
    names: tuple[str, str] | None = None,
) -> Array:
    name = _arguments.choice(algorithm, "algorithm")
    mode = _config.resolve_numerics(numerics)
    threads = _config.get_num_threads()
    backend = _backends.of(call[0])
    if name == "fastest" and backend is _core:
        name = _autotune.winner(_autotune.known_times(problem, mode, threads, prepacked=False))
    y: Array = backend.convolve(problem, name, mode, threads, call, names)
    return y


def rank_of_shape(shape: tuple[int, ...], name: str) -> int:
    nd = len(shape) - 2
    if nd not in (1, 2, 3):
        raise ValueError(f"{name} has {len(shape)} axes; it must have 3, 4 or 5")
    return nd


def _output_size(
    value: Ints | None, nd: int, channels_last: bool, name: str = "output_size"
) -> tuple[int, ...] | None:
    """One extent per spatial axis; a whole shape is cut down to them."""
    if value is None:
        return None
    if _arguments.is_sequence(value):
        extents = _arguments.shape(value, name)
        if len(extents) in (nd + 1, nd + 2):
            return extents[-nd - 1 : -1] if channels_last else extents[-nd:]
        if len(extents) not in (1, nd):
            raise ValueError(f"{name} is {extents}; it must have {nd} values")
    return _arguments.integers(value, nd, name)


def _conv(
    nd: int,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: Array | None = None,
    algorithm: str = "auto",
    numerics: str | None = None,
    out: Array | None = None,
) -> Array:
    """{rank}-D convolution: activation(conv(x, weight) + bias + residual).

    As in every deep-learning library this is cross-correlation, the kernel is not flipped:
    y[n, k, o] = sum over c, t of x[n, c, o * stride + t * dilation - before] * weight[k, c, t].

    Args:
        x: Input (batch, in_channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample. float32 or float64, any strides.
        weight: (out_channels, in_channels / groups, *kernel) in both data formats.
        bias: (out_channels,), added to every pixel.
        stride: Distance between windows, one integer or one per axis.
        padding: One integer, one per axis, one (before, after) pair per axis, "valid", "same" or
            "same_lower". "same" gives ceil(extent / stride) outputs, an odd pixel at the end.
        dilation: Distance between the taps of a kernel.
        groups: Output channels see only the input channels of their own group.
        data_format: "channels_first" or "channels_last", or an alias such as "NCHW" or "NHWC".
        padding_mode: What padding holds: "zeros", "reflect", "replicate" or "circular".
        activation: None, "relu", "relu6", "leaky_relu", "tanh", "sigmoid", "silu", "hardswish",
            or ("leaky_relu", slope); leaky_relu's slope is 0.01 otherwise.
        residual: Added before the activation; of the result's shape.
        algorithm: "auto", a name from `convolith.algorithms`, or "fastest": the first call measures
            them all, which takes part of a second; see `convolith.autotune`.
        numerics: "fast" or "strict"; None takes what `convolith.numerics` set, at first "fast".
        out: Where to write the result; may be a slice, must not overlap an input.

    Returns:
        (batch, out_channels, {spatial}) in the data format of x.

    Raises:
        TypeError: An argument of a wrong type or dtype.
        ValueError: Extents that do not fit together; the message names the argument.
        UnsupportedError: The algorithm cannot serve this problem; lists every one with its reason.
        OverflowError, MemoryError: Extents beyond 64 bits, or more memory than there is.
    """
    window = (nd, stride, padding, dilation, groups, data_format, padding_mode)
    call = (x, weight, bias, residual, out, ("conv", window, activation, algorithm, numerics))
    if (y := _core.repeat(call)) is not None:
        return y
    dtype = _backends.of(x).common_dtype({"bias": bias, "residual": residual}, x=x, weight=weight)
    options = problem_options(
        *window, bias=bias is not None, residual=residual is not None, activation=activation
    )
    problem = _core.make_convolution("forward", nd, x.shape, weight.shape, dtype, **options)
    return _run(problem, algorithm, numerics, call)


conv1d, conv2d, conv3d = for_ranks("conv{rank}d", _conv)


def conv_backward_input(
    dy: Array,
    weight: Array,
    input_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    residual: Array | None = None,
    algorithm: str = "auto",
    numerics: str | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of a convolution with respect to its input: the adjoint of x -> conv(x, weight).

    Args:
        dy: Gradient of the convolution's result, of its shape.
        weight: The convolution's weights; their rank tells the number of spatial axes.
        input_shape: Shape of the convolution's input, in its data format.
        stride, padding, dilation, groups, data_format, padding_mode: As in the convolution.
        residual: Added to the gradient; of shape input_shape. Where an input has several uses, the
            sum of their gradients takes no pass of its own.
        algorithm, numerics, out: As in `conv2d`.

    Returns:
        An array of shape input_shape.
    """
    window = (stride, padding, dilation, groups, data_format, padding_mode)
    said = ("backward_input", window, input_shape, algorithm, numerics)
    call = (dy, weight, None, residual, out, said)
    if (dx := _core.repeat(call)) is not None:
        return dx
    dtype = _backends.of(dy).common_dtype({"residual": residual}, dy=dy, weight=weight)
    nd = rank_of_shape(weight.shape, "weight")
    options = problem_options(nd, *window, residual=residual is not None)
    x_shape = _arguments.shape(input_shape, "input_shape")
    problem = _core.make_convolution("backward_input", nd, x_shape, weight.shape, dtype, **options)
    _require_same_rank(dy, "dy", x_shape, "input_shape")
    return _run(problem, algorithm, numerics, call)


def conv_backward_weight(
    dy: Array,
    x: Array,
    weight_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    bias_grad: bool = False,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    numerics: str | None = None,
    out: Array | None = None,
) -> Any:
    """Gradient of a convolution with respect to its weights.

    Args:
        dy: Gradient of the convolution's result, of its shape.
        x: The convolution's input.
        weight_shape: (out_channels, in_channels / groups, *kernel).
        stride, padding, dilation, groups, data_format, padding_mode: As in the convolution.
        bias_grad: Also return the gradient of the bias, dy summed over batch and space.
        algorithm, numerics, out: As in `conv2d`.

    Returns:
        An array of shape weight_shape, or with bias_grad the pair (dweight, dbias).
    """
    window = (stride, padding, dilation, groups, data_format, padding_mode)
    said = ("backward_weight", window, weight_shape, algorithm, numerics)
    call = (dy, x, None, None, out, said)
    with_bias = _arguments.flag(bias_grad, "bias_grad")
    if (dweight := _core.repeat(call)) is None:
        dtype = _backends.of(dy).common_dtype(dy=dy, x=x)
        w_shape = _arguments.shape(weight_shape, "weight_shape")
        nd = rank_of_shape(w_shape, "weight_shape")
        options = problem_options(nd, *window)
        problem = _core.make_convolution("backward_weight", nd, x.shape, w_shape, dtype, **options)
        _require_same_rank(dy, "dy", x.shape, "x")
        dweight = _run(problem, algorithm, numerics, call)
    return (dweight, _bias_gradient(dy, weight_shape, data_format)) if with_bias else dweight


def _require_same_rank(a: Array, a_name: str, shape: tuple[int, ...], name: str) -> None:
    """Both with a batch axis, or both without."""
    if a.ndim != len(shape):
        raise ValueError(f"{a_name} has {a.ndim} axes and {name} has {len(shape)}; they must agree")


def _bias_gradient(dy: Array, weight_shape: Ints, data_format: str) -> Array:
    """Of arguments that served for the gradient of the weights."""
    nd = len(_arguments.shape(weight_shape, "weight_shape")) - 2
    layout = _arguments.data_format(data_format, nd)
    sums: Array = _backends.of(dy).channel_sums(dy, nd, layout, "dy", _config.get_num_threads())
    return sums


def _conv_transpose(
    nd: int,
    x: Array,
    weight: Array,
    bias: Array | None = None,
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
    residual: Array | None = None,
    algorithm: str = "auto",
    numerics: str | None = None,
    out: Array | None = None,
) -> Array:
    """{rank}-D transposed convolution: the adjoint of a convolution, with an epilogue.

    An axis of n inputs gives (n - 1) * stride - before - after + dilation * (kernel - 1) +
    output_padding + 1 outputs (Dumoulin & Visin, arXiv:1603.07285, section 4).

    Args:
        x: Input (batch, in_channels, {spatial}), or with the channels last in channels_last;
            without the batch axis for one sample.
        weight: (in_channels, out_channels / groups, *kernel) in both data formats.
        bias: (out_channels,).
        stride, padding, dilation, groups: Those of the convolution that this is the adjoint of.
            padding "same" gives extent * stride outputs.
        output_padding: Further outputs at the end of each axis; smaller than stride or dilation.
        output_size: The wanted spatial extents, in place of output_padding.
        padding_mode: Where the cropped margins go: "zeros" drops them, the other modes add them
            to the pixels that the convolution would have read there.
        data_format, activation, residual, algorithm, numerics, out: As in `conv{rank}d`.

    Returns:
        (batch, out_channels, {spatial}) in the data format of x.
    """
    window = (nd, stride, padding, dilation, groups, data_format, padding_mode)
    sizes = (output_padding, output_size)
    said = ("transposed", window, sizes, activation, algorithm, numerics)
    call = (x, weight, bias, residual, out, said)
    if (y := _core.repeat(call)) is not None:
        return y
    dtype = _backends.of(x).common_dtype({"bias": bias, "residual": residual}, x=x, weight=weight)
    options = problem_options(
        *window, bias=bias is not None, residual=residual is not None, activation=activation
    )
    extra = transposed_sizes(*sizes, nd, options)
    problem = _core.make_transposed("forward", nd, x.shape, weight.shape, dtype, *extra, **options)
    return _run(problem, algorithm, numerics, call, ("x", "weight"))


conv_transpose1d, conv_transpose2d, conv_transpose3d = for_ranks(
    "conv_transpose{rank}d", _conv_transpose
)


def transposed_sizes(
    output_padding: Ints | None, output_size: Ints | None, nd: int, options: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """The checked output_padding and output_size, one of which may be given."""
    extra = _arguments.integers(
        0 if output_padding is None else output_padding, nd, "output_padding"
    )
    size = _output_size(output_size, nd, options["data_format"] == "channels_last")
    if size is not None and any(extra):
        raise ValueError(f"output_padding is {extra} and output_size is {size}; give one of them")
    return extra, size


def _transposed_gradient(
    direction: str,
    nd: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: str,
    dy: Array,
    output_padding: Ints | None,
    output_size: Ints | None,
    options: dict[str, Any],
) -> _core.ConvProblem:
    """The problem of a gradient; dy's extents tell the output's where the arguments do not."""
    _require_same_rank(dy, "dy", x_shape, "x" if direction == "backward_weight" else "input_shape")
    if output_padding is None and output_size is None:
        output_size = dy.shape
    sizes = transposed_sizes(output_padding, output_size, nd, options)
    return _core.make_transposed(direction, nd, x_shape, weight_shape, dtype, *sizes, **options)


def conv_transpose_backward_input(
    dy: Array,
    weight: Array,
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
    algorithm: str = "auto",
    numerics: str | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of a transposed convolution with respect to its input: a convolution of dy.

    Args:
        dy: Gradient of the transposed convolution's result, of its shape.
        weight: The transposed convolution's weights, (in_channels, out_channels / groups, *kernel).
        input_shape: Shape of the transposed convolution's input, in its data format.
        stride, padding, output_padding, groups, dilation, output_size, data_format, padding_mode:
            As in the transposed convolution; without both sizes, dy's shape tells them.
        algorithm, numerics, out: As in `conv2d`.

    Returns:
        An array of shape input_shape.
    """
    window = (stride, padding, dilation, groups, data_format, padding_mode)
    sizes = (output_padding, output_size)
    said = ("transposed_backward_input", window, sizes, input_shape, algorithm, numerics)
    call = (dy, weight, None, None, out, said)
    if (dx := _core.repeat(call)) is not None:
        return dx
    dtype = _backends.of(dy).common_dtype(dy=dy, weight=weight)
    nd = rank_of_shape(weight.shape, "weight")
    options = problem_options(nd, *window)
    x_shape = _arguments.shape(input_shape, "input_shape")
    problem = _transposed_gradient(
        "backward_input", nd, x_shape, weight.shape, dtype, dy, *sizes, options
    )
    return _run(problem, algorithm, numerics, call, ("dy", "weight"))


def conv_transpose_backward_weight(
    dy: Array,
    x: Array,
    weight_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints | None = None,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    bias_grad: bool = False,
    output_size: Ints | None = None,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    numerics: str | None = None,
    out: Array | None = None,
) -> Any:
    """Gradient of a transposed convolution with respect to its weights.

    Args:
        dy: Gradient of the transposed convolution's result, of its shape.
        x: The transposed convolution's input.
        weight_shape: (in_channels, out_channels / groups, *kernel).
        stride, padding, output_padding, groups, dilation, output_size, data_format, padding_mode:
            As in the transposed convolution; without both sizes, dy's shape tells them.
        bias_grad: Also return the gradient of the bias, dy summed over batch and space.
        algorithm, numerics, out: As in `conv2d`.

    Returns:
        An array of shape weight_shape, or with bias_grad the pair (dweight, dbias).
    """
    window = (stride, padding, dilation, groups, data_format, padding_mode)
    sizes = (output_padding, output_size)
    said = ("transposed_backward_weight", window, sizes, weight_shape, algorithm, numerics)
    # The adjoint swaps the roles: x is the convolution's result, dy its input.
    call = (x, dy, None, None, out, said)
    with_bias = _arguments.flag(bias_grad, "bias_grad")
    if (dweight := _core.repeat(call)) is None:
        dtype = _backends.of(dy).common_dtype(dy=dy, x=x)
        w_shape = _arguments.shape(weight_shape, "weight_shape")
        nd = rank_of_shape(w_shape, "weight_shape")
        options = problem_options(nd, *window)
        problem = _transposed_gradient(
            "backward_weight", nd, x.shape, w_shape, dtype, dy, *sizes, options
        )
        dweight = _run(problem, algorithm, numerics, call, ("x", "dy"))
    return (dweight, _bias_gradient(dy, weight_shape, data_format)) if with_bias else dweight
