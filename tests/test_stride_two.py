"""Backward-input of stride 2 in groups of few channels, which computes four outputs together."""

from __future__ import annotations

import pytest
from problems import check_everywhere, parse

# Channels about vectors of 2 to 16 lanes; extents odd and even, less than a vector of pairs and
# more; padding odd and even, up to windows that lie in it.
PROBLEMS = (
    "conv2d n2 c16 i13x11 k16 f3 p1 g16",
    "conv2d n2 c19 i8x9 k19 f3 p0 g19",
    "conv2d n1 c37 i14x6 k37 f5 p2 g37",
    "conv2d n1 c18 i9x10 k18 f5 p3 g18",
    "conv2d n1 c17 i10x11 k17 f7 p3 g17",
    "conv2d n1 c3 i12x70 k3 f7 p2 g3",
    "conv2d n1 c5 i70x9 k5 f3 p2 g5",
    "conv2d n1 c4 i7x67 k4 f5 p4 g4",
    "conv2d n2 c16 i13x11 k16 f3 p1 g4",
    "conv2d n1 c40 i8x37 k40 f3 p2 g5",
    "conv2d n1 c36 i9x12 k36 f3 p1 g9",
    "conv2d n1 c48 i6x7 k48 f3 p1 g3",
    "conv2d n1 c6 i11x36 k6 f3 p0 g2",
    "conv2d n1 c4 i5x32 k4 f3 p1 g4",
    "conv2d n1 c16 i5x41 k16 f3 p0 g16",
)


@pytest.mark.parametrize("words", ["", "bias relu6", "bias residual relu"])
@pytest.mark.parametrize("text", PROBLEMS)
def test_every_output_of_a_pair(text: str, words: str) -> None:
    number = PROBLEMS.index(text)
    assert check_everywhere(parse(f"{text} s2 backward_input {words}"), seed=number, turn=number)
