"""What convolution promises its callers: worked examples, spellings of arguments, batches, layouts,
strides of arrays, `out`, and numbers that are not finite."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from problems import (
    ALGORITHMS,
    CONV,
    CONV_TRANSPOSE,
    DIRECTIONS,
    DTYPES,
    ISAS,
    LAYOUTS,
    REFERENCE_CONV,
    Array,
    Operands,
    expected,
    move_channels,
    operands,
    parse,
    run,
)

import convolith as cl
from convolith import _core, reference


def row(*values: float) -> Array:
    """One sample, one channel, one axis."""
    return np.array(values, dtype=np.float32)[None, None]


def integers(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


# ---- worked examples -----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cross_correlation(algorithm: str) -> None:
    y = cl.conv1d(row(1, 2, 3), row(1, 10), algorithm=algorithm)
    np.testing.assert_array_equal(y, row(21, 32))
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


@pytest.mark.parametrize(
    ("mode", "numpy_mode"),
    [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")],
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_padding_modes_are_numpys(algorithm: str, mode: str, numpy_mode: Any) -> None:
    pairs = ((3, 2), (4, 1))
    y = cl.conv2d(X2, W2, None, 2, pairs, groups=2, padding_mode=mode, algorithm=algorithm)
    padded = np.pad(X2, ((0, 0), (0, 0), *pairs), mode=numpy_mode)
    np.testing.assert_array_equal(y, cl.conv2d(padded, W2, None, 2, groups=2))


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
    nd: int, batch: int | None, layout: str, dtype: str, **options: Any
) -> dict[str, Array]:
    """The result of every function on integers, for one geometry."""
    window = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2, "data_format": layout}
    count = 1 if batch is None else batch

    def maps(channels: int, extent: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        drawn = rng.integers(-4, 5, (7, channels, *(extent,) * nd))[:count].astype(dtype)
        a = move_channels(drawn, "channels_first", layout)
        return a[0] if batch is None else a

    x, y = maps(4, 7, 0), maps(6, 4, 1)
    w = integers(6, 2, *(3,) * nd, dtype=dtype, seed=2)
    bias = integers(6, dtype=dtype, seed=3)
    options = {**window, **options}
    dw, db = cl.conv_backward_weight(y, x, w.shape, bias_grad=True, **options)
    # Transposed: y is the input, x the result.
    tdw, tdb = cl.conv_transpose_backward_weight(x, y, w.shape, bias_grad=True, **options)
    return {
        "conv": CONV[nd](x, w, bias, residual=y, **options),
        "conv_backward_input": cl.conv_backward_input(y, w, x.shape, **options),
        "conv_backward_weight": dw,
        "bias_grad": db,
        "conv_transpose": CONV_TRANSPOSE[nd](y, w, bias[:4], residual=x, **options),
        "conv_transpose_backward_input": cl.conv_transpose_backward_input(x, w, y.shape, **options),
        "conv_transpose_backward_weight": tdw,
        "transposed bias_grad": tdb,
        "plan": cl.plan_conv(x.shape, w, bias, **options)(x),
    }


WEIGHT_GRADIENTS = (
    "conv_backward_weight",
    "bias_grad",
    "conv_transpose_backward_weight",
    "transposed bias_grad",
)


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results(dtype: str, layout: str, algorithm: str, nd: int) -> None:
    """New, C-contiguous, native arrays; the layouts hold the same numbers; one sample without a
    batch axis gives what it gives in a batch of one."""
    options = {"algorithm": algorithm, "numerics": "fast"}
    results = every_function(nd, 1, layout, dtype, **options)
    first = every_function(nd, 1, "channels_first", dtype, **options)
    alone = every_function(nd, None, layout, dtype, **options)
    for name, result in results.items():
        assert type(result) is np.ndarray
        assert result.dtype == np.dtype(dtype)
        assert result.dtype.isnative
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert result.flags.owndata or result.base is None
        if name in WEIGHT_GRADIENTS:
            np.testing.assert_array_equal(result, first[name])
            np.testing.assert_array_equal(alone[name], result)
        else:
            moved = move_channels(first[name], "channels_first", layout)
            np.testing.assert_array_equal(result, moved)
            np.testing.assert_array_equal(alone[name], result[0])
            assert alone[name].flags.c_contiguous


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_batch(layout: str, algorithm: str, nd: int) -> None:
    """An empty result of the right shape, and zero gradients."""
    results = every_function(nd, 0, layout, "float32", algorithm=algorithm)
    shapes = every_function(nd, 1, layout, "float32", algorithm=algorithm)
    for name, result in results.items():
        if name in WEIGHT_GRADIENTS:
            assert result.shape == shapes[name].shape
            np.testing.assert_array_equal(result, np.zeros_like(result))
        else:
            assert result.shape == (0, *shapes[name].shape[1:])


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches(layout: str, nd: int) -> None:
    """A batch is its samples one by one, and weight gradients are sums over them."""
    many = every_function(nd, 5, layout, "float64")
    for name, result in many.items():
        if name not in WEIGHT_GRADIENTS:
            one = every_function(nd, 1, layout, "float64")[name]
            np.testing.assert_array_equal(result[:1], one)
            few = every_function(nd, 3, layout, "float64")[name]
            np.testing.assert_array_equal(result[:3], few)
    counts = [every_function(nd, n, layout, "float64") for n in range(6)]
    for name in WEIGHT_GRADIENTS:
        steps = [b[name] - a[name] for a, b in itertools.pairwise(counts)]
        np.testing.assert_array_equal(sum(steps), many[name])
        assert any(np.any(step) for step in steps)


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
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_any_strides(
    direction: str, layout: str, algorithm: str, disguise: Callable[[Array], Array]
) -> None:
    for dtype in DTYPES:
        for text in (
            "conv2d n3 c6 i5x7 k4 f3 p1 g2",
            "conv1d n2 c5 i9 k3 f1",
            "conv1d c1 i9 k1 f2",
        ):
            epilogue = "" if direction == "backward_weight" else "bias residual"
            p = parse(f"{text} {direction} {dtype} {layout} {epilogue}")
            a = operands(p, np.random.default_rng(0))
            plain = run(_core.Plan(p, algorithm), a)
            disguised = Operands(*(None if b is None else disguise(b) for b in a.as_tuple()))
            for b, c in zip(a.each(), disguised.each(), strict=True):
                np.testing.assert_array_equal(b, c)
            result = _core.Plan(p, algorithm).execute(*disguised.as_tuple())
            np.testing.assert_array_equal(result, plain)
            assert type(result) is np.ndarray


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", range(4))
def test_broadcast_input(axis: int, layout: str, algorithm: str) -> None:
    """A stride of zero along any axis."""
    shape = [3, 4, 6, 5]
    one = list(shape)
    one[axis] = 1
    x = np.broadcast_to(integers(*one), shape)
    w = integers(2, shape[1] if layout == "channels_first" else shape[-1], 2, 2, seed=1)
    y = cl.conv2d(x, w, data_format=layout, algorithm=algorithm)
    np.testing.assert_array_equal(
        y, cl.conv2d(x.copy(), w, data_format=layout, algorithm=algorithm)
    )
    constant = np.broadcast_to(np.float32(2), shape)
    y = cl.conv2d(constant, w, data_format=layout, algorithm=algorithm)
    np.testing.assert_array_equal(y, cl.conv2d(constant.copy(), w, data_format=layout))
    dw = cl.conv_backward_weight(y, x, w.shape, data_format=layout, algorithm=algorithm)
    np.testing.assert_array_equal(
        dw, cl.conv_backward_weight(y, x.copy(), w.shape, data_format=layout, algorithm=algorithm)
    )


# ---- out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "place", [sliced, of_structure, negative, fortran, other_layout, padded_rows, unaligned]
)
def test_out_may_have_any_strides(
    place: Callable[[Array], Array], layout: str, direction: str, algorithm: str
) -> None:
    epilogue = "" if direction == "backward_weight" else "bias residual relu"
    p = parse(f"conv2d n2 c4 i5x7 k6 f3 p1 {direction} {layout} {epilogue}")
    a = operands(p, np.random.default_rng(0))
    plain = run(_core.Plan(p, algorithm), a)
    out = place(np.full(plain.shape, np.nan, np.float32))
    result = _core.Plan(p, algorithm).execute(*a.as_tuple(), out)
    assert result is out
    np.testing.assert_array_equal(out, plain)
    if place in (sliced, padded_rows):  # nothing outside the slice was touched
        assert np.count_nonzero(~np.isnan(out.base)) == out.size


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_concatenation_without_a_copy(nd: int, layout: str, algorithm: str) -> None:
    """out as a range of the channels of a larger array, and another range of it as input."""
    x = move_channels(integers(2, 3, *(5,) * nd), "channels_first", layout)
    w, v = integers(4, 3, *(3,) * nd), integers(6, 7, *(1,) * nd, seed=1)
    axis = 1 if layout == "channels_first" else -1
    shape = list(x.shape)
    shape[axis] = 3 + 4 + 6
    large = np.full(shape, np.nan, np.float32)

    def channels(begin: int, end: int) -> Array:
        return np.moveaxis(np.moveaxis(large, axis, 0)[begin:end], 0, axis)

    options = {"data_format": layout, "algorithm": algorithm}
    channels(0, 3)[...] = x
    CONV[nd](x, w, padding=1, out=channels(3, 7), **options)
    result = CONV[nd](channels(0, 7), v, out=channels(7, 13), **options)
    assert np.shares_memory(result, large)
    y = CONV[nd](x, w, padding=1, **options)
    z = CONV[nd](np.concatenate([x, y], axis), v, **options)
    np.testing.assert_array_equal(large, np.concatenate([x, y, z], axis))


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
    """One such input under a 3x3 kernel without zeros touches 9 outputs and no other."""
    for dtype in DTYPES:
        p = parse(f"conv2d c3 i9x11 k5 f3 p1 {direction} {dtype} {layout}")
        a = operands(p, np.random.default_rng(0))
        a.second[...] = np.where(a.second == 0, 1, a.second)
        for name in (r["name"] for r in _core.algorithms(p, "strict") if r["supported"]):
            for isa in ISAS:
                plan = _core.Plan(p, name, numerics="strict", isa=isa)
                clean = run(plan, a)
                at = (0, 1, 4, 6) if layout == "channels_first" else (0, 4, 6, 1)
                dirty = Operands(a.first.copy(), a.second)
                dirty.first[at] = value
                touched = np.zeros(clean.shape, bool)
                rows, columns = slice(3, 6), slice(5, 8)
                if layout == "channels_first":
                    touched[:, :, rows, columns] = True
                else:
                    touched[:, rows, columns] = True
                result = run(plan, dirty)
                assert not np.any(np.isfinite(result[touched]))
                assert np.isnan(result[touched]).all() == np.isnan(value)
                np.testing.assert_array_equal(result[~touched], clean[~touched])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_nan_is_never_lost(layout: str, direction: str, algorithm: str) -> None:
    p = parse(f"conv2d c4 i8x7 k5 f3 {direction} {layout}")
    a = operands(p, np.random.default_rng(0))
    finite = run(_core.Plan(p, algorithm), a)
    a.first.flat[a.first.size // 2] = np.nan
    exact = np.isnan(expected(p, a))
    assert exact.any()
    assert np.isfinite(finite).all()
    assert np.isnan(run(_core.Plan(p, algorithm), a))[exact].all()


def test_numerics_strict_allows_no_transform() -> None:
    strict = cl.algorithms((1, 8, 16, 16), (8, 8, 3, 3), padding=1, numerics="strict")
    fast = cl.algorithms((1, 8, 16, 16), (8, 8, 3, 3), padding=1, numerics="fast")
    assert [r["name"] for r in strict] == [r["name"] for r in fast]
    assert any(r["supported"] for r in strict)
    for record in strict:
        assert record["supported"] or "strict" in record["reason"]


def test_subnormal_numbers_survive_under_strict() -> None:
    for dtype in DTYPES:
        tiny = np.finfo(dtype).smallest_subnormal
        x = np.full((1, 2, 9, 9), 3 * tiny, dtype)
        y = cl.conv2d(x, np.ones((3, 2, 3, 3), dtype), numerics="strict")
        np.testing.assert_array_equal(y, np.full(y.shape, 54 * tiny, dtype))


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
    x, w = integers(2, 8, 16, 16), integers(8, 8, 3, 3)
    x[0, 0, 0, :3] = np.inf, np.nan, np.finfo(np.float32).smallest_subnormal
    rounding = mode.rounding()
    for algorithm in ALGORITHMS:
        with np.errstate(all="raise"):  # NumPy reads the status flags that calls leave behind
            for direction in DIRECTIONS:
                p = parse(f"conv2d n2 c8 i16x16 k8 f3 p1 {direction}")
                second = x if direction == "backward_weight" else w
                plan = _core.Plan(p, algorithm, threads=2)
                plan.execute(x, second)
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
    x, w = integers(2, 8, 16, 16), integers(8, 8, 3, 3)
    assert mode.rounding() == nearest
    mode.library.fesetround(upward)
    try:
        for algorithm in ALGORITHMS:
            cl.conv2d(x, w, algorithm=algorithm, activation="tanh")
            assert mode.rounding() == upward
    finally:
        mode.library.fesetround(nearest)


def test_an_empty_batch_needs_no_workspace() -> None:
    x, weight = np.empty((0, 1, 8, 8), np.float32), np.ones((1, 1, 1, 1), np.float32)
    y = cl.conv2d(x, weight, padding=2**20, algorithm="im2col_gemm")
    assert y.shape == (0, 1, 8 + 2**21, 8 + 2**21)
