"""The reference against facts it does not know: worked examples, published shape formulas,
NumPy's correlate and pad, adjointness, finite differences, and torch where it is installed."""

import inspect
import itertools
import math
import warnings

import numpy as np
import pytest

from convolith import reference as ref

CONV = {1: ref.conv1d, 2: ref.conv2d, 3: ref.conv3d}
CONV_TRANSPOSE = {1: ref.conv_transpose1d, 2: ref.conv_transpose2d, 3: ref.conv_transpose3d}
POOLINGS = ("max_pool", "avg_pool", "sum_pool", "lp_pool", "stochastic_pool")
POOLINGS += ("adaptive_avg_pool", "adaptive_max_pool", "max_unpool")
NUMPY_PAD = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
INF, NAN = math.inf, math.nan


def row(*values):
    """One sample, one channel, one axis."""
    return np.array(values, dtype=np.float64)[None, None]


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def distinct(*shape, seed=0):
    """Values whose magnitudes are 0.1 apart from one another and from 0: no choice is close."""
    rng = np.random.default_rng(seed)
    magnitudes = 0.1 * (1 + rng.permutation(math.prod(shape)))
    return (magnitudes * rng.choice([-1, 1], magnitudes.size)).reshape(shape)


def in_format(array, data_format):
    """The channels_first array in data_format."""
    if data_format == "channels_first":
        return array
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def numeric_gradient(function, x, dy, step=1e-6):
    """d <function(x), dy> / dx by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[i] = step
        gradient[i] = np.sum((function(x + shift) - function(x - shift)) * dy) / (2 * step)
    return gradient


# --- convolution: forward --------------------------------------------------------------------


def test_one_axis_is_numpy_correlate_and_flip_makes_it_numpy_convolve():
    x, w = random(20), random(5, seed=1)
    y = ref.conv1d(x[None, None], w[None, None])[0, 0]
    np.testing.assert_allclose(y, np.correlate(x, w, "valid"))
    flipped = ref.conv1d(x[None, None], ref.flip(w[None, None]))[0, 0]
    np.testing.assert_allclose(flipped, np.convolve(x, w, "valid"))
    full = ref.conv1d(x[None, None], ref.flip(w[None, None]), padding=4)[0, 0]
    np.testing.assert_allclose(full, np.convolve(x, w, "full"))
    transposed = ref.conv_transpose1d(x[None, None], w[None, None])[0, 0]
    np.testing.assert_allclose(transposed, np.convolve(x, w, "full"))


@pytest.mark.parametrize("mode", NUMPY_PAD)
@pytest.mark.parametrize(
    ("spatial", "kernel", "stride", "padding", "dilation", "groups"),
    [
        ((9,), (3,), (2,), ((2, 1),), (2,), 2),
        ((6, 7), (3, 2), (2, 1), ((1, 3), (0, 2)), (1, 2), 1),
        ((4, 5, 6), (2, 3, 1), (1, 2, 3), ((1, 0), (2, 2), (0, 1)), (2, 1, 1), 2),
    ],
)
def test_conv_is_its_definition(mode, spatial, kernel, stride, padding, dilation, groups):
    nd = len(spatial)
    x, w = random(2, 4, *spatial), random(6, 4 // groups, *kernel, seed=1)
    padded = np.pad(x, ((0, 0), (0, 0), *padding), mode=NUMPY_PAD[mode])
    y = CONV[nd](x, w, None, stride, padding, dilation, groups, padding_mode=mode)
    for n, k, *o in np.ndindex(y.shape):
        first = (k // (6 // groups)) * (4 // groups)
        window = padded[
            (
                n,
                slice(first, first + 4 // groups),
                *(
                    slice(a * s, a * s + d * (e - 1) + 1, d)
                    for a, s, d, e in zip(o, stride, dilation, kernel, strict=True)
                ),
            )
        ]
        np.testing.assert_allclose(y[(n, k, *o)], np.sum(window * w[k]), atol=1e-12)


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "out"),
    [
        (4, 3, 1, 0, 2),  # Dumoulin & Visin, figure 2.1: no padding, unit strides
        (5, 4, 1, 2, 6),  # figure 2.2: arbitrary padding
        (5, 3, 1, 1, 5),  # figure 2.3: half padding
        (5, 3, 1, 2, 7),  # figure 2.4: full padding
        (5, 3, 2, 0, 2),  # figure 2.5: strides
        (5, 3, 2, 1, 3),  # figure 2.6: padding and strides
        (6, 3, 2, 1, 3),  # figure 2.7: the same, with an element left over
        (32, 1, 2, 0, 16),
        (9, 4, 4, 2, 3),
        (2, 3, 3, 1, 1),
    ],
)
def test_published_output_sizes(n, k, s, p, out):
    x, w = np.ones((1, 1, n, n)), np.ones((1, 1, k, k))
    assert ref.conv2d(x, w, None, s, p).shape == (1, 1, out, out)
    # Relationship 14: the transposed output is s*(n' - 1) + a + k - 2p, a = (n + 2p - k) mod s.
    leftover = (n + 2 * p - k) % s
    y = np.ones((1, 1, out, out))
    assert ref.conv_transpose2d(y, w, None, s, p, leftover).shape == x.shape
    assert ref.conv_transpose2d(y, w, None, s, p, output_size=(n, n)).shape == x.shape


def test_dilation_spans_the_published_extent():
    # Dumoulin & Visin, figure 5.1: i = 7, k = 3, d = 2 gives 3.
    assert ref.conv2d(np.ones((1, 1, 7, 7)), np.ones((1, 1, 3, 3)), dilation=2).shape[2:] == (3, 3)


@pytest.mark.parametrize("n", range(1, 9))
def test_same_is_tensorflows_rule(n):
    for k, s, d in itertools.product((1, 2, 3, 5), (1, 2, 3), (1, 2)):
        x, w = random(1, 1, n), random(1, 1, k, seed=1)
        out = -(-n // s)
        total = max(0, (out - 1) * s + d * (k - 1) + 1 - n)
        small, large = total // 2, total - total // 2
        y = ref.conv1d(x, w, None, s, "same", d)
        assert y.shape[2] == out
        np.testing.assert_array_equal(y, ref.conv1d(x, w, None, s, ((small, large),), d))
        y = ref.conv1d(x, w, None, s, "same_lower", d)
        np.testing.assert_array_equal(y, ref.conv1d(x, w, None, s, ((large, small),), d))


def test_same_worked_examples():
    x, w = row(1, 2, 3), row(1, 10)
    np.testing.assert_array_equal(ref.conv1d(x, w, padding="same"), row(21, 32, 3))
    np.testing.assert_array_equal(ref.conv1d(x, w, padding="same_lower"), row(10, 21, 32))
    np.testing.assert_array_equal(
        ref.conv1d(row(1, 2, 3, 4), row(1, 10, 100), stride=2, padding="same"), row(321, 43)
    )


def test_epilogue():
    x, w, b = random(2, 4, 5, 6), random(6, 4, 3, 3, seed=1), random(6, seed=2)
    residual = random(2, 6, 3, 4, seed=3)
    total = ref.conv2d(x, w) + b[:, None, None] + residual
    for data_format in ("channels_first", "channels_last"):
        for activation, expected in (
            ("relu", np.maximum(total, 0)),
            ("leaky_relu", np.where(total > 0, total, 0.01 * total)),
            (("leaky_relu", 0.3), np.where(total > 0, total, 0.3 * total)),
            ("sigmoid", 1 / (1 + np.exp(-total))),
        ):
            y = ref.conv2d(
                in_format(x, data_format),
                w,
                b,
                data_format=data_format,
                activation=activation,
                residual=in_format(residual, data_format),
            )
            np.testing.assert_allclose(y, in_format(expected, data_format), atol=1e-12)
    y = ref.conv_transpose2d(residual, w, b[:4], activation="tanh")
    np.testing.assert_allclose(y, np.tanh(ref.conv_transpose2d(residual, w) + b[:4, None, None]))


# --- transposed convolution ------------------------------------------------------------------


def test_transposed_worked_examples():
    x, w = np.ones((4, 10, 8, 128)), np.ones((128, 32, 3, 3))
    y = ref.conv_transpose2d(x, w, None, 2, "valid", data_format="NHWC")
    assert y.shape == (4, 21, 17, 32)
    x, w = row(1, 0), row(1, 2, 3)
    for padding in ("same", ((0, 1),)):
        np.testing.assert_array_equal(ref.conv_transpose1d(x, w, None, 2, padding), row(1, 2, 3, 0))
    for padding in ("same_lower", ((1, 0),)):
        np.testing.assert_array_equal(ref.conv_transpose1d(x, w, None, 2, padding), row(2, 3, 0, 0))


def test_transposed_folds_cropped_margins():
    # Without padding: [1, 2, 5, 4, 6]. The margins 1 and 6 are folded back by the mode.
    x, w = row(1, 2), row(1, 2, 3)
    full = ref.conv_transpose1d(x, w, None, 2)
    np.testing.assert_array_equal(full, row(1, 2, 5, 4, 6))
    for mode, expected in {
        "zeros": (2, 5, 4),
        "replicate": (3, 5, 10),
        "reflect": (2, 12, 4),
        "circular": (8, 5, 5),
    }.items():
        y = ref.conv_transpose1d(x, w, None, 2, 1, padding_mode=mode)
        np.testing.assert_array_equal(y, row(*expected))


def test_output_padding_beyond_the_stride_needs_dilation():
    x, w = row(1, 2), row(1, 10)
    y = ref.conv_transpose1d(x, w, output_padding=2, dilation=3)
    np.testing.assert_array_equal(y, row(1, 2, 0, 10, 20, 0, 0))
    dy = random(*y.shape)
    expected = numeric_gradient(
        lambda v: ref.conv_transpose1d(v, w, output_padding=2, dilation=3), x, dy
    )
    for output_padding in (2, None):
        dx = ref.conv_transpose_backward_input(
            dy, w, x.shape, output_padding=output_padding, dilation=3
        )
        np.testing.assert_allclose(dx, expected, atol=1e-6)
    with pytest.raises(ValueError, match="output_padding 3 must be smaller than stride 1 or than"):
        ref.conv_transpose1d(x, w, output_padding=3, dilation=3)


def test_same_transposed_takes_every_size_that_same_maps_to_the_input():
    w = random(1, 1, 3, seed=1)
    for m in (7, 8):
        x, dy = random(1, 1, m), random(1, 1, 4, seed=2)
        y = ref.conv1d(x, w, None, 2, "same")
        back = ref.conv_transpose1d(dy, w, None, 2, "same", output_size=m)
        np.testing.assert_allclose(np.vdot(y, dy), np.vdot(x, back))
    with pytest.raises(ValueError, match=r"output_size must lie in 7\.\.8 on axis 2, got 9"):
        ref.conv_transpose1d(dy, w, None, 2, "same", output_size=9)
    with pytest.raises(ValueError, match="output_padding must be 0 with padding 'same'"):
        ref.conv_transpose1d(dy, w, None, 2, "same", 1)


# --- convolution: gradients ------------------------------------------------------------------

GEOMETRIES = [
    # spatial, kernel, stride, padding, dilation, groups
    ((9,), (3,), 2, ((2, 1),), 2, 2),
    ((7, 6), (3, 2), (2, 3), ((1, 2), (3, 0)), (2, 1), 2),
    ((7, 6), (2, 3), 2, "same", 1, 1),
    ((7, 6), (4, 3), 1, "same_lower", 2, 4),
    ((8, 5), (1, 2), 3, "valid", 1, 1),
    ((4, 5, 3), (2, 3, 2), (1, 2, 1), ((1, 0), (2, 2), (0, 1)), 1, 2),
]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("mode", NUMPY_PAD)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_are_the_adjoints(geometry, mode, data_format):
    spatial, kernel, stride, padding, dilation, groups = geometry
    nd = len(spatial)
    layout = {"data_format": data_format, "padding_mode": mode}
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = in_format(random(2, 4, *spatial), data_format)
    w = random(8, 4 // groups, *kernel, seed=1)
    y = CONV[nd](x, w, **window, **layout)
    dy = random(*y.shape, seed=2)
    dx = ref.conv_backward_input(dy, w, x.shape, **window, **layout)
    dw, db = ref.conv_backward_weight(dy, x, w.shape, bias_grad=True, **window, **layout)
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, (8,))
    np.testing.assert_allclose(np.vdot(dx, x), np.vdot(dy, y))
    np.testing.assert_allclose(np.vdot(dw, w), np.vdot(dy, y))
    channel = 1 if data_format == "channels_first" else -1
    np.testing.assert_allclose(db, np.moveaxis(dy, channel, 0).reshape(8, -1).sum(axis=1))
    np.testing.assert_array_equal(dw, ref.conv_backward_weight(dy, x, w.shape, **window, **layout))

    # Transposed convolution is the adjoint, and its gradients are again adjoints.
    size = x.shape[2:] if data_format == "channels_first" else x.shape[1:-1]
    t = CONV_TRANSPOSE[nd](dy, w, output_size=size, **window, **layout)
    np.testing.assert_array_equal(t, dx)
    np.testing.assert_array_equal(
        t, CONV_TRANSPOSE[nd](dy, w, output_size=x.shape, **window, **layout)
    )
    dt = random(*t.shape, seed=3)
    ddy = ref.conv_transpose_backward_input(dt, w, dy.shape, **window, **layout)
    np.testing.assert_allclose(np.vdot(ddy, dy), np.vdot(dt, t))
    dw, db = ref.conv_transpose_backward_weight(
        dt, dy, w.shape, bias_grad=True, output_size=size, **window, **layout
    )
    np.testing.assert_allclose(np.vdot(dw, w), np.vdot(dt, t))
    np.testing.assert_allclose(db, np.moveaxis(dt, channel, 0).reshape(4, -1).sum(axis=1))


def test_gradients_are_the_finite_differences():
    x, w = random(1, 2, 4, 5), random(2, 2, 2, 3, seed=1)
    arguments = {"stride": (1, 2), "padding": ((1, 0), (2, 1)), "padding_mode": "reflect"}
    y = ref.conv2d(x, w, **arguments)
    dy = random(*y.shape, seed=2)
    np.testing.assert_allclose(
        ref.conv_backward_input(dy, w, x.shape, **arguments),
        numeric_gradient(lambda v: ref.conv2d(v, w, **arguments), x, dy),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        ref.conv_backward_weight(dy, x, w.shape, **arguments),
        numeric_gradient(lambda v: ref.conv2d(x, v, **arguments), w, dy),
        atol=1e-6,
    )


@pytest.mark.parametrize("activation", [None, *ref.ACTIVATIONS, ("leaky_relu", 0.3)])
def test_activation_derivatives_are_the_finite_differences(activation):
    x = np.linspace(-7.95, 7.95, 54)  # no kink among them
    dy = random(54)
    np.testing.assert_allclose(
        ref.activate_backward(dy, x, activation),
        numeric_gradient(lambda v: ref.activate(v, activation), x, dy),
        atol=1e-7,
    )
    assert np.isnan(ref.activate(np.array([NAN]), activation)).all()


def test_activations_at_their_limits():
    x = np.array([-1e4, -3.0, -0.0, 0.0, 3.0, 6.0, 1e4])
    for name, expected in {
        "relu": [0, 0, 0, 0, 3, 6, 1e4],
        "relu6": [0, 0, 0, 0, 3, 6, 6],
        "leaky_relu": [-100, -0.03, 0, 0, 3, 6, 1e4],
        "hardswish": [0, 0, 0, 0, 3, 6, 1e4],
    }.items():
        np.testing.assert_allclose(ref.activate(x, name), expected)
    np.testing.assert_allclose(ref.activate(x, "sigmoid")[[0, 2, 6]], [0, 0.5, 1])
    np.testing.assert_allclose(ref.activate(x, "silu")[[0, 2, 6]], [0, 0, 1e4])
    ones = np.ones_like(x)
    np.testing.assert_array_equal(ref.activate_backward(ones, x, "relu"), [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(ref.activate_backward(ones, x, "relu6"), [0, 0, 0, 0, 1, 0, 0])


# --- pooling: worked examples ----------------------------------------------------------------


def test_ceil_mode():
    x = np.arange(1.0, 17).reshape(1, 1, 4, 4)
    y = ref.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
    np.testing.assert_array_equal(y[0, 0, -1], [4.5, 7.5, 4.0])
    assert ref.max_pool1d(np.ones((1, 1, 5)), 6, 2, ceil_mode=True).shape == (1, 1, 1)
    with pytest.raises(ValueError, match="kernel 6 is larger than padded input 5 on axis 2"):
        ref.max_pool1d(np.ones((1, 1, 5)), 6, 2)
    # A last window that would start in the padding is dropped: 3, not 4.
    assert ref.max_pool1d(np.ones((1, 1, 5)), 2, 2, 1, ceil_mode=True).shape == (1, 1, 3)
    assert ref.max_pool1d(np.ones((1, 1, 5)), 2, 2, 1).shape == (1, 1, 3)
    assert ref.max_pool1d(np.ones((1, 1, 6)), 3, 2, ceil_mode=True).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("window", "value", "index"),
    [
        ((1, 3, 2), 3, 1),
        ((2, 5, 5), 5, 1),
        ((-0.0, 0.0, -1), -0.0, 0),
        ((0.0, -0.0, -1), 0.0, 0),
        ((-INF, -INF, -INF), -INF, 0),
        ((1, NAN, INF), NAN, 1),
        ((NAN, 1, NAN), NAN, 2),
    ],
)
def test_max_pool_choice(window, value, index):
    y, chosen = ref.max_pool1d(row(*window), 3, return_indices=True)
    assert y.item() == value or np.isnan([y.item(), value]).all()
    assert np.signbit(y.item()) == np.signbit(value)
    assert chosen.item() == index
    assert chosen.dtype == np.int64
    dx = ref.max_pool1d_backward(row(2.0), row(*window), 3)
    np.testing.assert_array_equal(dx[0, 0], [2.0 * (i == index) for i in range(3)])
    y, chosen = ref.adaptive_max_pool1d(row(*window), 1, return_indices=True)
    assert chosen.item() == index
    np.testing.assert_array_equal(ref.global_max_pool(row(*window)), y)


def test_max_pool_padding_is_never_chosen():
    y, index = ref.max_pool1d(row(-INF, -5, -3), 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(y, row(-5, -3))
    np.testing.assert_array_equal(index, [[[1, 2]]])
    _, index = ref.max_pool1d(row(-INF, -INF, -INF), 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(index, [[[0, 1]]])


def test_max_pool_window_without_elements():
    # Taps at -1 and 1 of an axis with the single coordinate 0.
    y, index = ref.max_pool1d(row(7), 2, 1, 1, 2, return_indices=True)
    assert (y.item(), index.item()) == (-INF, 0)
    np.testing.assert_array_equal(ref.max_pool1d_backward(row(1), row(7), 2, 1, 1, 2), row(0))


def test_max_pool_indices_are_into_the_plane():
    x = distinct(2, 3, 5, 6)
    for data_format in ("channels_first", "channels_last"):
        y, index = ref.max_pool2d(
            in_format(x, data_format),
            (2, 3),
            2,
            (1, 1),
            return_indices=True,
            data_format=data_format,
        )
        if data_format == "channels_last":
            y, index = np.moveaxis(y, -1, 1), np.moveaxis(index, -1, 1)
        flat = np.take_along_axis(x.reshape(2, 3, 30), index.reshape(2, 3, -1), axis=-1)
        np.testing.assert_array_equal(flat.reshape(y.shape), y)


def test_avg_pool_divisors():
    x = row(1, 2, 3, 4)
    np.testing.assert_allclose(ref.avg_pool1d(x, 3, 2, 1), row(1, 3))
    np.testing.assert_allclose(ref.avg_pool1d(x, 3, 2, 1, count_include_pad=False), row(1.5, 3))
    np.testing.assert_allclose(ref.avg_pool1d(x, 3, 2, 1, divisor_override=-2), row(-1.5, -4.5))
    np.testing.assert_allclose(ref.sum_pool1d(x, 3, 2, 1), row(3, 9))
    np.testing.assert_allclose(ref.avg_pool1d(x, 3, 2, "same"), row(2, 7 / 3))
    np.testing.assert_allclose(
        ref.avg_pool1d(x, 3, 2, "same", count_include_pad=False), row(2, 3.5)
    )
    np.testing.assert_allclose(ref.avg_pool1d(x, 3, 2, "same_lower"), row(1, 3))


def test_lp_pool():
    np.testing.assert_allclose(ref.lp_pool1d(row(-2, 1), 3, 2), row(9 ** (1 / 3)))
    np.testing.assert_allclose(ref.lp_pool1d(row(-2, 1), 1, 2), row(3))
    np.testing.assert_array_equal(ref.lp_pool1d(row(-2, 1), INF, 2), row(2))
    np.testing.assert_allclose(ref.lp_pool1d(row(3e200, 4e200), 2, 2), row(5e200))
    np.testing.assert_array_equal(ref.lp_pool1d(row(0, 0, NAN, 1, INF, 1), 2, 2), row(0, NAN, INF))
    np.testing.assert_allclose(ref.lp_pool1d(row(3, 4, 5), 2, 2, 2, True), row(5, 5))
    np.testing.assert_allclose(ref.lp_pool1d(row(3, 4), 2, 2, 1, padding=1), row(3, 5, 4))
    np.testing.assert_array_equal(ref.lp_pool1d_backward(row(1), row(0, 0), 2, 2), row(0, 0))
    np.testing.assert_array_equal(ref.lp_pool1d_backward(row(5), row(2, -3), INF, 2), row(0, -5))
    np.testing.assert_array_equal(ref.lp_pool1d_backward(row(5), row(0, -3), 0.5, 2), row(0, -5))


def test_adaptive_windows_overlap():
    x = row(0, 1, 2, 3, 4)
    np.testing.assert_allclose(ref.adaptive_avg_pool1d(x, 3), row(0.5, 2, 3.5))
    np.testing.assert_array_equal(ref.adaptive_max_pool1d(x, 3), row(1, 3, 4))
    np.testing.assert_allclose(ref.adaptive_avg_pool1d(row(1, 3), 3), row(1, 2, 3))
    x = random(2, 3, 4, 5)
    assert ref.adaptive_avg_pool2d(x, (None, 2)).shape == (2, 3, 4, 2)
    np.testing.assert_array_equal(ref.adaptive_avg_pool2d(x, None), x)
    np.testing.assert_allclose(
        ref.adaptive_avg_pool2d(x, 1), x.mean(axis=(2, 3), keepdims=True), atol=1e-15
    )
    for output_size in (0, (2, 0)):
        with pytest.raises(ValueError, match="output_size must be at least 1, got 0"):
            ref.adaptive_avg_pool2d(x, output_size)


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_global_pooling(nd):
    x = distinct(2, 3, *(4, 5, 2)[:nd])
    axes = tuple(range(2, 2 + nd))
    avg, greatest = x.mean(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
    np.testing.assert_allclose(ref.global_avg_pool(x), avg)
    np.testing.assert_array_equal(ref.global_max_pool(x), greatest)
    moved = in_format(x, "channels_last")
    np.testing.assert_array_equal(
        ref.global_max_pool(moved, data_format="channels_last"),
        in_format(greatest, "channels_last"),
    )
    alias = ("NCL", "NCHW", "NCDHW")[nd - 1]
    np.testing.assert_array_equal(ref.global_max_pool(x[0], data_format=alias), greatest[0])
    dy = random(*avg.shape)
    np.testing.assert_allclose(
        ref.global_avg_pool_backward(dy, x), np.broadcast_to(dy / math.prod(x.shape[2:]), x.shape)
    )
    np.testing.assert_array_equal(ref.global_max_pool_backward(dy, x), dy * (x == greatest))


def test_max_unpool():
    x = distinct(2, 3, 6, 8)
    y, index = ref.max_pool2d(x, 2, return_indices=True)
    back = ref.max_unpool2d(y, index, 2)
    assert back.shape == x.shape
    np.testing.assert_array_equal(back, np.where(np.isin(x, y), x, 0))
    dy = random(*x.shape)
    dx = ref.max_unpool2d_backward(dy, y, index, 2)
    np.testing.assert_allclose(np.vdot(dx, y), np.vdot(dy, back))
    np.testing.assert_array_equal(ref.max_unpool2d(dx, index, 2), np.where(back != 0, dy, 0))
    assert ref.max_unpool2d(y, index, 2, output_size=(7, 9)).shape == (2, 3, 7, 9)
    assert ref.max_unpool2d(y, index, 2, output_size=(2, 3, 7, 9)).shape == (2, 3, 7, 9)
    for bad in (-1, 48):
        wrong = index.copy()
        wrong[1, 2, 0, 0] = bad
        with pytest.raises(ValueError, match=r"indices must lie in 0\.\.47"):
            ref.max_unpool2d(y, wrong, 2)
    with pytest.raises(ValueError, match=r"output_size must lie in 5\.\.7 on axis 2, got 8"):
        ref.max_unpool2d(y, index, 2, output_size=(8, 8))
    with pytest.raises(TypeError, match="indices must be of dtype int64"):
        ref.max_unpool2d(y, index.astype(np.int32), 2)


# --- stochastic pooling ----------------------------------------------------------------------


def stochastic_choice(window, u):
    """Plane coordinates of the choice: the first element whose cumulative weight exceeds u."""
    weights = [max(value, 0.0) for _, value in window]
    if sum(weights) == 0:
        weights = [1.0] * len(window)
    total = 0.0
    for (place, _), weight in zip(window, weights, strict=True):
        total += weight
        if total > u * sum(weights):
            return place
    raise AssertionError


@pytest.mark.parametrize("power", [-1070, -1022, 1000])
def test_gradients_of_ratios_do_not_depend_on_the_scale(power):
    """Powers of two times x, down to where a norm has few bits left, give the same gradients."""
    x = np.array([[[3.0, -2.0, 1.0, 2.0]]])
    dy = np.array([[[1.0, -3.0]]])
    scaled = np.ldexp(x, power)
    for p in (0.5, 1.0, 2.0, 7.5):
        expected = ref.lp_pool1d_backward(dy, x, p, 2)
        np.testing.assert_allclose(ref.lp_pool1d_backward(dy, scaled, p, 2), expected, rtol=1e-15)
    expected = ref.stochastic_pool1d_backward(dy, x, 2, training=False)
    result = ref.stochastic_pool1d_backward(dy, scaled, 2, training=False)
    np.testing.assert_allclose(result, expected, rtol=1e-15)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_stochastic_pool_follows_its_draws(data_format):
    x = random(2, 3, 6, 7)
    x[0, 0, :3, :3] = -1.0
    y, index = ref.stochastic_pool2d(
        in_format(x, data_format), 3, 2, 1, rng=7, return_indices=True, data_format=data_format
    )
    u = np.random.default_rng(7).random(y.shape)
    if data_format == "channels_last":
        y, index, u = (np.moveaxis(a, -1, 1) for a in (y, index, u))
    for n, c, i, j in np.ndindex(y.shape):
        window = [
            ((a, b), x[n, c, a, b])
            for a in range(max(0, 2 * i - 1), min(6, 2 * i + 2))
            for b in range(max(0, 2 * j - 1), min(7, 2 * j + 2))
        ]
        a, b = stochastic_choice(window, u[n, c, i, j])
        assert index[n, c, i, j] == a * 7 + b
        assert y[n, c, i, j] == x[n, c, a, b]


def test_stochastic_pool_frequencies():
    x = np.broadcast_to(np.array([1.0, -2.0, 3.0, 0.0]), (1, 4000, 4)).copy()
    y = ref.stochastic_pool1d(x, 4, rng=np.random.default_rng(0))
    values, counts = np.unique(y, return_counts=True)
    np.testing.assert_array_equal(values, [1, 3])
    np.testing.assert_allclose(counts / 4000, [0.25, 0.75], atol=0.03)
    np.testing.assert_allclose(ref.stochastic_pool1d(x, 4, training=False), 2.5)
    uniform = ref.stochastic_pool1d(-np.abs(x), 4, rng=1)
    np.testing.assert_allclose(
        [np.mean(uniform == v) for v in (-3, -2, -1, 0)], [0.25] * 4, atol=0.03
    )
    np.testing.assert_allclose(ref.stochastic_pool1d(-np.abs(x), 4, training=False), -1.5)


def test_stochastic_pool_non_finite():
    for training in (True, False):
        y = ref.stochastic_pool1d(row(1, NAN, 2, INF, -INF, 5), 3, training=training, rng=0)
        np.testing.assert_array_equal(y, row(NAN, INF))
    y = ref.stochastic_pool1d(row(5e-324, 0, 1e308, 1e308), 2, training=False)
    np.testing.assert_allclose(y, row(5e-324, 1e308))


def test_stochastic_pool_gradient_uses_the_forwards_choice():
    x = random(2, 3, 6, 7)
    y, index = ref.stochastic_pool2d(x, 3, 2, "same", rng=3, return_indices=True)
    dy = random(*y.shape, seed=1)
    dx = ref.stochastic_pool2d_backward(dy, x, 3, 2, "same", rng=3)
    np.testing.assert_array_equal(
        dx, ref.stochastic_pool2d_backward(dy, x, 3, 2, "same", indices=index)
    )
    np.testing.assert_allclose(np.vdot(dx, x), np.vdot(dy, y))
    with pytest.raises(ValueError, match="indices or rng must be given"):
        ref.stochastic_pool2d_backward(dy, x, 3, 2, "same")


# --- pooling: gradients and layouts ----------------------------------------------------------

POOL_CASES = {
    "max_pool": [((3,), {"stride": 2, "padding": 1}), ((2,), {"dilation": 2, "ceil_mode": True})],
    "avg_pool": [
        ((3,), {"stride": 2, "padding": 1, "ceil_mode": True}),
        ((3,), {"stride": 1, "padding": 1, "count_include_pad": False}),
        ((2,), {"padding": "same", "divisor_override": 3}),
    ],
    "sum_pool": [((3,), {"stride": 2, "padding": "same_lower"}), ((2,), {"ceil_mode": True})],
    "lp_pool": [((p, 2), {"stride": 1}) for p in (0.5, 1, 2, 3.5, INF)],
    "stochastic_pool": [((2,), {"training": False}), ((3, 2, 1), {"training": True, "rng": 5})],
    "adaptive_avg_pool": [((2,), {}), ((None,), {})],
    "adaptive_max_pool": [((2,), {}), ((3,), {})],
}
CASES = [
    (name, nd, *case) for name, cases in POOL_CASES.items() for case in cases for nd in (1, 2, 3)
]


@pytest.mark.parametrize(("name", "nd", "args", "kwargs"), CASES)
def test_pooling_gradients_are_the_finite_differences(name, nd, args, kwargs):
    forward, backward = getattr(ref, f"{name}{nd}d"), getattr(ref, f"{name}{nd}d_backward")
    x = distinct(1, 2, *(5, 4, 3)[:nd])
    dy = random(*forward(x, *args, **kwargs).shape)
    np.testing.assert_allclose(
        backward(dy, x, *args, **kwargs),
        numeric_gradient(lambda v: forward(v, *args, **kwargs), x, dy),
        atol=1e-6,
    )


@pytest.mark.parametrize(("name", "nd", "args", "kwargs"), CASES)
def test_pooling_layouts_samples_and_dtypes(name, nd, args, kwargs):
    forward, backward = getattr(ref, f"{name}{nd}d"), getattr(ref, f"{name}{nd}d_backward")
    if kwargs.get("training"):
        kwargs = {"training": False}  # the draws follow the layout
    x = distinct(2, 3, *(5, 4, 3)[:nd])
    y = forward(x, *args, **kwargs)
    dy = random(*y.shape)
    dx = backward(dy, x, *args, **kwargs)
    assert y.flags.c_contiguous
    assert y.flags.owndata
    assert dx.flags.owndata
    alias = ("NLC", "NHWC", "NDHWC")[nd - 1]
    y_last = forward(in_format(x, alias), *args, **kwargs, data_format=alias)
    dx_last = backward(
        in_format(dy, alias), in_format(x, alias), *args, **kwargs, data_format=alias
    )
    np.testing.assert_allclose(y_last, in_format(y, alias), atol=1e-14)
    np.testing.assert_allclose(dx_last, in_format(dx, alias), atol=1e-14)
    np.testing.assert_allclose(forward(x[1], *args, **kwargs), y[1], atol=1e-14)
    np.testing.assert_allclose(backward(dy[1], x[1], *args, **kwargs), dx[1], atol=1e-14)
    single = forward(x.astype(np.float32), *args, **kwargs)
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, y, rtol=1e-5, atol=1e-5)
    empty = forward(x[:0], *args, **kwargs)
    assert empty.shape == (0, *y.shape[1:])
    assert backward(empty, x[:0], *args, **kwargs).shape == x[:0].shape


def test_conv_layouts_samples_and_dtypes():
    x, w, b = random(2, 4, 5, 6), random(6, 2, 3, 3, seed=1), random(6, seed=2)
    arguments = {"padding": "same", "groups": 2}
    y = ref.conv2d(x, w, b, **arguments)
    dy = random(*y.shape, seed=3)
    dx = ref.conv_backward_input(dy, w, x.shape, **arguments)
    assert y.flags.owndata
    assert dx.flags.owndata
    np.testing.assert_allclose(ref.conv2d(x[1], w, b, **arguments), y[1])
    np.testing.assert_allclose(ref.conv_backward_input(dy[1], w, x[1].shape, **arguments), dx[1])
    dw = ref.conv_backward_weight(dy, x, w.shape, **arguments)
    parts = [ref.conv_backward_weight(dy[i], x[i], w.shape, **arguments) for i in (0, 1)]
    np.testing.assert_allclose(dw, parts[0] + parts[1])
    y_last = ref.conv2d(in_format(x, "NHWC"), w, b, data_format="NHWC", **arguments)
    np.testing.assert_allclose(y_last, in_format(y, "NHWC"))
    sample = in_format(x, "NHWC")[1]
    np.testing.assert_allclose(ref.conv2d(sample, w, b, data_format="NHWC", **arguments), y_last[1])
    single = ref.conv2d(*(a.astype(np.float32) for a in (x, w, b)), **arguments)
    assert single.dtype == np.float64
    np.testing.assert_allclose(single, y, atol=1e-4)
    strided = np.asfortranarray(np.repeat(x, 2, axis=3))[:, ::-1, :, ::2]
    np.testing.assert_allclose(
        ref.conv2d(strided, w, b, **arguments), ref.conv2d(x[:, ::-1].copy(), w, b, **arguments)
    )
    empty = ref.conv2d(x[:0], w, b, **arguments)
    assert empty.shape == (0, 6, 5, 6)
    assert ref.conv_backward_input(empty, w, (0, 4, 5, 6), **arguments).shape == (0, 4, 5, 6)
    dw, db = ref.conv_backward_weight(empty, x[:0], w.shape, bias_grad=True, **arguments)
    assert not dw.any()
    assert not db.any()
    assert (dw.shape, db.shape) == (w.shape, (6,))


# --- arguments -------------------------------------------------------------------------------

X, W = np.ones((1, 4, 7, 7)), np.ones((6, 4, 3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ref.conv2d(X, np.ones((6, 4, 5, 5)), dilation=2),
            r"kernel 5 \(dilation 2: effective 9\) is larger than padded input 7 on axis 2",
        ),
        (lambda: ref.conv2d(X, np.ones((6, 3, 3, 3))), r"4 channels.*3 \* 1 = 3"),
        (lambda: ref.conv2d(X, W, groups=3), "groups 3 does not divide the input's 4 channels"),
        (lambda: ref.conv2d(X, W[:3, :2], groups=2), r"groups 2 does not divide.*= 3"),
        (lambda: ref.conv2d(X, W, stride=0), "stride must be at least 1, got 0"),
        (lambda: ref.conv2d(X, W, dilation=-1), "dilation must be at least 1, got -1"),
        (lambda: ref.conv2d(X, W, padding=-1), "padding must be at least 0, got -1"),
        (lambda: ref.conv2d(X, W, padding="full"), "padding must be 'valid', 'same'.*'full'"),
        (lambda: ref.conv2d(X, W, padding=(1, 2, 3)), "padding must have 1 or 2 entries, got 3"),
        (
            lambda: ref.conv1d(X[0], np.ones((6, 7, 3)), padding=(1, 2)),
            "padding must have 1 entry, got 2",
        ),
        (lambda: ref.conv2d(X, W, padding=((1, 2), 3)), r"one \(before, after\) pair per axis"),
        (lambda: ref.conv2d(X, W, padding=7, padding_mode="reflect"), "reflect padding 7.*6"),
        (lambda: ref.conv2d(X, W, padding=8, padding_mode="circular"), "circular padding 8.*7"),
        (lambda: ref.conv2d(X, W, padding_mode="mirror"), "padding_mode must be one of zeros"),
        (lambda: ref.conv2d(X, W, data_format="NCL"), "data_format must be one of.*'NCL'"),
        (lambda: ref.conv2d(X, W, activation="gelu"), "activation must be one of relu"),
        (lambda: ref.conv2d(X, W, np.ones(5)), r"bias must have shape \(6,\), got \(5,\)"),
        (lambda: ref.conv2d(X, W, residual=np.ones((1, 6, 7, 7))), "residual must have shape"),
        (lambda: ref.conv2d(X[0, 0], W), "x must have rank 4, or 3 .*got rank 2"),
        (lambda: ref.conv2d(X[:, :0], W[:, :0]), "x has an empty channel or spatial axis"),
        (lambda: ref.conv2d(X[..., :0], W, padding=3), "x has an empty channel or spatial axis"),
        (lambda: ref.conv2d(X, W[..., :0]), "weight has an empty axis"),
        (lambda: ref.conv2d(X[:0], np.ones((6, 4, 9, 9))), "kernel 9 is larger than padded"),
        (lambda: ref.conv_backward_input(X, W, X.shape), r"dy must have shape \(1, 6, 5, 5\)"),
        (lambda: ref.conv_transpose2d(X, W), "input has 4 channels, but weight.shape.0. is 6"),
        (lambda: ref.conv_transpose2d(X[:, :1, :1, :1], W[:1], padding=2), "output extent -1"),
        (lambda: ref.max_pool2d(X, 3, padding=2), r"padding \(2, 2\).*at most half the kernel 3"),
        (lambda: ref.avg_pool2d(X, 3, divisor_override=0), "divisor_override must not be 0"),
        (lambda: ref.lp_pool2d(X, 0, 3), "norm_type must be greater than 0, got 0"),
        (lambda: ref.max_pool2d_backward(X, X, 3), "dy must have shape"),
        (
            lambda: ref.stochastic_pool2d(X, 3, training=False, return_indices=True),
            "return_indices needs training=True",
        ),
    ],
)
def test_value_errors_name_the_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ref.conv2d(X.tolist(), W), "x must be a numpy.ndarray.*got list"),
        (lambda: ref.conv2d(X, None), "weight must be a numpy.ndarray.*got NoneType"),
        (lambda: ref.avg_pool2d_backward(None, X, 2), "dy must be a numpy.ndarray.*got NoneType"),
        (lambda: ref.conv2d(np.ma.array(X), W), "x must be a numpy.ndarray.*MaskedArray"),
        (lambda: ref.conv2d(X.astype(np.int64), W), "x must be of dtype float32 or float64.*int64"),
        (lambda: ref.conv2d(X.astype(">f8"), W), "x must be of dtype float32 or float64.*>f8"),
        (lambda: ref.conv2d(X.astype(np.float32), W), "share one dtype.*x float32, weight float64"),
        (lambda: ref.conv2d(X, W, stride=True), "stride must be an integer, got the bool True"),
        (lambda: ref.conv2d(X, W, stride=2.0), "stride must be an integer, got float 2.0"),
        (lambda: ref.conv2d(X, W, groups="2"), "groups must be an integer, got str '2'"),
        (lambda: ref.conv2d(X, W, padding=b"same"), "padding must be an integer, got bytes"),
        (lambda: ref.conv2d(X, W, data_format=None), "data_format must be a str"),
        (lambda: ref.max_pool2d(X, 3, ceil_mode=1), "ceil_mode must be a bool, got int 1"),
        (lambda: ref.lp_pool2d(X, "2", 3), "norm_type must be a real number, got str '2'"),
        (lambda: ref.adaptive_avg_pool2d(X, 2.0), "output_size must be an integer"),
        (lambda: ref.conv_backward_input(X, W, 7), "input_shape must be a sequence"),
        (
            lambda: ref.stochastic_pool2d(X, 2, rng="x"),
            "rng must be None, an integer seed or a numpy.random.Gen",
        ),
    ],
)
def test_type_errors_name_the_argument(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_integers_are_what_operator_index_takes():
    y = ref.conv2d(X, W, None, 2, 1)
    for two in (np.int32(2), np.array(2), (2,), [2, 2], np.array([2, 2])):
        np.testing.assert_array_equal(ref.conv2d(X, W, stride=two, padding=((1, 1), (1, 1))), y)
    with pytest.raises(OverflowError, match="stride"):
        ref.conv2d(X, W, stride=2**64)
    with pytest.raises(OverflowError, match="padded input"):
        ref.conv2d(X, W, padding=2**62)


def test_caller_sees_no_warning_and_no_change():
    x = row(1, NAN, INF, -INF, 0, 1e308)
    before = x.copy()
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        ref.conv1d(x, row(1e308, -INF), activation="silu")
        ref.avg_pool1d(x, 2)
        ref.lp_pool1d(x, 2, 2)
        ref.stochastic_pool1d(x, 2, training=False)
        ref.stochastic_pool1d_backward(row(1, 1, 1), x, 2, training=False)
    np.testing.assert_array_equal(x, before)


def test_public_surface():
    names = {f"{p}{nd}d{end}" for p in POOLINGS for nd in (1, 2, 3) for end in ("", "_backward")}
    names |= {f"conv{t}{nd}d" for t in ("", "_transpose") for nd in (1, 2, 3)}
    assert names <= set(ref.__all__)
    for name in ref.__all__:
        assert hasattr(ref, name)
    for name in names:
        function = getattr(ref, name)
        assert function.__name__ == name
        assert "{" not in function.__doc__
        assert "rank" not in inspect.signature(function).parameters
    for pooling in POOLINGS:
        forward = list(inspect.signature(getattr(ref, f"{pooling}2d")).parameters)
        backward = list(inspect.signature(getattr(ref, f"{pooling}2d_backward")).parameters)
        # Of the forward's choices, where it makes any, the gradient may be told.
        if pooling in ("max_pool", "adaptive_max_pool", "stochastic_pool"):
            backward.remove("indices")
        assert backward == ["dy", *forward]


# --- torch -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def torch_gradients(torch, function, dy, *arrays):
    """(y, gradients) of a torch function at NumPy arrays; dy maps y's shape to an array."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = function(*tensors)
    gradient = dy(*y.shape)
    y.backward(torch.tensor(gradient))
    return y.detach().numpy(), gradient, [t.grad.numpy() for t in tensors]


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 2, 2)])
def test_conv_is_torchs(torch, nd, stride, padding, dilation, groups):
    functional = torch.nn.functional
    x, b = random(2, 4, *(7, 6, 8)[:nd]), random(6, seed=2)
    w = random(6, 4 // groups, *(3, 2, 3)[:nd], seed=1)
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y, dy, (dx, dw, db) = torch_gradients(
        torch, lambda *t: getattr(functional, f"conv{nd}d")(*t, **window), random, x, w, b
    )
    np.testing.assert_allclose(CONV[nd](x, w, b, **window), y, atol=1e-12)
    np.testing.assert_allclose(ref.conv_backward_input(dy, w, x.shape, **window), dx, atol=1e-12)
    ours = ref.conv_backward_weight(dy, x, w.shape, bias_grad=True, **window)
    np.testing.assert_allclose(ours[0], dw, atol=1e-12)
    np.testing.assert_allclose(ours[1], db, atol=1e-12)

    b = b[: 4 // groups * groups]
    window["output_padding"] = stride - 1
    z, dz, (dy, dw, db) = torch_gradients(
        torch,
        lambda *t: getattr(functional, f"conv_transpose{nd}d")(*t, **window),
        random,
        y,
        w,
        b,
    )
    np.testing.assert_allclose(CONV_TRANSPOSE[nd](y, w, b, **window), z, atol=1e-12)
    np.testing.assert_allclose(
        ref.conv_transpose_backward_input(dz, w, y.shape, **window), dy, atol=1e-12
    )
    ours = ref.conv_transpose_backward_weight(dz, y, w.shape, bias_grad=True, **window)
    np.testing.assert_allclose(ours[0], dw, atol=1e-12)
    np.testing.assert_allclose(ours[1], db, atol=1e-12)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_are_torchs(torch, mode):
    layer = torch.nn.Conv2d(3, 4, 3, stride=2, padding=2, padding_mode=mode, dtype=torch.float64)
    x, w, b = random(2, 3, 6, 7), layer.weight.detach().numpy(), layer.bias.detach().numpy()
    y, dy, (dx,) = torch_gradients(torch, layer, random, x)
    arguments = {"stride": 2, "padding": 2, "padding_mode": mode}
    np.testing.assert_allclose(ref.conv2d(x, w, b, **arguments), y, atol=1e-12)
    np.testing.assert_allclose(ref.conv_backward_input(dy, w, x.shape, **arguments), dx, atol=1e-12)
    np.testing.assert_allclose(
        ref.conv_backward_weight(dy, x, w.shape, **arguments), layer.weight.grad, atol=1e-12
    )


TORCH_POOLS = [
    ("max_pool", (3, 2, 1), {"ceil_mode": True}),
    ("max_pool", (2, 3, 1, 2), {"ceil_mode": True}),
    ("max_pool", (2,), {}),
    ("avg_pool", (3, 2, 1), {"ceil_mode": True}),
    ("avg_pool", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}),
    ("avg_pool", (2, 3), {"ceil_mode": True}),
    ("lp_pool", (3.0, 2), {}),
    ("lp_pool", (2.0, 3, 1), {}),
    ("adaptive_avg_pool", (3,), {}),
    ("adaptive_max_pool", (3,), {}),
    ("adaptive_max_pool", (9,), {}),
]


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize(("name", "args", "kwargs"), TORCH_POOLS)
def test_pooling_is_torchs(torch, nd, name, args, kwargs):
    x = distinct(2, 3, *(7, 6, 8)[:nd])
    if name == "lp_pool":
        x = np.abs(x)  # torch takes no absolute value
    function = getattr(torch.nn.functional, f"{name}{nd}d")
    y, dy, (dx,) = torch_gradients(torch, lambda t: function(t, *args, **kwargs), random, x)
    forward, backward = getattr(ref, f"{name}{nd}d"), getattr(ref, f"{name}{nd}d_backward")
    np.testing.assert_allclose(forward(x, *args, **kwargs), y, atol=1e-12)
    np.testing.assert_allclose(backward(dy, x, *args, **kwargs), dx, atol=1e-12)
    if "max" in name:
        _, theirs = function(torch.tensor(x), *args, **kwargs, return_indices=True)
        _, ours = forward(x, *args, **kwargs, return_indices=True)
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_max_unpool_is_torchs(torch, nd):
    functional = torch.nn.functional
    x = distinct(2, 3, *(7, 6, 8)[:nd])
    y, index = getattr(ref, f"max_pool{nd}d")(x, 2, return_indices=True)
    size = x.shape[2:]
    z, dz, (dy,) = torch_gradients(
        torch,
        lambda t: getattr(functional, f"max_unpool{nd}d")(
            t, torch.tensor(index), 2, output_size=size
        ),
        random,
        y,
    )
    ours = getattr(ref, f"max_unpool{nd}d")(y, index, 2, output_size=size)
    np.testing.assert_array_equal(ours, z)
    ours = getattr(ref, f"max_unpool{nd}d_backward")(dz, y, index, 2, output_size=size)
    np.testing.assert_array_equal(ours, dy)


@pytest.mark.parametrize("activation", ref.ACTIVATIONS)
def test_activations_are_torchs(torch, activation):
    x = np.array([-INF, -800, -8, -3, -1, -0.0, 0, 1, 3, 6, 7, 800, INF])
    function = getattr(torch.nn.functional, activation, None) or getattr(torch, activation)
    y, dy, (dx,) = torch_gradients(torch, function, random, x)
    np.testing.assert_allclose(ref.activate(x, activation), y, atol=1e-14)
    np.testing.assert_allclose(ref.activate_backward(dy, x, activation), dx, atol=1e-14)
