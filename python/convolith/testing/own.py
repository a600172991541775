"""This library under its own check: every algorithm, ISA and number of threads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Any

import convolith
from convolith import _core
from convolith.testing.bounds import Tolerance, ToleranceRule
from convolith.testing.convolutions import padding_pairs
from convolith.testing.family import Family
from convolith.testing.operations import OPERATIONS
from convolith.testing.problem import Problem, rank_of

AUTO = "auto"


@lru_cache(maxsize=4096)
def core_problem(problem: Problem) -> _core.ConvProblem:
    """The library's own form of a convolution, transposed or not, without its epilogue."""
    transposed = "transpose" in problem.op
    n, c = problem.batch, problem.in_channels
    last = problem.data_format == "channels_last"
    x_shape = (n, *problem.input, c) if last else (n, c, *problem.input)
    first, second = (c, problem.out_channels) if transposed else (problem.out_channels, c)
    options: dict[str, Any] = {
        "stride": problem.stride,
        "padding": problem.padding if isinstance(problem.padding, str) else padding_pairs(problem),
        "dilation": problem.dilation,
        "groups": problem.groups,
        "data_format": problem.data_format,
        "padding_mode": problem.padding_mode or "zeros",
        "bias": bool(problem.bias),
        "residual": bool(problem.residual),
        "activation": "none",
        "slope": 0.01,
    }
    w_shape = (first, second // problem.groups, *problem.kernel)
    args = (problem.direction, problem.rank, x_shape, w_shape, problem.dtype)
    if transposed:
        more = problem.output_padding or (0,) * problem.rank
        return _core.make_transposed(*args, more, None, **options)
    return _core.make_convolution(*args, **options)


@lru_cache(maxsize=4096)
def records(problem: Problem, numerics: str = "fast") -> dict[str, dict[str, Any]]:
    """`convolith.algorithms` for a problem, by name; empty for what is not a convolution."""
    if not problem.op.startswith("conv"):
        return {}
    plain = problem.replace(data="integers", seed=0)
    if plain != problem:
        return records(plain, numerics)
    try:
        found = _core.algorithms(core_problem(problem), numerics)
    except ValueError:  # a problem that the library refuses: its kernels will say so
        return {}
    return {record["name"]: record for record in found}


def tolerance_of(algorithm: str) -> ToleranceRule:
    """The bound of an algorithm of this library where it serves a problem; else that of a sum.

    "auto" is the algorithm that the library chooses for the problem.
    """
    known = (*algorithm_names(), AUTO)
    if algorithm not in known:
        raise ValueError(f"tolerance is {algorithm!r}; known: {', '.join(known)}")

    def rule(problem: Problem) -> Tolerance | None:
        served = {name: r for name, r in records(problem).items() if r["supported"]}
        if algorithm == AUTO:
            record = min(served.values(), key=itemgetter("cost_seconds"), default=None)
        else:
            record = served.get(algorithm)
        if record is None:
            return None
        tolerance: Tolerance = record["tolerance"]
        return tolerance if tolerance.get("uniform") else None

    return rule


def algorithm_names() -> tuple[str, ...]:
    """Every algorithm of convolution."""
    return tuple(record["name"] for record in convolith.algorithms((1, 1, 1), (1, 1, 1)))


def kernel_of(op: str, direction: str, algorithm: str, threads: int) -> Callable[..., Any]:
    """The library's function, of one algorithm where it is a convolution."""
    family: Family = OPERATIONS[op]
    name = family.function(Problem(op, direction))
    function = getattr(convolith, name)
    takes = inspect.signature(function).parameters

    def run(*args: Any, **options: Any) -> Any:
        if algorithm != AUTO:
            options["algorithm"] = algorithm
        elif "numerics" in takes:
            options["numerics"] = "strict"
        with convolith.threads(threads):
            return function(*args, **options)

    run.__qualname__ = f"{name} {algorithm}" if rank_of(op) and "conv" in op else name
    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return run


def supports(algorithm: str) -> Callable[[Problem], bool | str]:
    """Whether an algorithm serves a problem, by the library's own word."""

    def answer(problem: Problem) -> bool | str:
        record = records(problem).get(algorithm)
        if record is None or record["supported"]:
            return True
        return str(record["reason"])

    return answer
