"""Layers without state, and those of one weight: linear and convolutional."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convolith import _arguments
from convolith._arguments import Activation, Ints, Padding
from convolith.autograd import Tensor, _table
from convolith.autograd import functional as F
from convolith.autograd.functional._convolution import in_epilogue
from convolith.autograd.functional._elementwise import activate
from convolith.nn import init
from convolith.nn._module import Module, Parameter


def zeros(*shape: int) -> Parameter:
    """A parameter of zeros."""
    return Parameter(np.zeros(shape, np.float32))


def _default(weight: Parameter, bias: Parameter | None) -> None:
    """Even numbers up to 1 / sqrt(inputs of an output), as torch has them."""
    bound = 1 / math.sqrt(max(1, init.fans(weight)[0]))
    init.uniform_(weight, -bound, bound)
    if bias is not None:
        init.uniform_(bias, -bound, bound)


class Identity(Module):
    """Nothing: a place in a sequence, such as that of an activation that its neighbour applies."""

    def forward(self, x: Any) -> Any:
        """The input.

        Args:
            x: Anything.
        """
        return x


class Linear(Module):
    """activation(x @ weight.T + bias).

    Args:
        in_features, out_features: Extents of the last axis before and after.
        bias: Whether there is one.
        activation: None, "relu", ..., as in `convolith.conv2d`; applied by the kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: Activation = None,
    ) -> None:
        self.weight = zeros(out_features, in_features)
        self.bias = zeros(out_features) if bias else None
        self.activation = activation
        _default(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        """The product.

        Args:
            x: (..., in_features).
        """
        return F.linear(x, self.weight, self.bias, activation=self.activation)

    def extra_repr(self) -> str:
        """The extents."""
        out_features, in_features = self.weight.shape
        text = f"{in_features}, {out_features}, bias={self.bias is not None}"
        return text if self.activation is None else f"{text}, activation={self.activation!r}"


class _Conv(Module):
    """What convolutions of all ranks have in common."""

    rank: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        bias: bool,
        activation: Activation,
        window: dict[str, Any],
    ) -> None:
        groups = _arguments.integer(window["groups"], "groups")
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if groups < 1 or channels < 1 or channels % groups:
                raise ValueError(f"{name} is {channels} and groups {groups}; it must divide")
        kernel = _arguments.integers(kernel_size, self.rank, "kernel_size")
        first, second = out_channels, in_channels // groups
        if self.transposed:
            first, second = in_channels, out_channels // groups
        self.weight = zeros(first, second, *kernel)
        self.bias = zeros(out_channels) if bias else None
        self.activation = activation
        self.window = window
        _default(self.weight, self.bias)

    def forward(self, x: Any, residual: Any = None) -> Tensor:
        """The convolution.

        Args:
            x: (batch, in_channels, *spatial), or with the channels last in channels_last.
            residual: Added before the activation; of the result's shape.
        """
        weight, bias, activation = self.weight, self.bias, self.activation
        operation = _table.conv_transpose if self.transposed else _table.conv
        if activation is None or in_epilogue(activation, x, weight, bias, residual):
            return operation(x, weight, bias, residual, self.window, activation)
        return activate(operation(x, weight, bias, residual, self.window, None), activation)

    def extra_repr(self) -> str:
        """Channels, kernel, and what is not the default of the window."""
        shape, groups = self.weight.shape, self.window["groups"]
        inside, outside = shape[1] * groups, shape[0]
        if self.transposed:
            inside, outside = shape[0], shape[1] * groups
        words = [str(inside), str(outside), f"kernel_size={shape[2:]}"]
        defaults = {
            "stride": 1,
            "padding": 0,
            "output_padding": 0,
            "dilation": 1,
            "groups": 1,
            "padding_mode": "zeros",
            "data_format": "channels_first",
        }
        words += [f"{k}={v!r}" for k, v in self.window.items() if v != defaults[k]]
        words += ["bias=False"] if self.bias is None else []
        words += [] if self.activation is None else [f"activation={self.activation!r}"]
        return ", ".join(words)


class _ConvForward(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        activation: Activation = None,
        data_format: str = "channels_first",
    ) -> None:
        window = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "padding_mode": padding_mode,
            "data_format": _arguments.data_format(data_format, self.rank),
        }
        super().__init__(in_channels, out_channels, kernel_size, bias, activation, window)


class Conv1d(_ConvForward):
    """1-D convolution; see `convolith.conv1d`.

    Args:
        in_channels, out_channels: Channels before and after.
        kernel_size, stride, padding, dilation, groups, padding_mode, data_format: The window.
        bias: Whether there is one.
        activation: Applied by the kernel where a gradient does not need what went into it.
    """

    rank = 1


class Conv2d(_ConvForward):
    """2-D convolution; see `convolith.conv2d`.

    Args:
        in_channels, out_channels: Channels before and after.
        kernel_size, stride, padding, dilation, groups, padding_mode, data_format: The window.
        bias: Whether there is one.
        activation: Applied by the kernel where a gradient does not need what went into it.
    """

    rank = 2


class Conv3d(_ConvForward):
    """3-D convolution; see `convolith.conv3d`.

    Args:
        in_channels, out_channels: Channels before and after.
        kernel_size, stride, padding, dilation, groups, padding_mode, data_format: The window.
        bias: Whether there is one.
        activation: Applied by the kernel where a gradient does not need what went into it.
    """

    rank = 3


class _ConvTransposed(_Conv):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        *,
        activation: Activation = None,
        data_format: str = "channels_first",
    ) -> None:
        window = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "groups": groups,
            "dilation": dilation,
            "padding_mode": padding_mode,
            "data_format": _arguments.data_format(data_format, self.rank),
        }
        super().__init__(in_channels, out_channels, kernel_size, bias, activation, window)


class ConvTranspose1d(_ConvTransposed):
    """1-D transposed convolution; see `convolith.conv_transpose1d`.

    Args:
        in_channels, out_channels: Channels before and after.
        kernel_size, stride, padding, output_padding, groups, dilation, padding_mode, data_format:
            The window.
        bias: Whether there is one.
        activation: Applied by the kernel where a gradient does not need what went into it.
    """

    rank = 1


class ConvTranspose2d(_ConvTransposed):
    """2-D transposed convolution; see `convolith.conv_transpose2d`.

    Args:
        in_channels, out_channels: Channels before and after.
        kernel_size, stride, padding, output_padding, groups, dilation, padding_mode, data_format:
            The window.
        bias: Whether there is one.
        activation: Applied by the kernel where a gradient does not need what went into it.
    """

    rank = 2


class ConvTranspose3d(_ConvTransposed):
    """3-D transposed convolution; see `convolith.conv_transpose3d`.

    Args:
        in_channels, out_channels: Channels before and after.
        kernel_size, stride, padding, output_padding, groups, dilation, padding_mode, data_format:
            The window.
        bias: Whether there is one.
        activation: Applied by the kernel where a gradient does not need what went into it.
    """

    rank = 3


class Flatten(Module):
    """All axes but the batch's become one, in the order of channels_first.

    The order makes the weights behind it the same for both data formats.

    Args:
        data_format: That of the maps before it.
    """

    def __init__(self, data_format: str = "channels_first") -> None:
        self.channels_last = data_format in ("channels_last", "NLC", "NHWC", "NDHWC")

    def forward(self, x: Any) -> Tensor:
        """(batch, features).

        Args:
            x: (batch, ...).
        """
        if self.channels_last and x.ndim > 2 and math.prod(x.shape[1:-1]) > 1:
            x = F.transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))
        return F.flatten(x)


class Dropout(Module):
    """Zeros at random in training; see `functional.dropout`.

    Args:
        p: Probability of zero.
        rng: Where the random numbers come from; None for the generator of `init.manual_seed`.
    """

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | None = None) -> None:
        self.p = p
        self.rng = rng

    def forward(self, x: Any) -> Tensor:
        """The input, or in training some of it.

        Args:
            x: Any shape.
        """
        return F.dropout(x, self.p, self.training, rng=self.rng or init.default_rng())

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class Upsample(Module):
    """Maps resampled; see `functional.upsample`.

    Args:
        size: Extents of the result, or else
        scale_factor: how much greater they are.
        mode: "nearest", or "linear", "bilinear", "trilinear".
        align_corners: The first and last elements of input and output stand at one place.
        data_format: Of the maps.
    """

    def __init__(
        self,
        size: Ints | None = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool = False,
        *,
        data_format: str = "channels_first",
    ) -> None:
        self.arguments = (size, scale_factor, mode, align_corners)
        self.data_format = data_format

    def forward(self, x: Any) -> Tensor:
        """The resampled maps.

        Args:
            x: (batch, channels, *spatial), or with the channels last in channels_last.
        """
        return F.upsample(x, *self.arguments, data_format=self.data_format)
