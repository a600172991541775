"""Gradients checked against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convolith._arguments import Array
from convolith.autograd._engine import grad
from convolith.autograd._mode import recording
from convolith.autograd._tensor import Tensor

Function = Callable[..., Any]


def _as_tuple(results: Any) -> tuple[Tensor, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def gradcheck(
    function: Function,
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
) -> bool:
    """Compare a function's gradients with central differences, element by element.

    Args:
        function: Takes the inputs, returns a Tensor or several.
        inputs: float64 Tensors; those that require gradients are checked.
        eps: Step of the differences.
        atol, rtol: An error of atol + rtol * |difference| passes.

    Returns:
        True.

    Raises:
        AssertionError: A gradient is wrong; the message says which, and by how much.
        TypeError: An input that requires a gradient and is not float64.
    """
    xs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, x in enumerate(xs) if x.requires_grad]
    if not checked:
        raise ValueError("inputs: none requires a gradient")
    for i in checked:
        if xs[i].dtype != np.float64:
            raise TypeError(f"inputs[{i}] has dtype {xs[i].dtype}; differences need float64")
    results = _as_tuple(function(*xs))
    for j, y in enumerate(results):
        if not y.requires_grad:
            continue
        numeric = [_differences(function, xs, i, j, y.shape, eps) for i in checked]
        analytic = [np.zeros((y.size, xs[i].size)) for i in checked]
        for row in range(y.size):
            seed = np.zeros(y.size)
            seed[row] = 1
            found = grad(
                y,
                [xs[i] for i in checked],
                seed.reshape(y.shape),
                retain_graph=True,
                allow_unused=True,
            )
            for matrix, g in zip(analytic, found, strict=True):
                if g is not None:
                    matrix[row] = g.data.ravel()
        for i, a, n in zip(checked, analytic, numeric, strict=True):
            wrong = ~(np.abs(a - n) <= atol + rtol * np.abs(n))
            if wrong.any():
                row, column = (int(index) for index in np.argwhere(wrong)[0])
                raise AssertionError(
                    f"the gradient of result {j}, element {row}, with respect to inputs[{i}], "
                    f"element {column}, is {a[row, column]:.9g}; differences give "
                    f"{n[row, column]:.9g} ({wrong.sum()} of {wrong.size} elements are wrong)"
                )
    return True


def _differences(
    function: Function, xs: list[Tensor], i: int, j: int, shape: tuple[int, ...], eps: float
) -> Array:
    """Central differences of result j, one column for each element of input i."""
    base = xs[i].data
    columns = []
    with recording(False):
        for position in np.ndindex(*base.shape):
            ends = []
            for step in (eps, -eps):
                moved = base.copy()
                moved[position] += step
                arguments = [Tensor(moved) if n == i else x for n, x in enumerate(xs)]
                ends.append(_as_tuple(function(*arguments))[j].data.astype(np.float64))
            columns.append(((ends[0] - ends[1]) / (2 * eps)).ravel())
    size = int(np.prod(shape))
    return np.stack(columns, 1) if columns else np.zeros((size, 0))


def gradgradcheck(
    function: Function,
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
) -> bool:
    """Compare the gradients of a function's gradients with central differences.

    Args:
        function, inputs, eps, atol, rtol: As in `gradcheck`.
        seed: Of the random gradients of the results.

    Returns:
        True.

    Raises:
        AssertionError, TypeError: As in `gradcheck`.
    """
    xs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    rng = np.random.default_rng(seed)
    results = _as_tuple(function(*xs))
    seeds = [
        Tensor(rng.standard_normal(y.shape), requires_grad=True) for y in results if y.requires_grad
    ]

    def gradients(*arguments: Tensor) -> tuple[Tensor, ...]:
        points = [
            Tensor(a.data, requires_grad=True) if x.requires_grad and not a.requires_grad else a
            for a, x in zip(arguments[: len(xs)], xs, strict=True)
        ]
        with recording(True):
            ys = [y for y in _as_tuple(function(*points)) if y.requires_grad]
            wanted = [p for p, x in zip(points, xs, strict=True) if x.requires_grad]
            found = grad(ys, wanted, arguments[len(xs) :], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(gradients, [*xs, *seeds], eps=eps, atol=atol, rtol=rtol)
