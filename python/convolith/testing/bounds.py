"""How far from exact a result may be.

A sum of n products computed in any order with unit roundoff u errs by at most n u sum |products|,
to first order (Higham, Accuracy and Stability of Numerical Algorithms, section 4.2), and for
roundings of random sign by at most 8 sqrt(n) u sum |products| but for a probability of 3e-14
(Higham & Mary, SIAM J. Sci. Comput. 41:5, 2019). Data are random and of both signs, so the smaller
of the two holds. On integers of which no partial sum exceeds 1/u every order is exact, and the
result must be.

Transforms (Winograd, FFT) spread errors among the outputs of a tile: they have a uniform bound too,
times the largest |x| and the sum of the channel's |weight|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from convolith.testing.problem import Problem

Array = npt.NDArray[Any]
Tolerance = Mapping[str, float]
ToleranceRule = Callable[[Problem], Tolerance | None]

DOUBLE = 2.0**-53  # of the reference
LIPSCHITZ = {"silu": 1.1, "hardswish": 1.5}
FEW = 8  # units in the last place that a transcendental function may be off


def unit_roundoff(dtype: str) -> float:
    """Half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def sum_error(terms: float) -> float:
    """Roundings of a sum of so many terms, in units of u and of the sum of magnitudes."""
    n = terms + 2
    return min(n, 8 * math.sqrt(n))


def sums(problem: Problem, magnitude: Array, terms: float, u: float) -> Array:
    """Bound of sums whose terms have magnitudes that add up to `magnitude`."""
    factor = sum_error(terms) * (u + DOUBLE)
    return factor * magnitude + smallest(problem.dtype)


def smallest(dtype: str) -> float:
    """The distance of subnormal numbers: what rounding one of them may cost."""
    return float(np.finfo(dtype).smallest_subnormal)


def activated(problem: Problem, bound: Array, y: Array, u: float) -> Array:
    """Bound after an activation with result y, of one before it."""
    activation = problem.activation
    if activation is None:
        return bound
    name = activation if isinstance(activation, str) else activation[0]
    slope = 1.0 if isinstance(activation, str) else max(1.0, abs(activation[1]))
    finite = np.where(np.isfinite(y), np.abs(y), 0.0)
    tiny = 0.0 if name in ("relu", "relu6") else float(np.finfo(problem.dtype).tiny)
    return LIPSCHITZ.get(name, slope) * bound + 2 * FEW * u * finite + tiny


def uniform(problem: Problem, tolerance: Tolerance, first: Array, second: Array) -> Array | float:
    """The uniform part of a transform's bound, for each output channel of the direction."""
    amount = tolerance.get("uniform", 0.0)
    if not amount:
        return 0.0
    rank, last = problem.rank, problem.data_format == "channels_last"
    first, second = (
        np.abs(np.where(np.isfinite(a), a, 0).astype(np.float64)) for a in (first, second)
    )
    if problem.direction == "backward_weight":
        if problem.unbatched:
            first, second = first[None], second[None]
        axes = tuple(range(rank + 1)) if last else (0, *range(2, rank + 2))
        sums_of = first if "transpose" not in problem.op else second
        other = second if "transpose" not in problem.op else first
        per_channel = sums_of.sum(axis=axes).reshape(-1, *(1,) * (rank + 1))
        return np.asarray(amount * other.max(initial=0) * per_channel)
    forward = (problem.direction == "forward") != ("transpose" in problem.op)
    by_group = second.reshape(problem.groups, -1, *second.shape[1:2], math.prod(second.shape[2:]))
    per_channel = by_group.sum(axis=(2, 3) if forward else (1, 3)).ravel()
    if not last:
        per_channel = per_channel.reshape(-1, *(1,) * rank)
    return np.asarray(amount * first.max(initial=0) * per_channel)
