"""What became of one problem, and how a result is compared with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convolith.testing import picture
from convolith.testing.family import Truth
from convolith.testing.problem import Problem

Array = npt.NDArray[Any]

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Outcome:
    """Of one problem: `status` is "passed", "failed" or "skipped".

    `reason` tells why it was skipped or how it failed; `kind` is a word for that, such as "values",
    "raised", "out of bounds". `error` is the largest in units of its bound.
    """

    status: str
    kind: str = ""
    reason: str = ""
    error: float = 0.0
    picture: str = ""
    plane: Array | None = None


class Wrong(Exception):
    """A result that is not what it must be."""

    def __init__(self, outcome: Outcome) -> None:
        """`outcome` is what to report."""
        super().__init__(outcome.reason)
        self.outcome = outcome


def wrong(kind: str, reason: str) -> Wrong:
    """The exception for a failure without a picture."""
    return Wrong(Outcome(FAILED, kind, reason, float("inf")))


def compare(problem: Problem, results: tuple[Array, ...], truth: Truth, strict: bool) -> float:
    """Largest error in units of the bound; raises `Wrong` if one is too large."""
    if len(results) != len(truth.values):
        reason = f"{len(results)} result(s), expected {len(truth.values)}"
        raise wrong("result", reason)
    worst = 0.0
    names = ("", "second ", "third ", "fourth ")
    for which, result in enumerate(results):
        worst = max(worst, _compare_one(problem, result, truth, which, strict, names[which]))
    return worst


def _compare_one(
    problem: Problem, result: Array, truth: Truth, which: int, strict: bool, name: str
) -> float:
    value, bound, scale = truth.values[which], truth.bounds[which], truth.scale[which]
    shape = truth.shape or value.shape
    if result.shape != shape:
        raise wrong("shape", f"{name}result has shape {result.shape}, expected {shape}")
    if value.dtype.kind == "f" and result.dtype != problem.dtype:
        raise wrong("dtype", f"{name}result has dtype {result.dtype}, expected {problem.dtype}")
    if value.dtype.kind == "i" and result.dtype.kind not in "iu":
        raise wrong("dtype", f"{name}result has dtype {result.dtype}, expected integers")
    got = result if truth.index is None else result[truth.index]
    if got.size == 0:
        return 0.0
    exact = _as_stored(value, result.dtype)
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - exact)
        same = (got == exact) | (np.isnan(got) & np.isnan(exact))
        if truth.signed_zeros and got.dtype.kind == "f":
            same &= np.signbit(got) == np.signbit(exact)
        error = np.where(same, 0.0, error)
        good = same if bound is None else same | (error <= bound)
        if not strict and problem.data in ("nan", "inf"):
            # May spread within a tile, but never turn into a number.
            good |= ~np.isfinite(got) & np.isfinite(exact)
            good |= ~np.isfinite(got) & ~np.isfinite(exact)
        elif problem.data in ("nan", "inf", "minus_inf"):
            good &= np.isfinite(got) == np.isfinite(exact)
        units = np.where(
            same, 0.0, error / np.maximum(scale, np.finfo(np.float64).smallest_subnormal)
        )
        units = np.where(np.isnan(units), np.inf, units)
    if good.all():
        finite = units[np.isfinite(units)]
        return float(finite.max(initial=0.0))
    raise Wrong(_failure(problem, truth, result.shape, got, exact, units, ~good, name))


def _as_stored(value: Array, dtype: Any) -> Array:
    """The exact value if it overflows in the dtype: infinite."""
    if value.dtype.kind != "f" or dtype.kind != "f":
        return value
    most = float(np.finfo(dtype).max)
    return np.where(np.abs(value) > most, np.copysign(np.inf, value), value)


def _failure(
    problem: Problem,
    truth: Truth,
    shape: tuple[int, ...],
    got: Array,
    exact: Array,
    units: Array,
    bad: Array,
    name: str,
) -> Outcome:
    worst = np.unravel_index(int(np.argmax(np.where(bad, units, -1.0))), bad.shape)
    at = tuple(int(i) for i in worst)
    if truth.index is not None:
        at = tuple(int(column[worst[0]]) for column in truth.index)
    lost = bool((np.isnan(exact) & ~np.isnan(got) & bad).any())
    kind = "nonfinite" if lost or (bad & ~np.isfinite(got)).any() else "values"
    size = f"{float(units[worst]):.3g} times its bound"
    reason = f"{name}result{list(at)} is {got[worst]!r}, exactly {exact[worst]!r}: {size}"
    if lost:
        reason = f"a NaN is lost: {reason}"
    drawn, plane = "", None
    if truth.index is None:
        names = picture.axis_names(problem.rank, bad.ndim, problem.data_format)
        if problem.direction == "backward_weight" and bad.ndim == problem.rank + 2:
            names = ("out", "in", *picture.axis_names(problem.rank, bad.ndim, "")[2:])
            form = ""
        else:
            form = problem.data_format
        lines = [picture.describe(bad, names)]
        parts = [picture.spatial_last(a, problem.rank, form) for a in (units, bad, got)]
        plane, flags, index = picture.plane_of(parts[0], parts[1])
        nonfinite = ~np.isfinite(parts[2])
        values = nonfinite[index] if index else nonfinite.reshape(flags.shape)
        order = [n for n in names if n != "channel"] if form == "channels_last" else list(names)
        if form == "channels_last" and len(order) < len(names):
            order.insert(1, "channel")
        where = ", ".join(f"{n} {i}" for n, i in zip(order, index, strict=False))
        lines.append(f"  errors in units of the bound{', at ' + where if where else ''}:")
        lines.append(picture.draw(plane, flags, values))
        drawn = "\n".join(lines)
        plane = np.minimum(plane[:512, :512], 1e30).astype(np.float32)
    else:
        count = int(np.count_nonzero(bad))
        columns = [np.unique(column[bad]) for column in truth.index]
        ranges = ", ".join(
            f"{c.min()}..{c.max()} of {n}" for c, n in zip(columns, shape, strict=True)
        )
        drawn = f"{count} of {bad.size} sampled elements are wrong, at indices {ranges}"
    return Outcome(FAILED, kind, reason, float(units[worst]), drawn, plane)
