"""Numbers that problems are made of.

`integers`: small ones, whose sums are exact in any order. `huge`, `tiny`, `subnormal`: the same
times powers of two, so that results lie near the largest number, results below the smallest normal
one, or arguments below it; they are exact as well. `normal`: of the standard normal distribution,
for bounds on rounding errors. `nan`, `inf`: integers with one such number. `zeros`: zeros of both
signs. `minus_inf`: integers, half of them replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

KINDS = ("integers", "normal", "nan", "inf", "huge", "tiny", "subnormal", "zeros", "minus_inf")
SCALED = ("huge", "tiny", "subnormal")

# Powers of two by which the first and the second factor of products are scaled, and a lone operand.
_SCALES = {
    "float32": {"huge": (57, 55, 120), "tiny": (-70, -70, -126), "subnormal": (-145, 0, -145)},
    "float64": {
        "huge": (500, 500, 1000),
        "tiny": (-530, -530, -1022),
        "subnormal": (-1070, 0, -1070),
    },
    "float16": {"huge": (4, 4, 12), "tiny": (-8, -8, -14), "subnormal": (-22, 0, -22)},
}


class Draw:
    """Draws the operands of one problem, always the same ones for a seed."""

    def __init__(self, kind: str, dtype: str, seed: int) -> None:
        """ValueError for a kind that is not one of `KINDS`."""
        if kind not in KINDS:
            raise ValueError(f"data is {kind!r}; it must be one of {', '.join(KINDS)}")
        self.kind, self.dtype = kind, np.dtype(dtype)
        self.rng = np.random.default_rng(seed)

    def __call__(self, shape: Sequence[int], role: str = "plain") -> Array:
        """An array. `role`: "first", "second" (factors of products), "sum" (added to products),
        "lone" (no products), "plain" (never scaled); only "first" and "lone" hold NaN or inf."""
        shape = tuple(shape)
        rng, kind = self.rng, self.kind
        carrier = role in ("first", "lone")
        if kind == "normal":
            return rng.standard_normal(shape).astype(self.dtype)
        if kind == "zeros" and carrier:
            return np.where(rng.random(shape) < 0.5, 0.0, -0.0).astype(self.dtype)
        most = 2 if self.dtype == np.float16 else 4
        values = rng.integers(-most, most + 1, shape).astype(self.dtype)
        if kind in SCALED:
            first, second, lone = _SCALES[self.dtype.name][kind]
            power = {"first": first, "second": second, "sum": first + second, "lone": lone}
            return np.asarray(np.ldexp(values, power.get(role, 0)))
        if carrier and values.size:
            if kind == "nan":
                values.flat[int(rng.integers(values.size))] = np.nan
                if role == "lone":  # enough for windows with two
                    values[rng.random(shape) < 0.1] = np.nan
            elif kind == "inf":
                values.flat[int(rng.integers(values.size))] = rng.choice([np.inf, -np.inf])
            elif kind == "minus_inf":
                values[rng.random(shape) < 0.5] = -np.inf
        return values
