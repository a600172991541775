"""Nothing is computed with what a workspace, or memory for packed weights, held before. NaN there,
as in all other tests, shows what reaches a result; subnormal numbers show the rest, which is no
mistake, but takes a hundred cycles an operation where processors leave such numbers to microcode.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from problems import DIRECTIONS, DTYPES, ISAS, LAYOUTS, RESTS, operands, parse

from convolith import _core

# Besides rests: parts of the sums, which are added; several blocks.
LARGE = ("conv2d c3 i120x120 k64 f3 p1", "conv2d c24 i56x50 k24 f5 p2", "conv2d c40 i60x60 k20 f1")


@pytest.fixture
def _subnormal() -> Iterator[None]:
    _core.set_poison(True, subnormal=True)
    yield
    _core.set_poison(True)


def test_subnormals_are_noticed() -> None:
    plan = _core.Plan(parse("conv2d c1 i8x8 k1 f3"), "direct", threads=1)
    x, w = np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 3, 3), np.float32)
    if not plan.meets_subnormals(x * np.float32(1e-40), w):
        pytest.skip("this processor does not tell")
    assert not plan.meets_subnormals(x, w)


@pytest.mark.usefixtures("_subnormal")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_subnormal_comes_from_memory(dtype: str, layout: str, direction: str) -> None:
    for text in (*RESTS, *LARGE):
        p = parse(f"{text} {direction} {dtype} {layout}")
        a = operands(p, np.random.default_rng(5))
        names = [r["name"] for r in _core.algorithms(p) if r["supported"]]
        for name, isa in itertools.product(names, ISAS):
            plan = _core.Plan(p, name, threads=1, isa=isa)
            assert not plan.meets_subnormals(a.first, a.second), f"{p}: {name}, {isa}"
            if direction != "backward_weight":
                packed = plan.pack(a.second)
                assert not packed.meets_subnormals(a.first, None), f"{p}: {name}, {isa}, packed"
