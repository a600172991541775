"""The matrix product under im2col: exact on integers, in every shape, stride and ISA."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import convolith as cl
from convolith import _core

EXTENTS = (1, 5, 14, 15, 31, 33, 64, 130)


def integers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_remainder_of_rows_columns_and_k(dtype: str, threads: int) -> None:
    for m, n, k in itertools.product(EXTENTS, EXTENTS, EXTENTS):
        a, b = integers((m, k), dtype), integers((k, n), dtype, 1)
        out = np.full((m, n), np.nan, dtype)
        assert _core.gemm(a, b, threads, out) is out
        assert np.array_equal(out, a.astype("int64") @ b.astype("int64")), (m, n, k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operands_of_any_strides(dtype: str) -> None:
    a, b = integers((70, 130), dtype), integers((130, 90), dtype, 1)
    exact = a.astype("int64") @ b.astype("int64")
    for left in (a, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2], a[::-1][::-1]):
        for right in (b, np.asfortranarray(b), np.repeat(b, 3, axis=0)[::3]):
            assert np.array_equal(_core.gemm(left, right), exact)
    assert np.array_equal(_core.gemm(a[::-1], b), exact[::-1])


def test_several_blocks_of_every_extent_have_the_same_bits_for_any_threads() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((300, 1100), dtype="float32")
    b = rng.standard_normal((1100, 2500), dtype="float32")
    one, two, three = (_core.gemm(a, b, threads) for threads in (1, 2, 3))
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)
    exact = a.astype("float64") @ b.astype("float64")
    bound = (512 + 16) * 2.0**-24 * (abs(a.astype("float64")) @ abs(b.astype("float64")))
    assert (abs(one - exact) <= bound).all()


def test_a_sum_of_many_terms_has_no_long_chain() -> None:
    # 0.1 is rounded: a chain of 2^18 additions of it would be off by far more than this.
    k = 2**19 + 3
    a = np.full((2, k), 0.1, "float32")
    b = np.ones((k, 3), "float32")
    exact = k * float(np.float32(0.1))
    assert np.abs(_core.gemm(a, b) - exact).max() <= 4e-5 * exact


ISA_CHECK = """
import numpy as np
from convolith import _core
rng = np.random.default_rng(0)
a = rng.integers(-4, 5, (67, 700)).astype("float32")
b = rng.integers(-4, 5, (700, 93)).astype("float32")
assert np.array_equal(_core.gemm(a, b), a.astype("int64") @ b.astype("int64"))
"""


@pytest.mark.parametrize("isa", cl.show_config(mode="dicts")["isas_available"])
def test_every_isa(isa: str) -> None:
    environment = os.environ | {"CONVOLITH_ISA": isa}
    subprocess.run([sys.executable, "-c", ISA_CHECK], env=environment, check=True)


def test_bad_operands() -> None:
    a = integers((3, 4), "float32")
    with pytest.raises(ValueError, match=r"a has 4 columns and b has 3 rows"):
        _core.gemm(a, a)
    with pytest.raises(ValueError, match=r"b has shape \(4,\)"):
        _core.gemm(a, a[0])
    with pytest.raises(TypeError, match=r"b has dtype float64; a has float32"):
        _core.gemm(a, a.T.astype("float64"))
    with pytest.raises(ValueError, match=r"a has shape \(0, 4\)"):
        _core.gemm(a[:0], a.T)
    with pytest.raises(ValueError, match=r"threads is 100000; it must be 1 to 256"):
        _core.gemm(a, a.T, 100000)
