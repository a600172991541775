"""Pooling: a grid against the reference on every ISA and layout, worked examples, and refusals."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith import _core, reference

Array = np.ndarray[Any, Any]
Call = tuple[str, tuple[Any, ...], dict[str, Any]]

LAYOUTS = ("channels_first", "channels_last")
DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
VECTORISED = ("max", "avg", "sum", "adaptive_avg", "adaptive_max")
FAMILIES = (*VECTORISED, "lp", "stochastic")
EXTENTS = {1: (53,), 2: (7, 37), 3: (4, 5, 18)}
NAN, INF = math.nan, math.inf


@pytest.fixture(params=_core.config()["isas_available"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs every pooling of a test with the kernels of one ISA."""
    for name in ("pool", "pool_backward"):
        monkeypatch.setattr(_core, name, partial(getattr(_core, name), isa=request.param))
    return str(request.param)


def maps(shape: tuple[int, ...], layout: str, dtype: str, seed: int = 0, span: int = 4) -> Array:
    """Small integers, so that sums are exact and ties abound; `shape` is channels first."""
    values = np.random.default_rng(seed).integers(-span, span + 1, shape).astype(dtype)
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)) if layout == "channels_last" else values


def pair(function: str, nd: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The function under test and the reference's."""
    name = function.format(nd=nd)
    return getattr(cl, name), getattr(reference, name)


def assert_close(actual: Array, expected: Array, tolerance: float, context: object) -> None:
    assert actual.shape == expected.shape, context
    assert actual.flags.c_contiguous, context
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance, err_msg=str(context)
    )


# ---- the grid against the reference ----------------------------------------------------------


def windows(nd: int) -> list[dict[str, Any]]:
    """Kernel, stride, padding and ceil_mode: borders, gaps, overlaps, whole axes."""
    whole = EXTENTS[nd]
    uneven = tuple(range(2, 2 + nd))
    return [
        dict(kernel_size=2),
        dict(kernel_size=3, stride=1, padding=1),
        dict(kernel_size=3, stride=2, padding=1, ceil_mode=True),
        dict(kernel_size=3, stride=2, padding="same"),
        dict(kernel_size=uneven, stride=uneven[::-1], padding="same_lower"),
        dict(kernel_size=uneven, stride=1, padding=((1, 0),) * nd),
        dict(kernel_size=4, stride=5, padding=2, ceil_mode=True),
        dict(kernel_size=1, stride=3),
        dict(kernel_size=whole, stride=1, padding=tuple(n // 2 for n in whole)),
        dict(kernel_size=whole, padding="valid"),
    ]


def sliding_calls(family: str, nd: int) -> list[Call]:
    name = f"{family}_pool{nd}d"
    calls: list[Call] = []
    for window in windows(nd):
        if family == "max":
            calls.append((name, (), window))
        elif family == "avg":
            calls += [
                (name, (), window | extra)
                for extra in ({}, {"count_include_pad": False}, {"divisor_override": -7})
            ]
        elif family == "lp":
            calls += [(name, (p,), window) for p in (1, 2, 3.5, INF)]
        elif family == "stochastic":
            without = {key: value for key, value in window.items() if key != "ceil_mode"}
            calls += [(name, (), without | {"rng": 3}), (name, (), without | {"training": False})]
        else:
            calls.append((name, (), window))
    if family == "max":
        calls.append((name, (), dict(kernel_size=2, stride=1, dilation=2, padding=1)))
        calls.append((name, (), dict(kernel_size=2, stride=2, dilation=3, ceil_mode=True)))
    return calls


def calls_of(family: str, nd: int) -> list[Call]:
    if not family.startswith("adaptive"):
        return sliding_calls(family, nd)
    sizes: list[Any] = [1, 2, 3, None, (4,) * (nd - 1) + (20,), (None,) * (nd - 1) + (1,)]
    return [(f"{family}_pool{nd}d", (), {"output_size": size}) for size in sizes]


@pytest.mark.parametrize("family", VECTORISED)
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_grid_against_reference(isa: str, family: str, nd: int) -> None:
    # Channels below, at and beyond a vector; a single channel in channels_last.
    counts = itertools.cycle((1, 37, 3, 16, 5))
    for (name, args, kwargs), _ in itertools.product(calls_of(family, nd), range(2)):
        channels = next(counts)
        for layout, dtype in itertools.product(LAYOUTS, DTYPES):
            x = maps((2, channels, *EXTENTS[nd]), layout, dtype)
            check_call(name, args, kwargs | {"data_format": layout}, x)


@pytest.mark.parametrize("family", ["lp", "stochastic"])
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_scalar_grid_against_reference(family: str, nd: int) -> None:
    for name, args, kwargs in calls_of(family, nd):
        for layout, dtype in itertools.product(LAYOUTS, DTYPES):
            x = maps((1, 3, *EXTENTS[nd]), layout, dtype)
            check_call(name, args, kwargs | {"data_format": layout}, x)


def check_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], x: Array) -> None:
    context = (name, args, kwargs, x.shape, x.dtype)
    tolerance = TOLERANCE[str(x.dtype)]
    function, truth = pair(name, 0)
    backward, backward_truth = pair(name + "_backward", 0)
    kept = x.copy()
    chooses = "max" in name or (name.startswith("stochastic") and kwargs.get("training", True))
    y, expected = function(x, *args, **kwargs), truth(x, *args, **kwargs)
    assert_close(y, expected, tolerance, context)
    assert y.dtype == x.dtype
    if chooses:
        pooled, indices = function(x, *args, **kwargs, return_indices=True)
        np.testing.assert_array_equal(pooled, y, err_msg=str(context))
        expected_indices = truth(x, *args, **kwargs, return_indices=True)[1]
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(indices, expected_indices, err_msg=str(context))
    dy = np.random.default_rng(1).integers(-4, 5, y.shape).astype(x.dtype)
    dx = backward(dy, x, *args, **kwargs)
    assert_close(dx, backward_truth(dy, x, *args, **kwargs), 4 * tolerance, context)
    assert dx.dtype == x.dtype
    np.testing.assert_array_equal(x, kept)
    if "max" in name:
        given = backward(dy, x, *args, **kwargs, indices=indices)
        np.testing.assert_array_equal(given, dx, err_msg=str(context))
        given = backward_truth(dy, x, *args, **kwargs, indices=indices)
        np.testing.assert_array_equal(given, dx, err_msg=str(context))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_indices_of_a_gradient_are_checked(layout: str, dtype: str) -> None:
    """Each must be of an element of its window, in every place."""
    x = maps((2, 18, 9, 40), layout, dtype)
    window: dict[str, Any] = dict(kernel_size=3, stride=2, padding=1, data_format=layout)
    y, indices = cl.max_pool2d(x, **window, return_indices=True)
    backward = partial(cl.max_pool2d_backward, y, x, **window)
    for place in [(0, 0, 0, 0), (-1, -1, -1, -1), (1, 4, 2, 3)]:
        for wrong in (-1, 9 * 40, 2**32 + int(indices[place]), 3 + int(indices[place]), 2**62):
            bad = indices.copy()
            bad[place] = wrong
            with pytest.raises(ValueError, match=rf"indices holds {wrong} \(sample"):
                backward(indices=bad)
            if dtype == "float64":
                with pytest.raises(ValueError, match="indices"):
                    reference.max_pool2d_backward(y, x, **window, indices=bad)
    for view in awkward_views(indices):
        np.testing.assert_array_equal(backward(indices=view), backward())
    with pytest.raises(ValueError, match="indices has shape"):
        backward(indices=indices[:1])
    with pytest.raises(TypeError, match="int64"):
        backward(indices=indices.astype(np.int32))


@pytest.mark.parametrize("channels", [1, 3, 37])
def test_windows_without_an_element(isa: str, channels: int) -> None:
    """Taps that lie on both sides of the map: -inf at index 0, in every row."""
    window: dict[str, Any] = dict(kernel_size=2, stride=1, padding=(0, 1), dilation=(1, 3))
    for layout, dtype in itertools.product(LAYOUTS, DTYPES):
        x = maps((2, channels, 5, 2), layout, dtype)
        y, indices = cl.max_pool2d(x, **window, data_format=layout, return_indices=True)
        assert y.size == 2 * channels * 4
        assert np.all(y == -INF)
        assert not indices.any()
        check_call("max_pool2d", (), window | {"data_format": layout}, x)


@pytest.mark.parametrize("family", ["adaptive_avg", "adaptive_max"])
def test_adaptive_windows_that_recur(isa: str, family: str) -> None:
    """Outputs a period apart have like windows, which vectors take together."""
    for layout, dtype, channels in itertools.product(LAYOUTS, DTYPES, (1, 2, 20)):
        x = maps((1, channels, 2, 72), layout, dtype)
        check_call(f"{family}_pool2d", (), dict(output_size=(1, 48), data_format=layout), x)


@pytest.mark.parametrize("channels", [1, 37])
def test_elements_of_many_windows_and_of_none(isa: str, channels: int) -> None:
    """More windows than gradients are gathered from; the last row and column are in none."""
    for layout, dtype in itertools.product(LAYOUTS, DTYPES):
        x = maps((2, channels, 26, 26), layout, dtype)
        check_call("max_pool2d", (), dict(kernel_size=13, stride=2, data_format=layout), x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_global_pooling(isa: str, layout: str, dtype: str) -> None:
    for spatial in [(5,), (7, 7), (3, 40), (2, 3, 4)]:
        x = maps((3, 21, *spatial), layout, dtype)
        check_call("global_avg_pool", (), {"data_format": layout}, x)
        y = cl.global_max_pool(x, data_format=layout)
        np.testing.assert_array_equal(y, reference.global_max_pool(x, data_format=layout))
        dy = maps((3, 21, *(1,) * len(spatial)), layout, dtype, 1)
        np.testing.assert_array_equal(
            cl.global_max_pool_backward(dy, x, data_format=layout),
            reference.global_max_pool_backward(dy, x, data_format=layout),
        )
    one = maps((1, 4, 5, 6), layout, dtype)[0]
    alias = "NCHW" if layout == "channels_first" else "NHWC"
    assert cl.global_avg_pool(one, data_format=alias).shape == (
        (4, 1, 1) if layout == "channels_first" else (1, 1, 4)
    )


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_unpool(nd: int, layout: str, dtype: str) -> None:
    unpool, truth = pair("max_unpool{nd}d", nd)
    backward, backward_truth = pair("max_unpool{nd}d_backward", nd)
    spatial = EXTENTS[nd]
    x = maps((2, 19, *spatial), layout, dtype)
    options: list[dict[str, Any]] = [
        dict(kernel_size=2, output_size=x.shape),
        dict(kernel_size=2, output_size=spatial),
        dict(kernel_size=3, stride=2, padding=1, output_size=spatial),
        dict(kernel_size=3, stride=2, padding="same", output_size=spatial),
    ]
    for option in options:
        window = {key: value for key, value in option.items() if key != "output_size"}
        function = getattr(cl, f"max_pool{nd}d")
        y, indices = function(x, **window, return_indices=True, data_format=layout)
        option["data_format"] = layout
        result = unpool(y, indices, **option)
        np.testing.assert_array_equal(result, truth(y, indices, **option))
        dy = maps((2, 19, *spatial), layout, dtype, 2)
        assert result.shape == dy.shape
        np.testing.assert_array_equal(
            backward(dy, y, indices, **option), backward_truth(dy, y, indices, **option)
        )


# ---- one sample, any strides, threads --------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_one_sample_is_a_batch_of_one(layout: str, nd: int) -> None:
    x = maps((1, 5, *EXTENTS[nd]), layout, "float32")
    for family, args in [("max", ()), ("avg", ()), ("lp", (2,)), ("stochastic", ())]:
        name = f"{family}_pool{nd}d"
        options: dict[str, Any] = {"data_format": layout}
        if family == "stochastic":
            options["rng"] = 4
        y = getattr(cl, name)(x, *args, 2, **options)
        np.testing.assert_array_equal(getattr(cl, name)(x[0], *args, 2, **options), y[0])
        backward = getattr(cl, name + "_backward")
        dx = backward(y, x, *args, 2, **options)
        np.testing.assert_array_equal(backward(y[0], x[0], *args, 2, **options), dx[0])
    y, indices = getattr(cl, f"max_pool{nd}d")(x, 2, return_indices=True, data_format=layout)
    unpool = getattr(cl, f"max_unpool{nd}d")
    batch = unpool(y, indices, 2, output_size=x.shape, data_format=layout)
    sample = unpool(y[0], indices[0], 2, output_size=x.shape[1:], data_format=layout)
    np.testing.assert_array_equal(sample, batch[0])


def awkward_views(x: Array) -> list[Array]:
    """The values of x under strides that kernels cannot or can walk."""
    spread = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    spread[tuple(slice(None, None, 2) for _ in x.shape)] = x
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    views = [
        np.asfortranarray(x),
        spread[tuple(slice(None, None, 2) for _ in x.shape)],
        np.ascontiguousarray(x[::-1])[::-1],
        np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        np.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)))[:, 1:-2],
        np.pad(x, ((0, 0), (0, 0), (0, 0), (3, 4)))[..., 3:-4],
        unaligned,
    ]
    for view in views:
        view.flags.writeable = False
    return views


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout: str) -> None:
    x = maps((3, 6, 9, 11), layout, "float32")
    window: dict[str, Any] = dict(kernel_size=3, stride=2, padding=1, data_format=layout)
    y, indices = cl.max_pool2d(x, **window, return_indices=True)
    dx = cl.max_pool2d_backward(y, x, **window)
    mean_dx = cl.avg_pool2d_backward(y, x, **window, count_include_pad=False)
    for view in awkward_views(x):
        np.testing.assert_array_equal(cl.max_pool2d(view, **window), y)
        np.testing.assert_array_equal(cl.max_pool2d_backward(y, view, **window), dx)
    for view in awkward_views(y):
        np.testing.assert_array_equal(cl.max_pool2d_backward(view, x, **window), dx)
        actual = cl.avg_pool2d_backward(view, x, **window, count_include_pad=False)
        np.testing.assert_array_equal(actual, mean_dx)
    restored = cl.max_unpool2d(y, indices, 3, 2, 1, x.shape, data_format=layout)
    for view in awkward_views(indices):
        actual = cl.max_unpool2d(y, view, 3, 2, 1, x.shape, data_format=layout)
        np.testing.assert_array_equal(actual, restored)
    broadcast = np.broadcast_to(x[:1], x.shape)
    np.testing.assert_array_equal(
        cl.max_pool2d(broadcast, **window), np.repeat(y[:1], len(x), axis=0)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 24, 40, 41), (1, 200, 9, 9), (1, 1, 150, 160)])
def test_same_bits_for_any_number_of_threads(isa: str, layout: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    window: dict[str, Any] = dict(kernel_size=3, stride=2, padding=1, data_format=layout)
    if layout == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))

    def everything() -> list[Array]:
        y, indices = cl.max_pool2d(x, **window, return_indices=True)
        dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        top = cl.global_avg_pool(x, data_format=layout)
        return [
            y,
            indices,
            cl.avg_pool2d(x, **window),
            cl.lp_pool2d(x, 3, **window),
            cl.stochastic_pool2d(x, **window, rng=1),
            top,
            cl.max_pool2d_backward(dy, x, **window),
            cl.avg_pool2d_backward(dy, x, **window, count_include_pad=False),
            cl.lp_pool2d_backward(dy, x, 3, **window),
            cl.stochastic_pool2d_backward(dy, x, **window, rng=1),
            cl.global_avg_pool_backward(top, x, data_format=layout),
            cl.max_unpool2d(y, indices, 3, 2, 1, x.shape, data_format=layout),
        ]

    with cl.threads(1):
        alone = everything()
    for count in (2, 5):
        with cl.threads(count):
            for serial, threaded in zip(alone, everything(), strict=True):
                assert serial.tobytes() == threaded.tobytes()


# ---- worked examples -------------------------------------------------------------------------

SQUARE = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "out"),
    [
        (32, 1, 2, 0, 16),
        (9, 4, 4, 2, 3),
        (2, 3, 3, 1, 1),
        (5, 6, 2, 0, 1),
        (3, 2**63 - 3, 2**63 - 1, 2**62 - 2, 1),
    ],
)
def test_ceil_mode_extents(n: int, k: int, s: int, p: int, out: int) -> None:
    x = np.ones((1, 1, n), np.float32)
    assert cl.max_pool1d(x, k, s, p, ceil_mode=True).shape == (1, 1, out)


def test_average_divides_by_the_clipped_window() -> None:
    y = cl.avg_pool2d(SQUARE, 3, 2, 1, ceil_mode=True)
    np.testing.assert_array_equal(y[0, 0, -1], [4.5, 7.5, 4.0])


def test_same_padding_of_an_even_extent_is_at_the_end() -> None:
    x = np.array([[[1, 2, 3, 4]]], np.float32)
    np.testing.assert_array_equal(cl.max_pool1d(x, 3, 2, "same")[0, 0], [3, 4])
    np.testing.assert_array_equal(cl.max_pool1d(x, 3, 2, "same_lower")[0, 0], [2, 4])


def test_lp_takes_absolute_values_and_scales() -> None:
    assert cl.lp_pool1d(np.array([[-2.0, 1.0]]), 3, 2)[0, 0] == pytest.approx(9 ** (1 / 3))
    for dtype in DTYPES:
        limits = np.finfo(dtype)
        for size in (limits.max / 4, limits.tiny):
            x = np.full((1, 4), size, dtype)
            y = cl.lp_pool1d(x, 2, 4)
            assert y[0, 0] == pytest.approx(2 * float(size), rel=1e-6)
            dx = cl.lp_pool1d_backward(np.ones_like(y), x, 2, 4)
            np.testing.assert_allclose(dx, 0.5, rtol=1e-6)


def test_stochastic_pooling_draws_with_the_stated_numbers() -> None:
    x = np.array([[1.0, 3.0, -5.0, 0.0], [-1.0, -2.0, -3.0, -4.0]])
    u = np.random.default_rng(11).random((2, 1))[:, 0]
    y, indices = cl.stochastic_pool1d(x, 4, rng=11, return_indices=True)
    assert indices[0, 0] == (0 if u[0] < 0.25 else 1)
    assert indices[1, 0] == int(4 * u[1])
    assert y[0, 0] == x[0, indices[0, 0]]
    mean = cl.stochastic_pool1d(x, 4, training=False)
    np.testing.assert_allclose(mean[:, 0], [(1 + 9) / 4, -2.5])
    generator = np.random.default_rng(11)
    np.testing.assert_array_equal(cl.stochastic_pool1d(x, 4, rng=generator), y)
    assert generator.random() != np.random.default_rng(11).random()


def test_stochastic_gradient_goes_to_the_indices() -> None:
    x = maps((2, 3, 8, 8), "channels_first", "float64")
    y, indices = cl.stochastic_pool2d(x, 3, 1, rng=5, return_indices=True)
    with_indices = cl.stochastic_pool2d_backward(y, x, 3, 1, indices=indices)
    np.testing.assert_array_equal(cl.stochastic_pool2d_backward(y, x, 3, 1, rng=5), with_indices)
    with pytest.raises(ValueError, match="indices and rng are None"):
        cl.stochastic_pool2d_backward(y, x, 3, 1)


# ---- NaN, infinities, ties -------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [2, 3, 19])
def test_special_values_match_the_reference(isa: str, layout: str, dtype: str, kernel: int) -> None:
    rng = np.random.default_rng(kernel)
    values = np.array([NAN, -NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0])
    odds = [0.01, 0.01, 0.02, 0.3, 0.3, 0.3, 0.03, 0.03]
    x = rng.choice(values, (2, 18, 21, 40), p=odds).astype(dtype)
    x[0] = np.where(np.isnan(x[0]), -INF, x[0])
    for stride in (1, 2, kernel):
        options: dict[str, Any] = dict(
            kernel_size=kernel, stride=stride, padding=kernel // 2, data_format=layout
        )
        y, indices = cl.max_pool2d(x, **options, return_indices=True)
        expected, at = reference.max_pool2d(x, **options, return_indices=True)
        np.testing.assert_array_equal(indices, at)
        np.testing.assert_array_equal(y, expected)
        ordered = ~np.isnan(y)
        np.testing.assert_array_equal(np.signbit(y[ordered]), np.signbit(expected[ordered]))
        np.testing.assert_array_equal(cl.max_pool2d(x, **options), y)
        dy = np.ones_like(y)
        np.testing.assert_array_equal(
            cl.max_pool2d_backward(dy, x, **options),
            reference.max_pool2d_backward(dy, x, **options),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", [3, 6, 7])
def test_shares_of_subnormal_numbers_are_rounded_once(
    isa: str, layout: str, dtype: str, kernel: int
) -> None:
    """Also beside others, ties among them; each input has one reader."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    shape = (1, 40, 3, 23) if layout == "channels_first" else (1, 3, 23, 40)
    dy = (rng.integers(-(2**23), 2**23, shape) * info.smallest_subnormal).astype(dtype)
    dy.flat[::5] = rng.integers(-400, 400, dy.flat[::5].shape) * info.smallest_subnormal
    dy.flat[2::7] = rng.uniform(-4, 4, dy.flat[2::7].shape) * info.tiny
    dy.flat[3::61] = 0.0
    dy.flat[4::61] = -0.0
    dy.flat[5::61] = info.max
    dy.flat[6::61] = -np.inf
    axes = (2, 3) if layout == "channels_first" else (1, 2)
    for stride in (kernel, kernel + 1):
        extents = [(3 - 1) * stride + kernel, (23 - 1) * stride + kernel]
        x_shape = [*shape]
        x_shape[axes[0]], x_shape[axes[1]] = extents
        x = np.zeros(x_shape, dtype)
        dx = cl.avg_pool2d_backward(dy, x, kernel, stride, data_format=layout)
        share = dy / np.asarray(kernel**2, dtype)
        window = [slice(None)] * 4
        for row, column in itertools.product(range(kernel), repeat=2):
            window[axes[0]] = slice(row, None, stride)
            window[axes[1]] = slice(column, None, stride)
            np.testing.assert_array_equal(dx[tuple(window)], share)


def test_nan_reaches_its_own_windows_alone(isa: str) -> None:
    x = np.ones((1, 1, 64, 64), np.float32)
    x[0, 0, 30, 30] = NAN
    for function in (cl.avg_pool2d, cl.sum_pool2d, cl.max_pool2d, cl.stochastic_pool2d):
        assert np.isnan(function(x, 3, 1, 1)).sum() == 9
    assert np.isnan(cl.lp_pool2d(x, 2, 3, 1, padding=1)).sum() == 9
    assert np.isnan(cl.stochastic_pool2d(x, 3, 1, 1, training=False)).sum() == 9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_without_elements(isa: str, layout: str) -> None:
    """Both taps of a dilated window may lie in padding: -inf, index 0, no gradient."""
    x = np.full((1, 3, 1), 5.0, np.float32)
    if layout == "channels_last":
        x = x.reshape(1, 1, 3)
    options: dict[str, Any] = dict(padding=1, dilation=2, data_format=layout)
    y, indices = cl.max_pool1d(x, 2, 1, **options, return_indices=True)
    assert np.all(y == -INF)
    assert not indices.any()
    assert not cl.max_pool1d_backward(np.ones_like(y), x, 2, 1, **options).any()


def test_whole_gradient_goes_to_the_first_of_equals(isa: str) -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    dx = cl.max_pool2d_backward(np.full((1, 1, 2, 2), 3, np.float32), x, 2)
    np.testing.assert_array_equal(dx[0, 0, ::2, ::2], np.full((2, 2), 3))
    assert dx.sum() == 12


def test_stochastic_special_values() -> None:
    x = np.array([[INF, 2.0, INF, -1.0], [-INF, -INF, -INF, -INF], [1.0, NAN, NAN, 2.0]])
    for seed in range(8):
        y, indices = cl.stochastic_pool1d(x, 4, rng=seed, return_indices=True)
        expected, at = reference.stochastic_pool1d(x, 4, rng=seed, return_indices=True)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(indices, at)
    np.testing.assert_array_equal(
        cl.stochastic_pool1d(x, 4, training=False),
        reference.stochastic_pool1d(x, 4, training=False),
    )


# ---- accuracy of large windows ---------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 2, 1 << 20), (1, 1, 1, 1 << 20), (1, 17, 300, 301)])
def test_long_sums_do_not_drift(isa: str, layout: str, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.1, np.float32)
    if layout == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = cl.global_avg_pool(x, data_format=layout)
    np.testing.assert_allclose(y, np.float32(0.1), rtol=4e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_of_many_windows_does_not_drift(isa: str, layout: str) -> None:
    n, k = 20000, 10001
    x = np.zeros((1, 1, n), np.float32)
    x[0, 0, n // 2] = 1
    if layout == "channels_last":
        x = x.reshape(1, n, 1)
    options: dict[str, Any] = dict(stride=1, data_format=layout)
    y, indices = cl.max_pool1d(x, k, **options, return_indices=True)
    dy = np.full_like(y, 0.1)
    exact = np.float64(np.float32(0.1)) * dy.size
    for dx in (
        cl.max_pool1d_backward(dy, x, k, **options),
        cl.sum_pool1d_backward(dy, x, k, **options),
        cl.stochastic_pool1d_backward(dy, x, k, 1, indices=indices, data_format=layout),
    ):
        assert dx.max() == pytest.approx(exact, rel=6e-6)


# ---- torch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch(nd: int, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = np.random.default_rng(nd).standard_normal((2, 5, *EXTENTS[nd])).astype(dtype)
    tolerance: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}

    def compare(name: str, *args: Any, **kwargs: Any) -> None:
        leaf = torch.from_numpy(x.copy()).requires_grad_(True)
        expected = getattr(functional, name)(leaf, *args, **kwargs)
        actual = getattr(cl, name)(x, *args, **kwargs)
        np.testing.assert_allclose(actual, expected.detach().numpy(), **tolerance, err_msg=name)
        dy = np.random.default_rng(9).standard_normal(actual.shape).astype(dtype)
        expected.backward(torch.from_numpy(dy))
        dx = getattr(cl, name + "_backward")(dy, x, *args, **kwargs)
        np.testing.assert_allclose(dx, leaf.grad.numpy(), **tolerance, err_msg=name)

    for k, s, p, ceil in [(2, 2, 0, False), (3, 2, 1, True), (3, 1, 1, False), (4, 3, 2, True)]:
        compare(f"max_pool{nd}d", k, s, p, ceil_mode=ceil)
        compare(f"avg_pool{nd}d", k, s, p, ceil_mode=ceil)
        compare(f"avg_pool{nd}d", k, s, p, ceil_mode=ceil, count_include_pad=False)
    compare(f"max_pool{nd}d", 2, 1, 1, dilation=2)
    compare(f"adaptive_max_pool{nd}d", 3)
    compare(f"adaptive_avg_pool{nd}d", 3)
    if nd > 1:
        compare(f"avg_pool{nd}d", 3, 2, 1, divisor_override=5)
    y, indices = getattr(cl, f"max_pool{nd}d")(x, 3, 2, 1, return_indices=True)
    expected, at = getattr(functional, f"max_pool{nd}d")(
        torch.from_numpy(x), 3, 2, 1, return_indices=True
    )
    np.testing.assert_array_equal(indices, at.numpy())
    unpooled = getattr(functional, f"max_unpool{nd}d")(expected, at, 3, 2, 1, list(x.shape))
    result = getattr(cl, f"max_unpool{nd}d")(y, indices, 3, 2, 1, x.shape)
    np.testing.assert_array_equal(result, unpooled.numpy())


# ---- signatures and refusals -----------------------------------------------------------------


def pooling_names() -> list[str]:
    names = [f"{family}_pool{nd}d" for family in FAMILIES for nd in (1, 2, 3)]
    names += [f"max_unpool{nd}d" for nd in (1, 2, 3)] + ["global_avg_pool", "global_max_pool"]
    return [name + ending for name in names for ending in ("", "_backward")]


def test_signatures_are_those_of_the_reference() -> None:
    for name in pooling_names():
        ours = inspect.signature(getattr(cl, name)).parameters
        theirs = inspect.signature(getattr(reference, name)).parameters
        assert list(ours) == list(theirs), name
        for parameter, other in zip(ours.values(), theirs.values(), strict=True):
            assert (parameter.kind, parameter.default) == (other.kind, other.default), name
        assert (getattr(cl, name).__doc__ or "").strip(), name
        assert getattr(cl, name).__name__ == name


X = np.zeros((2, 3, 8, 8), np.float32)
Y = np.zeros((2, 3, 4, 4), np.float32)
INDICES = np.zeros((2, 3, 4, 4), np.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cl.max_pool2d(X, 0), ValueError, "kernel"),
        (lambda: cl.max_pool2d(X, 2, 0), ValueError, "stride is 0"),
        (lambda: cl.max_pool2d(X, 2, dilation=0), ValueError, "dilation is 0"),
        (lambda: cl.max_pool2d(X, 3, padding=-1), ValueError, "padding is -1"),
        (lambda: cl.max_pool2d(X, 3, padding=2), ValueError, "padding is 2 on axis 2.*half"),
        (lambda: cl.max_pool2d(X[0], (3, 3), padding=(1, 2)), ValueError, "on axis 2.*half"),
        (lambda: cl.max_pool2d(X, 9), ValueError, "kernel 9 is larger than padded input 8"),
        (lambda: cl.max_pool2d(X, 9, 1, ceil_mode=True), ValueError, "kernel 9 leaves no output"),
        (lambda: cl.max_pool2d(X, 5, dilation=2), ValueError, r"dilation 2: effective 9"),
        (lambda: cl.max_pool2d(X[:0], 9), ValueError, "kernel 9"),
        (lambda: cl.max_pool2d(X, (2, 2, 2)), ValueError, "kernel_size"),
        (lambda: cl.max_pool2d(X, 2.0), TypeError, "kernel_size"),  # type: ignore[arg-type]
        (lambda: cl.max_pool2d(X, True), TypeError, "kernel_size"),
        (lambda: cl.max_pool2d(X, 2, ceil_mode=1), TypeError, "ceil_mode"),  # type: ignore[arg-type]
        (lambda: cl.max_pool2d(X, 2, padding="full"), ValueError, "padding is 'full'"),
        (lambda: cl.max_pool2d(X, 2, data_format="NCL"), ValueError, "data_format"),
        (lambda: cl.max_pool2d(X[0, 0], 2), ValueError, "x has 2 axes"),
        (lambda: cl.max_pool2d(X.tolist(), 2), TypeError, "x is a list"),
        (lambda: cl.max_pool2d(X.astype(np.float16), 2), TypeError, "float16"),
        (lambda: cl.max_pool2d(X.astype(">f4"), 2), TypeError, "byte order"),
        (lambda: cl.max_pool2d(np.ma.masked_array(X), 2), TypeError, "MaskedArray"),
        (lambda: cl.max_pool2d(X[:, :0], 2), ValueError, "channels"),
        (lambda: cl.max_pool2d(X[:, :, :0], 2, padding=1), ValueError, "input extent"),
        (lambda: cl.max_pool2d(X, 2**62, dilation=4), OverflowError, "64 bits"),
        (lambda: cl.max_pool2d(X, 2**64), OverflowError, "kernel_size"),
        (lambda: cl.avg_pool2d(X, 2, divisor_override=0), ValueError, "divisor_override"),
        (lambda: cl.avg_pool2d(X, 2, divisor_override=1.5), TypeError, "divisor_override"),  # type: ignore[arg-type]
        (lambda: cl.lp_pool2d(X, 0, 2), ValueError, "norm_type"),
        (lambda: cl.lp_pool2d(X, NAN, 2), ValueError, "norm_type"),
        (lambda: cl.lp_pool2d(X, "2", 2), TypeError, "norm_type"),  # type: ignore[arg-type]
        (lambda: cl.stochastic_pool2d(X, 2, rng=1.5), TypeError, "rng"),  # type: ignore[arg-type]
        (lambda: cl.stochastic_pool2d(X, 2, rng=-1), ValueError, "rng is -1"),
        (
            lambda: cl.stochastic_pool2d(X, 2, training=False, return_indices=True),
            ValueError,
            "return_indices",
        ),
        (lambda: cl.adaptive_avg_pool2d(X, 0), ValueError, "output_size is 0"),
        (lambda: cl.adaptive_avg_pool2d(X, (1, 2, 3)), ValueError, "output_size"),
        (lambda: cl.adaptive_max_pool2d(X, 1.0), TypeError, "output_size"),  # type: ignore[arg-type]
        (lambda: cl.global_avg_pool(X[0, 0, 0]), ValueError, "x has 1 axes"),
        (lambda: cl.max_pool2d_backward(X, X, 2), ValueError, r"dy has shape .*\(2, 3, 4, 4\)"),
        (lambda: cl.max_pool2d_backward(Y.astype("f8"), X, 2), TypeError, "dtype"),
        (lambda: cl.max_unpool2d(Y, INDICES + 64, 2), ValueError, "indices holds 64.*0 to 63"),
        (lambda: cl.max_unpool2d(Y, INDICES - 1, 2), ValueError, "indices holds -1"),
        (lambda: cl.max_unpool2d(Y, INDICES.astype(np.int32), 2), TypeError, "int32"),
        (lambda: cl.max_unpool2d(Y, INDICES[0], 2), ValueError, "indices has shape"),
        (lambda: cl.max_unpool2d(Y, INDICES, 2, output_size=(8, 10)), ValueError, "7 to 9"),
        (
            lambda: cl.max_unpool2d(Y[:, :, :1], INDICES[:, :, :1], 2, 1, padding=1),
            ValueError,
            "unpooled extent comes out as 0 on axis 2",
        ),
        (
            lambda: cl.max_unpool2d_backward(X, Y, INDICES + 64, 2),
            ValueError,
            "indices holds 64",
        ),
        (
            lambda: cl.stochastic_pool2d_backward(Y, X, 2, indices=INDICES + 64),
            ValueError,
            "indices holds 64",
        ),
    ],
)
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_bad_index_among_good_ones_is_named() -> None:
    indices = np.zeros((4, 8, 16), np.int64)
    indices[2, 5, 7] = 999
    with pytest.raises(ValueError, match=r"999 \(sample 2, channel 5, element 7\)"):
        cl.max_unpool1d(np.zeros((4, 8, 16), np.float32), indices, 2)


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_empty_batches(nd: int) -> None:
    x = np.zeros((0, 3, *EXTENTS[nd]), np.float32)
    for family, args in [("max", ()), ("avg", ()), ("sum", ()), ("lp", (2,)), ("stochastic", ())]:
        name = f"{family}_pool{nd}d"
        options: dict[str, Any] = {"rng": 1} if family == "stochastic" else {}
        y = getattr(cl, name)(x, *args, 2, **options)
        assert y.shape == (0, 3, *(n // 2 for n in EXTENTS[nd]))
        assert getattr(cl, name + "_backward")(y, x, *args, 2, **options).shape == x.shape
    y, indices = getattr(cl, f"adaptive_max_pool{nd}d")(x, 2, True)
    assert y.shape == indices.shape == (0, 3, *(2,) * nd)
    assert getattr(cl, f"max_unpool{nd}d")(y, indices, 2).shape == (0, 3, *(4,) * nd)


def test_integers_of_every_kind() -> None:
    y = cl.max_pool2d(X, np.int8(2), np.array(2), (np.uint16(1), 0))
    assert y.shape == (2, 3, 5, 4)
    assert cl.max_pool2d(X, (2,), [2]).shape == (2, 3, 4, 4)
