"""Functions element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from convolith import _arguments
from convolith._arguments import Activation
from convolith.autograd import _table
from convolith.autograd._tensor import Tensor


def exp(x: Any) -> Tensor:
    """Exponential of x, element by element."""
    return _table.exp(x)


def log(x: Any) -> Tensor:
    """Natural logarithm of x, element by element."""
    return _table.log(x)


def sqrt(x: Any) -> Tensor:
    """Square root of x, element by element."""
    return _table.sqrt(x)


def abs(x: Any) -> Tensor:
    """Absolute value of x, element by element; the slope at 0 is 0."""
    return _table.absolute(x)


def erf(x: Any) -> Tensor:
    """Error function of x (Cody, Math. Comp. 23, 1969), element by element."""
    return _table.erf(x)


def maximum(a: Any, b: Any) -> Tensor:
    """The greater of a and b, element by element; where both are equal, each has half the slope."""
    return _table.maximum(a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The lesser of a and b, element by element; where both are equal, each has half the slope."""
    return _table.minimum(a, b)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Element by element a where condition holds, else b."""
    return _table.where(condition, a, b)


def clip(x: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """The elements of x, at least low and at most high; the slope is 1 from low to high."""
    return _table.clip(x, low, high)


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent of x, element by element."""
    return _table.from_result(x, "tanh")


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x)), element by element."""
    return _table.from_result(x, "sigmoid")


def relu(x: Any) -> Tensor:
    """max(x, 0), element by element; the slope at 0 is 0."""
    return _table.from_result(x, "relu")


def relu6(x: Any) -> Tensor:
    """min(max(x, 0), 6), element by element; the slope at 0 and 6 is 0."""
    return _table.from_result(x, "relu6")


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else negative_slope * x, element by element."""
    operation = _table.from_result if negative_slope >= 0 else _table.from_input
    return operation(x, ("leaky_relu", negative_slope))


def silu(x: Any) -> Tensor:
    """x * sigmoid(x), element by element (Elfwing et al., arXiv:1702.03118)."""
    return _table.from_input(x, "silu")


def hardswish(x: Any) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6, element by element (Howard et al., arXiv:1905.02244)."""
    return _table.from_input(x, "hardswish")


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit, element by element (Hendrycks & Gimpel, arXiv:1606.08415).

    Args:
        x: Any shape.
        approximate: "none" for x (1 + erf(x / sqrt(2))) / 2, or "tanh" for
            x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """
    if approximate == "none":
        return _table.multiply(0.5 * x, 1 + erf(x * math.sqrt(0.5)))
    if approximate != "tanh":
        raise ValueError(f"approximate is {approximate!r}; it must be 'none' or 'tanh'")
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return _table.multiply(0.5 * x, 1 + tanh(inner))


def dropout(
    x: Any, p: float = 0.5, training: bool = True, *, rng: np.random.Generator | None = None
) -> Tensor:
    """Elements of x set to zero at random, the others divided by 1 - p.

    Source: Srivastava et al., Dropout, JMLR 15 (2014).

    Args:
        x: Any shape.
        p: Probability of zero, at least 0 and less than 1.
        training: Without it, x is returned as it is.
        rng: Where the random numbers come from; None for unpredictable ones.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p is {p}; it must be at least 0 and less than 1")
    if not training or p == 0:
        return x if isinstance(x, Tensor) else Tensor(x)
    generator = np.random.default_rng() if rng is None else rng
    kept = generator.random(x.shape, np.float32) >= p
    return _table.multiply(x, kept * x.dtype.type(1 / (1 - p)))


_ACTIVATIONS: dict[str, Callable[[Any], Tensor]] = {
    "relu": relu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "silu": silu,
    "hardswish": hardswish,
}


def activate(x: Any, activation: Activation) -> Tensor:
    """An `activation` argument applied, as the kernels' epilogues do."""
    if activation is None:
        return x if isinstance(x, Tensor) else Tensor(x)
    name, slope = _arguments.activation(activation)
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation is {name!r}; it must be one of {', '.join(_ACTIVATIONS)}")
    return leaky_relu(x, slope) if name == "leaky_relu" else _ACTIVATIONS[name](x)
