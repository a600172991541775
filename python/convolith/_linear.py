"""The matrix product with what follows it in a network."""

from __future__ import annotations

from convolith import _arguments, _core
from convolith._arguments import Activation, Array


def matmul(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: Array | None = None,
    activation: Activation = None,
    out: Array | None = None,
) -> Array:
    """Matrix product: activation(a @ b + bias).

    Blocked after Goto & van de Geijn, "Anatomy of high-performance matrix multiplication" (ACM
    TOMS 34:3, 2008). The result's bits do not depend on the number of threads.

    Args:
        a: (..., m, k), or (..., k, m) with transpose_a. float32 or float64, any strides.
        b: (..., k, n), or (..., n, k) with transpose_b: a linear layer's weights (out, in) are
            its b. Leading axes broadcast as in NumPy.
        transpose_a, transpose_b: Swap the last two axes of that factor; nothing is copied.
        bias: (n,), added to every row; None for none.
        activation: None, a name as in `conv2d`, or ("leaky_relu", slope).
        out: An array of the result's shape and dtype to write, which overlaps no input.

    Returns:
        (..., m, n): `out`, or a new array. Sums over k = 0 are 0.

    Raises:
        TypeError: An argument of a wrong type or dtype.
        ValueError: Shapes that do not fit; the message has them.
    """
    name, slope = _arguments.activation(activation)
    return _core.matmul(
        a,
        b,
        _arguments.flag(transpose_a, "transpose_a"),
        _arguments.flag(transpose_b, "transpose_b"),
        bias,
        name,
        slope,
        out,
    )
