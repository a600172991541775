"""Activations as modules."""

from __future__ import annotations

from typing import Any

from convolith.autograd import Tensor
from convolith.autograd import functional as F
from convolith.nn._module import Module


class ReLU(Module):
    """max(x, 0), element by element."""

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6)."""

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.relu6(x)


class LeakyReLU(Module):
    """x where it is positive, else negative_slope * x.

    Args:
        negative_slope: The slope.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.leaky_relu(x, self.negative_slope)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.sigmoid(x)


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.silu(x)


class Hardswish(Module):
    """x * min(max(x + 3, 0), 6) / 6."""

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.hardswish(x)


class GELU(Module):
    """Gaussian error linear unit; see `functional.gelu`.

    Args:
        approximate: "none" or "tanh".
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """Element by element.

        Args:
            x: Any shape.
        """
        return F.gelu(x, self.approximate)


class Softmax(Module):
    """exp(x) / sum(exp(x)) along an axis.

    Args:
        axis: The axis.
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        """Probabilities.

        Args:
            x: Any shape.
        """
        return F.softmax(x, self.axis)
