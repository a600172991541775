"""Matrix products, activations, batch normalization, softmax, cross-entropy and optimizers: against
the reference on every ISA, by finite differences, and refusals."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from problems import samples_beyond_the_caches

import convolith as cl
from convolith import reference

Array = np.ndarray[Any, Any]

DTYPES = ("float32", "float64")
LAYOUTS = ("channels_first", "channels_last")
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}
ACTIVATIONS: tuple[Any, ...] = (*reference.ACTIVATIONS, ("leaky_relu", 0.3), None)
FROM_OUTPUT = ("relu", "relu6", "leaky_relu", ("leaky_relu", 0.0), "tanh", "sigmoid", None)
COUNTS = (1, 3, 8, 15, 16, 17, 64, 100, 1000)


def normal(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def integers(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def close(actual: Array, expected: Array, dtype: str, ulps: float, context: object = "") -> None:
    """Within so many units in the last place of the greatest element, or of each."""
    assert actual.dtype == dtype, context
    assert actual.flags.c_contiguous, context
    scale = float(np.abs(expected).max(initial=1e-30))
    tolerance = ulps * EPSILON[dtype]
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * scale, err_msg=str(context)
    )


def gradient(f: Callable[[Array], Any], x: Array, dy: Array, step: float = 1e-5) -> Array:
    """Central differences of sum(f(x) * dy)."""
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += step
        above = (f(moved) * dy).sum()
        moved[index] -= 2 * step
        result[index] = (above - (f(moved) * dy).sum()) / (2 * step)
    return result


def awkward(x: Array) -> list[Array]:
    """The values of x under other strides, not writable."""
    spread = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    spread[tuple(slice(None, None, 2) for _ in x.shape)] = x
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    flipped = np.ascontiguousarray(x[::-1])[::-1]
    views = [np.asfortranarray(x), spread[(slice(None, None, 2),) * x.ndim], unaligned, flipped]
    for view in views:
        view.flags.writeable = False
    return views


# ---- matmul ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_is_exact_on_integers(dtype: str) -> None:
    for m, n, k in itertools.product((1, 7, 33), (1, 16, 45), (1, 5, 130)):
        for ta, tb in itertools.product((False, True), repeat=2):
            a = integers((k, m) if ta else (m, k), dtype)
            b = integers((n, k) if tb else (k, n), dtype, 1)
            bias = integers((n,), dtype, 2)
            out = np.full((m, n), np.nan, dtype)
            y = cl.matmul(
                a, b, transpose_a=ta, transpose_b=tb, bias=bias, activation="relu", out=out
            )
            assert y is out
            expected = reference.matmul(
                a, b, transpose_a=ta, transpose_b=tb, bias=bias, activation="relu"
            )
            assert np.array_equal(y, expected), (m, n, k, ta, tb)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_of_few_rows_is_exact_on_integers(dtype: str) -> None:
    rng = np.random.default_rng(0)
    shapes = [
        *itertools.product((1, 2, 3, 4), (1, 31), (16, 19, 8200)),
        (1, 300, 513),
        (4, 300, 40),
    ]
    for m, n, k in shapes:
        a, b = (rng.integers(-2, 3, shape).astype(dtype) for shape in ((m, k), (k, n)))
        bias = rng.integers(-9, 9, n).astype(dtype)
        expected = np.maximum(a.astype("f8") @ b.astype("f8") + bias, 0)
        columns = np.ascontiguousarray(b.T)
        options: dict[str, Any] = {"bias": bias, "activation": "relu"}
        assert np.array_equal(cl.matmul(a, b, **options), expected), (m, n, k)
        assert np.array_equal(cl.matmul(a, columns, transpose_b=True, **options), expected)
        backwards = np.ascontiguousarray(b[:, ::-1])[:, ::-1]
        assert np.array_equal(cl.matmul(a, backwards, **options), expected)


def test_matmul_of_chunks_has_its_epilogue_once() -> None:
    """More products than are summed without a chain above 512 of 512."""
    m, n, k = 6, 5, 2**18 + 3
    a = np.random.default_rng(0).integers(-1, 2, (m, k)).astype("f4")
    b = np.random.default_rng(1).integers(-1, 2, (k, n)).astype("f4")
    bias = integers((n,), "f4", 2)
    exact = np.clip(a.astype("f8") @ b.astype("f8") + bias, 0, 6)
    assert np.array_equal(cl.matmul(a, b, bias=bias, activation="relu6"), exact)


def test_matmul_stacks_and_broadcasts() -> None:
    for left, right in [
        ((5, 4, 3), (5, 3, 6)),
        ((2, 5, 4, 3), (5, 3, 6)),
        ((2, 1, 4, 3), (1, 5, 3, 6)),
        ((4, 3), (2, 3, 6)),
        ((7, 2, 4, 3), (3, 6)),
        ((0, 4, 3), (3, 6)),
    ]:
        a, b = integers(left), integers(right, seed=1)
        assert np.array_equal(cl.matmul(a, b), a @ b), (left, right)
        assert np.array_equal(cl.matmul(np.asfortranarray(a), np.asfortranarray(b)), a @ b)


def test_matmul_of_nothing() -> None:
    bias = integers((6,))
    y = cl.matmul(np.zeros((4, 0), "f4"), np.zeros((0, 6), "f4"), bias=bias, activation="relu")
    assert np.array_equal(y, np.broadcast_to(np.maximum(bias, 0), (4, 6)))
    assert cl.matmul(np.zeros((0, 3), "f4"), np.zeros((3, 6), "f4")).shape == (0, 6)
    assert cl.matmul(np.zeros((2, 3), "f4"), np.zeros((3, 0), "f4")).shape == (2, 0)


def test_matmul_strides_and_threads() -> None:
    a, b = normal((70, 300), "float32"), normal((300, 90), "float32", 1)
    y = cl.matmul(a, b)
    for left, right in itertools.product(awkward(a), awkward(b)):
        assert np.allclose(cl.matmul(left, right), y, rtol=1e-5, atol=1e-4)
    for transposed in (False, True):
        results = []
        for threads in (1, 2, 5):
            with cl.threads(threads):
                other = np.ascontiguousarray(b.T) if transposed else b
                results.append(cl.matmul(a, other, transpose_b=transposed).tobytes())
        assert len(set(results)) == 1


def test_matmul_refusals() -> None:
    a = integers((3, 4))
    with pytest.raises(ValueError, match=r"4 columns of a meet 3 rows of b"):
        cl.matmul(a, a)
    with pytest.raises(ValueError, match=r"b has shape \(4,\); it must have at least 2 axes"):
        cl.matmul(a, a[0])
    with pytest.raises(ValueError, match=r"leading axes do not broadcast"):
        cl.matmul(np.zeros((2, 3, 4), "f4"), np.zeros((3, 4, 3), "f4"))
    with pytest.raises(ValueError, match=r"bias has shape \(4,\); it must be \(3,\)"):
        cl.matmul(a, a, transpose_b=True, bias=a[0])
    with pytest.raises(TypeError, match=r"b has dtype float64"):
        cl.matmul(a, a.T.astype("f8"))
    with pytest.raises(ValueError, match=r"out has shape \(3, 4\); it must be \(3, 3\)"):
        cl.matmul(a, a, transpose_b=True, out=a)
    square = np.zeros((3, 3), "f4")
    with pytest.raises(ValueError, match=r"out shares elements with an input"):
        cl.matmul(square, square, out=square)


# ---- activations -----------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activation(activation: Any, dtype: str) -> None:
    for count in COUNTS:
        x, residual = 4 * normal((count,), dtype), normal((count,), dtype, 1)
        close(
            cl.activation(x, activation), reference.activation(x, activation), dtype, 6, activation
        )
        y = cl.activation(x, activation, residual=residual)
        close(y, reference.activation(x + residual, activation), dtype, 6, activation)
        dy = normal((count,), dtype, 2)
        dx = cl.activation_backward(dy, x, activation)
        close(dx, reference.activation_backward(dy, x, activation), dtype, 8, activation)
        if activation in FROM_OUTPUT:
            y = cl.activation(x, activation)
            dx = cl.activation_backward(dy, None, activation, y=y)
            expected = reference.activation_backward(dy, x, activation)
            close(dx, expected, dtype, 16, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activation_gradients_by_differences(activation: Any) -> None:
    x = 2 * normal((40,)) + 0.013
    dy = normal((40,), seed=1)
    expected = gradient(lambda x: reference.activation(x, activation), x, dy)
    assert np.allclose(cl.activation_backward(dy, x, activation), expected, atol=1e-8)


def test_activations_at_their_corners() -> None:
    x = np.array([0, -0.0, 6, -3, 3], "f4")
    one = np.ones_like(x)
    for activation in ACTIVATIONS:
        actual = cl.activation_backward(one, x, activation)
        expected = reference.activation_backward(one, x, activation)
        assert np.allclose(actual, expected, atol=1e-6), activation
    nan = np.full(5, np.nan, "f4")
    for activation in ACTIVATIONS:
        assert np.isnan(cl.activation(nan, activation)).all(), activation
        assert np.isnan(cl.activation_backward(nan, one, activation)).all(), activation
    for activation in ("relu", "relu6"):
        assert np.array_equal(cl.activation_backward(nan, -one, activation), np.zeros(5))


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_near_zero(dtype: str) -> None:
    """Every element to some units of its own last place, also where its powers are subnormal."""
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, 1)
    x = np.ldexp(np.array([1, 1.25, -1, -1.75]), exponents[:, None]).astype(dtype).ravel()
    exact = x.astype(np.longdouble)
    logistic = 1 / (1 + np.exp(-exact))
    expected = {
        "tanh": (np.tanh(exact), 1 - np.tanh(exact) ** 2),
        "sigmoid": (logistic, logistic * (1 - logistic)),
        "silu": (exact * logistic, logistic * (1 + exact * (1 - logistic))),
        ("leaky_relu", 0.75): (np.where(x > 0, exact, 0.75 * exact), np.where(x > 0, 1, 0.75)),
    }
    limits = {"rtol": 6 * EPSILON[dtype], "atol": float(info.smallest_subnormal)}
    for activation, (y, slope) in expected.items():
        np.testing.assert_allclose(cl.activation(x, activation), y, **limits, err_msg=activation)
        for dy in (x, np.ones_like(x)):
            dx = cl.activation_backward(dy, x, activation)
            np.testing.assert_allclose(dx, dy * slope, **limits, err_msg=activation)


def test_activation_in_place_and_strides() -> None:
    x, residual = normal((3, 5, 7), "float32"), normal((3, 5, 7), "float32", 1)
    expected = cl.activation(x, "silu", residual=residual)
    for view, other in itertools.product(awkward(x), awkward(residual)):
        assert np.array_equal(cl.activation(view, "silu", residual=other), expected)
    for target in (x, residual):
        kept = target.copy()
        assert cl.activation(x, "silu", residual=residual, out=target) is target
        assert np.array_equal(target, expected)
        target[...] = kept
    wide = np.zeros((3, 5, 14), "f4")
    cl.activation(x, "silu", residual=residual, out=wide[..., ::2])
    assert np.array_equal(wide[..., ::2], expected)
    assert not wide[..., 1::2].any()
    long = normal((10,), "float32")
    with pytest.raises(ValueError, match="out shares elements"):
        cl.activation(long[1:], "relu", out=long[:-1])


def test_activation_refusals() -> None:
    x = normal((3, 4), "float32")
    with pytest.raises(ValueError, match=r"activation"):
        cl.activation(x, "gelu")
    with pytest.raises(ValueError, match=r"residual has shape \(4, 3\); it must be \(3, 4\)"):
        cl.activation(x, "relu", residual=x.T)
    with pytest.raises(TypeError, match=r"x is a list"):
        cl.activation(x.tolist(), "relu")  # type: ignore[arg-type]
    for arguments in ({"x": None}, {"x": x, "y": x}):
        with pytest.raises(ValueError, match=r"one of x and y must be given"):
            cl.activation_backward(x, activation="relu", **arguments)  # type: ignore[arg-type]
    for activation in ("silu", "hardswish", ("leaky_relu", -1.0)):
        with pytest.raises(ValueError, match=r"y does not determine the derivative"):
            cl.activation_backward(x, None, activation, y=x)
        with pytest.raises(ValueError, match=r"y does not determine the derivative"):
            reference.activation_backward(x, None, activation, y=x)


# ---- batch normalization ---------------------------------------------------------------------

SHAPES: tuple[tuple[int, ...], ...] = (
    (2, 1, 3),
    (5, 37),
    (6, 3, 1, 1),
    (4, 6, 5, 5),
    (2, 64, 7, 7),
    (3, 17, 40),
    (1, 2, 3, 4, 5),
    (2, 3, 60, 70),
    (600, 20, 3),
)


def in_layout(x: Array, layout: str) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "channels_last" else x


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(layout: str, dtype: str, training: bool) -> None:
    activations = itertools.cycle((None, "relu", "relu6", ("leaky_relu", 0.2), "tanh", "sigmoid"))
    for shape, residual in itertools.product(SHAPES, (False, True)):
        activation = next(activations)
        context = (shape, layout, activation, residual)
        channels = shape[1]
        x = in_layout(normal(shape, dtype) * 3 + 2, layout)
        other = in_layout(normal(shape, dtype, 1), layout) if residual else None
        weight, bias, mean = (normal((channels,), dtype, seed) for seed in (2, 3, 4))
        var = normal((channels,), dtype, 5) ** 2 + 0.5
        options: dict[str, Any] = dict(
            training=training,
            activation=activation,
            residual=other,
            data_format=layout,
            return_stats=True,
        )
        truth_mean, truth_var = mean.astype("f8"), var.astype("f8")
        expected = reference.batch_norm(x, truth_mean, truth_var, weight, bias, **options)
        actual = cl.batch_norm(x, mean, var, weight, bias, **options)
        for got, wanted, ulps in zip(actual, expected, (32, 64, 64), strict=True):
            close(got, wanted, dtype, ulps, context)
        close(mean, truth_mean, dtype, 64, context)
        close(var, truth_var, dtype, 64, context)

        dy = in_layout(normal(shape, dtype, 6), layout)
        keywords: dict[str, Any] = dict(
            y=actual[0],
            activation=activation,
            training=training,
            residual_grad=residual,
            data_format=layout,
        )
        gradients = cl.batch_norm_backward(dy, x, weight, *actual[1:], **keywords)
        truths = reference.batch_norm_backward(dy, x, weight, *actual[1:], **keywords)
        assert len(gradients) == len(truths) == 3 + residual
        for got, wanted in zip(gradients, truths, strict=True):
            close(got, wanted, dtype, 64, context)
        if not residual:
            # Without y the derivative is taken from x: the same bits where activations clamp.
            again = cl.batch_norm_backward(
                dy, x, weight, *actual[1:], **keywords | {"y": None, "bias": bias}
            )
            for got, wanted in zip(again, gradients, strict=True):
                if activation in ("tanh", "sigmoid"):
                    close(got, wanted, dtype, 64, context)
                else:
                    assert np.array_equal(got, wanted), context


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_gradients_by_differences(training: bool) -> None:
    x, weight, bias = normal((3, 2, 4)), normal((2,), seed=1), normal((2,), seed=2)
    dy, residual = normal((3, 2, 4), seed=3), normal((3, 2, 4), seed=4)
    mean, var = normal((2,), seed=5), normal((2,), seed=6) ** 2 + 1

    def forward(
        x: Array = x, weight: Array = weight, bias: Array = bias, residual: Array = residual
    ) -> Array:
        result: Array = cl.batch_norm(
            x,
            mean.copy(),
            var.copy(),
            weight,
            bias,
            training,
            activation="tanh",
            residual=residual,
        )
        return result

    y, m, s = cl.batch_norm(
        x,
        mean.copy(),
        var.copy(),
        weight,
        bias,
        training,
        activation="tanh",
        residual=residual,
        return_stats=True,
    )
    gradients = cl.batch_norm_backward(
        dy, x, weight, m, s, y=y, activation="tanh", training=training, residual_grad=True
    )
    for got, name, value in zip(
        gradients,
        ("x", "weight", "bias", "residual"),
        (x, weight, bias, residual),
        strict=True,
    ):
        expected = gradient(lambda v, name=name: forward(**{name: v}), value, dy)  # type: ignore[misc]
        assert np.allclose(got, expected, atol=1e-8), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_merges_pieces(layout: str) -> None:
    """Pieces of a channel have sums of their own; here the last of them have other numbers."""
    x, dy = (normal((3, 2, 210, 220), "f4", seed) for seed in (0, 1))
    x[2], dy[2] = 3 * x[2] + 5, dy[2] - 2
    x, dy = in_layout(x, layout), in_layout(dy, layout)
    options: dict[str, Any] = dict(training=True, data_format=layout)
    expected = reference.batch_norm(x, None, None, return_stats=True, **options)
    actual = cl.batch_norm(x, None, None, return_stats=True, **options)
    for got, wanted in zip(actual, expected, strict=True):
        close(got, wanted, "float32", 64)
    gradients = cl.batch_norm_backward(dy, x, None, *actual[1:], **options)
    truths = reference.batch_norm_backward(dy, x, None, *actual[1:], **options)
    for got, wanted in zip(gradients, truths, strict=True):
        close(got, wanted, "float32", 64)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_of_data_far_from_zero(layout: str) -> None:
    """The shift of the sums keeps the variance, where sums of squares would lose it."""
    x = in_layout((normal((4, 5, 30, 30)) + 1e4).astype("f4"), layout)
    axes = (0, 2, 3) if layout == "channels_first" else (0, 1, 2)
    _, mean, inv_std = cl.batch_norm(
        x, None, None, training=True, data_format=layout, return_stats=True
    )
    assert np.allclose(mean, x.astype("f8").mean(axes), rtol=1e-7)
    assert np.allclose(inv_std, 1 / np.sqrt(x.astype("f8").var(axes) + 1e-5), rtol=1e-5)
    # With an outlier in front, too.
    x[0, 0, 0, 0] = -1e7
    _, mean, inv_std = cl.batch_norm(
        x, None, None, training=True, data_format=layout, return_stats=True
    )
    std = x.astype("f8").std(axes)
    assert (abs(mean - x.astype("f8").mean(axes)) <= 1e-5 * std + 1e-7 * abs(mean)).all()
    assert np.allclose(inv_std, 1 / std, rtol=1e-4)
    constant = np.full((2, 3, 4, 5), 123456.0, "f4")
    assert not cl.batch_norm(constant, None, None, training=True, data_format=layout).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_strides_samples_and_threads(layout: str) -> None:
    x, dy = (in_layout(normal((4, 6, 9, 11), "f4", seed), layout) for seed in (0, 1))
    options: dict[str, Any] = dict(training=True, activation="relu", data_format=layout)
    y, mean, inv_std = cl.batch_norm(x, None, None, return_stats=True, **options)
    dx = cl.batch_norm_backward(dy, x, None, mean, inv_std, y=y, **options)
    views = [*awkward(x), np.pad(x, ((0, 0), (0, 0), (0, 0), (3, 4)))[..., 3:-4]]
    for view in [*views, np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, 1:-1]]:
        assert np.array_equal(cl.batch_norm(view, None, None, **options), y)
        again = cl.batch_norm_backward(dy, view, None, mean, inv_std, y=y, **options)
        assert all(map(np.array_equal, again, dx))
    out = np.full((4, *x.shape[1:-1], x.shape[-1] + 2), np.nan, "f4")[..., 1:-1]
    assert cl.batch_norm(x, None, None, out=out, **options) is out
    assert np.array_equal(out, y)
    alias = "NCHW" if layout == "channels_first" else "NHWC"
    one = cl.batch_norm(x[0], None, None, training=True, data_format=alias)
    batch = cl.batch_norm(x[:1], None, None, training=True, data_format=layout)
    assert np.array_equal(one, batch[0])


def test_activation_of_large_arrays() -> None:
    """What goes past the caches is what is written through them, aligned and not."""
    count = samples_beyond_the_caches(3 << 16) * (1 << 14) + 5
    x = np.random.default_rng(0).standard_normal(count, np.float32)
    residual = x[::-1].copy()
    expected = np.maximum(x + residual, 0)
    assert np.array_equal(cl.activation(x, "relu", residual=residual), expected)
    for begin in (0, 1):
        within = cl.activation(np.ones(count + 32, np.float32), None)  # begins on a line
        y = within[begin : begin + count]
        cl.activation(x, "relu", residual=residual, out=y)
        assert np.array_equal(y, expected)
        assert np.all(within[:begin] == 1)
        assert np.all(within[begin + count :] == 1)
    assert np.array_equal(cl.activation_backward(residual, x, "relu"), residual * (x > 0))
    assert np.array_equal(cl.activation_backward(x, None, "relu", y=y), x * (y > 0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [16, 15])
def test_batch_norm_of_large_arrays(layout: str, channels: int) -> None:
    """Without statistics of the batch every sample is mapped alone: a few at a time stay in the
    caches."""
    samples = samples_beyond_the_caches(3 * channels << 12)
    generator = np.random.default_rng(0)
    shape = in_layout(np.empty((samples, channels, 32, 32), np.float32), layout).shape
    x, dy, residual = (generator.standard_normal(shape, np.float32) for _ in range(3))
    weight, bias, mean = (generator.standard_normal(channels, np.float32) for _ in range(3))
    variance = np.full(channels, 2, np.float32)
    how: Any = {"training": False, "activation": "relu", "data_format": layout}

    def forward(some: slice) -> Array:
        return cl.batch_norm(x[some], mean, variance, weight, bias, residual=residual[some], **how)

    def backward(some: slice) -> tuple[Array, ...]:
        arguments = dy[some], x[some], weight, mean, 1 / np.sqrt(variance)
        dx, _, _, dresidual = cl.batch_norm_backward(
            *arguments, y=y[some], residual_grad=True, **how
        )
        return dx, dresidual

    y = forward(slice(None))
    dx, dresidual = backward(slice(None))
    for first in range(0, samples, 16):
        some = slice(first, first + 16)
        assert np.array_equal(y[some], forward(some))
        for whole, part in zip((dx, dresidual), backward(some), strict=True):
            assert np.array_equal(whole[some], part)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(8, 3, 130, 130), (2, 70, 40, 41), (4000, 33)])
def test_training_has_the_same_bits_for_any_threads(layout: str, shape: tuple[int, ...]) -> None:
    x, dy = (in_layout(normal(shape, "f4", seed), layout) for seed in (0, 1))
    target = np.random.default_rng(0).integers(0, shape[1], shape[:1] + shape[2:])
    axis = 1 if layout == "channels_first" else -1

    def everything() -> list[Array]:
        running = np.zeros(shape[1], "f4"), np.ones(shape[1], "f4")
        y, mean, inv_std = cl.batch_norm(
            x, *running, training=True, data_format=layout, return_stats=True, activation="relu"
        )
        gradients = cl.batch_norm_backward(
            dy, x, None, mean, inv_std, y=y, activation="relu", data_format=layout
        )
        parameter = x.copy()
        cl.adam_step(parameter, dy, np.zeros_like(x), np.zeros_like(x), 1)
        p = cl.softmax(x, axis)
        loss = cl.cross_entropy(x, target, axis=axis)
        return [
            *(y, mean, inv_std, *running, *gradients, parameter, p, loss),
            cl.softmax_backward(dy, p, axis),
            cl.cross_entropy_backward(loss, x, target, axis=axis),
            cl.activation(x, "silu"),
            cl.activation_backward(dy, x, "silu"),
        ]

    with cl.threads(1):
        alone = everything()
    for count in (2, 5):
        with cl.threads(count):
            for serial, threaded in zip(alone, everything(), strict=True):
                assert serial.tobytes() == threaded.tobytes()


@pytest.mark.parametrize("activation", ["silu", "hardswish", ("leaky_relu", -0.5)], ids=str)
def test_batch_norm_gradient_without_y_by_differences(activation: Any) -> None:
    x, weight, bias, dy = (normal((3, 2, 4), seed=seed) for seed in range(4))
    weight, bias = weight[0, :, 0], bias[0, :, 0]

    def forward(x: Array) -> Array:
        y: Array = cl.batch_norm(x, None, None, weight, bias, training=True, activation=activation)
        return y

    _, mean, inv_std = cl.batch_norm(x, None, None, weight, bias, training=True, return_stats=True)
    options: dict[str, Any] = dict(bias=bias, activation=activation)
    dx = cl.batch_norm_backward(dy, x, weight, mean, inv_std, **options)[0]
    assert np.allclose(dx, gradient(forward, x, dy), atol=1e-8)
    truth = reference.batch_norm_backward(dy, x, weight, mean, inv_std, **options)[0]
    assert np.allclose(dx, truth, atol=1e-12)


def test_batch_norm_of_no_samples() -> None:
    x = np.zeros((0, 3, 4, 4), "f4")
    y = cl.batch_norm(x, np.zeros(3, "f4"), np.ones(3, "f4"))
    assert y.shape == x.shape
    dx, dweight, dbias = cl.batch_norm_backward(
        x, x, None, np.zeros(3, "f4"), np.ones(3, "f4"), training=False
    )
    assert dx.shape == x.shape
    assert not dweight.any()
    assert not dbias.any()


def test_batch_norm_refusals() -> None:
    x = normal((2, 3, 4), "f4")
    mean, var = np.zeros(3, "f4"), np.ones(3, "f4")

    def refuses(match: str, kind: type[Exception] = ValueError, **changes: Any) -> None:
        call: dict[str, Any] = dict(x=x, running_mean=mean, running_var=var) | changes
        with pytest.raises(kind, match=match):
            cl.batch_norm(**call)

    refuses(r"running_mean is None; without training", running_mean=None, running_var=None)
    refuses(r"give both or neither", running_mean=None)
    refuses(r"weight has shape \(2,\); it must be \(3,\)", weight=np.ones(2, "f4"))
    refuses(r"bias has dtype float64", TypeError, bias=np.ones(3))
    refuses(r"x has 1 axes; it must have 2 to 5", x=x[0, 0])
    refuses(r"x has 1 values a channel; training takes at least 2", x=x[:1, :, :1], training=True)
    refuses(r"eps is -1", eps=-1.0)
    refuses(r"momentum is nan", momentum=np.nan, training=True)
    refuses(r"training is 1; it must be True or False", TypeError, training=1)
    refuses(r"residual has shape", residual=x[..., :1])
    refuses(r"running_var is not C-contiguous", running_var=np.ones(6, "f4")[::2], training=True)
    frozen = np.ones(3, "f4")
    frozen.flags.writeable = False
    refuses(r"running_mean is read-only", running_mean=frozen, training=True)
    refuses(r"out shares elements with an input", out=x)
    refuses(r"x has 3 axes; it must have 5, or 4", data_format="NDHWC")
    refuses(r"data_format is 'NWC'", data_format="NWC")
    refuses(r"x is a list", TypeError, x=x.tolist())
    with pytest.raises(ValueError, match=r"y is None; where a residual was added .* relu needs it"):
        cl.batch_norm_backward(x, x, None, mean, var, activation="relu", residual_grad=True)
    with pytest.raises(ValueError, match=r"y does not determine the derivative of silu"):
        cl.batch_norm_backward(x, x, None, mean, var, y=x, activation="silu")
    # Refused calls change nothing.
    assert not mean.any()
    assert (var == 1).all()


# ---- softmax and cross-entropy ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (5, 10), (3, 7, 33), (2, 1000), (4, 300, 3), (2, 5, 9, 8)])
def test_softmax(dtype: str, shape: tuple[int, ...]) -> None:
    x, dy = 5 * normal(shape, dtype), normal(shape, dtype, 1)
    for axis in range(-len(shape), len(shape)):
        for name in ("softmax", "log_softmax"):
            y = getattr(cl, name)(x, axis)
            close(y, getattr(reference, name)(x, axis), dtype, 16, (name, axis))
            backward = name + "_backward"
            close(
                getattr(cl, backward)(dy, y, axis),
                getattr(reference, backward)(dy, y, axis),
                dtype,
                64,
                (backward, axis),
            )
            for view in awkward(x):
                assert np.array_equal(getattr(cl, name)(view, axis), y)
            inplace = x.copy()
            assert getattr(cl, name)(inplace, axis, out=inplace) is inplace
            assert np.array_equal(inplace, y)


def test_softmax_of_extremes() -> None:
    x = np.array([[1e30, -1e30, 0], [-np.inf, 0, 0], [np.nan, 1, 2], [np.inf, 0, 0]], "f4")
    y = cl.softmax(x)
    assert np.array_equal(y[:2], [[1, 0, 0], [0, 0.5, 0.5]])
    assert np.isnan(y[2:]).all()
    assert np.array_equal(cl.softmax(np.ascontiguousarray(x.T), 0).T, y, equal_nan=True)
    assert np.allclose(cl.log_softmax(np.array([1e4, 0.0])), [0, -1e4])
    tiny = np.zeros((1, 2**20), "f4")
    assert np.allclose(cl.softmax(tiny), 2.0**-20)
    for scale in (1e-45, 1e-39, 1e-30, 1e-22, 1e-19):
        row = np.linspace(-scale, scale, 64, dtype="f4")
        assert np.array_equal(cl.softmax(row), np.full(64, 2.0**-6, "f4")), scale
        assert np.allclose(cl.log_softmax(row), -np.log(64), rtol=1e-6), scale
        assert np.array_equal(cl.log_softmax(row[:1]), [0]), scale
    assert cl.softmax(np.zeros((0, 3), "f4")).shape == (0, 3)
    with pytest.raises(ValueError, match=r"axis is 2; x has 2 axes"):
        cl.softmax(x, 2)
    with pytest.raises(ValueError, match=r"y has shape"):
        cl.softmax_backward(x, x[:1])


def test_softmax_gradients_by_differences() -> None:
    x, dy = normal((3, 4)), normal((3, 4), seed=1)
    for name in ("softmax", "log_softmax"):
        forward, backward = getattr(cl, name), getattr(cl, name + "_backward")
        expected = gradient(forward, x, dy)
        assert np.allclose(backward(dy, forward(x)), expected, atol=1e-8), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(10,), (5, 10), (3, 7, 33), (2, 1000), (40, 3, 2), (2, 5, 9, 8)])
def test_cross_entropy(dtype: str, shape: tuple[int, ...]) -> None:
    logits = 3 * normal(shape, dtype)
    for axis in {None, len(shape) - 1, -len(shape)}:
        along = (min(1, len(shape) - 1) if axis is None else axis) % len(shape)
        classes = shape[along]
        rest = shape[:along] + shape[along + 1 :]
        target = np.random.default_rng(2).integers(0, classes, rest)
        target[target == 1] = -100
        for weighted, smoothing, reduction in itertools.product(
            (False, True), (0.0, 0.1, 1.0), ("mean", "sum", "none")
        ):
            options: dict[str, Any] = dict(
                weight=normal((classes,), dtype, 3) ** 2 if weighted else None,
                label_smoothing=smoothing,
                reduction=reduction,
                axis=axis,
            )
            context = (options, shape)
            loss = cl.cross_entropy(logits, target, **options)
            expected = reference.cross_entropy(logits, target, **options)
            assert loss.shape == expected.shape == (rest if reduction == "none" else ())
            close(loss, expected, dtype, 32, context)
            dy = normal(loss.shape, dtype, 4) if loss.shape else np.array(1.5, dtype)
            close(
                cl.cross_entropy_backward(dy, logits, target, **options),
                reference.cross_entropy_backward(dy, logits, target, **options),
                dtype,
                32,
                context,
            )


def test_cross_entropy_gradient_by_differences() -> None:
    logits, target = normal((4, 3, 2)), np.array([[0, 1], [2, 2], [-1, 0], [1, -1]])
    options: dict[str, Any] = dict(
        weight=np.array([0.5, 1, 2]), ignore_index=-1, label_smoothing=0.2
    )
    expected = gradient(lambda x: cl.cross_entropy(x, target, **options), logits, np.array(2.0))
    dx = cl.cross_entropy_backward(np.array(2.0), logits, target, **options)
    assert np.allclose(dx, expected, atol=1e-8)
    assert not dx[2, :, 0].any()


def test_cross_entropy_targets() -> None:
    logits = normal((6, 4), "f4")
    target = np.array([0, 1, 2, 3, 0, 1])
    loss = cl.cross_entropy(logits, target)
    for dtype in ("u1", "i2", "u4", ">i8", "u8"):
        assert np.array_equal(cl.cross_entropy(logits, target.astype(dtype)), loss)
    assert np.isnan(cl.cross_entropy(logits, np.full(6, -100)))
    assert cl.cross_entropy(logits, np.full(6, 7), ignore_index=7, reduction="sum") == 0
    ignored = logits.copy()
    ignored[3] = np.nan
    target[3] = -100
    assert np.isfinite(cl.cross_entropy(ignored, target))
    assert not cl.cross_entropy_backward(loss, ignored, target)[3].any()
    with pytest.raises(ValueError, match=r"target\[4\] is 9; logits has 4 classes"):
        cl.cross_entropy(logits, np.array([0, 1, 2, 3, 9, 1]))
    with pytest.raises(ValueError, match=r"target\[1, 2\] is -3; logits has 5 classes"):
        cl.cross_entropy(normal((2, 5, 3)), np.array([[0, 1, 2], [3, 4, -3]]))
    with pytest.raises(ValueError, match=r"logits has shape \(6, 0\), without classes"):
        cl.cross_entropy(logits[:, :0], target)
    with pytest.raises(ValueError, match=r"target is 4; logits has 4 classes"):
        cl.cross_entropy(logits[0], np.array(4))
    with pytest.raises(ValueError, match=r"target\[0\] is -9223372036854775808"):
        cl.cross_entropy(logits, np.full(6, 2**63, np.uint64))
    with pytest.raises(ValueError, match=r"target has shape \(6,\); it must be \(4,\)"):
        cl.cross_entropy(logits, target, axis=0)
    with pytest.raises(TypeError, match=r"target has dtype float64"):
        cl.cross_entropy(logits, target.astype("f8"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"label_smoothing is 1.5"):
        cl.cross_entropy(logits, target, label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"reduction is 'all'"):
        cl.cross_entropy(logits, target, reduction="all")
    with pytest.raises(ValueError, match=r"dy has shape \(\); it must be \(6,\)"):
        cl.cross_entropy_backward(loss, logits, target, reduction="none")


# ---- optimizers ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_sgd(dtype: str) -> None:
    for count in COUNTS:
        for options in (
            dict(lr=0.1),
            dict(lr=0.1, weight_decay=0.01),
            dict(lr=0.1, momentum=0.9),
            dict(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        ):
            parameter, velocity = normal((count,), dtype), normal((count,), dtype, 1)
            before = parameter.copy(), velocity.copy()
            g = normal((count,), dtype, 2)
            cl.sgd_step(parameter, g, velocity, **options)  # type: ignore[arg-type]
            expected = reference.sgd_step(before[0], g, before[1], **options)  # type: ignore[arg-type]
            close(parameter, expected[0], dtype, 4, options)
            assert expected[1] is not None
            close(velocity, expected[1], dtype, 4, options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam(dtype: str) -> None:
    for count, step in itertools.product(COUNTS, (1, 1000)):
        for options in ({}, dict(weight_decay=0.1), dict(weight_decay=0.1, decoupled=True)):
            state = [normal((count,), dtype, seed) for seed in range(3)]
            state[2] = state[2] ** 2 + 0.1
            before = [array.copy() for array in state]
            g = normal((count,), dtype, 4)
            cl.adam_step(state[0], g, state[1], state[2], step, lr=0.01, **options)  # type: ignore[arg-type]
            expected = reference.adam_step(
                before[0],
                g,
                before[1],
                before[2],
                step,
                lr=0.01,
                **options,  # type: ignore[arg-type]
            )
            for got, wanted in zip(state, expected, strict=True):
                close(got, wanted, dtype, 8, options)


def test_optimizer_refusals() -> None:
    p, g = np.zeros((3, 4), "f4"), np.ones((3, 4), "f4")
    with pytest.raises(ValueError, match=r"velocity is None; momentum needs it"):
        cl.sgd_step(p, g, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"momentum is 0; nesterov needs more"):
        cl.sgd_step(p, g, lr=0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"gradient has shape \(4, 3\); it must be \(3, 4\)"):
        cl.sgd_step(p, g.T, lr=0.1)
    with pytest.raises(ValueError, match=r"parameter is not C-contiguous"):
        cl.sgd_step(p.T, g.T, lr=0.1)
    with pytest.raises(ValueError, match=r"step is 0; steps count from 1"):
        cl.adam_step(p, g, p.copy(), p.copy(), 0)
    with pytest.raises(ValueError, match=r"betas has 1.0"):
        cl.adam_step(p, g, p.copy(), p.copy(), 1, betas=(1.0, 0.9))
    frozen = p.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"square is read-only"):
        cl.adam_step(p, g, p.copy(), frozen, 1)
    assert not p.any()


# ---- every ISA -------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", cl.show_config(mode="dicts")["isas_available"])
def test_every_isa(isa: str) -> None:
    if isa == cl.show_config(mode="dicts")["isa"]:
        pytest.skip("the tests above have run on it")
    names = "test_activation test_batch_norm test_softmax test_cross_entropy test_sgd test_adam"
    wanted = [f"{__file__}::{name}" for name in names.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *wanted]
    environment = os.environ | {"CONVOLITH_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
