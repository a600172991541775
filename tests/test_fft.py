"""What the transforms of large kernels have of their own: lengths, tilings, few channels, and how
far a NaN goes."""

from __future__ import annotations

import numpy as np
import pytest
from problems import (
    DIRECTIONS,
    DTYPES,
    ISAS,
    LAYOUTS,
    PADDING_MODES,
    check_problem,
    describe,
    error_bound,
    expected,
    operands,
    parse,
    run,
)

from convolith import _core


def check(text: str) -> None:
    """Every layout and dtype, integers and normal numbers."""
    for layout in LAYOUTS:
        for dtype in DTYPES:
            p = parse(text, data_format=layout, dtype=dtype)
            record = next(r for r in _core.algorithms(p) if r["name"] == "fft")
            assert record["supported"], record["reason"]
            a = operands(p, np.random.default_rng(0), integers=False)
            exact = expected(p, a)
            bound = error_bound(p, a, record["tolerance"])
            for isa in ISAS:
                plan = _core.Plan(p, "fft", threads=1, isa=isa)
                y = run(plan, a)
                assert np.all(np.abs(y - exact) <= bound), describe(p, plan)
                pair = _core.Plan(p, "fft", threads=2, isa=isa)
                assert run(pair, a).tobytes() == y.tobytes(), describe(p, pair)


# One tile of each is the cheapest, so that the extents run through the lengths of transforms.
@pytest.mark.parametrize(
    "extent", [9, 12, 15, 16, 18, 20, 21, 24, 25, 28, 30, 32, 35, 36, 40, 42, 48, 49, 56, 64, 72]
)
def test_lengths_of_two_and_three_factors(extent: int) -> None:
    check(f"conv2d c1 i{extent}x{extent} k2 f{extent - 2}x{extent - 3}")


@pytest.mark.parametrize(
    "extent", [80, 84, 90, 96, 100, 108, 112, 120, 128, 140, 144, 160, 168, 192, 224, 256]
)
def test_lengths_of_three_factors(extent: int) -> None:
    check(f"conv2d c1 i{extent}x4 k1 f{extent - 1}x3")
    check(f"conv1d c1 i{extent} k1 f{extent - 1}")


@pytest.mark.parametrize("taps", [150, 300, 500, 700, 1000, 1500, 2500])
def test_long_filters(taps: int) -> None:
    check(f"conv1d c1 i{taps + 500} k1 f{taps}")
    check(f"conv1d n2 c2 i{2 * taps} k3 f{taps} p{taps // 2}:3 replicate bias")


@pytest.mark.parametrize(
    "text",
    [
        "conv2d n2 c3 i40x33 k5 f11 p5 bias relu",
        "conv2d c17 i40x33 k20 f9x13 p4x0 residual",
        "conv2d c34 i30x31 k34 f15 p7 g34 silu",
        "conv2d n3 c2 i30x31 k2 f13 p6 g2",
        "conv2d c12 i25x26 k24 f7 p3 g4",
        "conv2d c10 i25x26 k30 f7 p3 g10",
        "conv2d c3 i40x41 k4 f7 d3 p9 circular",
        "conv2d c3 i25x26 k4 f7x6 d2x3 p0:5x7:0 reflect",
        "conv2d c5 i6x90 k6 f1x40 p0x20",
        "conv2d c5 i90x6 k6 f40x1 p20x0",
        "conv2d c300 i12x12 k18 f5 p2",
        "conv3d n2 c4 i3x16x17 k5 f1x7x7 p1x3x3 bias",
        "conv3d c4 i3x16x17 k4 f1x7x7 p1x3x3 g4 replicate",
    ],
)
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
def test_tilings(text: str, direction: str) -> None:
    words = text.split()
    if direction == "backward_input":
        words = [w for w in words if w not in ("circular", "reflect", "replicate")]
    check(" ".join([*words, direction]))


def test_blocks_of_pairs() -> None:
    """More spectra than are held at a time."""
    p = parse("conv2d n3 c33 i150x150 k40 f9 p4")
    a = operands(p, np.random.default_rng(0))
    plan = _core.Plan(p, "fft", threads=2)
    assert plan.workspace_bytes <= 32 << 20
    exact = run(_core.Plan(p, "im2col_gemm"), a)  # of integers
    assert np.all(np.abs(run(plan, a) - exact) <= error_bound(p, a, plan.tolerance))


def test_samples_do_not_share_a_transform() -> None:
    """A NaN, or a much larger sample, leaves the others of the batch as they are."""
    for words in ("c2 k2 g2", "c3 k4", "c20 k3"):
        for layout in LAYOUTS:
            p = parse(f"conv2d n4 {words} i20x21 f9 p4 {layout}")
            a = operands(p, np.random.default_rng(0), integers=False)
            plan = _core.Plan(p, "fft")
            clean = run(plan, a)
            a.first[1] *= 1e6
            a.first[2].flat[7] = np.nan
            y = run(plan, a)
            assert y[0].tobytes() == clean[0].tobytes()
            assert y[3].tobytes() == clean[3].tobytes()
            lost = np.isnan(expected(p, a)) & ~np.isnan(y)
            assert not np.any(lost)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("conv2d c3 i20x20 k4 f5 s2", "stride 2"),
        ("conv2d c3 i20x20 k4 f5 backward_weight", "gradients of weights"),
        ("conv2d c3 i20x20 k4 f5 p2 circular backward_input", "padding mode circular"),
        ("conv3d c3 i9x9x9 k4 f5", "more than two axes"),
        ("conv2d c3 i20x400 k4 f5x300", "as long as the kernel"),
        ("conv2d c4096 i20x20 k4096 f5", "512 MiB"),
    ],
)
def test_refusals(text: str, reason: str) -> None:
    record = next(r for r in _core.algorithms(parse(text)) if r["name"] == "fft")
    assert not record["supported"]
    assert reason in record["reason"]


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_gradients_have_zeros_around_them(mode: str) -> None:
    check(f"conv2d c3 i14x15 k4 f5x4 {mode} backward_input")


@pytest.mark.parametrize("direction", DIRECTIONS[:2])
def test_integers(direction: str) -> None:
    for layout in LAYOUTS:
        p = parse(f"conv2d n2 c7 i23x20 k9 f8x7 p3 bias {direction} {layout}")
        a = operands(p, np.random.default_rng(0))
        check_problem(p, a, expected(p, a))


@pytest.mark.parametrize(
    "text",
    [
        "conv2d c64 i56x56 k64 f11 p5",
        "conv2d c96 i56x56 k96 f21 p10 g96",
        "conv1d c1 i100000 k1 f1000",
        "conv1d c16 i16000 k16 f256",
    ],
)
def test_auto_takes_transforms_for_large_kernels(text: str) -> None:
    assert _core.Plan(parse(text)).algorithm == "fft"


def test_auto_leaves_small_kernels_alone() -> None:
    for text in ("conv2d c64 i56x56 k64 f1", "conv2d c256 i14x14 k512 f2"):
        assert _core.Plan(parse(text)).algorithm != "fft"
