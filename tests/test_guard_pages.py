"""Kernels touch nothing beyond their arrays, which lie right before a page that no one may touch,
and then right behind one. A mistake ends the process; faulthandler tells where."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from problems import (
    DIRECTIONS,
    DTYPES,
    ISAS,
    LAYOUTS,
    RESTS,
    Array,
    Operands,
    error_bound,
    expected,
    operands,
    parse,
)

import convolith as cl
from convolith import _core, reference
from convolith.testing import guard

pytestmark = pytest.mark.skipif(not guard.has_pages(), reason="needs guard pages")

PLACES = ("end", "start")


def guarded(arrays: tuple[Array | None, ...], place: str) -> list[guard.Buffer | None]:
    return [None if a is None else guard.place(a, place) for a in arrays]


def array_of(buffer: guard.Buffer | None) -> Array | None:
    return None if buffer is None else buffer.array


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convolution(dtype: str, layout: str, direction: str) -> None:
    for turn, text in enumerate(RESTS):
        epilogue = ("bias relu6", "bias residual", "")[turn % 3]
        if direction == "backward_weight":
            epilogue = ""
        p = parse(f"{text} {direction} {dtype} {layout} {epilogue}")
        a = operands(p, np.random.default_rng(turn))
        exact = expected(p, a)
        records = [r for r in _core.algorithms(p) if r["supported"]]
        for place in PLACES:
            for record, isa in itertools.product(records, ISAS):
                plan = _core.Plan(p, record["name"], threads=1, isa=isa)
                buffers = guarded(a.as_tuple(), place)
                out = guard.place(np.full(exact.shape, np.nan, dtype), place)
                plan.execute(*map(array_of, buffers), out.array)
                bound = error_bound(p, a, record["tolerance"])
                name = f"{p}: {record['name']}, {isa}, guard page at the {place}"
                assert np.all(np.abs(out.array - exact) <= bound), name
                assert out.overrun() is None, name


def check(function: Callable[..., Any], exact: Any, *arrays: Array | None, **options: Any) -> None:
    """Calls a function with guarded arrays, and a guarded `out` if there is one; compares."""
    out = options.pop("out", None)
    for place in PLACES:
        buffers = guarded(arrays, place)
        if out is not None:
            where = guard.place(np.full_like(out, np.nan), place)
            options["out"] = where.array
        result = function(*map(array_of, buffers), **options)
        if out is not None:
            assert where.overrun() is None, f"{function.__name__}, guard page at the {place}"
        results = result if isinstance(result, tuple) else (result,)
        for computed, true in zip(
            results, exact if isinstance(exact, tuple) else (exact,), strict=True
        ):
            np.testing.assert_allclose(
                computed, true, rtol=2e-5, atol=2e-5, err_msg=f"{function.__name__}, {options}"
            )


def maps(shape: tuple[int, ...], dtype: str, layout: str, seed: int) -> Array:
    """(n, c, spatial) normal numbers in a layout."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)) if layout == "channels_last" else values


@pytest.mark.parametrize("extents", [(3, 7), (4, 33), (8, 18), (3, 73)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pooling(dtype: str, layout: str, extents: tuple[int, int]) -> None:
    options = {"data_format": layout}
    for channels, stride, kernel, padding in (
        (3, 1, 3, 1),
        (19, 2, 2, 0),
        (17, 2, 3, 1),
        (5, 3, 2, 1),
        (1, 1, 2, 0),
        (2, (1, 5), (1, 5), 0),
        (3, (2, 19), (2, 18), 0),
    ):
        if any(k > n for k, n in zip(np.broadcast_to(kernel, 2), extents, strict=True)):
            continue
        x = maps((1, channels, *extents), dtype, layout, channels)
        window = (kernel, stride, padding)
        y, indices = reference.max_pool2d(x, *window, return_indices=True, **options)
        check(
            lambda x, w=window: cl.max_pool2d(x, *w, return_indices=True, **options),
            (y, indices),
            x,
        )
        check(lambda x, w=window: cl.max_pool2d(x, *w, **options), y, x)
        dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
        exact = reference.max_pool2d_backward(dy, x, *window, **options)
        check(lambda dy, x, w=window: cl.max_pool2d_backward(dy, x, *w, **options), exact, dy, x)
        check(
            lambda dy, x, i, w=window: cl.max_pool2d_backward(dy, x, *w, indices=i, **options),
            exact,
            dy,
            x,
            indices,
        )
        for name in ("avg_pool2d", "sum_pool2d"):
            forward, backward = getattr(cl, name), getattr(cl, f"{name}_backward")
            exact = getattr(reference, name)(x, *window, **options)
            check(lambda x, f=forward, w=window: f(x, *w, **options), exact, x)
            exact = getattr(reference, f"{name}_backward")(dy, x, *window, **options)
            check(lambda dy, x, f=backward, w=window: f(dy, x, *w, **options), exact, dy, x)
        lp = (2.0, kernel, stride)
        check(
            lambda x, a=lp: cl.lp_pool2d(x, *a, **options),
            reference.lp_pool2d(x, *lp, **options),
            x,
        )
        check(
            lambda x: cl.global_avg_pool(x, **options), reference.global_avg_pool(x, **options), x
        )


@pytest.mark.parametrize("count", [1, 3, 15, 17, 33, 50])
@pytest.mark.parametrize("dtype", DTYPES)
def test_training(dtype: str, count: int) -> None:
    rng = np.random.default_rng(count)

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    x, dy = draw(5, count), draw(5, count)
    for axis in (0, 1):
        for name in ("softmax", "log_softmax"):
            y = getattr(reference, name)(x, axis)
            check(getattr(cl, name), y, x, axis=axis, out=x)
            exact = getattr(reference, f"{name}_backward")(dy, y.astype(dtype), axis)
            check(getattr(cl, f"{name}_backward"), exact, dy, y.astype(dtype), axis=axis, out=x)
    target, weight = rng.integers(0, count, 5), np.abs(draw(count)) + 0.5
    for options in ({}, {"label_smoothing": 0.1}):
        function = lambda x, w, o=options: cl.cross_entropy(  # noqa: E731
            x, target, weight=w, reduction="none", **o
        )
        exact = reference.cross_entropy(x, target, weight=weight, reduction="none", **options)
        check(function, exact, x, weight.astype(dtype))
    for name in ("relu", "tanh", "silu"):
        check(cl.activation, reference.activation(x, name), x, activation=name, out=x)
    a, b = draw(count, 7), draw(7, count + 2)
    check(cl.matmul, a.astype(float) @ b, a, b, out=draw(count, count + 2))
    for layout in LAYOUTS:
        z = maps((3, count, 4, 5), dtype, layout, 2)
        gamma, beta = draw(count), draw(count)
        check(
            lambda z, g, b, f=layout: cl.batch_norm(
                z, None, None, g, b, training=True, data_format=f
            ),
            reference.batch_norm(z, None, None, gamma, beta, training=True, data_format=layout),
            z,
            gamma,
            beta,
        )
    parameter, gradient, velocity = draw(count), draw(count), draw(count)
    for place in PLACES:
        p, g, v = (guard.place(array, place) for array in (parameter, gradient, velocity))
        cl.sgd_step(p.array, g.array, v.array, lr=0.1, momentum=0.5)
        np.testing.assert_allclose(v.array, 0.5 * velocity + gradient, rtol=1e-5, atol=1e-6)
        assert p.overrun() is None
        assert v.overrun() is None
        cl.adam_step(p.array, g.array, v.array, guard.place(gradient**2, place).array, 1)
        assert p.overrun() is None


def test_operands_may_lie_anywhere() -> None:
    """Buffers at every offset from an aligned address give the same bits."""
    p = parse("conv2d c19 i5x18 k21 f3 p1")
    a = operands(p, np.random.default_rng(0))
    for record in _core.algorithms(p):
        if not record["supported"]:
            continue
        plan = _core.Plan(p, record["name"], threads=1)
        results = set()
        for offset in (0, 1, 7, 15):
            first, second = (shifted(array, offset) for array in (a.first, a.second))
            results.add(plan.execute(*Operands(first, second).as_tuple(), None).tobytes())
        assert len(results) == 1, record["name"]


def shifted(values: Array, elements: int) -> Array:
    whole = np.empty(values.size + elements, values.dtype)
    result = whole[elements:].reshape(values.shape)
    result[...] = values
    return result
