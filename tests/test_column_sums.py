"""Stride 1 with rows of outputs as long as those of the source, in groups of few channels: sums of
kernel columns over planes as they lie in channels_first, or over few channels that take turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import check_everywhere, parse

import convolith as cl

# Rows shorter than a vector, of whole vectors and neither; planes that end within a vector, without
# a vector that padding above and below does not reach, and of several pieces; other padding above
# than below, none, and more than the kernel; planes of a depth, of which some or all but one lie in
# padding; odd groups; many channels of one plane, and several outputs of a channel.
PROBLEMS = (
    "conv2d n2 c19 i7x7 k19 f3 p1 g19",
    "conv2d n2 c9 i1x1 k9 f3 p1 g9",
    "conv2d n2 c4 i5x1 k4 f3 p1 g4",
    "conv2d n1 c3 i1x40 k3 f3 p1 g3",
    "conv2d n1 c2 i2x3 k2 f7 p3 g2",
    "conv2d n2 c5 i14x13 k5 f3 p1 g5",
    "conv2d n1 c2 i11x32 k2 f3 p1 g2",
    "conv2d n2 c2 i90x94 k2 f3 p1 g2",
    "conv2d n1 c1 i130x131 k1 f5 p2 g1",
    "conv2d n1 c3 i16x18 k3 f5 p2 g3",
    "conv2d n1 c3 i9x35 k3 f7 p3 g3",
    "conv2d n2 c3 i7x7 k3 f13 p6 g3",
    "conv2d n1 c2 i23x18 k2 f9 p4 g2",
    "conv2d n1 c2 i24x40 k4 f11 p5 g2",
    "conv2d n2 c3 i12x19 k3 f3 p0:2x1 g3",
    "conv2d n1 c3 i12x17 k3 f5 p0x2 g3",
    "conv2d n1 c3 i4x10 k3 f3 p5x1 g3",
    "conv3d n2 c4 i4x6x7 k4 f3 p1 g4",
    "conv3d n1 c3 i1x9x11 k3 f3 p1 g3",
    "conv3d n1 c3 i5x4x18 k3 f2x3x3 s2x1x1 p2x1x1 g3",
    "conv2d n1 c3 i9x11 k9 f3 p1 g3",
    "conv2d n2 c2 i8x21 k8 f5 p2 g2",
    "conv2d n2 c12 i9x14 k12 f3 p1 g4",
    "conv2d n1 c16 i6x19 k16 f3 p1 g2",
    "conv2d n1 c8 i12x12 k8 f7 p3 g2",
    "conv3d n1 c6 i3x5x9 k6 f3 p1 g3",
)


# For channels_last: channels that are many or few of a vector's, divide them or not; rows shorter
# than a vector; kernels whose columns lie up to a vector apart; pieces; planes of a depth.
IN_TURN = (
    "conv2d n2 c3 i17x19 k3 f3 p1 g3",
    "conv2d n1 c1 i9x20 k1 f7 p3 g1",
    "conv2d n2 c2 i7x7 k2 f5 p2 g2",
    "conv2d n1 c4 i6x3 k4 f3 p1 g4",
    "conv2d n1 c5 i8x9 k5 f7 p3 g5",
    "conv2d n2 c7 i5x12 k7 f3 p1 g7",
    "conv2d n1 c8 i11x13 k8 f5 p2 g8",
    "conv2d n1 c15 i9x8 k15 f3 p1 g15",
    "conv2d n1 c3 i60x70 k3 f3 p1 g3",
    "conv2d n1 c3 i8x9 k3 f3 p0:2x1 g3",
    "conv3d n1 c3 i3x5x7 k3 f3 p1 g3",
)


@pytest.mark.parametrize("words", ["", "bias relu6", "bias residual relu", "backward_input bias"])
@pytest.mark.parametrize("text", PROBLEMS + IN_TURN)
def test_columns(text: str, words: str) -> None:
    number = (PROBLEMS + IN_TURN).index(text)
    assert check_everywhere(parse(f"{text} {words}"), seed=number, turn=number)


def test_some_channels_of_a_larger_map() -> None:
    """Pixels have other channels between them then, on either side."""
    generator = np.random.default_rng(0)
    x, out = generator.integers(-4, 5, (2, 2, 9, 11, 6)).astype(np.float32)
    w = generator.integers(-3, 4, (3, 1, 3, 3)).astype(np.float32)
    how: dict[str, Any] = dict(padding=1, groups=3, data_format="channels_last")
    others = out[..., 3:].copy()
    expected = cl.conv2d(x[..., :3].copy(), w, algorithm="direct", **how)
    assert np.array_equal(cl.conv2d(x[..., :3], w, algorithm="depthwise", **how), expected)
    dense = x[..., :3].copy()
    cl.conv2d(dense, w, algorithm="depthwise", out=out[..., :3], **how)
    assert np.array_equal(out[..., :3], expected)
    assert np.array_equal(out[..., 3:], others)
