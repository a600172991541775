"""Activations and their derivatives, element by element.

Where a derivative does not exist, the conventions are those of the deep-learning libraries:
relu'(0) = relu6'(0) = relu6'(6) = 0, leaky_relu'(0) = slope, hardswish'(-3) = 0,
hardswish'(3) = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _arguments
from ._arguments import FloatArray
from ._windows import Array

Activation = str | tuple[str, float] | None

_LEAKY_SLOPE = 0.01


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # never overflows
    return np.asarray(np.where(x < 0, e, 1.0) / (1.0 + e))


def _d_sigmoid(x: Array) -> Array:
    return _sigmoid(x) * _sigmoid(-x)


def _d_hardswish(x: Array) -> Array:
    return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5))


# name: (f, df/dx)
_TABLE: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: np.where(x <= 0, 0.0, 1.0)),
    "relu6": (
        lambda x: np.clip(x, 0, 6),
        lambda x: np.where((x <= 0) | (x >= 6), 0.0, 1.0),
    ),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (_sigmoid, _d_sigmoid),
    "silu": (lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) + x * _d_sigmoid(x)),
    "hardswish": (lambda x: x * (np.clip(x + 3, 0, 6) / 6), _d_hardswish),
}
ACTIVATIONS = (*_TABLE, "leaky_relu")


def parse(activation: Any) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """(f, df/dx) of an `activation` argument that is not None."""
    name, slope = activation, _LEAKY_SLOPE
    if isinstance(activation, tuple):
        if len(activation) != 2 or activation[0] != "leaky_relu":
            raise ValueError(f"activation must be ('leaky_relu', slope), got {activation!r}")
        name, slope = activation[0], _arguments.real("activation slope", activation[1])
        if not math.isfinite(slope):
            raise ValueError(f"activation slope must be finite, got {slope}")
    _arguments.choice("activation", name, ACTIVATIONS)
    if name == "leaky_relu":
        return (
            lambda x: np.where(x > 0, x, slope * x),
            lambda x: np.where(x > 0, 1.0, slope),
        )
    return _TABLE[name]


@_arguments.silent
def activate(x: FloatArray, activation: Activation) -> Array:
    """f(x) of one of `ACTIVATIONS`, of ("leaky_relu", slope), or x itself for None. Any shape."""
    _arguments.check_arrays(x=x)
    x64 = np.array(x, dtype=np.float64, order="C")
    return x64 if activation is None else np.asarray(parse(activation)[0](x64))


@_arguments.silent
def activate_backward(dy: FloatArray, x: FloatArray, activation: Activation) -> Array:
    """dy * f'(x), where x is what the forward was given. dy has x's shape."""
    _arguments.check_arrays(dy=dy, x=x)
    if dy.shape != x.shape:
        raise ValueError(f"dy must have shape {x.shape}, got {dy.shape}")
    dy64 = np.array(dy, dtype=np.float64, order="C")
    if activation is None:
        return dy64
    return dy64 * parse(activation)[1](np.array(x, dtype=np.float64, order="C"))


@_arguments.silent
def activation(
    x: FloatArray, activation: Activation, *, residual: FloatArray | None = None
) -> Array:
    """f(x), or f(x + residual)."""
    _arguments.check_arrays(x=x, residual=residual)
    if residual is None:
        return activate(x, activation)
    if residual.shape != x.shape:
        raise ValueError(f"residual must have shape {x.shape}, got {residual.shape}")
    return activate(x.astype(np.float64) + residual, activation)


def _input_of(y: Array, activation: Any) -> Array:
    """Some x with f(x) = y and the same f'(x)."""
    name = activation[0] if isinstance(activation, tuple) else activation
    parse(activation)
    if name == "tanh":
        return np.arctanh(y)
    if name == "sigmoid":
        return np.log(y) - np.log1p(-y)
    slope = activation[1] if isinstance(activation, tuple) else _LEAKY_SLOPE
    if name in ("silu", "hardswish") or (name == "leaky_relu" and slope < 0):
        raise ValueError(f"y does not determine the derivative of {activation!r}; give x")
    return y  # the relu family: f' is the same at f(x) as at x


@_arguments.silent
def activation_backward(
    dy: FloatArray, x: FloatArray | None, activation: Activation, *, y: FloatArray | None = None
) -> Array:
    """dy * f'(x), and 0 wherever f' is; from y = f(x) if x is None."""
    if (x is None) == (y is None):
        raise ValueError("one of x and y must be given, and the other be None")
    if x is None:
        y64 = np.array(y, dtype=np.float64)
        x = y64 if activation is None else _input_of(y64, activation)
    _arguments.check_arrays(dy=dy)
    dy64 = dy.astype(np.float64)
    if dy.shape != x.shape:
        raise ValueError(f"dy must have shape {x.shape}, got {dy.shape}")
    if activation is None:
        return dy64
    slope = parse(activation)[1](x.astype(np.float64))
    return np.asarray(np.where(slope == 0, 0.0, dy64 * slope))
