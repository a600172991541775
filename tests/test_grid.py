"""Convolution on a systematic grid, against the reference on integers: every algorithm of the
registry, every ISA of the machine, 1 and 2 threads, both layouts and dtypes, bit for bit.

Outputs and workspaces hold NaN beforehand, inputs must not change.
"""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from problems import (
    DIRECTIONS,
    DTYPES,
    LAYOUTS,
    PADDING_MODES,
    REFERENCE_CONV_TRANSPOSE,
    check_everywhere,
    check_problem,
    expected,
    operands,
    parse,
)

from convolith import _core, reference

# Around the widths of vectors and register tiles.
EXTENTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 16, 17, 31, 32, 33)
CHANNELS = (1, 2, 3, 5, 6, 7, 8, 9, 14, 15, 17, 31, 33)
EPILOGUES = ("", "bias", "bias relu", "residual leaky_relu slope=0.5", "bias residual relu6")
# Stride and dilation of the last two axes.
STEPS = (((1, 1), (1, 1)), ((2, 2), (1, 1)), ((3, 2), (1, 1)), ((1, 1), (2, 2)), ((1, 2), (3, 1)))
STEPS += (((2, 3), (1, 2)), ((1, 1), (1, 3)))
GROUPINGS = ("one", "some", "depthwise", "multiplier")
PADDINGS = ("0", "1", "per_axis", "pairs", "wide", "same", "same_lower", "valid")


def seed_of(*key: object) -> int:
    """A seed that does not change from run to run, as hash() would."""
    return zlib.crc32(repr(key).encode())


def axes(values: object) -> str:
    return "x".join(map(str, values))


def padding_word(padding: str, rank: int) -> str:
    """The padding of a problem text; the longest forms lose leading axes."""
    return "p" + {
        "per_axis": axes((1, 0, 2)[-rank:]),
        "pairs": axes(("0:1", "2:0", "1:3")[-rank:]),
        "wide": "3:2",
    }.get(padding, padding)


def channels_of(grouping: str, rng: np.random.Generator, most: int) -> tuple[int, int, int]:
    """(in_channels, out_channels, groups)"""
    few = [c for c in CHANNELS if c <= most]
    a, b = (int(c) for c in rng.choice(few, 2))
    groups = int(rng.integers(2, 4))
    return {
        "one": (a, b, 1),
        "some": (groups * min(a, 9), groups * min(b, 9), groups),
        "depthwise": (a, a, a),
        "multiplier": (min(a, 9), 3 * min(a, 9), min(a, 9)),
    }[grouping]


def smallest_legal(rank: int, extents: list[int], words: str) -> _core.ConvProblem:
    """The problem, its extents grown until the kernel fits and the padding mode allows it."""
    while True:
        try:
            return parse(f"conv{rank}d i{axes(extents)} {words}")
        except ValueError:
            extents = [extent + 1 for extent in extents]
            assert max(extents) < 64, words


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("padding", "mode"),
    [
        (padding, mode)
        for padding, mode in itertools.product(PADDINGS, PADDING_MODES)
        if mode == "zeros" or padding not in ("0", "valid")
    ],
)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolution(rank: int, padding: str, mode: str, direction: str) -> None:
    telling = 0
    for turn, (steps, grouping) in enumerate(itertools.product(STEPS, GROUPINGS)):
        seed = seed_of(rank, padding, mode, direction, turn)
        rng = np.random.default_rng(seed)
        batch = 1 + turn // len(GROUPINGS) % 2
        c, k, groups = channels_of(grouping, rng, {1: 33, 2: 17, 3: 9}[rank])
        stride, dilation = (((1, *step)[-rank:]) for step in steps)
        kernel = [int(e) for e in rng.choice((1, 2, 3, 5)[: 5 - rank], rank)]
        leading = [int(e) for e in rng.integers(1, 5, rank - 1)]
        extents = [*leading, int(rng.choice([e for e in EXTENTS if e < 18 or rank < 3]))]
        epilogue = "" if direction == "backward_weight" else EPILOGUES[turn % len(EPILOGUES)]
        p = smallest_legal(
            rank,
            extents,
            f"n{batch} c{c} k{k} f{axes(kernel)} s{axes(stride)} d{axes(dilation)} "
            f"g{groups} {padding_word(padding, rank)} {mode} {direction} {epilogue}",
        )
        telling += check_everywhere(p, seed, turn)
    assert telling > turn // 2


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolution(rank: int, mode: str, direction: str) -> None:
    """With output_padding, which may leave out windows that would fit; direction is its own."""
    of_problem = {"forward": "backward_input", "backward_input": "forward"}.get(
        direction, direction
    )
    telling = 0
    for turn, (steps, grouping) in enumerate(itertools.product(STEPS, GROUPINGS)):
        seed = seed_of("transposed", rank, mode, direction, turn)
        rng = np.random.default_rng(seed)
        batch = 1 + turn // len(GROUPINGS) % 2
        c, k, groups = channels_of(grouping, rng, {1: 33, 2: 17, 3: 9}[rank])
        stride, dilation = (((1, *step)[-rank:]) for step in steps)
        padding = [(int(a), int(b)) for a, b in rng.integers(0, 2, (rank, 2))]
        kernel = [int(e) for e in rng.choice((2, 3, 4)[: 5 - rank], rank)]
        given = [int(e) for e in rng.choice([e for e in EXTENTS[2:] if e < 18 or rank < 2], rank)]
        if rank > 1:
            given[: rank - 1] = [3 + e % 3 for e in given[: rank - 1]]
        extra = [int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True)]
        produced = [
            (n - 1) * s - before - after + d * (f - 1) + 1 + more
            for n, s, (before, after), d, f, more in zip(
                given, stride, padding, dilation, kernel, extra, strict=True
            )
        ]
        epilogue = EPILOGUES[turn % len(EPILOGUES)] if direction == "forward" else ""
        p = parse(
            f"conv{rank}d n{batch} c{k} k{c} i{axes(produced)} o{axes(given)} "
            f"f{axes(kernel)} s{axes(stride)} d{axes(dilation)} g{groups} "
            f"p{axes(f'{before}:{after}' for before, after in padding)} "
            f"{mode} {of_problem} {epilogue}"
        )
        if direction == "forward":
            a = operands(p, rng)
            by_padding = REFERENCE_CONV_TRANSPOSE[rank](
                a.first, a.second, None, stride, padding, extra, groups, dilation, padding_mode=mode
            )
            assert by_padding.shape == p.x_shape
            if not epilogue:
                np.testing.assert_array_equal(by_padding, expected(p, a))
        telling += check_everywhere(p, seed, turn)
    assert telling > turn // 2


LONG = {
    "channels over a chain": "conv2d c600 i3x5 k3 f1",
    "channels and taps over a chain": "conv2d c70 i5x6 k15 f3 p1",
    "channels over a chain, apart": "conv1d c3 i13 k600 f2 s2",
    "taps over a chain": "conv2d c1 i30x30 k2 f24 p1",
    "more products than L2 holds weights for": "conv3d c480 i3x4x5 k3 f3 p1",
    "columns by their taps": "conv2d c33 i15x21 k18 f3x5 p8 d8",
    "single padded columns": "conv2d c40 i6x17 k18 f3 s1x2 p1",
    "both edges in one tile": "conv2d c40 i4x3 k5 f3 p1",
    "taps over a chain in 1-D": "conv1d c2 i700 k2 f600 p20",
    "taps over a chain in groups": "conv2d c2 i30x30 k2 f24 p1 g2",
    "taps over a chain in a vector of groups": "conv2d c16 i18x18 k16 f17x16 p1 g8",
    "padding between planes in groups": "conv3d c16 i3x4x9 k16 f3 p1 g8",
    "long rows": "conv1d c1 i1200 k1 f3 p1",
    "long strided rows": "conv1d n2 c2 i2100 k3 f5 s2 p2 reflect",
    "long rows in pieces": "conv1d n2 c2 i5000 k2 f5 p2 g2",
    "long rows without taps": "conv1d n3 c2 i600 k2 f1",
    "many samples": "conv1d n1100 c2 i2 k3 f1",
    "many padded samples": "conv1d n600 c1 i3 k2 f3 p1 circular",
    "many rows": "conv2d c2 i600x3 k2 f3 p1 replicate",
    "many planes": "conv3d c2 i140x3x2 k3 f2x1x2",
    "many channels in groups": "conv2d c130 i4x5 k130 f3 p1 g130",
    "several blocks of the product: rows": "conv1d c330 i3 k900 f1",
    "several blocks of the product: columns": "conv1d c340 i3500 k2 f1",
    "several blocks of the product: both": "conv2d c34 i33x35 k66 f3 p1",
    "chunks of the product": "conv1d c170000 i2 k3 f1",
    "chunks of pixels": "conv1d c1 i170000 k2 f2",
    "kernel as large as the padded input": "conv3d c3 i2x3x4 k5 f4x5x6 p1",
    "padding wider than the kernel": "conv2d c3 i4x5 k5 f2 p4:3x3:4",
    "stride beyond the kernel": "conv2d c5 i9x17 k6 f2 s4x5 p1",
    "dilation beyond the input": "conv2d c3 i5x6 k7 f2 d4x5",
    "windows in padding alone": "conv2d c3 i3x4 k2 f1 s1 p2",
    "one pixel": "conv1d n9 c2 i1 k3 f1",
    "a large kernel": "conv2d c3 i33x40 k4 f13 p6",
    "a large kernel in groups": "conv2d c6 i21x18 k4 f15x13 p7x5 g2",
    "seven taps of each channel": "conv2d c18 i9x20 k18 f7 p3 g18",
    "a large kernel of each channel": "conv2d n2 c18 i20x17 k18 f13 p6 g18",
    "a long kernel": "conv1d c3 i300 k4 f65 p32",
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", LONG)
def test_long_sums_and_limits(name: str, direction: str) -> None:
    epilogue = "" if direction == "backward_weight" else "bias residual relu"
    p = parse(f"{LONG[name]} {direction} {epilogue}")
    assert check_everywhere(p, seed_of(name, direction))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tile_edges(dtype: str, layout: str, direction: str) -> None:
    """Every extent around a vector or a tile, as channels read, channels written and pixels."""
    texts = [
        text
        for n in EXTENTS
        for text in (
            f"conv2d c{n} i2x3 k3 f1x2",
            f"conv2d c3 i2x3 k{n} f1x2",
            f"conv2d c2 i2x{n} k3 f1",
            f"conv2d c2 i2x{n + 2} k3 f1x3",
            f"conv2d c2 i3x{2 * n + 1} k3 f2x3 s1x2 p0x1",
            f"conv2d c{n} i3x4 k{n} f2 g{n}",
            f"conv2d c{2 * n} i3x2 k{2 * n} f2 p1 g2",
            f"conv2d c{n} i7x8 k{34 - n} f3 p1",
            f"conv2d c3 i{34 - n}x{n} k4 f3 p1",
            f"conv2d c{n} i4x{n} k{n} f3 p1 g{n}",
            f"conv2d c{4 * n} i5x4 k{4 * n} f3 p1 g{n}",
        )
    ]
    for turn, text in enumerate(texts):
        p = parse(f"{text} {direction} {dtype} {layout}")
        a = operands(p, np.random.default_rng(seed_of(text)))
        check_problem(p, a, expected(p, a), turn)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_bias_gradient(threads: int, dtype: str, layout: str) -> None:
    rng = np.random.default_rng(1)
    for n, k, pixels in ((1, 1, 1), (2, 3, 7), (3, 70, 5), (700, 2, 3), (2, 5, 1300), (1, 17, 900)):
        p = parse(f"conv1d n{n} c1 i{pixels} k{k} f1 backward_weight {dtype} {layout}")
        a = operands(p, rng)
        options = {"data_format": layout, "bias_grad": True}
        _, exact = reference.conv_backward_weight(a.first, a.second, p.weight_shape, **options)
        sums = _core.channel_sums(a.first, 1, layout, threads=threads)
        np.testing.assert_array_equal(sums, exact)
        assert sums.dtype == dtype
