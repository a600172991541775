"""Against torch, for what torch has: convolution, transposed convolution and their gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from problems import CONV, CONV_TRANSPOSE, DTYPES, LAYOUTS, PADDING_MODES, Array, move_channels

import convolith as cl

torch = pytest.importorskip("torch")

GEOMETRIES = [
    # spatial extents of each rank, stride, padding, dilation, groups
    (((9,), (9, 8), (5, 6, 7)), 1, 0, 1, 1),
    (((17,), (11, 9), (6, 5, 7)), 2, 1, 1, 2),
    (((20,), (12, 13), (8, 7, 8)), 1, 2, 2, 4),
    (((15,), (10, 9), (7, 8, 6)), 3, 2, 2, 1),
    (((33,), (9, 18), (5, 5, 5)), 2, 0, 1, 4),
]
TOLERANCE = {"float32": {"rtol": 1e-4, "atol": 2e-5}, "float64": {"rtol": 1e-10, "atol": 1e-11}}


def random(*shape: int, dtype: str, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def with_gradients(function: Any, dy: Array, *arrays: Array) -> list[Array]:
    """function's result and the gradients of <result, dy>."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    result = function(*tensors)
    result.backward(torch.tensor(dy))
    return [result.detach().numpy(), *(t.grad.numpy() for t in tensors)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_convolution(nd: int, geometry: Any, dtype: str, layout: str) -> None:
    extents, stride, padding, dilation, groups = geometry
    x = random(2, 8, *extents[nd - 1], dtype=dtype, seed=0)
    w = random(12, 8 // groups, *(3, 2, 2)[:nd], dtype=dtype, seed=1)
    b = random(12, dtype=dtype, seed=2)
    torch_conv = getattr(torch.nn.functional, f"conv{nd}d")
    window = (stride, padding, dilation, groups)
    shape = torch_conv(torch.tensor(x), torch.tensor(w), None, *window).shape
    dy = random(*shape, dtype=dtype, seed=3)
    y, dx, dw, db = with_gradients(lambda x, w, b: torch_conv(x, w, b, *window), dy, x, w, b)

    def ours(a: Array) -> Array:
        return move_channels(a, "channels_first", layout)

    def close(a: Array, b: Array) -> None:
        np.testing.assert_allclose(a, b, **TOLERANCE[dtype])

    close(CONV[nd](ours(x), w, b, *window, data_format=layout), ours(y))
    input_shape = ours(x).shape
    close(cl.conv_backward_input(ours(dy), w, input_shape, *window, data_format=layout), ours(dx))
    our_dw, our_db = cl.conv_backward_weight(
        ours(dy), ours(x), w.shape, *window, bias_grad=True, data_format=layout
    )
    close(our_dw, dw)
    close(our_db, db)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_transposed_convolution(nd: int, geometry: Any, dtype: str, layout: str) -> None:
    extents, stride, padding, dilation, groups = geometry
    x = random(2, 8, *(e // 2 for e in extents[nd - 1]), dtype=dtype, seed=0)
    w = random(8, 3, *(3, 2, 4)[:nd], dtype=dtype, seed=1)
    b = random(3 * groups, dtype=dtype, seed=2)
    torch_conv = getattr(torch.nn.functional, f"conv_transpose{nd}d")
    for extra in range(max(stride, dilation)):
        window = (stride, padding, extra, groups, dilation)
        shape = torch_conv(torch.tensor(x), torch.tensor(w), None, *window).shape
        dy = random(*shape, dtype=dtype, seed=3)
        y, dx, dw, db = with_gradients(
            lambda x, w, b, window=window: torch_conv(x, w, b, *window), dy, x, w, b
        )

        def ours(a: Array) -> Array:
            return move_channels(a, "channels_first", layout)

        def close(a: Array, b: Array) -> None:
            np.testing.assert_allclose(a, b, **TOLERANCE[dtype])

        options = {"data_format": layout}
        close(CONV_TRANSPOSE[nd](ours(x), w, b, *window, **options), ours(y))
        close(
            cl.conv_transpose_backward_input(ours(dy), w, ours(x).shape, *window, **options),
            ours(dx),
        )
        our_dw, our_db = cl.conv_transpose_backward_weight(
            ours(dy), ours(x), w.shape, *window, bias_grad=True, **options
        )
        close(our_dw, dw)
        close(our_db, db)


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_one_sample_without_a_batch_axis(nd: int) -> None:
    x = random(4, *(7,) * nd, dtype="float64", seed=0)
    w = random(4, 4, *(3,) * nd, dtype="float64", seed=1)
    for name, function in (("conv", CONV[nd]), ("conv_transpose", CONV_TRANSPOSE[nd])):
        torch_conv = getattr(torch.nn.functional, f"{name}{nd}d")
        y = torch_conv(torch.tensor(x), torch.tensor(w), None, 2, 1).numpy()
        np.testing.assert_allclose(function(x, w, None, 2, 1), y, rtol=1e-10, atol=1e-11)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_same_padding_of_stride_one(nd: int) -> None:
    for kernel, dilation in itertools.product((1, 2, 3, 4), (1, 2, 3)):
        x = random(2, 3, *(8,) * nd, dtype="float64", seed=0)
        w = random(5, 3, *(kernel,) * nd, dtype="float64", seed=1)
        torch_conv = getattr(torch.nn.functional, f"conv{nd}d")
        y = torch_conv(torch.tensor(x), torch.tensor(w), None, 1, "same", dilation).numpy()
        ours = CONV[nd](x, w, None, 1, "same", dilation)
        np.testing.assert_allclose(ours, y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("nd", [1, 2, 3])
def test_padding_modes(nd: int, mode: str) -> None:
    """torch pads with a copy; the gradient flows back through it."""
    x = random(2, 3, *(7,) * nd, dtype="float64", seed=0)
    w = random(4, 3, *(3,) * nd, dtype="float64", seed=1)
    amounts = [2, 1, 3, 0, 1, 2][: 2 * nd]  # last axis first, before and after
    pairs = tuple(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    torch_conv = getattr(torch.nn.functional, f"conv{nd}d")
    torch_mode = "constant" if mode == "zeros" else mode

    def padded(x: Any, w: Any) -> Any:
        return torch_conv(torch.nn.functional.pad(x, amounts, mode=torch_mode), w, None, 2)

    dy = random(*padded(torch.tensor(x), torch.tensor(w)).shape, dtype="float64", seed=2)
    y, dx, dw = with_gradients(padded, dy, x, w)
    options = {"padding_mode": mode}
    close = {"rtol": 1e-10, "atol": 1e-11}
    np.testing.assert_allclose(CONV[nd](x, w, None, 2, pairs, **options), y, **close)
    ours = cl.conv_backward_input(dy, w, x.shape, 2, pairs, **options)
    np.testing.assert_allclose(ours, dx, **close)
    ours = cl.conv_backward_weight(dy, x, w.shape, 2, pairs, **options)
    np.testing.assert_allclose(ours, dw, **close)


@pytest.mark.parametrize(
    "name", ["relu", "relu6", "leaky_relu", "tanh", "sigmoid", "silu", "hardswish"]
)
def test_activations(name: str) -> None:
    x = 4 * random(1, 1, 999, dtype="float32", seed=0)
    y = cl.conv1d(x, np.ones((1, 1, 1), np.float32), activation=name)
    theirs = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    np.testing.assert_allclose(y, theirs(torch.tensor(x)).numpy(), rtol=1e-5, atol=1e-6)
