"""Problems for the tests: their arrays, what the reference makes of them, and a check of every
algorithm, ISA and number of threads against it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import convolith as cl
from convolith import _core, reference

Array = npt.NDArray[Any]

CONV = {1: cl.conv1d, 2: cl.conv2d, 3: cl.conv3d}
CONV_TRANSPOSE = {1: cl.conv_transpose1d, 2: cl.conv_transpose2d, 3: cl.conv_transpose3d}
REFERENCE_CONV = {1: reference.conv1d, 2: reference.conv2d, 3: reference.conv3d}
REFERENCE_CONV_TRANSPOSE = {
    1: reference.conv_transpose1d,
    2: reference.conv_transpose2d,
    3: reference.conv_transpose3d,
}

DIRECTIONS = ("forward", "backward_input", "backward_weight")
LAYOUTS = ("channels_first", "channels_last")
DTYPES = ("float32", "float64")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
ALGORITHMS = tuple(record["name"] for record in cl.algorithms((1, 1, 1), (1, 1, 1)))
ISAS = tuple(cl.show_config(mode="dicts")["isas_available"])
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


def samples_beyond_the_caches(sample_bytes: int) -> int:
    """So many samples outgrow L3, and results go past it."""
    l3 = cl.show_config(mode="dicts")["l3_bytes"]
    if l3 > 96 << 20:
        pytest.skip(f"maps that outgrow an L3 of {l3 >> 20} MiB take too long")
    return l3 // sample_bytes + 3


@dataclass(frozen=True)
class Operands:
    """The arrays of a problem, in the order that Plan.execute takes them."""

    first: Array
    second: Array
    bias: Array | None = None
    residual: Array | None = None

    def each(self) -> Iterator[Array]:
        for array in (self.first, self.second, self.bias, self.residual):
            if array is not None:
                yield array

    def absolute(self) -> Operands:
        return Operands(*(None if a is None else np.abs(a) for a in self.as_tuple()))

    def as_tuple(self) -> tuple[Array | None, ...]:
        return (self.first, self.second, self.bias, self.residual)


def parse(text: str, **changes: Any) -> _core.ConvProblem:
    return _core.ConvProblem.parse(text).replace(**changes)


def serving(p: _core.ConvProblem, numerics: str = "fast") -> tuple[str, ...]:
    """The algorithms that serve the problem."""
    return tuple(r["name"] for r in _core.algorithms(p, numerics=numerics) if r["supported"])


# Geometries that algorithms are made for, and enough others that each one of the registry serves
# some of them. The first are the hardest.
CATALOGUE = (
    "conv2d n2 c4 i13x11 k6 f3 s2 p1 g2",
    "conv2d n2 c6 i13x11 k5 f3 p1",
    "conv2d n2 c10 i13x11 k10 f3 p1 g10",
    "conv2d n2 c16 i13x11 k16 f3 p1 g4",
    "conv2d n2 c3 i20x17 k4 f13 p6",
    "conv2d n2 c9 i13x11 k7 f1",
    "conv2d n2 c5 i13x11 k4 f3x2 d2 p1",
    "conv1d n2 c4 i41 k6 f3 s2 p1 g2",
    "conv1d n2 c6 i41 k5 f3 p1",
    "conv1d n2 c10 i41 k10 f3 p1 g10",
    "conv1d n2 c3 i41 k4 f13 p6",
    "conv3d n2 c4 i7x6x5 k6 f3 s2 p1 g2",
    "conv3d n2 c6 i7x6x5 k5 f3 p1",
    "conv3d n2 c10 i7x6x5 k10 f3 p1 g10",
)


@functools.cache
def problems_for(name: str, words: str = "", rank: int = 0) -> tuple[_core.ConvProblem, ...]:
    """Those of the catalogue, with more words, that an algorithm serves; of one rank, or any."""
    problems = (parse(f"{text} {words}") for text in CATALOGUE if text[4] == str(rank or text[4]))
    return tuple(p for p in problems if name in serving(p))


def problem_for(name: str, words: str = "", rank: int = 0) -> _core.ConvProblem:
    """The first of them."""
    problems = problems_for(name, words, rank)
    assert problems, (
        f"{name} serves no problem of the catalogue with {words!r}, rank {rank or 'any'}"
    )
    return problems[0]


# What each algorithm computes; tests take the pairs as parameters, so that none need be skipped.
# Rests of every kind: of vectors of channels and of pixels, of panels, of tiles at the border.
RESTS = (
    "conv2d c19 i5x7 k21 f3 p1",
    "conv2d c3 i4x37 k5 f3 p1",
    "conv2d c35 i3x4 k34 f1",
    "conv2d n2 c7 i5x19 k3 f3x2 s2 p1",
    "conv2d c19 i5x21 k19 f3 p1 g19",
    "conv2d c19 i2x40 k19 f2x4 p1 g19",
    "conv2d c18 i5x6 k18 f3 p1 g9",
    "conv2d c40 i3x5 k40 f3x2 p1 g2",
    "conv2d c6 i9x18 k6 f5x3 s2x2 p2x1 g3",
    "conv2d c21 i5x5 k21 f3 p1 g21",
    "conv2d c13 i6x9 k39 f3 p1 g13",
    "conv1d c2 i37 k3 f4 s3 p1",
    "conv1d n2 c17 i9 k17 f5 s3 p2 g17",
    "conv2d c5 i19x20 k3 f11 p5",
    "conv1d c3 i300 k4 f65 p32",
    "conv3d c3 i3x4x5 k4 f2x3x3 p1",
    "conv2d c5 i3x6 k3 f3 p1 reflect",
    "conv2d c20 i4x18 k33 f3 p1 circular",
    "conv2d c5 i4x9 k5 f3 p2 circular g5",
    "conv2d c32 i5x19 k32 f3 p1 g8",
    "conv2d c32 i7x10 k32 f3 s2 p1 g16",
    "conv2d c21 i4x35 k40 f1x4 p0x3:2",
    "conv2d c3 i3x151 k5 f2x5 s1x3 p0x2",
    "conv2d c4 i3x141 k4 f2x4 s1x4 p0x1 g4",
    "conv2d c2 i3x101 k3 f1x6 s1x5 p0x1",
    "conv2d c2 i2x13 k3 f1 s1x4",
    "conv2d c2 i2x10 k3 f1 s1x3",
)

SERVED = tuple((n, d) for n in ALGORITHMS for d in DIRECTIONS if problems_for(n, d))
SERVED_RANKS = tuple((n, r) for n in ALGORITHMS for r in (1, 2, 3) if problems_for(n, "", r))


def window(p: _core.ConvProblem) -> dict[str, Any]:
    """The problem's geometry as functions take it."""
    return {
        "stride": p.stride,
        "padding": p.padding,
        "dilation": p.dilation,
        "groups": p.groups,
        "data_format": p.data_format,
        "padding_mode": p.padding_mode,
    }


def shapes(p: _core.ConvProblem) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Of the two operands and the result."""
    return {
        "forward": (p.x_shape, p.weight_shape, p.y_shape),
        "backward_input": (p.y_shape, p.weight_shape, p.x_shape),
        "backward_weight": (p.y_shape, p.x_shape, p.weight_shape),
    }[p.direction]


def operands(p: _core.ConvProblem, rng: np.random.Generator, integers: bool = True) -> Operands:
    """Small integers, or normal numbers.

    Products of the integers are at most 16 and sums of them exact in float32 up to a million
    terms, in whichever order they are added.
    """

    def draw(shape: Sequence[int]) -> Array:
        values = rng.integers(-4, 5, shape) if integers else rng.standard_normal(shape)
        return np.asarray(values).astype(p.dtype)

    first, second, result = shapes(p)
    channels = p.out_channels if p.direction == "forward" else p.in_channels
    return Operands(
        draw(first),
        draw(second),
        draw((channels,)) if p.bias else None,
        draw(result) if p.residual else None,
    )


def move_channels(a: Array, source: str, target: str) -> Array:
    """A batch of feature maps of one data format, in another."""
    if source == target:
        return a
    first, last = (1, -1) if source == "channels_first" else (-1, 1)
    return np.ascontiguousarray(np.moveaxis(a, first, last))


def convert(p: _core.ConvProblem, a: Operands, data_format: str, dtype: str) -> Operands:
    """The same numbers for another layout and dtype of the problem."""

    def maps(array: Array) -> Array:
        return move_channels(array, p.data_format, data_format).astype(dtype)

    second = a.second.astype(dtype) if p.direction != "backward_weight" else maps(a.second)
    return Operands(
        maps(a.first),
        second,
        None if a.bias is None else a.bias.astype(dtype),
        None if a.residual is None else maps(a.residual),
    )


def expected(p: _core.ConvProblem, a: Operands) -> Array:
    """What the float64 reference makes of the problem.

    Backward-input is the transposed convolution, which has an epilogue. A problem may leave the
    last windows out, and then it is a transposed convolution or the gradient of one.
    """
    epilogue: dict[str, Any] = {"bias": a.bias, "residual": a.residual}
    if p.activation != "none":
        leaky = p.activation == "leaky_relu"
        epilogue["activation"] = ("leaky_relu", p.slope) if leaky else p.activation
    if p.direction == "backward_weight":
        return reference.conv_transpose_backward_weight(
            a.second, a.first, p.weight_shape, **window(p)
        )
    if p.direction == "backward_input":
        return REFERENCE_CONV_TRANSPOSE[p.rank](
            a.first, a.second, output_size=p.input, **window(p), **epilogue
        )
    if " o" in str(p):
        return reference.conv_transpose_backward_input(a.first, a.second, p.y_shape, **window(p))
    return REFERENCE_CONV[p.rank](a.first, a.second, **window(p), **epilogue)


def sums_of_magnitudes(p: _core.ConvProblem, a: Operands) -> Array:
    """conv(|x|, |w|) + |bias| + |residual|: what componentwise error bounds are relative to."""
    without = parse(" ".join(w for w in str(p).split() if w != p.activation and "slope=" not in w))
    return expected(without, a.absolute())


def is_transform(p: _core.ConvProblem, name: str) -> bool:
    """Whether the algorithm may mix outputs, so that integer data need not be exact."""
    return name not in serving(p, "strict")


def error_bound(
    p: _core.ConvProblem, a: Operands, tolerance: dict[str, float], magnitudes: Array | None = None
) -> Array:
    """The bound of a record of algorithms(), output by output.

    Transforms have a uniform term: an output has part of its neighbours' errors.
    """
    if magnitudes is None:
        magnitudes = sums_of_magnitudes(p, a)
    bound = np.asarray(tolerance["componentwise"] * magnitudes)
    if tolerance.get("uniform") and p.direction == "backward_weight":
        # of the output's gradient, for each of its channels
        axes = (0, *range(2, p.rank + 2)) if p.data_format == "channels_first" else None
        sums = np.abs(a.first).sum(axis=axes or tuple(range(p.rank + 1)))
        sums = sums.reshape(-1, *(1,) * (p.rank + 1))
        bound = bound + tolerance["uniform"] * np.abs(a.second).max() * sums
    elif tolerance.get("uniform"):
        # (group, out, in, taps): the sum leaves the channels of the output
        taps = int(np.prod(p.kernel))
        weight = np.abs(a.second).reshape(p.groups, -1, p.in_channels // p.groups, taps)
        sums = weight.sum(axis=(2, 3) if p.direction == "forward" else (1, 3)).ravel()
        if p.data_format == "channels_first":
            sums = sums.reshape(-1, *(1,) * p.rank)
        bound = bound + tolerance["uniform"] * np.abs(a.first).max() * sums
    return bound


def library_bound(p: _core.ConvProblem, y: Array) -> Array:
    """What callers may rely on for ordinary data, whichever algorithm was chosen."""
    most = np.max(np.abs(y), initial=0)
    return 1e-10 * most if p.dtype == "float64" else 1e-4 * np.abs(y) + 4e-5 * most


def assert_agree(p: _core.ConvProblem, name: str, computed: Array, exact: Array) -> None:
    """Equality, as befits integer data, unless the algorithm is a transform."""
    if not is_transform(p, name):
        np.testing.assert_array_equal(computed, exact)
        return
    assert computed.shape == exact.shape
    assert np.all(np.abs(computed - exact) <= library_bound(p, exact)), f"{p}: {name}"


def describe(p: _core.ConvProblem, plan: _core.Plan) -> str:
    return f"{p}: {plan.algorithm}, {plan.isa}, {plan.threads} threads"


def run(plan: _core.Plan, a: Operands, packed: bool = False) -> Array:
    """The plan's result, written over NaN; the operands must stay as they are."""
    before = [array.copy() for array in a.each()]
    poisoned = np.full(shapes(plan.problem)[2], np.nan, plan.problem.dtype)
    second = None if packed else a.second
    out = plan.execute(a.first, second, a.bias, a.residual, poisoned)
    assert out is poisoned
    for array, copy in zip(a.each(), before, strict=True):
        assert array.tobytes() == copy.tobytes(), f"{describe(plan.problem, plan)}: input changed"
    return poisoned


def mismatch(computed: Array, exact: Array) -> str:
    where = np.argwhere(~(computed == exact))
    at = tuple(int(i) for i in where[0])
    return f"{len(where)} of {exact.size} wrong, first {at}: {computed[at]}, not {exact[at]}"


def check_problem(p: _core.ConvProblem, a: Operands, exact: Array, turn: int | None = None) -> None:
    """Runs every algorithm, ISA and 1 and 2 threads, and packed weights, on integer data.

    With a `turn`, two threads run on one ISA alone, a different one each turn.
    """
    target = exact.astype(p.dtype)
    records = [record for record in _core.algorithms(p) if record["supported"]]
    assert records, f"{p}: no algorithm"
    for record in records:
        name = record["name"]
        for number, isa in enumerate(ISAS):
            plan = _core.Plan(p, name, threads=1, isa=isa)
            assert (plan.algorithm, plan.isa, plan.threads) == (name, isa, 1)
            alone = run(plan, a)
            if not np.array_equal(alone, target):
                assert is_transform(p, name), f"{describe(p, plan)}: {mismatch(alone, target)}"
                bound = error_bound(p, a, record["tolerance"])
                assert np.all(np.abs(alone - exact) <= bound), describe(p, plan)
            if turn is None or turn % len(ISAS) == number:
                pair = _core.Plan(p, name, threads=2, isa=isa)
                assert run(pair, a).tobytes() == alone.tobytes(), f"{describe(p, pair)}: other bits"
                if p.direction != "backward_weight":
                    packed = run(pair.pack(a.second), a, packed=True)
                    assert packed.tobytes() == alone.tobytes(), f"{describe(p, pair)}: packed"


def check_everywhere(p: _core.ConvProblem, seed: int, turn: int | None = None) -> bool:
    """check_problem in both layouts and dtypes; the reference answers once.

    Returns whether the answer has a number other than 0: one that has none proves little.
    """
    p = p.replace(data_format="channels_first", dtype="float64")
    a = operands(p, np.random.default_rng(seed))
    exact = expected(p, a)
    for data_format in LAYOUTS:
        maps = p.direction != "backward_weight"
        answer = move_channels(exact, "channels_first", data_format) if maps else exact
        for dtype in DTYPES:
            variant = p.replace(data_format=data_format, dtype=dtype)
            check_problem(variant, convert(p, a, data_format, dtype), answer, turn)
    return bool(np.any(exact))
