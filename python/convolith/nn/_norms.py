"""Normalization as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convolith import _arguments, _config
from convolith._arguments import Activation, Array
from convolith._plans import ConvPlan, plan_conv
from convolith.autograd import Tensor, is_recording
from convolith.autograd import functional as F
from convolith.nn import init
from convolith.nn._layers import _Conv, zeros
from convolith.nn._module import Buffer, Module, Parameter


def _ones(*shape: int) -> Parameter:
    return init.ones_(zeros(*shape))  # type: ignore[return-value]


class _Folded:
    """A convolution with the norm behind it, packed for the last input's shape."""

    def __init__(self, state: list[tuple[Array, int]], weight: Array, bias: Array) -> None:
        self.state = state
        self.weight = weight
        self.bias = bias
        self.planned: Any = None
        self.plan: ConvPlan | None = None

    def is_of(self, state: list[tuple[Array, int]]) -> bool:
        """Whether it came from these arrays in these versions."""
        return len(state) == len(self.state) and all(
            a is b and m == n for (a, m), (b, n) in zip(state, self.state, strict=True)
        )

    def __call__(self, x: Array, residual: Array | None, window: dict[str, Any]) -> Array:
        """The norm of the convolution."""
        mode, threads = _config.resolve_numerics(None), _config.get_num_threads()
        planned = (x.shape, residual is None, window, mode, threads)
        if self.plan is None or planned != self.planned:
            self.plan = plan_conv(
                x.shape, self.weight, self.bias, residual=residual is not None, **window
            )
            self.planned = planned
        return self.plan(x, residual=residual)


class _BatchNorm(Module):
    rank: int
    folds = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        activation: Activation = None,
        data_format: str = "channels_first",
    ) -> None:
        self.weight = _ones(num_features) if affine else None
        self.bias = zeros(num_features) if affine else None
        self.running_mean = self.running_var = None
        if track_running_stats:
            self.running_mean = Buffer(np.zeros(num_features, np.float32))
            self.running_var = Buffer(np.ones(num_features, np.float32))
            self.num_batches_tracked = Buffer(np.zeros((), np.int64))
        self.eps = eps
        self.momentum = momentum
        self.activation = activation
        self.data_format = _arguments.data_format(data_format, self.rank)
        self.num_features = num_features
        self.folded: _Folded | None = None

    def forward(self, x: Any, residual: Any = None) -> Tensor:
        """The normalized maps.

        Args:
            x: (batch, channels, *spatial), or with the channels last in channels_last.
            residual: Added before the activation; of the shape of x.
        """
        if self.training and self.running_mean is not None:
            self.num_batches_tracked.data += 1
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
            activation=self.activation,
            residual=residual,
            data_format=self.data_format,
        )

    def after(self, layer: Module, x: Any, residual: Any = None) -> Tensor:
        """self(layer(x), residual): where nothing is learned, one convolution.

        Out of training and without a record, scale and shift are folded into the weights and the
        bias of the convolution, and those are packed for its kernels. They are kept until a Tensor
        that they come from is replaced, or changed in place through the Tensor.

        Args:
            layer: The module before this one.
            x: Its input.
            residual: Added before the activation; of the result's shape.
        """
        if (
            self.training
            or is_recording()
            or self.running_mean is None
            or not isinstance(layer, _Conv)
            or layer.transposed
            or layer.activation is not None
        ):
            return self.forward(layer.forward(x), residual)
        own = (self.weight, self.bias, self.running_mean, self.running_var)
        state = [(t.data, t.version[0]) for t in (layer.weight, layer.bias, *own) if t is not None]
        if self.folded is None or not self.folded.is_of(state):
            self.folded = _Folded(state, *self._folded_into(layer))
        window = {**layer.window, "activation": self.activation}
        pixels, beside = (v.data if isinstance(v, Tensor) else v for v in (x, residual))
        return Tensor(self.folded(pixels, beside, window))

    def _folded_into(self, conv: _Conv) -> tuple[Array, Array]:
        """Weights and bias of the one convolution."""
        assert self.running_mean is not None
        assert self.running_var is not None
        variance = self.running_var.data
        scale = 1 / np.sqrt(variance + variance.dtype.type(self.eps))
        scale = scale if self.weight is None else scale * self.weight.data
        shift = -self.running_mean.data * scale
        shift = shift if conv.bias is None else shift + conv.bias.data * scale
        shift = shift if self.bias is None else shift + self.bias.data
        return conv.weight.data * scale.reshape(-1, *[1] * self.rank, 1), shift

    def extra_repr(self) -> str:
        """Channels and activation."""
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        return text if self.activation is None else f"{text}, activation={self.activation!r}"


class BatchNorm1d(_BatchNorm):
    """Batch norm of (batch, channels, length) or (batch, channels); see `functional.batch_norm`.

    Args:
        num_features: Channels.
        eps: Added to the variance.
        momentum: The share of a batch in the running statistics.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether there are running statistics, for use outside of training.
        activation: Applied to the result.
        data_format: Of the maps.
    """

    rank = 1


class BatchNorm2d(_BatchNorm):
    """Batch norm of (batch, channels, height, width); see `functional.batch_norm`.

    Args:
        num_features: Channels.
        eps: Added to the variance.
        momentum: The share of a batch in the running statistics.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether there are running statistics, for use outside of training.
        activation: Applied to the result.
        data_format: Of the maps.
    """

    rank = 2


class BatchNorm3d(_BatchNorm):
    """Batch norm of (batch, channels, depth, height, width); see `functional.batch_norm`.

    Args:
        num_features: Channels.
        eps: Added to the variance.
        momentum: The share of a batch in the running statistics.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether there are running statistics, for use outside of training.
        activation: Applied to the result.
        data_format: Of the maps.
    """

    rank = 3


class GroupNorm(Module):
    """Group norm; see `functional.group_norm`.

    Args:
        num_groups: How many groups the channels make.
        num_channels: Channels.
        eps: Added to the variance.
        affine: Whether there are a weight and a bias.
        data_format: Of the maps.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        data_format: str = "channels_first",
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"num_groups is {num_groups}; it must divide num_channels, {num_channels}"
            )
        self.weight = _ones(num_channels) if affine else None
        self.bias = zeros(num_channels) if affine else None
        self.num_groups = num_groups
        self.eps = eps
        self.data_format = data_format

    def forward(self, x: Any) -> Tensor:
        """The normalized maps.

        Args:
            x: (batch, channels, *spatial), or with the channels last in channels_last.
        """
        return F.group_norm(
            x, self.num_groups, self.weight, self.bias, self.eps, data_format=self.data_format
        )


class _InstanceNorm(Module):
    rank: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        *,
        data_format: str = "channels_first",
    ) -> None:
        self.weight = _ones(num_features) if affine else None
        self.bias = zeros(num_features) if affine else None
        self.eps = eps
        self.data_format = _arguments.data_format(data_format, self.rank)

    def forward(self, x: Any) -> Tensor:
        """The normalized maps.

        Args:
            x: (batch, channels, *spatial), or with the channels last in channels_last.
        """
        return F.instance_norm(x, self.weight, self.bias, self.eps, data_format=self.data_format)


class InstanceNorm1d(_InstanceNorm):
    """Instance norm of (batch, channels, length); see `functional.instance_norm`.

    Args:
        num_features: Channels.
        eps: Added to the variance.
        affine: Whether there are a weight and a bias.
        data_format: Of the maps.
    """

    rank = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance norm of (batch, channels, height, width); see `functional.instance_norm`.

    Args:
        num_features: Channels.
        eps: Added to the variance.
        affine: Whether there are a weight and a bias.
        data_format: Of the maps.
    """

    rank = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance norm of (batch, channels, depth, height, width); see `functional.instance_norm`.

    Args:
        num_features: Channels.
        eps: Added to the variance.
        affine: Whether there are a weight and a bias.
        data_format: Of the maps.
    """

    rank = 3


class LayerNorm(Module):
    """Layer norm; see `functional.layer_norm`.

    Args:
        normalized_shape: Extents of the last axes.
        eps: Added to the variance.
        affine: Whether there are a weight and a bias.
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, affine: bool = True
    ) -> None:
        single = isinstance(normalized_shape, int)
        shape = (normalized_shape,) if single else tuple(normalized_shape)  # type: ignore[arg-type]
        self.normalized_shape: tuple[int, ...] = shape  # type: ignore[assignment]
        self.weight = _ones(*self.normalized_shape) if affine else None
        self.bias = zeros(*self.normalized_shape) if affine else None
        self.eps = eps

    def forward(self, x: Any) -> Tensor:
        """The normalized elements.

        Args:
            x: Any shape that ends with normalized_shape.
        """
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class LocalResponseNorm(Module):
    """Neighbouring channels inhibit each other; see `functional.local_response_norm`.

    Args:
        size: How many channels are neighbours.
        alpha, beta, k: As there.
        data_format: Of the maps.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        data_format: str = "channels_first",
    ) -> None:
        self.arguments = (size, alpha, beta, k)
        self.data_format = data_format

    def forward(self, x: Any) -> Tensor:
        """The normalized maps.

        Args:
            x: (batch, channels, *spatial), or with the channels last in channels_last.
        """
        return F.local_response_norm(x, *self.arguments, data_format=self.data_format)
