"""The problems of a check: edges, sizes about vector widths and tiles, kinds of data, random
problems, and the layers of networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from convolith.bench.layers import parse_layers, problem_files
from convolith.testing import convolutions
from convolith.testing.convolutions import output_extents
from convolith.testing.operations import resolve
from convolith.testing.problem import Problem, rank_of

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
"""Around the widths of vectors and tiles."""
DATA = ("normal", "nan", "inf", "huge", "tiny", "subnormal")
MODES = ("reflect", "replicate", "circular")
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "tanh", "sigmoid", "silu", "hardswish")

# Geometry of one axis; the others get the last one of these, so that axes differ.
_CONV_EDGES: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("one of everything", dict(i=1, f=1), dict(i=1, f=1)),
    ("a plain window", dict(i=9, f=3), dict(i=7, f=3)),
    ("padding", dict(i=9, f=3, p=(1, 1)), dict(i=7, f=3, p=(1, 1))),
    ("different axes", dict(i=9, f=3, s=2, p=(2, 2)), dict(i=8, f=2, p=(1, 1), d=2)),
    ("padding before alone", dict(i=6, f=3, p=(2, 0)), dict(i=7, f=2, p=(1, 0))),
    ("padding after alone", dict(i=6, f=3, p=(0, 2)), dict(i=7, f=2, p=(0, 1))),
    ("uneven padding", dict(i=6, f=3, p=(1, 2), s=2), dict(i=7, f=3, p=(2, 1))),
    ("padding wider than the kernel", dict(i=3, f=2, p=(4, 4)), dict(i=4, f=2, p=(0, 5))),
    ("padding wider than the input", dict(i=2, f=3, p=(5, 5)), dict(i=1, f=3, p=(3, 3))),
    ("a kernel as large as the input", dict(i=7, f=7), dict(i=5, f=5)),
    ("a kernel as large as the padded input", dict(i=4, f=8, p=(2, 2)), dict(i=3, f=6, p=(1, 2))),
    ("an even kernel", dict(i=9, f=4, p=(1, 2)), dict(i=8, f=2)),
    ("a stride", dict(i=11, f=3, s=2, p=(1, 1)), dict(i=10, f=3, s=3)),
    ("a stride larger than the kernel", dict(i=11, f=2, s=4), dict(i=9, f=1, s=3)),
    ("a stride larger than the input", dict(i=5, f=3, s=9, p=(1, 1)), dict(i=4, f=2, s=7)),
    ("a stride that leaves pixels out", dict(i=10, f=3, s=4), dict(i=12, f=2, s=3)),
    ("dilation", dict(i=11, f=3, d=2, p=(2, 2)), dict(i=9, f=3, d=3)),
    ("dilation on one axis", dict(i=9, f=3, p=(1, 1)), dict(i=9, f=3, d=2)),
    ("dilation past the input", dict(i=4, f=2, d=6, p=(3, 3)), dict(i=3, f=2, d=5, p=(5, 5))),
    ("taps that read padding alone", dict(i=2, f=3, d=4, p=(4, 4)), dict(i=3, f=3, d=3, p=(3, 3))),
    ("stride and dilation", dict(i=13, f=3, s=2, d=3, p=(3, 3)), dict(i=12, f=2, s=3, d=2)),
    ("a large kernel", dict(i=17, f=11, p=(5, 5)), dict(i=15, f=9, p=(4, 4))),
    ("7 of stride 2", dict(i=20, f=7, s=2, p=(3, 3)), dict(i=19, f=7, s=2, p=(3, 3))),
)
_SHORT = {"i": "input", "f": "kernel", "s": "stride", "d": "dilation", "p": "padding"}
_CONV_CHANNELS = (dict(in_channels=3, out_channels=4), dict(in_channels=5, out_channels=2))
_GROUPS = (  # in, out, groups
    (4, 4, 2),
    (4, 6, 2),
    (6, 3, 3),
    (8, 8, 8),
    (9, 9, 9),
    (17, 17, 17),
    (4, 8, 4),
    (6, 18, 6),
    (32, 32, 8),
    (12, 4, 4),
)


def _axes(rank: int, first: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """One value per axis: the first axis has its own geometry, and the last the other one."""
    parts = [*[first] * (rank - 1), rest] if rank > 1 else [first]
    defaults: dict[str, Any] = {"s": 1, "d": 1, "p": (0, 0)}
    return {
        name: tuple(part.get(letter, defaults.get(letter)) for part in parts)
        for letter, name in _SHORT.items()
    }


def _convolutions(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    rank, transposed = rank_of(op), "transpose" in op

    def make(**values: Any) -> Problem:
        return Problem.make(op, direction, **values)

    for number, (_, first, rest) in enumerate(_CONV_EDGES):
        for swapped in (False, True) if rank > 1 else (False,):
            pair = (rest, first) if swapped else (first, rest)
            channels = _CONV_CHANNELS[(number + swapped) % 2]
            yield make(batch=1 + number % 2, **channels, **_axes(rank, *pair))
    base: dict[str, Any] = dict(in_channels=3, out_channels=4, input=7, kernel=3)
    for padding in ("same", "same_lower", "valid"):
        for stride, dilation, kernel in ((1, 1, 3), (2, 1, 3), (3, 1, 2), (1, 2, 4)):
            window: dict[str, Any] = dict(stride=stride, dilation=dilation, kernel=kernel)
            yield make(**{**base, **window, "input": 8 if kernel == 3 else 7, "padding": padding})
    for mode in MODES:
        for margins, kernel in (((1, 1), 3), ((2, 1), 3), ((0, 3), 2), ((4, 0), 5)):
            for stride in (1, 2):
                window = dict(padding=(margins,), kernel=kernel, stride=stride, padding_mode=mode)
                yield make(**{**base, **window})
    for c, k, g in _GROUPS:
        yield make(in_channels=c, out_channels=k, groups=g, input=7, kernel=3, padding=1)
        yield make(in_channels=c, out_channels=k, groups=g, input=8, kernel=3, padding=1, stride=2)
        yield make(in_channels=c, out_channels=k, groups=g, input=6, kernel=1, batch=2)
    if transposed:
        for s, f, more in ((2, 3, 1), (3, 3, 2), (3, 2, 1), (2, 1, 1), (4, 5, 3)):
            yield make(**{**base, "stride": s, "kernel": f, "output_padding": (more,) * rank})
            yield make(
                **{**base, "stride": s, "kernel": f, "output_padding": (more,) * rank},
                padding=min(1, f - 1),
                batch=2,
            )
    if direction == "forward":
        for activation in (*ACTIVATIONS, ("leaky_relu", 0.3)):
            yield make(**base, padding=1, bias=True, activation=activation, data="normal")
        for words in (dict(bias=True), dict(residual=True), dict(bias=True, residual=True)):
            yield make(**base, padding=1, **words)
            yield make(**base, padding=1, activation="relu", batch=2, **words)
    if direction == "backward_weight":
        yield make(**base, padding=1, bias_grad=True, batch=2)
        yield make(**base, bias_grad=True, data="normal")
    yield make(**base, unbatched=True)
    yield make(**base, batch=0, padding=1)
    yield make(**base, padding=1, batch=2, strided=True)
    yield make(**{**base, "kernel": 1}, strided=True)
    # Widths, then channels, about vectors and tiles.
    for size in SIZES:
        shape = (3,) * (rank - 1) + (size,)
        yield make(in_channels=2, out_channels=3, input=shape, kernel=3, padding=1)
        if size >= 3:
            yield make(in_channels=4, out_channels=8, input=size if rank < 3 else shape, kernel=1)
        for name, other in (("in_channels", "out_channels"), ("out_channels", "in_channels")):
            yield make(**{name: size, other: 3}, input=4 if rank < 3 else 3, kernel=3, padding=1)
            yield make(**{name: size, other: 9}, input=5 if rank < 3 else 3, kernel=1)
        yield make(in_channels=size, out_channels=size, groups=size, input=5, kernel=3, padding=1)
    for n, c, k, i, f in (
        (3, 16, 16, 9, 3),
        (2, 33, 17, 11, 3),
        (1, 64, 32, 8, 3),
        (1, 24, 40, 12, 5),
    ):
        for stride in (1, 2):
            window = dict(input=i if rank < 3 else 6, kernel=f, padding=f // 2, stride=stride)
            yield make(batch=n, in_channels=c, out_channels=k, **window)
    yield from _convolution_data(make, rank, transposed)


def _convolution_data(make: Any, rank: int, transposed: bool) -> Iterator[Problem]:
    windows: tuple[dict[str, Any], ...] = (
        dict(in_channels=3, out_channels=4, input=9, kernel=3, padding=1),
        dict(in_channels=4, out_channels=4, input=10, kernel=3, stride=2, padding=1, groups=2),
        dict(in_channels=8, out_channels=8, input=9, kernel=3, padding=1, groups=8),
        dict(in_channels=5, out_channels=16, input=8, kernel=1),
        dict(in_channels=2, out_channels=3, input=11, kernel=5, dilation=2, padding=((4, 3),)),
        dict(in_channels=16, out_channels=16, input=12 if rank < 3 else 7, kernel=3, padding=1),
    )
    for window in windows:
        if window["padding"] == ((4, 3),) if "padding" in window else False:
            window["padding"] = (window["padding"][0],) * rank
        for data in DATA:
            yield make(**window, data=data, seed=1)
    yield make(
        batch=2, in_channels=64, out_channels=8, input=8 if rank < 3 else 5, kernel=3, data="normal"
    )
    if not transposed:
        yield make(in_channels=300, out_channels=4, input=4, kernel=3, padding=1, data="normal")


def _random_convolutions(
    op: str, direction: str, rng: np.random.Generator, count: int
) -> Iterator[Problem]:
    rank = rank_of(op)
    most = {1: 40, 2: 14, 3: 7}[rank]

    def pick(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    made = 0
    while made < count:
        g = int(pick(1, 1, 1, 2, 3, 4))
        kernel = tuple(int(rng.integers(1, pick(2, 4, 4, 6) + 1)) for _ in range(rank))
        problem = Problem.make(
            op,
            direction,
            batch=int(pick(1, 1, 2, 3)),
            in_channels=g * int(rng.integers(1, pick(3, 6, 20) + 1)),
            out_channels=g * int(rng.integers(1, pick(3, 6, 20) + 1)),
            groups=g,
            input=tuple(int(rng.integers(1, most + 1)) for _ in range(rank)),
            kernel=kernel,
            stride=tuple(int(pick(1, 1, 2, 3)) for _ in range(rank)),
            dilation=tuple(int(pick(1, 1, 1, 2, 3)) for _ in range(rank)),
            padding=tuple((int(pick(0, 1, f // 2, f)), int(pick(0, 1, f // 2, f))) for f in kernel),
            data=pick("integers", "integers", "normal"),
            seed=int(rng.integers(1000)),
        )
        if pick(0, 0, 0, 1):
            problem = problem.replace(padding=pick("same", "same_lower"))
        try:
            output_extents(problem)
        except ValueError:
            continue
        made += 1
        yield problem


def layers(op: str, direction: str) -> Iterator[Problem]:
    """The layers of networks that are of this operation, the same problem once.

    Those that a list gives as a gradient of the input are transposed convolutions, and stand for
    the gradient as well.
    """
    if not op.startswith("conv") or "transpose" in op:
        return
    seen: set[Problem] = set()
    files = problem_files()
    for net, text in files.items():
        for layer in parse_layers(net, text):
            core = layer.problem
            if f"conv{core.rank}d" != op or " o" in str(core):
                continue
            given = convolutions.of_core(core)
            if given.direction == "backward_input" and direction == "forward":
                continue
            problem = given.replace(direction=direction)
            if problem not in seen:
                seen.add(problem)
                yield problem


# ---- pooling ---------------------------------------------------------------------------------

# (input, kernel, stride, padding, dilation) of an axis; padding is at most half the window.
_POOL_EDGES = (
    (1, 1, 1, (0, 0), 1),
    (4, 2, 2, (0, 0), 1),
    (5, 2, 2, (0, 0), 1),
    (7, 3, 1, (1, 1), 1),
    (8, 3, 2, (1, 1), 1),
    (9, 3, 2, (0, 1), 1),
    (9, 3, 2, (1, 0), 1),
    (5, 5, 5, (0, 0), 1),
    (6, 2, 5, (1, 0), 1),
    (11, 4, 3, (2, 2), 1),
    (10, 4, 4, (2, 1), 1),
    (3, 5, 1, (2, 2), 1),
    (33, 3, 2, (1, 1), 1),
    (17, 2, 1, (0, 0), 1),
)
_DILATED = ((9, 3, 1, (2, 2), 2), (8, 2, 2, (1, 1), 3), (3, 2, 1, (2, 2), 4), (1, 2, 1, (2, 2), 4))
_POOL_DATA = ("normal", "nan", "inf", "huge", "tiny", "subnormal")


def _pools(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    rank = rank_of(op)
    dilates = "max_pool" in op
    variants: list[dict[str, Any]] = [{}]
    if "max" in op:
        variants.append(dict(indices=True))
    if "avg" in op:
        variants += [dict(exclude_pad=True), dict(divisor_override=7), dict(divisor_override=-2)]
    if "lp" in op:
        variants = [dict(norm_type=p) for p in (1.0, 2.0, 3.0, 0.5, float("inf"), 7.5)]
    if "stochastic" in op:
        variants = [{}, dict(expectation=True), dict(indices=True)]
    rounding: tuple[dict[str, Any], ...] = ({}, dict(ceil_mode=True))
    if "stochastic" in op:
        rounding = ({},)

    def make(edges: Sequence[Any], **values: Any) -> Problem:
        names = ("input", "kernel", "stride", "padding", "dilation")
        columns = zip(*edges, strict=True)
        window = {name: tuple(column) for name, column in zip(names, columns, strict=True)}
        if not dilates:
            window.pop("dilation")
        return Problem.make(op, direction, **{"in_channels": 3, **window, **values})

    edges = [*_POOL_EDGES, *(_DILATED if dilates else ())]
    pairs = zip(edges, edges[3:] + edges[:3], strict=True)
    for number, (one, other) in enumerate(pairs):
        axes = [one] if rank == 1 else [*[one] * (rank - 1), other]
        if rank == 3:
            axes[0] = _POOL_EDGES[number % 4]
        for ceil, variant in itertools.product(rounding, variants):
            yield make(axes, **ceil, **variant, batch=1 + number % 2)
    plain, padded = [(9, 3, 2, (1, 1), 1)] * rank, [(7, 3, 1, (1, 1), 1)] * rank
    for variant in variants:
        for data in (*_POOL_DATA, *(("zeros", "minus_inf") if "max" in op else ())):
            for axes in (plain, padded):
                yield make(axes, **variant, data=data, seed=2)
        for padding in ("same", "same_lower"):
            for stride in (1, 2):
                yield make(plain, **variant).replace(padding=padding, stride=stride)
        yield make(padded, **variant, unbatched=True)
        yield make(padded, **variant, batch=0)
        yield make(padded, **variant, batch=2, strided=True)
        for channels in SIZES:
            yield make([(6, 2, 2, (0, 0), 1)] * rank, **variant).replace(in_channels=channels)
        for size in SIZES[4:]:
            axes = [(4, 2, 2, (0, 0), 1)] * (rank - 1) + [(size, 3, 2, (1, 1), 1)]
            yield make(axes, **variant)


def _adaptive(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    rank = rank_of(op)
    variants: list[dict[str, Any]] = [{}]
    if "max" in op:
        variants.append(dict(indices=True))
    pairs = ((1, 1), (5, 1), (5, 2), (5, 3), (5, 5), (3, 7), (10, 7), (17, 4), (33, 16), (2, 9))
    for variant in variants:
        for number, (n, o) in enumerate(pairs):
            other = pairs[(number + 2) % len(pairs)] if rank > 1 else (n, o)
            sizes = [*[(n, o)] * (rank - 1), other] if rank < 3 else [(4, 3), (n, o), other]
            shapes = dict(input=tuple(s[0] for s in sizes), output_size=tuple(s[1] for s in sizes))
            yield Problem.make(op, direction, in_channels=3, batch=2, **shapes, **variant)
        window: dict[str, Any] = dict(input=(9,) * rank, output_size=(4,) * rank)
        for data in (*_POOL_DATA, *(("zeros", "minus_inf") if "max" in op else ())):
            yield Problem.make(op, direction, in_channels=3, **window, **variant, data=data, seed=3)
        for channels in SIZES:
            yield Problem.make(op, direction, in_channels=channels, **window, **variant)
        plain = Problem.make(op, direction, in_channels=2, **window, **variant)
        yield plain.replace(unbatched=True)
        yield plain.replace(batch=0)
        yield plain.replace(strided=True)


def _global(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    for shape in ((1,), (7,), (33,), (5, 4), (17, 16), (1, 9), (3, 4, 5)):
        for channels in (1, 3, 8, 17):
            yield Problem.make(op, direction, in_channels=channels, input=shape, batch=2)
        for data in (*_POOL_DATA, *(("zeros", "minus_inf") if "max" in op else ())):
            yield Problem.make(op, direction, in_channels=3, input=shape, data=data, seed=4)
        yield Problem.make(op, direction, in_channels=3, input=shape, batch=0)
        yield Problem.make(op, direction, in_channels=3, input=shape, batch=2, strided=True)


def _unpools(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    rank = rank_of(op)
    for i, f, s, p in ((4, 2, 2, 0), (5, 2, 2, 0), (8, 3, 2, 1), (7, 3, 3, 1), (9, 3, 1, 0)):
        for channels in (1, 3, 8, 17):
            window = dict(input=i, kernel=f, stride=s, padding=p)
            yield Problem.make(op, direction, in_channels=channels, batch=2, **window)
    for data in ("normal", "nan", "inf", "huge", "tiny", "subnormal"):
        yield Problem.make(op, direction, in_channels=3, input=(6,) * rank, kernel=2, data=data)
    yield Problem.make(op, direction, in_channels=3, input=(6,) * rank, kernel=2, unbatched=True)


def _matmuls(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    flags: list[dict[str, Any]] = [
        dict(transpose_a=a, transpose_b=b) for a in (False, True) for b in (False, True)
    ]
    for number, size in enumerate(SIZES):
        for m, k, n in ((size, 5, 7), (3, size, 8), (9, 4, size), (size, size, size)):
            window: dict[str, Any] = dict(rows=m, inner=k, columns=n)
            yield Problem.make(op, **window, **flags[number % 4])
            yield Problem.make(op, **window, **flags[(number + 1) % 4], data="normal")
    for flag in flags:
        window = dict(rows=17, inner=33, columns=9)
        for data in DATA:
            yield Problem.make(op, **window, **flag, data=data)
        yield Problem.make(op, **window, **flag, lead=(2, 3))
        yield Problem.make(op, **window, **flag, bias=True, activation="relu")
        yield Problem.make(op, rows=130, inner=700, columns=70, **flag, data="normal")
    yield Problem.make(op, rows=3, inner=4, columns=5, strided=True)


def _shaped(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    """Operations on an array of any shape."""
    if op == "activation":
        for name in ACTIVATIONS:
            for size in (*SIZES, 1000):
                yield Problem.make(op, direction, shape=(size,), activation=name, data="normal")
            for data in ("integers", "subnormal"):
                yield Problem.make(op, direction, shape=(3, 5), activation=name, data=data)
        for name in ("relu", "relu6", "leaky_relu"):
            yield Problem.make(op, direction, shape=(3, 5), activation=name, data="huge")
            if direction == "forward":  # a derivative at NaN is anybody's guess
                yield Problem.make(op, direction, shape=(3, 50), activation=name, data="nan")
        return
    if op == "cross_entropy":
        reductions = ("none", "sum", None)
        options: tuple[dict[str, Any], ...] = (
            {},
            dict(label_smoothing=0.1),
            dict(weighted=True),
            dict(ignore_index=1),
        )
        for size, reduction, more in itertools.product(SIZES[1:], reductions, options):
            for shape in ((5, size), (2, 3, size)):
                words = dict(shape=shape, reduction=reduction, data="normal", **more)
                yield Problem.make(op, direction, **words)
        return
    for size in (*SIZES, 1000):
        for shape, axis in (((4, size), None), ((size, 4), 0), ((2, size, 3), 1)):
            for data in ("normal", "integers"):
                yield Problem.make(op, direction, shape=shape, axis=axis, data=data)
    if direction == "forward":
        for data in ("nan", "huge", "subnormal"):
            yield Problem.make(op, direction, shape=(20, 9), data=data)


def _norms(op: str, direction: str, rng: np.random.Generator) -> Iterator[Problem]:
    for training, size in itertools.product((False, True), SIZES):
        for window in (
            dict(in_channels=3, input=(size, 2), batch=2),
            dict(in_channels=size, input=(5,), batch=3),
        ):
            yield Problem.make(op, direction, training=training, data="normal", **window)
    if direction == "forward":
        window = dict(in_channels=3, input=(5, 4), batch=2, data="normal")
        for training in (False, True):
            yield Problem.make(op, direction, training=training, residual=True, **window)
            yield Problem.make(op, direction, training=training, activation="relu", **window)


def _generator_of(op: str) -> Any:
    if op.startswith("conv"):
        return _convolutions
    for part, generator in (
        ("adaptive", _adaptive),
        ("global", _global),
        ("unpool", _unpools),
        ("pool", _pools),
        ("matmul", _matmuls),
        ("batch_norm", _norms),
    ):
        if part in op:
            return generator
    return _shaped


def _makes_sense(problem: Problem) -> bool:
    if problem.op.startswith("conv"):
        try:
            output_extents(problem)
        except ValueError:
            return False
    return True


def problems(
    op: str,
    direction: str = "forward",
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    data_formats: Sequence[str] = ("channels_first", "channels_last"),
    thorough: bool = False,
    seed: int = 0,
    networks: bool = True,
) -> Iterator[Problem]:
    """The problems of a check, the simple ones first.

    Args:
        op, direction: As in `check`.
        dtypes, data_formats: Those to make problems of.
        thorough: Ten times as many random problems, and the layers of networks on integers and on
            normal numbers; otherwise each layer has one of the two.
        seed: Of the random problems.
        networks: Whether the layers of networks are part of it.
    """
    op, direction = resolve(op, direction)
    rng = np.random.default_rng(seed)
    has_formats = rank_of(op) > 0 or op.startswith(("global", "batch_norm"))
    forms = list(itertools.product(dtypes, data_formats if has_formats else data_formats[:1]))
    chosen = itertools.chain(
        _generator_of(op)(op, direction, rng),
        _random_convolutions(op, direction, rng, 1000 if thorough else 100)
        if op.startswith("conv")
        else (),
    )
    seen: set[Problem] = set()
    for problem in chosen:
        if problem in seen or not _makes_sense(problem):
            continue
        seen.add(problem)
        for dtype, data_format in forms:
            yield problem.replace(dtype=dtype, data_format=data_format)
    if networks:
        for place, problem in enumerate(layers(op, direction)):
            for data in (
                ("integers", "normal") if thorough else (("integers", "normal")[place % 2],)
            ):
                yield problem.replace(data=data, dtype=dtypes[0], data_format=data_formats[0])
