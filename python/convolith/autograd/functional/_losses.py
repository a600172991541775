"""Softmax and losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolith._arguments import Array
from convolith.autograd import _kernels, _table
from convolith.autograd._tensor import Tensor
from convolith.autograd.functional._reductions import axes_of

_REDUCTIONS = ("mean", "sum", "none")


def _array(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else np.asarray(value)


def _reduced(losses: Tensor, reduction: str, divisor: float) -> Tensor:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it must be one of {', '.join(_REDUCTIONS)}")
    if reduction == "none":
        return losses
    total = _table.total(losses, tuple(range(losses.ndim)), False)
    return total if reduction == "sum" else total / divisor


def softmax(x: Any, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, without overflow.

    Args:
        x: Any shape.
        axis: The axis.
    """
    return _table.softmax(x, axes_of(axis, x.ndim)[0])


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, without overflow.

    Args:
        x: Any shape.
        axis: The axis.
    """
    return _table.log_softmax(x, axes_of(axis, x.ndim)[0])


def mse_loss(x: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Squared differences of x and target.

    Args:
        x, target: Of one shape.
        reduction: "mean", "sum" or "none".
    """
    if x.shape != target.shape:
        raise ValueError(f"target has shape {target.shape}; it must be that of x, {x.shape}")
    difference = x - target
    return _reduced(difference * difference, reduction, max(1, difference.size))


def cross_entropy(
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Minus the logarithm of the probability that softmax(logits) gives the target.

    Args:
        logits: (batch, classes), or (batch, classes, *spatial).
        target: Class indices, integers of shape (batch, *spatial).
        weight: (classes,): how much each class counts; the mean is over the weights.
        ignore_index: Targets that count for nothing.
        reduction: "mean", "sum" or "none".
        label_smoothing: The share of the target that is spread evenly over all classes
            (Szegedy et al., arXiv:1512.00567), from 0 to 1.

    Returns:
        A single element, or with "none" one for each target.

    Raises:
        TypeError: Targets that are not integers.
        ValueError: A target that is no class, or shapes that do not fit together.
    """
    options = {
        "weight": None if weight is None else _array(weight),
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    if logits.ndim < 2:
        raise ValueError(f"logits have {logits.ndim} axes; they must have 2, or more for maps")
    return _table.cross_entropy(logits, _array(target), options)


def nll_loss(
    log_probabilities: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Minus the logarithm of the target's probability.

    Args:
        log_probabilities: (batch, classes), or (batch, classes, *spatial).
        target, weight, ignore_index, reduction: As in `cross_entropy`.
    """
    x, classes = log_probabilities, _array(target)
    options = {
        "weight": None if weight is None else _array(weight),
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": 0.0,
    }
    _kernels.cross_entropy(_array(x), classes, options)  # for its checks
    shares, divisor = _kernels.target_shares(classes, x.shape, x.dtype, options)
    losses = _table.total(_table.multiply(x, -shares), 1, False)
    return _reduced(losses, reduction, divisor)
