"""Steps of gradient descent. Unlike the package's own, these return new arrays."""

from __future__ import annotations

import numpy as np

from . import _arguments
from ._arguments import FloatArray
from ._windows import Array


@_arguments.silent
def sgd_step(
    parameter: FloatArray,
    gradient: FloatArray,
    velocity: FloatArray | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Array, Array | None]:
    """(parameter, velocity) after a step of stochastic gradient descent."""
    p = parameter.astype(np.float64)
    g = gradient.astype(np.float64) + weight_decay * p
    if momentum == 0:
        return p - lr * g, None if velocity is None else velocity.astype(np.float64)
    if velocity is None:
        raise ValueError("momentum needs a velocity")
    v = momentum * velocity.astype(np.float64) + g
    return p - lr * (g + momentum * v if nesterov else v), v


@_arguments.silent
def adam_step(
    parameter: FloatArray,
    gradient: FloatArray,
    mean: FloatArray,
    square: FloatArray,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[Array, Array, Array]:
    """(parameter, mean, square) after step number `step` of Adam, or of AdamW if decoupled."""
    p, g = parameter.astype(np.float64), gradient.astype(np.float64)
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = betas[0] * mean.astype(np.float64) + (1 - betas[0]) * g
    s = betas[1] * square.astype(np.float64) + (1 - betas[1]) * g * g
    unbiased_m, unbiased_s = m / (1 - betas[0] ** step), s / (1 - betas[1] ** step)
    return p - lr * unbiased_m / (np.sqrt(unbiased_s) + eps), m, s
