"""More than 2^31 elements, and byte offsets past 2^32, in each array of each operation.

Not part of the default run: `pytest -m large`. Arrays are zeros but for a few elements, so that
the system need not hold most pages; a test whose pages do not fit is skipped. Run nothing beside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith import _core

pytestmark = pytest.mark.large
Array = np.ndarray[Any, Any]

BEYOND = 2**31 + 2**12
SIDE, ROWS = 2**16, 2**15 + 2**4  # SIDE * ROWS > 2^31
GIB = 2**30


def need(gib: float) -> None:
    """Skips unless so much memory is there, and two GiB to spare."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(int(line.split()[1]) for line in file if "MemAvailable" in line)
    except OSError:
        pytest.skip("cannot tell how much memory there is")
    if available * 1024 < (gib + 2) * GIB:
        pytest.skip(f"needs {gib + 2} GiB of memory, {available / 2**20:.0f} are there")


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def algorithms(problem: str) -> list[str]:
    return [r["name"] for r in _core.algorithms(_core.ConvProblem.parse(problem)) if r["supported"]]


# ---- x -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_of_many_inputs(groups: int, layout: str) -> None:
    """The last rows of the last sample are 2^33 bytes away."""
    need(9)
    channels, width = 2, 2**10
    rows = 2**20 + 2**4
    first = layout == "channels_first"
    x = zeros(1, channels, rows, width) if first else zeros(1, rows, width, channels)
    pixels = x if first else np.moveaxis(x, -1, 1)
    pixels[0, :, -3:, -3:] = np.arange(18).reshape(2, 3, 3) + 1
    w = np.ones((2, channels // groups, 3, 3), np.float32)
    stride = (2**18, 2**8)
    last = (rows - 3) // stride[0] * stride[0], (width - 3) // stride[1] * stride[1]
    pixels[0, :, last[0] : last[0] + 3, last[1] : last[1] + 3] += 5
    text = (
        f"conv2d n1 c{channels} i{rows}x{width} k2 f3 s{stride[0]}x{stride[1]} g{groups} {layout}"
    )
    sums = pixels[0, :, last[0] : last[0] + 3, last[1] : last[1] + 3].sum((1, 2), dtype=float)
    expected = sums if groups == 2 else np.full(2, sums.sum())
    for name in algorithms(text):
        y = cl.conv2d(x, w, stride=stride, groups=groups, data_format=layout, algorithm=name)
        y = y if first else np.moveaxis(y, -1, 1)
        np.testing.assert_array_equal(y[0, :, -1, -1], expected, err_msg=name)
        dy = np.zeros_like(y)
        dy[0, :, -1, -1] = 1
        dy = dy if first else np.ascontiguousarray(np.moveaxis(dy, 1, -1))
        options = {"stride": stride, "groups": groups, "data_format": layout}
        dw = cl.conv_backward_weight(dy, x, w.shape, **options)
        window = pixels[0, :, last[0] : last[0] + 3, last[1] : last[1] + 3]
        exact = np.stack([window] * 2) if groups == 1 else window[:, None]
        np.testing.assert_array_equal(dw, exact)


# ---- y, and the gradient of x --------------------------------------------------------------


def test_convolution_of_many_outputs() -> None:
    """One pixel a thousand channels wide becomes 2^31 numbers; every algorithm in turn."""
    need(9)
    channels = 2**10
    length = 2**21 + 2**6
    x = np.zeros((1, 1, length), np.float32)
    x[0, 0, -1], x[0, 0, 0] = 3, 2
    w = np.arange(1, channels + 1, dtype=np.float32).reshape(channels, 1, 1)
    for name in algorithms(f"conv1d c1 i{length} k{channels} f1"):
        y = cl.conv1d(x, w, algorithm=name)
        assert y.size > 2**31
        np.testing.assert_array_equal(y[0, :, -1], 3 * w[:, 0, 0], err_msg=name)
        np.testing.assert_array_equal(y[0, :, 0], 2 * w[:, 0, 0], err_msg=name)
        np.testing.assert_array_equal(y[0, -1, 1:-1].max(), 0, err_msg=name)
        del y
        cl.release_memory()


def test_gradient_of_many_inputs() -> None:
    need(9)
    rows, width = 2**20 + 2**4, 2**11
    dy = np.ones((1, 1, 5, 9), np.float32)
    stride = ((rows - 3) // 4, (width - 3) // 8)
    w = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    for name in algorithms(
        f"conv2d c1 i{rows}x{width} k1 f3 s{stride[0]}x{stride[1]} backward_input"
    ):
        dx = cl.conv_backward_input(dy, w, (1, 1, rows, width), stride, algorithm=name)
        at = 4 * stride[0], 8 * stride[1]
        np.testing.assert_array_equal(
            dx[0, 0, at[0] : at[0] + 3, at[1] : at[1] + 3], w[0, 0], err_msg=name
        )
        assert dx[0, 0, at[0] - 1, at[1]] == 0
        del dx
        cl.release_memory()


# ---- weights -------------------------------------------------------------------------------


def test_many_weights() -> None:
    """Packed they are 2^31 numbers again."""
    need(10)
    outs, ins = 64, BEYOND // 64
    w = zeros(outs, ins, 1)
    x = zeros(1, ins, 1)
    w[-1, -1], w[0, -1], w[-1, 0], x[0, -1], x[0, 0] = 5, 7, 11, 2, 3
    expected = np.zeros(outs)
    expected[-1], expected[0] = 5 * 2 + 11 * 3, 7 * 2
    for name in algorithms(f"conv1d c{ins} i1 k{outs} f1"):
        y = cl.conv1d(x, w, algorithm=name)
        np.testing.assert_array_equal(y[0, :, 0], expected, err_msg=name)
        cl.release_memory()
    a = w[:, :, 0]
    np.testing.assert_array_equal(cl.matmul(a, x[0]), expected[:, None].astype(np.float32))


def test_gradient_of_many_weights() -> None:
    need(18)
    outs, ins = 64, BEYOND // 64
    x, dy = zeros(1, ins, 1), zeros(1, outs, 1)
    x[0, -1], dy[0, -1], dy[0, 0] = 2, 5, 7
    dw = cl.conv_backward_weight(dy, x, (outs, ins, 1), algorithm="direct")
    assert (dw[-1, -1, 0], dw[0, -1, 0], dw[0, 0, 0]) == (10, 14, 0)


# ---- pooling -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_pooling_of_many_inputs(layout: str) -> None:
    need(9)
    x = zeros(1, 1, ROWS, SIDE) if layout == "channels_first" else zeros(1, ROWS, SIDE, 1)
    plane = x.reshape(ROWS, SIDE)
    plane[-1, -1], plane[-1, -2], plane[0, 0] = 4, 3, 2
    options = {"data_format": layout}
    window = (2**4, 2**4)  # 2^23 outputs
    assert cl.sum_pool2d(x, window, **options).flat[-1] == 7
    assert cl.avg_pool2d(x, window, **options).flat[-1] == 7 / 256
    assert cl.lp_pool2d(x, 2.0, window, **options).flat[-1] == 5


def test_windows_of_many_inputs() -> None:
    """One window holds the plane. Max pooling counts pixels in 32 bits, and says so."""
    need(9)
    x = zeros(1, 1, ROWS, SIDE)
    x[0, 0, -1, -1] = 4
    assert cl.sum_pool2d(x, (ROWS, SIDE)).item() == 4
    assert cl.global_avg_pool(x).item() == np.float32(4 / (ROWS * SIDE))
    with pytest.raises(cl.UnsupportedError, match="takes at most 1073741824 pixels per channel"):
        cl.max_pool2d(x, 2)


# ---- the rest ------------------------------------------------------------------------------


def test_elementwise_operations_on_many_elements() -> None:
    need(9)
    x = zeros(BEYOND)
    x[-1] = -1
    y = cl.activation(x, "relu", out=zeros(BEYOND))
    assert (y[-1], y[0]) == (0, 0)
    x[-1] = 2
    assert cl.activation(x, "relu", out=y)[-1] == 2


def test_products_without_terms_have_their_epilogue() -> None:
    """Kernels count columns in 32 bits."""
    need(18)
    bias = np.full(BEYOND, 2, np.float32)
    y = cl.matmul(np.zeros((1, 0), np.float32), np.zeros((0, BEYOND), np.float32), bias=bias)
    assert (y[0, 0], y[0, -1]) == (2, 2)


def test_distributions_of_many_classes() -> None:
    need(9)
    x = np.broadcast_to(np.float32(0), (1, BEYOND))
    assert cl.cross_entropy(x, np.array([BEYOND - 1])) == pytest.approx(np.log(BEYOND), rel=1e-6)


# ---- geometry whose numbers overflow -------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "conv1d n4611686018427387904 c4 i1 k1 f1",
        "conv1d n2 c4611686018427387904 i1 k1 f1",
        "conv2d n1 c1 i4294967296x4294967296 k1 f1",
        "conv3d n1 c1 i2097152x2097152x4194304 k1 f1",
        "conv1d n1 c4294967296 i1 k4294967296 f1",
        "conv1d n1 c1 i9223372036854775807 k1 f1 p1",
        "conv1d n1 c1 i1 k1 f4611686018427387904 d4 p1",
        "conv2d n1 c1 i9223372036854775807x1 k1 f1 p0:1x0",
    ],
)
def test_problems_that_overflow_are_errors(text: str) -> None:
    with pytest.raises((OverflowError, ValueError, MemoryError)):
        _core.ConvProblem.parse(text)


def test_memory_that_cannot_be_had_is_an_error() -> None:
    shape = (2**20, 2**12, 2**12)
    x = np.broadcast_to(np.float32(0), shape)
    w = np.ones((2**12, 2**12, 1), np.float32)
    with pytest.raises((MemoryError, OverflowError)):
        cl.conv1d(x, w)
    with pytest.raises((MemoryError, OverflowError)):
        cl.max_pool1d(x, 2, 1)
    assert cl.conv1d(np.ones((1, 1, 3), np.float32), np.ones((1, 1, 3), np.float32)).item() == 3
