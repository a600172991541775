"""One problem on one kernel: poisoned results, guarded inputs, comparison with the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from convolith._core import UnsupportedError
from convolith.testing import guard
from convolith.testing.data import SCALED, Draw
from convolith.testing.family import Array, Call, Settings, Truth
from convolith.testing.kernels import Kernel, Skip
from convolith.testing.operations import family_of
from convolith.testing.outcome import FAILED, PASSED, SKIPPED, Outcome, Wrong, compare, wrong
from convolith.testing.problem import Problem

POISON = (np.nan, 1e30)  # of the first and the second run


DEFAULTS = Settings()


@dataclass(frozen=True)
class Conditions:
    """How problems are run."""

    settings: Settings = DEFAULTS
    supports: Callable[[Problem], bool | str | None] | None = None
    guard: str = "canary"
    """"canary" or "pages": what lies around every buffer."""
    repeat: bool = True
    """Run twice, on other poison and in other places, and compare bits."""
    alignment: int = 0
    """Of the start of buffers in bytes; 0: before a guard page, that of an element alone."""


def prepare(problem: Problem, settings: Settings) -> tuple[Call, Truth]:
    """The call and its truth; ValueError for a problem that makes no sense."""
    family = family_of(problem)
    call = family.call(problem, Draw(problem.data, problem.dtype, problem.seed))
    return call, family.truth(problem, call, settings)


prepare_cached = lru_cache(maxsize=4)(prepare)


def examine(kernel: Kernel, problem: Problem, conditions: Conditions) -> Outcome:
    """Run the kernel; what it did wrong, if anything."""
    settings = conditions.settings
    if conditions.supports is not None:
        answer = conditions.supports(problem)
        if answer is not None and answer is not True:
            why = answer if isinstance(answer, str) else "supports() says no"
            return Outcome(SKIPPED, reason=why)
    if problem.strided and not kernel.takes_strides:
        return Outcome(SKIPPED, reason="the kernel takes contiguous arrays alone")
    tolerance = settings.tolerance(problem) if settings.tolerance else None
    strict = settings.strict and not (tolerance or {}).get("uniform")
    if not strict and problem.data in SCALED:
        return Outcome(SKIPPED, reason=f"fast numerics promise nothing on {problem.data} numbers")
    call, truth = prepare_cached(problem, settings)
    places = ("end", "start") if conditions.guard == "pages" else ("canary", "canary")
    worst, first = 0.0, None
    try:
        for turn, place in enumerate(places[: 2 if conditions.repeat else 1]):
            results = run_once(kernel, problem, call, truth, place, turn, conditions.alignment)
            if first is None:
                first = tuple(r.copy() for r in results)
                worst = compare(problem, results, truth, strict)
            elif any(a.tobytes() != b.tobytes() for a, b in zip(first, results, strict=False)):
                compare(problem, results, truth, strict)
                raise wrong("not repeatable", "the same call again gives other bits")
    except Wrong as error:
        return error.outcome
    except (Skip, NotImplementedError, UnsupportedError) as error:
        return Outcome(SKIPPED, reason=str(error).partition("\n")[0] or type(error).__name__)
    except MemoryError:
        return Outcome(SKIPPED, reason="out of memory")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Outcome(FAILED, "raised", reason, float("inf"))
    return Outcome(PASSED, error=worst)


def run_once(
    kernel: Kernel,
    problem: Problem,
    call: Call,
    truth: Truth,
    place: str,
    turn: int,
    alignment: int,
) -> tuple[Array, ...]:
    """The results, which lie in memory of their own; raises Wrong for what happened besides."""
    buffers: list[tuple[str, guard.Buffer]] = []

    def guarded(array: Array, name: str) -> Array:
        buffer = guard.place(array, place, alignment)
        buffers.append((name, buffer))
        return buffer.array

    names = iter([name for name, _ in call.arrays()])
    if problem.strided:
        given = call.map_arrays(guard.strided)
    else:
        given = call.map_arrays(lambda a: guarded(a, next(names)))
    outs: tuple[Array, ...] = ()
    shapes = [truth.shape or truth.values[0].shape, *(v.shape for v in truth.values[1:])]
    if kernel.takes_out:
        outs = tuple(
            guarded(poisoned(shape, value, problem.dtype, POISON[turn % 2]), "out")
            for shape, value in zip(shapes, truth.values, strict=True)
        )
    else:
        guard.dirty_heap(int(np.prod(shapes[0])) * np.dtype(problem.dtype).itemsize)
    results = kernel.run(family_of(problem), problem, given, outs)
    for name, buffer in buffers:
        if (overrun := buffer.overrun()) is not None:
            raise wrong("out of bounds", f"{name}: {overrun}")
    for (name, before), (_, after) in zip(call.arrays(), given.arrays(), strict=True):
        if name not in call.changes and before.tobytes() != after.tobytes():
            raise wrong("input changed", f"{name} is not as it was before the call")
    for complaint in guard.floating_point_mode():
        raise wrong("floating-point mode", f"after the call {complaint}")
    for result in results:
        if not problem.strided and not outs and _shares(result, given):
            raise wrong("result", "the result shares memory with an input")
    return tuple(np.array(result) for result in results)


def poisoned(shape: tuple[int, ...], value: Array, dtype: str, poison: float) -> Array:
    """An array for a result of the kind of `value`, full of what no result is."""
    if value.dtype.kind != "f":
        return np.full(shape, -7, np.int64)
    with np.errstate(all="ignore"):
        return np.full(shape, poison).astype(dtype)


def _shares(result: Array, call: Call) -> bool:
    return result.size > 0 and any(
        array.size > 0 and np.may_share_memory(result, array) for _, array in call.arrays()
    )
