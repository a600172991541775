"""Rounding errors: against each algorithm's own bound, the bounds of the library, and chains of
additions; activations against the reference to a few units in the last place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from problems import (
    ALGORITHMS,
    CONV,
    DIRECTIONS,
    DTYPES,
    ISAS,
    LAYOUTS,
    SERVED,
    UNIT_ROUNDOFF,
    Array,
    Operands,
    convert,
    describe,
    error_bound,
    expected,
    is_transform,
    library_bound,
    move_channels,
    operands,
    parse,
    problem_for,
    run,
    serving,
    sums_of_magnitudes,
)

import convolith as cl
from convolith import _core, reference

LAYERS = (
    "conv2d c64 i14x14 k48 f3 p1",
    "conv2d c256 i7x6 k32 f3 p1",
    "conv2d c512 i5x5 k20 f1",
    "conv2d c3 i40x40 k16 f7 s2 p3 bias relu",
    "conv2d c96 i17x15 k96 f3 p1 g96",
    "conv2d n4 c16 i33x31 k16 f3 d2 p2",
    "conv1d c8 i3000 k8 f9 psame",
    "conv3d c24 i6x7x8 k16 f3 p1 residual",
    "conv2d c40 i9x9 k24 f5 s2 psame circular",
    "conv2d c32 i14x15 k32 f3 p1 g8",
    "conv2d c6 i40x37 k5 f13 p6",
)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("text", LAYERS)
def test_every_algorithm_keeps_its_bound(text: str, direction: str) -> None:
    """|error| <= componentwise * conv(|x|, |weight|), output by output; for transforms, and
    uniform * max |x| * sum |weight|."""
    if direction == "backward_weight":
        text = " ".join(w for w in text.split() if w not in ("bias", "relu", "residual"))
    p = parse(f"{text} {direction}")
    a = operands(p, np.random.default_rng(0), integers=False)
    exact, magnitudes = expected(p, a), sums_of_magnitudes(p, a)
    assert np.count_nonzero(exact) > 0.3 * exact.size
    for layout in LAYOUTS:
        for dtype in DTYPES:
            variant = p.replace(data_format=layout, dtype=dtype)
            given = convert(p, a, layout, dtype)  # float32 numbers, so nothing is rounded here
            maps = direction != "backward_weight"
            y, sums = (
                move_channels(array, "channels_first", layout) if maps else array
                for array in (exact, magnitudes)
            )
            for record in _core.algorithms(variant):
                if not record["supported"]:
                    continue
                own = error_bound(variant, given, record["tolerance"], sums)
                own += 8 * 2.0**-53 * sums  # exact itself was summed in float64
                for isa in ISAS:
                    plan = _core.Plan(variant, record["name"], isa=isa)
                    error = np.abs(run(plan, given) - y)
                    assert np.all(np.isfinite(error)), describe(variant, plan)
                    assert np.all(error <= own), describe(variant, plan)
                    assert np.all(error <= library_bound(variant, y)), describe(variant, plan)
                    if dtype == "float32" and plan.algorithm in serving(variant, "strict"):
                        assert np.max(error) <= 1e-5 * np.max(np.abs(y)), describe(variant, plan)


@pytest.mark.parametrize("text", LAYERS)
def test_bounds_are_not_vacuous(text: str) -> None:
    """A bound that a wrong result meets is none: float32's stays below 0.5 % of the sums."""
    p = parse(text)
    for record in _core.algorithms(p):
        if record["supported"]:
            assert 0 < record["tolerance"]["componentwise"] < 1e-3
            assert 0 <= record["tolerance"].get("uniform", 0) < 5e-3
            assert is_transform(p, record["name"]) or not record["tolerance"].get("uniform")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", LAYERS)
def test_the_order_of_sums_is_the_problems(text: str, layout: str, direction: str) -> None:
    """The same bits for any number of threads and, under strict and where each sample has a result
    of its own, in any batch. Integers could not tell: their sums are exact in any order."""
    words = [w for w in text.split() if w not in ("bias", "relu", "residual")]
    p = parse(f"{' '.join(words)} {direction} {layout}", batch=3)
    a = operands(p, np.random.default_rng(0), integers=False)
    for name in serving(p):
        for isa in ISAS:
            result, *others = (run(_core.Plan(p, name, threads=n, isa=isa), a) for n in (1, 2, 5))
            assert all(other.tobytes() == result.tobytes() for other in others), (name, isa)
            if direction != "backward_weight" and name in serving(p, "strict"):
                alone = _core.Plan(p.replace(batch=1), name, isa=isa)
                sample = run(alone, Operands(a.first[1:2], a.second))
                assert sample.tobytes() == result[1:2].tobytes(), (name, isa)


CHAINS = (
    # reduced over channels, over taps, over both; over pixels, over samples for backward_weight
    "conv1d c9000 i2 k2 f1",
    "conv2d c1 i96x97 k2 f96",
    "conv2d c90 i10x11 k2 f10",
    "conv1d c2 i9001 k2 f2 backward_weight",
    "conv2d c2 i95x95 k2 f1 backward_weight",
    "conv2d c2 i3001x3 k2 f1 backward_weight",
    "conv1d n9000 c2 i2 k2 f2 backward_weight",
    "conv1d c2 i2 k9000 f1 backward_input",
    "conv2d c1 i6x6 k2 f70 p69 backward_input",
    "conv2d c2 i10x11 k100 f10 p9 backward_input",
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", CHAINS)
def test_no_chain_of_more_than_512_additions(text: str, layout: str) -> None:
    """A sum of 2^24 and many ones: in float32, each addition to 2^24 alone loses its one.

    A chain of 512 loses 512 at most, and adding up the chains' sums little more; one chain would
    lose thousands.
    """
    p = parse(text, data_format=layout)
    ones = Operands(*(np.ones(shape, np.float32) for shape in first_two_shapes(p)))
    terms = int(np.max(expected(p, ones)))
    assert terms > 8000
    for position in (0, 0.3, 0.7):
        a = Operands(ones.first.copy(), ones.second)
        a.first.flat[int(position * a.first.size)] = 2.0**24
        exact = expected(p, a)
        for name in serving(p, "strict"):
            for isa in ISAS:
                plan = _core.Plan(p, name, isa=isa)
                assert np.max(np.abs(run(plan, a) - exact)) <= 512 + terms / 64, describe(p, plan)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spacing", [64, 320, 512])
def test_no_long_chain_of_partial_sums(spacing: int, layout: str) -> None:
    """The same with zeros between the ones: each partial sum adds a one or two to 2^24."""
    p = parse("conv1d c400000 i1 k1 f1", data_format=layout)
    a = Operands(np.zeros(p.x_shape, np.float32), np.ones(p.weight_shape, np.float32))
    a.first.flat[::spacing] = 1
    ones = np.count_nonzero(a.first)
    a.first.flat[0] = 2.0**24
    for name, isa in itertools.product(serving(p, "strict"), ISAS):
        plan = _core.Plan(p, name, isa=isa)
        lost = 2.0**24 + ones - 1 - float(run(plan, a).item())
        assert abs(lost) <= 512 + ones / 64, describe(p, plan)


def first_two_shapes(p: _core.ConvProblem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    y = p.x_shape if p.direction == "forward" else p.y_shape
    return y, p.x_shape if p.direction == "backward_weight" else p.weight_shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 2, 20000), (20000, 2, 1), (130, 2, 150)])
def test_bias_gradient_has_no_long_chain(shape: tuple[int, ...], layout: str) -> None:
    dy = np.ones(shape, np.float32)
    dy[0, :, 0] = 2.0**24
    exact = dy.sum(axis=(0, 2), dtype=np.float64)
    sums = _core.channel_sums(move_channels(dy, "channels_first", layout), 1, layout)
    assert np.max(np.abs(sums - exact)) <= 512 + 20000 / 64


# ---- activations ---------------------------------------------------------------------------

ACTIVATIONS = (*reference.ACTIVATIONS, ("leaky_relu", 0.3), ("leaky_relu", -2.0))


def activated(values: Array, activation: object, isa: str, layout: str) -> Array:
    """act(values) through a 1x1 convolution by 1."""
    word, slope = activation if isinstance(activation, tuple) else (activation, 0.01)
    p = parse(f"conv1d c1 i{values.size} k1 f1 {values.dtype} {layout} {word} slope={slope!r}")
    one = np.ones((1, 1, 1), values.dtype)
    maps = values.reshape(p.x_shape)
    return run(_core.Plan(p, ALGORITHMS[0], isa=isa), Operands(maps, one)).ravel()


def arguments(dtype: str) -> Array:
    """Ordinary, tiny and large ones, and the neighbours of every kink."""
    rng = np.random.default_rng(0)
    kinks = np.array([0, 0.625, 1, 3, 6, 17, 18.7, 87.3, 88.7, 88.8, 103.97, 709.7, 709.8, 745.2])
    near = np.concatenate([kinks, np.nextafter(kinks, 100), np.nextafter(kinks, -100)])
    info = np.finfo(dtype)
    extreme = np.array([info.max, info.max / 7, info.tiny, info.tiny / 4, 1e-20, 1e20, 1e30])
    values = np.concatenate([rng.standard_normal(500), 10 * rng.standard_normal(500), near])
    values = np.concatenate([values, 100 * rng.standard_normal(200), extreme])
    return np.concatenate([values, -values]).astype(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activation(activation: object, dtype: str, isa: str, layout: str) -> None:
    x = arguments(dtype)
    y = activated(x, activation, isa, layout)
    exact = reference.activate(x, activation)
    few = 8
    smallest = np.finfo(dtype).tiny  # subnormal results may be flushed or rounded differently
    beyond = np.abs(exact) > np.finfo(dtype).max
    exact = np.where(beyond, np.copysign(np.inf, exact), exact)
    infinite = np.isinf(exact)
    np.testing.assert_array_equal(y[infinite], exact[infinite])
    error = np.abs(y[~infinite] - exact[~infinite])
    bound = few * 2 * UNIT_ROUNDOFF[dtype] * np.abs(exact[~infinite]) + smallest
    worst = np.argmax(error - bound)
    assert np.all(error <= bound), (x[~infinite][worst], y[~infinite][worst])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("activation", "at_minus_infinity", "at_infinity"),
    [
        ("relu", 0, np.inf),
        ("relu6", 0, 6),
        ("leaky_relu", -np.inf, np.inf),
        ("tanh", -1, 1),
        ("sigmoid", 0, 1),
        ("hardswish", np.nan, np.inf),
        ("silu", np.nan, np.inf),
    ],
)
def test_activation_at_infinity(
    activation: str, at_minus_infinity: float, at_infinity: float, dtype: str, isa: str
) -> None:
    """Of silu and hardswish at -inf, which is -inf * 0 by their definition, the limit 0 is right
    too. A NaN stays a NaN."""
    x = np.array([-np.inf, np.inf, np.nan, 1.0] * 9, dtype)
    y = activated(x, activation, isa, "channels_first")
    np.testing.assert_array_equal(y[1::4], np.full(9, at_infinity))
    np.testing.assert_array_equal(y[2::4], np.full(9, np.nan))
    assert np.all(np.isfinite(y[3::4]))
    if np.isnan(at_minus_infinity):
        assert np.all(np.isnan(y[::4]) | (y[::4] == 0))
    else:
        np.testing.assert_allclose(y[::4], at_minus_infinity, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh", "silu", "hardswish"])
def test_activations_through_zero_keep_tiny_arguments(
    activation: str, dtype: str, isa: str
) -> None:
    """f(x) = f'(0) x (1 + O(x)) near 0: no cancellation, no lost sign."""
    x = (np.float64([1, -1]) * np.finfo(dtype).tiny * 2.0**30).astype(dtype)
    y = activated(np.concatenate([x, np.zeros(5, dtype)]), activation, isa, "channels_last")
    slope = {"leaky_relu": [1, 0.01], "tanh": 1, "silu": 0.5, "hardswish": 0.5}[activation]
    np.testing.assert_allclose(y[:2], slope * x.astype(np.float64), rtol=1e-6, atol=0)
    assert not np.any(y[2:])


@pytest.mark.parametrize(
    ("name", "direction"), [pair for pair in SERVED if pair[1] != "backward_weight"]
)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_algorithm_applies_the_epilogue(activation: str, name: str, direction: str) -> None:
    for layout in LAYOUTS:
        for dtype in DTYPES:
            words = f"{direction} {layout} {dtype}"
            p = problem_for(name, f"{words} bias residual {activation}")
            a = operands(p, np.random.default_rng(0), integers=False)
            sums = run(_core.Plan(problem_for(name, words), name), Operands(a.first, a.second))
            channels = (-1,) if layout == "channels_last" else (-1, *(1,) * p.rank)
            exact = reference.activate(sums + a.bias.reshape(channels) + a.residual, activation)
            for isa in ISAS:
                y = run(_core.Plan(p, name, isa=isa), a)
                assert np.all(np.abs(y - exact) <= library_bound(p, exact)), (str(p), isa)


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_epilogue_order(nd: int) -> None:
    """activation(conv + bias + residual), not activation(conv) + residual."""
    x = np.full((1, 1, *(3,) * nd), 2.0)
    w, bias, residual = np.ones((1, 1, *(1,) * nd)), np.array([-5.0]), np.full(x.shape, 1.0)
    y = CONV[nd](x, w, bias, activation="relu", residual=residual)
    np.testing.assert_array_equal(y, np.zeros_like(x))
    y = CONV[nd](x, w, bias, activation=("leaky_relu", 0.5), residual=residual)
    np.testing.assert_array_equal(y, np.full(x.shape, -1.0))
    assert cl.conv1d(x.reshape(1, 1, -1), w.reshape(1, 1, 1)).max() == 2
