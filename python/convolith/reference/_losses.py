"""Softmax and cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arguments
from ._arguments import FloatArray
from ._windows import Array


def _axis(x: FloatArray, axis: Any) -> int:
    number = _arguments.integer("axis", axis)
    if not -x.ndim <= number < x.ndim:
        raise ValueError(f"axis must be one of {x.ndim}, got {number}")
    return number % x.ndim


@_arguments.silent
def log_softmax(x: FloatArray, axis: int = -1) -> Array:
    """x - log(sum(exp(x))) along an axis, about the greatest element."""
    _arguments.check_arrays(x=x)
    along = _axis(x, axis)
    x64 = x.astype(np.float64)
    if x.size == 0:
        return x64
    x64 = x64 - x64.max(axis=along, keepdims=True)
    return np.asarray(x64 - np.log(np.exp(x64).sum(axis=along, keepdims=True)))


@_arguments.silent
def softmax(x: FloatArray, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along an axis."""
    return np.asarray(np.exp(log_softmax(x, axis)))


@_arguments.silent
def softmax_backward(dy: FloatArray, y: FloatArray, axis: int = -1) -> Array:
    """Gradient of softmax, of which y is the result."""
    _arguments.check_arrays(dy=dy, y=y)
    along = _axis(y, axis)
    g, y64 = dy.astype(np.float64), y.astype(np.float64)
    return np.asarray(y64 * (g - (g * y64).sum(axis=along, keepdims=True)))


@_arguments.silent
def log_softmax_backward(dy: FloatArray, y: FloatArray, axis: int = -1) -> Array:
    """Gradient of log_softmax, of which y is the result."""
    _arguments.check_arrays(dy=dy, y=y)
    along = _axis(y, axis)
    g = dy.astype(np.float64)
    return np.asarray(g - np.exp(y.astype(np.float64)) * g.sum(axis=along, keepdims=True))


def _distribution(
    logits: FloatArray,
    target: Any,
    weight: FloatArray | None,
    ignore_index: int,
    label_smoothing: float,
    axis: int | None,
) -> tuple[Array, Array, int]:
    """(-d loss / d log p, the weight of each target, the axis of classes).

    The first has the shape of logits, the second that of target with an axis kept.
    """
    _arguments.check_arrays(logits=logits)
    along = _axis(logits, min(1, logits.ndim - 1) if axis is None else axis)
    classes = logits.shape[along]
    shape = logits.shape[:along] + logits.shape[along + 1 :]
    if target.dtype.kind not in "iu":
        raise TypeError(f"target must be of integers, got {target.dtype}")
    if target.shape != shape:
        raise ValueError(f"target must have shape {shape}, got {target.shape}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be 0 to 1, got {label_smoothing}")
    kept = target != ignore_index
    for index in np.argwhere(kept & ((target < 0) | (target >= classes))):
        value = target[tuple(index)]
        raise ValueError(f"target must be below {classes}, got {value} at {tuple(index)}")
    weights = np.ones(classes) if weight is None else weight.astype(np.float64)
    spread = np.moveaxis(np.broadcast_to(weights, (*shape, classes)), -1, along)
    chosen = np.expand_dims(np.where(kept, target, 0), along)
    one_hot = np.zeros(logits.shape)
    np.put_along_axis(one_hot, chosen, 1.0, along)
    mixed = (1 - label_smoothing) * one_hot + label_smoothing / classes
    mask = np.expand_dims(kept, along)
    return mixed * spread * mask, weights[chosen] * mask, along


@_arguments.silent
def cross_entropy(
    logits: FloatArray,
    target: npt.NDArray[np.integer[Any]],
    *,
    weight: FloatArray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    axis: int | None = None,
) -> Array:
    """-sum over classes of q * w * log p, where q is one-hot, smoothed towards uniform."""
    mixed, weights, along = _distribution(
        logits, target, weight, ignore_index, label_smoothing, axis
    )
    _arguments.choice("reduction", reduction, ("mean", "sum", "none"))
    terms = np.where(mixed == 0, 0.0, -mixed * log_softmax(logits, along))
    loss = terms.sum(axis=along)
    if reduction == "none":
        return np.asarray(loss)
    return np.asarray(loss.sum() / (weights.sum() if reduction == "mean" else 1.0))


@_arguments.silent
def cross_entropy_backward(
    dy: FloatArray,
    logits: FloatArray,
    target: npt.NDArray[np.integer[Any]],
    *,
    weight: FloatArray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    axis: int | None = None,
) -> Array:
    """Gradient of the logits: dy * (softmax * sum(q w) - q w), 0 where the target is ignored."""
    mixed, weights, along = _distribution(
        logits, target, weight, ignore_index, label_smoothing, axis
    )
    g = np.asarray(dy, np.float64)
    if reduction == "none":
        g = np.expand_dims(g, along)
    elif reduction == "mean":
        g = g / weights.sum()
    total = mixed.sum(axis=along, keepdims=True)
    kept = np.expand_dims(target != ignore_index, along)
    return np.where(kept, g * (softmax(logits, along) * total - mixed), 0.0)
