"""Pooling as modules: `MaxPool2d(2)` is what calls `functional.max_pool2d(x, 2)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convolith.autograd import functional as F
from convolith.nn import init
from convolith.nn._module import Module


class _Pool(Module):
    """A pooling function with its arguments."""

    function: Callable[..., Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.options = options

    def forward(self, x: Any) -> Any:
        """The pooled maps.

        Args:
            x: (batch, channels, *spatial), or with the channels last in channels_last.
        """
        return type(self).function(x, *self.arguments, **self.options)

    def extra_repr(self) -> str:
        """The arguments."""
        named = [f"{name}={value!r}" for name, value in self.options.items()]
        return ", ".join([*map(repr, self.arguments), *named])


def _pool(name: str, function: Callable[..., Any]) -> type[_Pool]:
    """The module of a pooling function, which takes the function's arguments after x."""
    doc = f"Pooling; takes the arguments of `functional.{function.__name__}` after x."
    return type(name, (_Pool,), {"function": staticmethod(function), "__doc__": doc})


MaxPool1d, MaxPool2d, MaxPool3d = (
    _pool(f"MaxPool{i + 1}d", f) for i, f in enumerate((F.max_pool1d, F.max_pool2d, F.max_pool3d))
)
AvgPool1d, AvgPool2d, AvgPool3d = (
    _pool(f"AvgPool{i + 1}d", f) for i, f in enumerate((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d))
)
SumPool1d, SumPool2d, SumPool3d = (
    _pool(f"SumPool{i + 1}d", f) for i, f in enumerate((F.sum_pool1d, F.sum_pool2d, F.sum_pool3d))
)
LPPool1d, LPPool2d, LPPool3d = (
    _pool(f"LPPool{i + 1}d", f) for i, f in enumerate((F.lp_pool1d, F.lp_pool2d, F.lp_pool3d))
)
AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = (
    _pool(f"AdaptiveAvgPool{i + 1}d", f)
    for i, f in enumerate((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d))
)
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = (
    _pool(f"AdaptiveMaxPool{i + 1}d", f)
    for i, f in enumerate((F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d))
)
GlobalAvgPool = _pool("GlobalAvgPool", F.global_avg_pool)
GlobalMaxPool = _pool("GlobalMaxPool", F.global_max_pool)


class _StochasticPool(_Pool):
    def forward(self, x: Any) -> Any:
        """The pooled maps: drawn in training, else their mean.

        Args:
            x: (batch, channels, *spatial), or with the channels last in channels_last.
        """
        return type(self).function(
            x,
            *self.arguments,
            training=self.training,
            **({"rng": init.default_rng()} | self.options),
        )


def _stochastic(rank: int, function: Callable[..., Any]) -> type[_StochasticPool]:
    doc = f"Stochastic pooling; takes the arguments of `functional.{function.__name__}` after x."
    body = {"function": staticmethod(function), "__doc__": doc}
    return type(f"StochasticPool{rank}d", (_StochasticPool,), body)


StochasticPool1d, StochasticPool2d, StochasticPool3d = (
    _stochastic(i + 1, f)
    for i, f in enumerate((F.stochastic_pool1d, F.stochastic_pool2d, F.stochastic_pool3d))
)
