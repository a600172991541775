"""Sums and extremes over axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convolith.autograd import _table
from convolith.autograd._tensor import Axes, Tensor


def axes_of(axis: Axes, ndim: int) -> tuple[int, ...]:
    """The axes that an `axis` argument names, none of them negative."""
    if axis is None:
        return tuple(range(ndim))
    given = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    for a in given:
        if not -ndim <= a < ndim:
            raise ValueError(f"axis is {axis}; the Tensor has {ndim} axes")
    found = tuple(int(a) % ndim for a in given)
    if len(set(found)) != len(found):
        raise ValueError(f"axis is {axis}; an axis is named twice")
    return found


def _count(x: Any, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over axes.

    Args:
        x: Any shape.
        axis: One axis, several, or None for all.
        keepdims: Keep the axes with extent 1.
    """
    return _table.total(x, axes_of(axis, x.ndim), keepdims)


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over axes.

    Args:
        x, axis, keepdims: As in `sum`.
    """
    axes = axes_of(axis, x.ndim)
    return _table.divide(_table.total(x, axes, keepdims), _count(x, axes))


def var(x: Any, axis: Axes = None, keepdims: bool = False, correction: int = 0) -> Tensor:
    """Variance over axes: squared distances from the mean, summed, over count - correction.

    Args:
        x, axis, keepdims: As in `sum`.
        correction: 0 for the variance of the elements, 1 for the unbiased estimate.
    """
    axes = axes_of(axis, x.ndim)
    centred = x - mean(x, axes, True)
    squares = _table.total(centred * centred, axes, keepdims)
    return _table.divide(squares, np.maximum(_count(x, axes) - correction, 0).item())


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Greatest element over axes; of several, each has an equal share of the slope.

    Args:
        x, axis, keepdims: As in `sum`.
    """
    return _table.largest(x, axes_of(axis, x.ndim), keepdims)


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Least element over axes; of several, each has an equal share of the slope.

    Args:
        x, axis, keepdims: As in `sum`.
    """
    return _table.smallest(x, axes_of(axis, x.ndim), keepdims)


def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes, without overflow.

    Args:
        x, axis, keepdims: As in `sum`.
    """
    axes = axes_of(axis, x.ndim)
    values = x.data if isinstance(x, Tensor) else np.asarray(x)
    shift = values.max(axes, keepdims=True)
    shift = np.where(np.isfinite(shift), shift, 0).astype(values.dtype)
    kept = _table.log(_table.total(_table.exp(x - shift), axes, True)) + shift
    if keepdims:
        return kept
    shape = tuple(n for i, n in enumerate(values.shape) if i not in axes)
    return _table.reshape(kept, shape)
