"""The matrix product."""

from __future__ import annotations

import numpy as np

from . import _arguments
from ._activations import Activation, activate
from ._arguments import FloatArray
from ._windows import Array


@_arguments.silent
def matmul(
    a: FloatArray,
    b: FloatArray,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: FloatArray | None = None,
    activation: Activation = None,
) -> Array:
    """activation(a @ b + bias), where transposing swaps the last two axes of a factor."""
    _arguments.check_arrays(a=a, b=b, bias=bias)
    for name, factor in (("a", a), ("b", b)):
        if factor.ndim < 2:
            raise ValueError(f"{name} must have at least 2 axes, got shape {factor.shape}")
    left = np.swapaxes(a, -1, -2) if _arguments.flag("transpose_a", transpose_a) else a
    right = np.swapaxes(b, -1, -2) if _arguments.flag("transpose_b", transpose_b) else b
    y = left.astype(np.float64) @ right.astype(np.float64)
    if bias is not None:
        if bias.shape != y.shape[-1:]:
            raise ValueError(f"bias must have shape {y.shape[-1:]}, got {bias.shape}")
        y = y + bias.astype(np.float64)
    return activate(y, activation)
