"""Activations and their gradients, element by element."""

from __future__ import annotations

from convolith import _arguments, _core
from convolith._arguments import Activation, Array


def activation(
    x: Array,
    activation: Activation,
    *,
    residual: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Activation of every element: f(x), or f(x + residual).

    Args:
        x: Any shape and strides, float32 or float64.
        activation: "relu", "relu6", "leaky_relu", "tanh", "sigmoid", "silu" or "hardswish",
            ("leaky_relu", slope) for a slope other than 0.01, or None for x itself.
        residual: Added first; of the shape of x.
        out: An array of x's shape and dtype to write. It may be x or residual itself, but must
            not overlap them otherwise.

    Returns:
        `out`, or a new array of x's shape. NaN stays NaN.

    Raises:
        TypeError: An argument of a wrong type or dtype.
        ValueError: An activation that does not exist, or shapes that differ.
    """
    name, slope = _arguments.activation(activation)
    return _core.activation(x, name, slope, residual, out)


def activation_backward(
    dy: Array,
    x: Array | None,
    activation: Activation,
    *,
    y: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of `activation`: dy times f'.

    Where a derivative does not exist, it is that of torch: relu'(0) = relu6'(0) = relu6'(6) = 0,
    leaky_relu'(0) = slope, hardswish'(-3) = 0, hardswish'(3) = 1. Where the derivative of the relu
    family or of hardswish is 0 the gradient is 0, even for a dy of NaN or infinity.

    Args:
        dy: Gradient of the result.
        x: What the forward was given (with its residual added), of dy's shape; or None with y.
        activation: As in `activation`.
        y: What the forward returned, instead of x: for relu, relu6, leaky_relu with a slope of at
            least 0, tanh and sigmoid, so that x need not be kept.
        out: As in `activation`; it may be dy, x or y itself.

    Returns:
        The gradient of x, and of the residual, of dy's shape.

    Raises:
        ValueError: Also if both or none of x and y are given, or y cannot serve the activation.
    """
    name, slope = _arguments.activation(activation)
    return _core.activation_backward(dy, x, y, name, slope, out)
