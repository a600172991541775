"""The gradient of weights on maps large enough for every way in which the algorithms cut the work:
parts with sums of their own, blocks, sums that threads share, operands in place or packed."""

from __future__ import annotations

import numpy as np
import pytest
from problems import ISAS, LAYOUTS, Array, convert, describe, operands, parse, run, serving

from convolith import _core

PROBLEMS = {
    "parts of rows, and of tiles": "conv2d n4 c20 i60x52 k40 f3 p1",
    "parts of several blocks of tiles": "conv2d n6 c18 i100x60 k34 f3 p1",
    "columns in pieces": "conv1d n2 c9 i2500 k17 f5 p2",
    "lanes of x": "conv2d n2 c40 i33x30 k3 f5 p2",
    "lanes of x, one tap": "conv2d n3 c70 i31x33 k20 f1",
    "pixels in place": "conv2d n2 c24 i45x40 k40 f1 s2",
    "pixels a page apart": "conv2d n2 c1024 i9x8 k40 f1",
    "pixels in place, clipped": "conv2d n2 c24 i15x14 k33 f1 p1",
    "several planes together": "conv3d n3 c9 i4x6x5 k10 f2x3x3 p0x1x1",
    "taps of a row as one panel": "conv2d n2 c3 i90x83 k24 f7 s2 p3",
    "taps that lie apart": "conv2d n2 c3 i40x43 k9 f3 d4 p4",
    "tiles of every depth": "conv3d n2 c21 i7x30x26 k34 f3 s2x1x1 p1",
    "tiles of phases": "conv2d n2 c20 i33x41 k40 f3 p2 d3x2",
    "tiles of phases and depths": "conv3d n2 c10 i6x19x24 k20 f2x3x3 p1x0x2 d2x2x3 g2 reflect",
    "tiles of fewer outputs than phases": "conv2d n3 c20 i9x23 k20 f3 d3x9",
    "vectors of channels": "conv2d n3 c40 i61x45 k40 f3 p1 g40",
    "columns of few sums": "conv2d n2 c21 i34x50 k21 f5x3 s2x1 p2x1 g21",
    "taps in blocks": "conv2d n1 c19 i40x34 k19 f11x9 p5x4 g19",
    "groups in a vector": "conv2d n2 c36 i50x41 k36 f3 p1 g9",
    "groups of a vector": "conv2d n2 c48 i40x30 k48 f3 p1 g6 reflect",
}
LARGE = "conv2d n2 c256 i112x56 k256 f3 p1"


def gradients(text: str, data_format: str, isas: tuple[str, ...]) -> dict[str, list[Array]]:
    """Of each algorithm, one for each ISA; integer data. Threads must not change a bit."""
    p = parse(f"{text} backward_weight")
    given = convert(p, operands(p, np.random.default_rng(3)), data_format, "float32")
    p = p.replace(data_format=data_format)
    found: dict[str, list[Array]] = {}
    for name in serving(p):
        for isa in isas:
            plan = _core.Plan(p, name, threads=1, isa=isa)
            alone = run(plan, given)
            for threads in (2, 3, 7):
                team = _core.Plan(p, name, threads=threads, isa=isa)
                assert run(team, given).tobytes() == alone.tobytes(), describe(p, team)
            found.setdefault(name, []).append(alone)
    return found


def check(found: dict[str, list[Array]], exact: Array) -> None:
    for name, results in found.items():
        for result in results:
            if name.startswith("winograd"):
                assert np.abs(result - exact).max() <= 4e-5 * np.abs(exact).max(), name
            else:
                np.testing.assert_array_equal(result, exact, err_msg=name)


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize("way", PROBLEMS)
def test_ways_to_cut_the_work(way: str, data_format: str) -> None:
    found = gradients(PROBLEMS[way], data_format, ISAS)
    assert len(found) >= 3
    assert {"winograd_2x2", "winograd_4x4", "winograd_6x6"} < set(found) or "tiles" not in way
    exact = found.pop("direct")[0]
    assert np.count_nonzero(exact) > 0.5 * exact.size
    check(found, exact)


def test_sums_that_threads_share_over_blocks() -> None:
    found = gradients(LARGE, "channels_last", ISAS[-1:])
    assert {"winograd_2x2", "winograd_4x4", "winograd_6x6"} < set(found)
    exact = found.pop("direct")[0]
    check(found, exact)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("winograd_4x4", "conv2d c4 i9x9 k4 f3 s2", "the stride is not 1"),
        ("winograd_4x4", "conv2d c4 i9x9 k4 f3x1", "not 3 x 3 or 5 x 5"),
        ("winograd_6x6", "conv2d c4 i9x9 k4 f5", "not 3 x 3"),
        ("winograd_4x4", "conv2d c4 i9x9000 k4 f3", "2250 tiles, above 512"),
        ("winograd_6x6", "conv2d c1024 i60x60 k1024 f3 p1", "more than 64 MiB"),
        ("grouped", "conv2d c9 i9x9 k9 f3 g3", "3 channels in and 3 out"),
        ("grouped", "conv2d c9 i9x9 k9 f3 g9", "groups are of 1 channel"),
        ("depthwise", "conv2d c8 i9x9 k8 f3 g4", "it must equal in_channels, 8"),
        ("grouped", "conv2d c8 i300x300 k8 f3 g4 p1 reflect", "65536 pixels"),
    ],
)
def test_refusals(name: str, text: str, reason: str) -> None:
    records = {r["name"]: r for r in _core.algorithms(parse(f"{text} backward_weight"))}
    assert not records[name]["supported"]
    assert reason in records[name]["reason"]
