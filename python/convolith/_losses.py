"""Softmax and cross-entropy, with their gradients."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from convolith import _arguments, _core
from convolith._arguments import Array

IntegerArray = npt.NDArray[np.integer[Any]]


def softmax(x: Array, axis: SupportsIndex = -1, *, out: Array | None = None) -> Array:
    """Softmax along an axis: exp(x) / sum(exp(x)), computed about the greatest element.

    Args:
        x: Any shape with at least one axis, float32 or float64, any strides.
        axis: The axis over which results sum to 1; negative ones count from the end.
        out: An array of x's shape and dtype to write. It may be x itself, but must not overlap
            it otherwise.

    Returns:
        `out`, or a new array of x's shape. A NaN, or an infinity that is the greatest, makes its
        whole distribution NaN.

    Raises:
        ValueError: An axis that x does not have.
    """
    return _core.softmax(x, _arguments.integer(axis, "axis"), False, out)


def softmax_backward(
    dy: Array, y: Array, axis: SupportsIndex = -1, *, out: Array | None = None
) -> Array:
    """Gradient of `softmax`: y * (dy - sum(dy * y)).

    Args:
        dy: Gradient of the result, of its shape.
        y: The forward's result.
        axis: As in `softmax`.
        out: As in `softmax`; it may be dy or y itself.

    Returns:
        The gradient of x, of its shape.
    """
    return _core.softmax_backward(dy, y, _arguments.integer(axis, "axis"), False, out)


def log_softmax(x: Array, axis: SupportsIndex = -1, *, out: Array | None = None) -> Array:
    """Logarithm of the softmax along an axis: x - log(sum(exp(x))), without overflow.

    Args:
        x, axis, out: As in `softmax`.

    Returns:
        `out`, or a new array of x's shape.
    """
    return _core.softmax(x, _arguments.integer(axis, "axis"), True, out)


def log_softmax_backward(
    dy: Array, y: Array, axis: SupportsIndex = -1, *, out: Array | None = None
) -> Array:
    """Gradient of `log_softmax`: dy - exp(y) * sum(dy).

    Args:
        dy: Gradient of the result, of its shape.
        y: The forward's result.
        axis, out: As in `softmax_backward`.

    Returns:
        The gradient of x, of its shape.
    """
    return _core.softmax_backward(dy, y, _arguments.integer(axis, "axis"), True, out)


def _target(target: IntegerArray) -> npt.NDArray[np.int64]:
    """As int64, which holds every index; uint64 beyond it becomes negative, and is refused."""
    is_array = isinstance(target, np.ndarray) and not isinstance(target, np.ma.MaskedArray)
    if is_array and target.dtype != np.int64 and target.dtype.kind in "iu":
        return target.astype(np.int64)
    return target  # type: ignore[return-value]


def cross_entropy(
    logits: Array,
    target: IntegerArray,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    axis: SupportsIndex | None = None,
) -> Array:
    """Cross-entropy of the softmax of logits against classes, as in torch.

    The loss of a target t is -(1 - e) * w[t] * log p[t] - e / classes * sum(w * log p), where p is
    the softmax, w the weights and e label_smoothing (Szegedy et al., CVPR 2016).

    Args:
        logits: (classes,), or (batch, classes, ...), or with the classes elsewhere: see axis.
            float32 or float64, any strides.
        target: Class of each distribution, integers of the shape of logits without its classes.
        weight: (classes,) weights of the classes; None for 1.
        ignore_index: Targets of this value have loss 0 and count for nothing.
        reduction: "mean": the sum of the losses over the sum of their targets' weights; "sum"; or
            "none".
        label_smoothing: e above, 0 to 1.
        axis: The axis of classes; None takes 1, or 0 for logits of one axis.

    Returns:
        An array of no axes, or of target's shape with reduction "none". The mean over nothing
        is NaN.

    Raises:
        TypeError: An argument of a wrong type or dtype.
        ValueError: A target that is no class: the message has its index, its value and the number
            of classes. Shapes that do not fit.
    """
    return _core.cross_entropy(
        logits,
        _target(target),
        weight,
        _arguments.integer(ignore_index, "ignore_index"),
        _arguments.choice(reduction, "reduction"),
        _arguments.real(label_smoothing, "label_smoothing"),
        None if axis is None else _arguments.integer(axis, "axis"),
    )


def cross_entropy_backward(
    dy: Array,
    logits: Array,
    target: IntegerArray,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    axis: SupportsIndex | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of `cross_entropy` with respect to the logits; the softmax is computed anew.

    Args:
        dy: Gradient of the loss, of its shape: np.ones((), dtype) begins a chain.
        logits, target, weight, ignore_index, reduction, label_smoothing, axis: The forward's.
        out: An array of the shape and dtype of logits to write, which overlaps no input.

    Returns:
        The gradient of the logits, of their shape; 0 where the target is ignored.
    """
    return _core.cross_entropy_backward(
        dy,
        logits,
        _target(target),
        weight,
        _arguments.integer(ignore_index, "ignore_index"),
        _arguments.choice(reduction, "reduction"),
        _arguments.real(label_smoothing, "label_smoothing"),
        None if axis is None else _arguments.integer(axis, "axis"),
        out,
    )
