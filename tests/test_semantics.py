"""What convolution promises its callers: worked examples, spellings of arguments, batches, layouts,
strides of arrays, `out`, and numbers that are not finite."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from problems import (
    ALGORITHMS,
    CATALOGUE,
    CONV,
    CONV_TRANSPOSE,
    DTYPES,
    ISAS,
    LAYOUTS,
    PADDING_MODES,
    REFERENCE_CONV,
    SERVED,
    SERVED_RANKS,
    Array,
    Operands,
    assert_agree,
    expected,
    move_channels,
    operands,
    parse,
    problem_for,
    problems_for,
    run,
    serving,
    window,
)

import convolith as cl
from convolith import _core, reference


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Data are integers, and results exact where no transform is asked for."""
    with cl.numerics("strict"):
        yield


def row(*values: float) -> Array:
    """One sample, one channel, one axis."""
    return np.array(values, dtype=np.float32)[None, None]


def integers(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


# ---- worked examples -----------------------------------------------------------------------


def test_cross_correlation() -> None:
    p = parse("conv1d c1 i3 k1 f2")
    for algorithm in serving(p):
        y = cl.conv1d(row(1, 2, 3), row(1, 10), algorithm=algorithm, numerics="fast")
        assert_agree(p, algorithm, y, row(21, 32))
    flipped = reference.flip(row(1, 10)).astype(np.float32)
    np.testing.assert_array_equal(cl.conv1d(row(1, 2, 3), flipped), row(12, 23))


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "out"),
    [
        (32, 1, 2, 0, 16),
        (9, 4, 4, 2, 3),
        (2, 3, 3, 1, 1),
        (5, 3, 2, 1, 3),  # Dumoulin & Visin, arXiv:1603.07285, figure 2.6
        (6, 3, 2, 1, 3),  # figure 2.7: an element left over
    ],
)
def test_output_size(n: int, k: int, s: int, p: int, out: int) -> None:
    x, w = np.ones((1, 1, n, n), np.float32), np.ones((1, 1, k, k), np.float32)
    assert cl.conv2d(x, w, None, s, p).shape == (1, 1, out, out)


@pytest.mark.parametrize(
    ("padding", "answer"), [("same", (21, 32, 3)), ("same_lower", (10, 21, 32))]
)
def test_same_padding(padding: str, answer: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(
        cl.conv1d(row(1, 2, 3), row(1, 10), padding=padding), row(*answer)
    )


def test_same_padding_of_an_even_axis_with_stride() -> None:
    """k=3, s=2 pads (0, 1), not (1, 1)."""
    x, w = row(1, 2, 3, 4), row(1, 10, 100)
    y = cl.conv1d(x, w, stride=2, padding="same")
    np.testing.assert_array_equal(y, row(321, 43))
    np.testing.assert_array_equal(y, cl.conv1d(x, w, stride=2, padding=((0, 1),)))


@pytest.mark.parametrize("n", [1, 2, 5, 8, 13])
def test_same_padding_gives_ceil_of_n_over_s(n: int) -> None:
    for k, s, d in ((1, 1, 1), (2, 2, 1), (3, 4, 1), (4, 3, 2), (5, 2, 3)):
        x, w = integers(1, 1, n), integers(1, 1, k, seed=1)
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        small, large = total // 2, total - total // 2
        for rule, pair in (("same", (small, large)), ("same_lower", (large, small))):
            y = cl.conv1d(x, w, None, s, rule, d)
            assert y.shape[2] == -(-n // s)
            np.testing.assert_array_equal(y, cl.conv1d(x, w, None, s, (pair,), d))


def test_transposed_shape_of_kerass_example() -> None:
    x, w = np.ones((4, 10, 8, 128), np.float32), np.ones((128, 32, 3, 3), np.float32)
    y = cl.conv_transpose2d(x, w, None, 2, "valid", data_format="NHWC")
    assert y.shape == (4, 21, 17, 32)


def test_transposed_crops() -> None:
    x, w = row(1, 0), row(1, 2, 3)
    for padding in ("same", ((0, 1),)):  # cropped at the end
        np.testing.assert_array_equal(cl.conv_transpose1d(x, w, None, 2, padding), row(1, 2, 3, 0))
    for padding in ("same_lower", ((1, 0),)):  # and at the start
        np.testing.assert_array_equal(cl.conv_transpose1d(x, w, None, 2, padding), row(2, 3, 0, 0))


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        ("zeros", (2, 5, 4)),
        ("replicate", (3, 5, 10)),
        ("reflect", (2, 12, 4)),
        ("circular", (8, 5, 5)),
    ],
)
def test_transposed_folds_cropped_margins(mode: str, answer: tuple[int, ...]) -> None:
    """Without padding [1, 2, 5, 4, 6]; the mode says where the margins 1 and 6 go."""
    y = cl.conv_transpose1d(row(1, 2), row(1, 2, 3), None, 2, 1, padding_mode=mode)
    np.testing.assert_array_equal(y, row(*answer))


@pytest.mark.parametrize(("stride", "dilation"), [(3, 1), (2, 4), (1, 2)])
def test_output_padding(stride: int, dilation: int) -> None:
    """Smaller than the stride or than the dilation; the extents grow by it."""
    x, w = integers(1, 2, 4), integers(2, 3, 3, seed=1)
    plain = cl.conv_transpose1d(x, w, None, stride, 0, 0, 1, dilation)
    for extra in range(max(stride, dilation)):
        y = cl.conv_transpose1d(x, w, None, stride, 0, extra, 1, dilation)
        assert y.shape[2] == (4 - 1) * stride + dilation * 2 + extra + 1
        np.testing.assert_array_equal(y[..., : plain.shape[2]], plain)
        assert not np.any(y[..., plain.shape[2] :])
        by_size = cl.conv_transpose1d(
            x, w, None, stride, dilation=dilation, output_size=(y.shape[2],)
        )
        np.testing.assert_array_equal(by_size, y)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_output_size_may_be_a_whole_shape(layout: str) -> None:
    x = move_channels(integers(2, 3, 4, 5), "channels_first", layout)
    w = integers(3, 2, 3, 3)
    y = cl.conv_transpose2d(x, w, None, 2, output_size=(10, 12), data_format=layout)
    again = cl.conv_transpose2d(x, w, None, 2, output_size=y.shape, data_format=layout)
    np.testing.assert_array_equal(again, y)
    one = cl.conv_transpose2d(x[0], w, None, 2, output_size=y.shape[1:], data_format=layout)
    np.testing.assert_array_equal(one, y[0])


@pytest.mark.parametrize("spelling", [11, (11,), [11, 11], np.int64(11), np.array(11), (11, 11)])
def test_spellings_of_output_size(spelling: Any) -> None:
    x, w = integers(1, 2, 5, 5), integers(2, 3, 3, 3, seed=1)
    y = cl.conv_transpose2d(x, w, None, 2, output_size=spelling)
    assert y.shape == (1, 3, 11, 11)
    np.testing.assert_array_equal(y, cl.conv_transpose2d(x, w, None, 2, output_size=(11, 11)))


# ---- spellings -----------------------------------------------------------------------------

X2, W2 = integers(2, 4, 9, 8), integers(6, 2, 3, 2, seed=1)
SPELLED = {"stride": 2, "padding": 1, "dilation": 2}


@pytest.mark.parametrize(
    "spell",
    [
        lambda v: (v,),
        lambda v: (v, v),
        lambda v: [v, v],
        lambda v: np.array([v, v]),
        lambda v: np.array([v]),
        lambda v: np.int64(v),
        lambda v: np.uint8(v),
        lambda v: np.array(v),
        lambda v: (np.int32(v), np.array(v)),
    ],
)
def test_spellings_of_integers(spell: Callable[[int], Any]) -> None:
    spelled = {name: spell(value) for name, value in SPELLED.items()}
    y = cl.conv2d(X2, W2, groups=2, **SPELLED)
    np.testing.assert_array_equal(cl.conv2d(X2, W2, groups=np.int8(2), **spelled), y)
    np.testing.assert_array_equal(
        cl.conv_backward_input(y, W2, np.array(X2.shape), groups=np.array(2), **spelled),
        cl.conv_backward_input(y, W2, X2.shape, groups=2, **SPELLED),
    )
    np.testing.assert_array_equal(
        cl.conv_transpose2d(y, W2, output_padding=spell(1), groups=2, **spelled),
        cl.conv_transpose2d(y, W2, output_padding=1, groups=2, **SPELLED),
    )


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (0, ((0, 0), (0, 0))),
        ("valid", ((0, 0), (0, 0))),
        ((2, 1), ((2, 2), (1, 1))),
        (np.array([[1, 0], [2, 3]]), ((1, 0), (2, 3))),
        ([[1, 0], (2, 3)], ((1, 0), (2, 3))),
        (((np.int16(1), 0), (2, np.array(3))), ((1, 0), (2, 3))),
        ("same", ((1, 1), (0, 1))),
        ("same_lower", ((1, 1), (1, 0))),
    ],
)
def test_spellings_of_padding(padding: Any, pairs: Any) -> None:
    y = cl.conv2d(X2, W2, None, 1, padding, groups=2)
    before_after = ((0, 0), (0, 0), *pairs)
    np.testing.assert_array_equal(y, cl.conv2d(np.pad(X2, before_after), W2, groups=2))


NUMPY_MODES: dict[str, Any] = dict(
    zip(PADDING_MODES, ("constant", "reflect", "edge", "wrap"), strict=True)
)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_padding_modes_are_numpys(algorithm: str, mode: str) -> None:
    for p in problems_for(algorithm, f"{mode} p3:2"):
        a = operands(p, np.random.default_rng(0))
        padded = np.pad(a.first, ((0, 0), (0, 0), *p.padding), mode=NUMPY_MODES[mode])
        y = cl.plan_conv(padded.shape, a.second, **window(p) | {"padding": 0})(padded)
        assert_agree(p, algorithm, run(_core.Plan(p, algorithm), a), y)


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_may_take_the_whole_axis(layout: str, nd: int) -> None:
    """reflect: one less than the axis; circular: all of it."""
    x = move_channels(integers(1, 2, *(3,) * nd), "channels_first", layout)
    w = integers(2, 2, *(2,) * nd)
    for mode, most in (("reflect", 2), ("circular", 3)):
        options = {"padding": most, "padding_mode": mode, "data_format": layout}
        y = CONV[nd](x, w, **options)
        np.testing.assert_array_equal(y, REFERENCE_CONV[nd](x, w, **options))


ALIASES = {1: ("NCL", "NLC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_data_format_aliases(nd: int) -> None:
    x, w = integers(2, 3, *(4,) * nd), integers(5, 3, *(2,) * nd)
    y = CONV[nd](x, w)
    first, last = ALIASES[nd]
    np.testing.assert_array_equal(CONV[nd](x, w, data_format=first), y)
    moved = CONV[nd](np.moveaxis(x, 1, -1), w, data_format=last)
    np.testing.assert_array_equal(moved, np.moveaxis(y, 1, -1))


def test_argument_order_is_torchs() -> None:
    """conv(x, weight, bias, stride, padding, dilation, groups), and for the transposed
    (..., padding, output_padding, groups, dilation)."""
    b = integers(6, seed=2)
    np.testing.assert_array_equal(
        cl.conv2d(X2, W2, b, 2, 1, 3, 2),
        cl.conv2d(X2, W2, bias=b, stride=2, padding=1, dilation=3, groups=2),
    )
    y, b = integers(2, 6, 4, 4), integers(4, seed=2)
    np.testing.assert_array_equal(
        cl.conv_transpose2d(y, W2, b, 3, 2, 1, 2, 2),
        cl.conv_transpose2d(
            y, W2, bias=b, stride=3, padding=2, output_padding=1, groups=2, dilation=2
        ),
    )


# ---- batches, ranks, layouts, dtypes, in every function ------------------------------------


def every_function(
    p: _core.ConvProblem, batch: int | None, algorithm: str = "auto"
) -> dict[str, Array]:
    """The result of every function on integers for one geometry, where the algorithm serves it."""
    count, nd = 1 if batch is None else batch, p.rank

    def maps(shape: tuple[int, ...], seed: int) -> Array:
        """The same numbers in both layouts."""
        first = shape[1:] if p.data_format == "channels_first" else (shape[-1], *shape[1:-1])
        drawn = np.random.default_rng(seed).integers(-4, 5, (7, *first))[:count].astype(p.dtype)
        a = move_channels(drawn, "channels_first", p.data_format)
        return a[0] if batch is None else a

    x, y = maps(p.x_shape, 0), maps(p.y_shape, 1)
    w = integers(*p.weight_shape, dtype=p.dtype, seed=2)
    bias = integers(p.out_channels, dtype=p.dtype, seed=3)
    back = integers(p.in_channels, dtype=p.dtype, seed=4)
    options = {**window(p), "algorithm": algorithm}
    if algorithm != "auto":
        options["numerics"] = "fast"
    size = {"output_size": p.input}
    # Transposed: y is the input, x the result.
    functions: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {
            "conv": lambda: CONV[nd](x, w, bias, residual=y, **options),
            "conv_transpose_backward_input": lambda: cl.conv_transpose_backward_input(
                x, w, y.shape, **size, **options
            ),
            "plan": lambda: cl.plan_conv(x.shape, w, bias, **options)(x),
        },
        "backward_input": {
            "conv_backward_input": lambda: cl.conv_backward_input(
                y, w, x.shape, residual=x, **options
            ),
            "conv_transpose": lambda: CONV_TRANSPOSE[nd](y, w, back, residual=x, **size, **options),
        },
        "backward_weight": {
            "conv_backward_weight": lambda: cl.conv_backward_weight(y, x, w.shape, **options),
            "bias_grad": lambda: cl.conv_backward_weight(y, x, w.shape, bias_grad=True, **options)[
                1
            ],
            "conv_transpose_backward_weight": lambda: cl.conv_transpose_backward_weight(
                x, y, w.shape, **size, **options
            ),
            "transposed bias_grad": lambda: cl.conv_transpose_backward_weight(
                x, y, w.shape, bias_grad=True, **size, **options
            )[1],
        },
    }
    return {
        name: function()
        for direction, each in functions.items()
        if algorithm in ("auto", *serving(p.replace(direction=direction)))
        for name, function in each.items()
    }


WEIGHT_GRADIENTS = (
    "conv_backward_weight",
    "bias_grad",
    "conv_transpose_backward_weight",
    "transposed bias_grad",
)


@pytest.mark.parametrize(("algorithm", "nd"), SERVED_RANKS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results(dtype: str, layout: str, algorithm: str, nd: int) -> None:
    """New, C-contiguous, native arrays; the layouts hold the same numbers; one sample without a
    batch axis gives what it gives in a batch of one."""
    p = problem_for(algorithm, f"{dtype} {layout} n1", nd)
    results = every_function(p, 1, algorithm)
    first = every_function(p.replace(data_format="channels_first"), 1, algorithm)
    alone = every_function(p, None, algorithm)
    assert {"conv", "plan"} <= set(results)
    for name, result in results.items():
        assert type(result) is np.ndarray
        assert result.dtype == np.dtype(dtype)
        assert result.dtype.isnative
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert result.flags.owndata or result.base is None
        if name in WEIGHT_GRADIENTS:
            assert_agree(p, algorithm, result, first[name])
            np.testing.assert_array_equal(alone[name], result)
        else:
            assert_agree(p, algorithm, result, move_channels(first[name], "channels_first", layout))
            np.testing.assert_array_equal(alone[name], result[0])
            assert alone[name].flags.c_contiguous


@pytest.mark.parametrize(("algorithm", "nd"), SERVED_RANKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_batch(layout: str, algorithm: str, nd: int) -> None:
    """An empty result of the right shape, and zero gradients."""
    p = problem_for(algorithm, layout, nd)
    results, one = every_function(p, 0, algorithm), every_function(p, 1, algorithm)
    assert set(results) == set(one)
    for name, result in results.items():
        if name in WEIGHT_GRADIENTS:
            np.testing.assert_array_equal(result, np.zeros_like(one[name]))
        else:
            assert result.shape == (0, *one[name].shape[1:])


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches(layout: str, nd: int) -> None:
    """A batch is its samples one by one, and weight gradients are sums over them."""
    p = parse(f"conv{nd}d c4 i{'x'.join(nd * '7')} k6 f3 s2 p1 g2 float64 {layout}")
    counts = [every_function(p, n) for n in range(6)]
    for name, result in counts[5].items():
        if name in WEIGHT_GRADIENTS:
            steps = [b[name] - a[name] for a, b in itertools.pairwise(counts)]
            np.testing.assert_array_equal(sum(steps), result)
            assert any(np.any(step) for step in steps)
        else:
            np.testing.assert_array_equal(result[:1], counts[1][name])
            np.testing.assert_array_equal(result[:3], counts[3][name])


@pytest.mark.parametrize("direction", ["forward", "backward_input"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_automatic_choice_does_not_look_at_the_batch_under_strict(
    layout: str, direction: str
) -> None:
    """Else one sample would have other bits in another batch."""
    rng = np.random.default_rng(0)
    texts = [
        f"conv2d c{c} i{i}x{i} k{k} f{f} s{s} p{f // 2}"
        for c, k in rng.choice((1, 3, 8, 16, 32, 64, 128, 256, 512), (40, 2))
        for f, s in ((1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (7, 2))
        for i in (5, 7, 14, 28)
    ]
    for text in texts:
        p = parse(text, data_format=layout, direction=direction)
        for isa in ISAS:
            chosen = {
                _core.Plan(p.replace(batch=n), numerics="strict", isa=isa).algorithm
                for n in (1, 2, 5, 64)
            }
            assert len(chosen) == 1, f"{p}, {isa}: {chosen}"


# ---- arrays as NumPy has them --------------------------------------------------------------


def unaligned(a: Array) -> Array:
    buffer = bytearray(a.nbytes + 1)
    view = np.frombuffer(buffer, a.dtype, offset=1, count=a.size).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned or a.size == 0
    return view


def read_only(a: Array) -> Array:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


def sliced(a: Array) -> Array:
    """Every other element of an array twice as large along each axis."""
    large = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    view = large[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def of_structure(a: Array) -> Array:
    """Strides that are no multiple of the element's size."""
    record = np.zeros(a.shape, [("number", a.dtype), ("flag", "u1")])
    record["number"] = a
    return record["number"]


def negative(a: Array) -> Array:
    reverse = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[reverse])[reverse]


def fortran(a: Array) -> Array:
    return np.asfortranarray(a)


def other_layout(a: Array) -> Array:
    second = min(1, a.ndim - 1)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, second, -1)), -1, second)


def padded_rows(a: Array) -> Array:
    """Contiguous but for a gap after the last axis."""
    large = np.full((*a.shape[:-1], a.shape[-1] + 3), np.nan, a.dtype)
    large[..., : a.shape[-1]] = a
    return large[..., : a.shape[-1]]


class Subclass(np.ndarray):
    pass


def subclass(a: Array) -> Array:
    return a.view(Subclass)


DISGUISES = (
    unaligned,
    read_only,
    sliced,
    of_structure,
    negative,
    fortran,
    other_layout,
    padded_rows,
    subclass,
)


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize(("algorithm", "direction"), SERVED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(
    layout: str, algorithm: str, direction: str, disguise: Callable[[Array], Array]
) -> None:
    epilogue = "" if direction == "backward_weight" else "bias residual"
    for dtype in DTYPES:
        words = f"{direction} {dtype} {layout} {epilogue}"
        few = [parse(f"{text} {words}") for text in ("conv1d n2 c5 i9 k3 f1", "conv1d c1 i9 k1 f2")]
        for p in (*problems_for(algorithm, words)[:2], *few):
            if algorithm not in serving(p):
                continue
            a = operands(p, np.random.default_rng(0))
            plain = run(_core.Plan(p, algorithm), a)
            disguised = Operands(*(None if b is None else disguise(b) for b in a.as_tuple()))
            for b, c in zip(a.each(), disguised.each(), strict=True):
                np.testing.assert_array_equal(b, c)
            result = _core.Plan(p, algorithm).execute(*disguised.as_tuple())
            assert_agree(p, algorithm, result, plain)
            assert type(result) is np.ndarray


@pytest.mark.parametrize(("algorithm", "direction"), SERVED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_broadcast_input(layout: str, algorithm: str, direction: str) -> None:
    """A stride of zero along any axis, and along all."""
    p = problem_for(algorithm, f"{direction} {layout}", 2)
    a = operands(p, np.random.default_rng(0))
    plan = _core.Plan(p, algorithm)
    for axes in ((0,), (1,), (2,), (3,), (0, 1, 2, 3)):
        one = tuple(slice(1) if axis in axes else slice(None) for axis in range(4))
        first, second = (np.broadcast_to(b[one], b.shape) for b in (a.first, a.second))
        if direction != "backward_weight":
            second = a.second
        exact = run(plan, Operands(first.copy(), second.copy()))
        assert_agree(p, algorithm, plan.execute(first, second), exact)


# ---- out -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "direction"), SERVED)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "place", [sliced, of_structure, negative, fortran, other_layout, padded_rows, unaligned]
)
def test_out_may_have_any_strides(
    place: Callable[[Array], Array], layout: str, algorithm: str, direction: str
) -> None:
    epilogue = "" if direction == "backward_weight" else "bias residual relu"
    for p in problems_for(algorithm, f"{direction} {layout} {epilogue}")[:2]:
        a = operands(p, np.random.default_rng(0))
        plain = run(_core.Plan(p, algorithm), a)
        out = place(np.full(plain.shape, np.nan, np.float32))
        result = _core.Plan(p, algorithm).execute(*a.as_tuple(), out)
        assert result is out
        assert_agree(p, algorithm, out, plain)
        if place in (sliced, padded_rows):  # nothing outside the slice was touched
            assert np.count_nonzero(~np.isnan(out.base)) == out.size


@pytest.mark.parametrize(("algorithm", "nd"), SERVED_RANKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_concatenation_without_a_copy(layout: str, algorithm: str, nd: int) -> None:
    """The input is a range of the channels of a larger array, out another one."""
    for p in problems_for(algorithm, f"{layout} s1 psame", nd):
        a = operands(p, np.random.default_rng(0))
        c, both = p.in_channels, p.in_channels + p.out_channels
        large = np.full((p.batch, both + 2, *p.input), np.nan, np.float32)
        large = np.moveaxis(large, 1, 1 if layout == "channels_first" else -1)
        large = np.ascontiguousarray(large)

        def channels(begin: int, end: int, large: Array = large) -> Array:
            axis = 1 if layout == "channels_first" else -1
            return np.moveaxis(np.moveaxis(large, axis, 0)[begin:end], 0, axis)

        channels(1, 1 + c)[...] = a.first
        plan = _core.Plan(p, algorithm)
        result = plan.execute(channels(1, 1 + c), a.second, None, None, channels(1 + c, 1 + both))
        assert np.shares_memory(result, large)
        assert_agree(p, algorithm, result, run(plan, a))
        np.testing.assert_array_equal(channels(1, 1 + c), a.first)
        assert np.isnan(channels(0, 1)).all()
        assert np.isnan(channels(1 + both, 2 + both)).all()


def test_interleaved_slices_are_no_overlap() -> None:
    pair = np.zeros((1, 2, 8, 2), np.float32)
    x, out = pair[..., 0], pair[..., 1]
    x[...] = integers(1, 2, 8)
    w = integers(2, 2, 1, seed=1)
    y = cl.conv1d(x, w)
    assert cl.conv1d(x, w, out=out) is out
    np.testing.assert_array_equal(out, y)


def test_out_of_every_function() -> None:
    x, w, y = integers(2, 4, 6, 6), integers(3, 4, 3, 3), integers(2, 3, 4, 4)
    for function, args in (
        (cl.conv2d, (x, w)),
        (cl.conv_transpose2d, (y, w)),
        (cl.conv_backward_input, (y, w, x.shape)),
        (cl.conv_backward_weight, (y, x, w.shape)),
        (cl.conv_transpose_backward_input, (x, w, y.shape)),
        (cl.conv_transpose_backward_weight, (x, y, w.shape)),
        (cl.plan_conv(x.shape, w), (x,)),
    ):
        result = function(*args)
        out = np.full_like(result, np.nan)
        assert function(*args, out=out) is out
        np.testing.assert_array_equal(out, result)


# ---- numbers that are not finite -----------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
def test_strict_keeps_non_finite_numbers_in_their_windows(
    direction: str, layout: str, value: float
) -> None:
    """One such input under a 3x3 kernel without zeros touches 9 outputs of each channel of its
    group and no other."""
    for groups, dtype in itertools.product((1, 3, 12), DTYPES):
        p = parse(f"conv2d c12 i9x11 k12 f3 p1 g{groups} {direction} {dtype} {layout}")
        a = operands(p, np.random.default_rng(0))
        a.second[...] = np.where(a.second == 0, 1, a.second)
        dirty = Operands(a.first.copy(), a.second)
        touched = np.zeros((1, 12, 9, 11), bool)
        group = slice(12 // groups, 24 // groups) if groups > 1 else slice(None)
        touched[:, group, 3:6, 5:8] = True
        touched = move_channels(touched, "channels_first", layout)
        at = 12 // groups if groups > 1 else 0
        dirty.first[(0, at, 4, 6) if layout == "channels_first" else (0, 4, 6, at)] = value
        for name in serving(p, "strict"):
            for isa in ISAS:
                plan = _core.Plan(p, name, numerics="strict", isa=isa)
                clean, result = run(plan, a), run(plan, dirty)
                assert not np.any(np.isfinite(result[touched]))
                assert np.isnan(result[touched]).all() == np.isnan(value)
                np.testing.assert_array_equal(result[~touched], clean[~touched])


@pytest.mark.parametrize(("algorithm", "direction"), SERVED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_nan_is_never_lost(layout: str, algorithm: str, direction: str) -> None:
    # Of an answer's NaN times the padding's 0, either is right.
    padding = "p0" if direction == "backward_weight" else ""
    for p in problems_for(algorithm, f"{direction} {layout} {padding}"):
        a = operands(p, np.random.default_rng(0))
        finite = run(_core.Plan(p, algorithm), a)
        assert np.isfinite(finite).all()
        a.first.flat[a.first.size // 2] = np.nan
        lost = np.isnan(expected(p, a))
        assert lost.any()
        for isa in ISAS:
            result = run(_core.Plan(p, algorithm, isa=isa), a)
            assert np.isnan(result[lost]).all()


def test_numerics_strict_allows_no_transform() -> None:
    for p in (parse(text) for text in CATALOGUE):
        assert serving(p, "strict")
        fast, strict = _core.algorithms(p, "fast"), _core.algorithms(p, "strict")
        for before, after in zip(fast, strict, strict=True):
            assert before["name"] == after["name"]
            if before["supported"] and not after["supported"]:
                assert "strict" in after["reason"]
                with pytest.raises(cl.UnsupportedError, match="strict"):
                    _core.Plan(p, after["name"], "strict")


@pytest.mark.parametrize("algorithm", ["direct", "im2col_gemm"])
def test_gradient_of_endless_replicated_margins(algorithm: str) -> None:
    """Three windows: one in front of x, one at its first elements, one behind it."""
    stride = 2**40
    dy = np.array([[[1.0, 2.0, 4.0]]])
    weight = np.array([[[1.0, 10.0, 100.0]]])
    dx = cl.conv_backward_input(
        dy,
        weight,
        (1, 1, 5),
        stride=stride,
        padding=stride,
        padding_mode="replicate",
        algorithm=algorithm,
    )
    np.testing.assert_array_equal(dx, [[[111 + 2, 20, 200, 0, 4 * 111]]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers_survive_under_strict(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    for p in (parse(text, dtype=dtype) for text in CATALOGUE):
        x, w = np.ones(p.x_shape, dtype), np.ones(p.weight_shape, dtype)
        terms = expected(p, Operands(x, w)).astype(dtype)
        for name in serving(p, "strict"):
            y = run(_core.Plan(p, name, "strict"), Operands(3 * tiny * x, w))
            np.testing.assert_array_equal(y, 3 * tiny * terms)


class FloatingPoint:
    """The calling thread's floating-point environment."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(ctypes.util.find_library("m"))

    def rounding(self) -> int:
        return int(self.library.fegetround())

    def flushes_subnormals(self) -> bool:
        tiny = np.array([np.finfo(np.float32).smallest_subnormal] * 64)
        return not np.all(tiny * np.ones(64, np.float32))


def test_the_callers_floating_point_mode_stays() -> None:
    mode = FloatingPoint()
    rounding = mode.rounding()
    for algorithm, direction in SERVED:
        p = problem_for(algorithm, direction)
        a = operands(p, np.random.default_rng(0))
        a.first.flat[:3] = np.inf, np.nan, np.finfo(np.float32).smallest_subnormal
        with np.errstate(all="raise"):  # NumPy reads the status flags that calls leave behind
            _core.Plan(p, algorithm, threads=2).execute(a.first, a.second)
            one = np.float64(1.0)
            assert one / one == 1.0
    assert mode.rounding() == rounding
    assert not mode.flushes_subnormals()


@pytest.mark.skipif(
    cl.show_config(mode="dicts")["isas_compiled"] == ["baseline"],
    reason="FE_UPWARD is another number on other machines",
)
def test_the_callers_rounding_mode_stays() -> None:
    upward, nearest = 0x800, 0
    mode = FloatingPoint()
    plans = [_core.Plan(problem_for(name, "tanh"), name) for name in ALGORITHMS]
    inputs = [operands(plan.problem, np.random.default_rng(0)) for plan in plans]
    assert mode.rounding() == nearest
    mode.library.fesetround(upward)
    try:
        for plan, a in zip(plans, inputs, strict=True):
            plan.execute(a.first, a.second)
            assert mode.rounding() == upward
    finally:
        mode.library.fesetround(nearest)


def test_an_empty_batch_needs_no_workspace() -> None:
    x, weight = np.empty((0, 1, 8, 8), np.float32), np.ones((1, 1, 1, 1), np.float32)
    y = cl.conv2d(x, weight, padding=2**20, algorithm="im2col_gemm")
    assert y.shape == (0, 1, 8 + 2**21, 8 + 2**21)
