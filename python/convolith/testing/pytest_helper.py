"""Conformance tests in three lines:

    from convolith.testing import conformance
    from mykernels import conv2d
    test_conv2d = conformance("conv2d", supports=lambda p: p.groups == 1)(conv2d)

`pytest_problems` gives single problems to tests that are written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convolith.testing.catalogue import problems
from convolith.testing.checking import check
from convolith.testing.kernels import name_of
from convolith.testing.problem import Problem

CHUNKS = 8


def conformance(op: str = "conv2d", **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Turn a kernel into a pytest test that checks it.

    The name that it is given must begin with `test_` for pytest to collect it. `options` are those
    of `check`; the catalogue is cut into chunks that can run in parallel. A chunk fails with the
    report. One of which the kernel serves nothing is skipped.
    """
    import pytest

    direction = options.pop("direction", "forward")
    names = ("dtypes", "data_formats", "thorough", "seed", "networks")
    chosen = list(
        problems(op, direction, **{name: options.pop(name) for name in names if name in options})
    )

    def decorate(kernel: Callable[..., Any]) -> Any:
        def test(chunk: int) -> None:
            part = chosen[chunk::CHUNKS]
            report = check(kernel, op, direction=direction, problems=part, **options)
            if not report.passed and not report.failed:
                pytest.skip(f"nothing of it is served: {', '.join(report.skips)}"[:300])
            report.assert_ok()

        test.__name__, test.__doc__ = name_of(kernel), f"{name_of(kernel)} against the reference."
        test.kernel = kernel  # type: ignore[attr-defined]
        return pytest.mark.parametrize("chunk", range(CHUNKS))(test)

    return decorate


def pytest_problems(op: str = "conv2d", direction: str = "forward", **options: Any) -> Any:
    """A parametrize mark with the argument `problem`: one test per problem of the catalogue.

    `options` are those of `problems`; `supports`, a function of the problem, leaves some out.
    """
    import pytest

    supports: Callable[[Problem], Any] = options.pop("supports", lambda problem: True)
    chosen = [p for p in problems(op, direction, **options) if supports(p) is True]
    return pytest.mark.parametrize(
        "problem", chosen, ids=[str(p).replace(" ", "-") for p in chosen]
    )
