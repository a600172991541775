"""The float64 truth of a convolution at sampled positions, each computed from its definition.

    y[n, k, o] = sum over c, t of x[n, c, i(o, t)] * w[k, c, t]
    i(o, t) = o*stride + t*dilation - before

with i mapped back into the input by the padding mode, or the product left out where that is zeros.
The gradients are the adjoints of this sum. Nothing here is shared with the library's kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convolith._core import ConvProblem
from convolith.bench.arrays import Array, aligned_empty

ACTIVATIONS: dict[str, Callable[[Array], Any]] = {
    "none": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "relu6": lambda z: np.clip(z, 0.0, 6.0),
    "leaky_relu": lambda z: np.where(z < 0, 0.01 * z, z),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "hardswish": lambda z: z * np.clip(z + 3, 0.0, 6.0) / 6,
}


@dataclass(frozen=True)
class Operands:
    """Arrays for one problem, in its dtype and data format; bias and residual where it has them.

    `first` and `second` are what the direction takes: (x, w), (dy, w) or (dy, x).
    """

    first: Array
    second: Array
    bias: Array | None
    residual: Array | None


def result_shape(problem: ConvProblem) -> tuple[int, ...]:
    """Shape of the array that the problem's direction computes."""
    shapes = {
        "forward": problem.y_shape,
        "backward_input": problem.x_shape,
        "backward_weight": problem.weight_shape,
    }
    return tuple(shapes[problem.direction])


def make_operands(problem: ConvProblem, rng: np.random.Generator) -> Operands:
    """Operands drawn uniformly from [-1, 1)."""

    def draw(*shape: int) -> Array:
        values = aligned_empty(shape, problem.dtype)
        rng.random(dtype=values.dtype.type, out=values)
        values *= 2
        values -= 1
        return values

    forward = problem.direction == "forward"
    first = draw(*(problem.x_shape if forward else problem.y_shape))
    second = draw(
        *(problem.x_shape if problem.direction == "backward_weight" else problem.weight_shape)
    )
    channels = problem.out_channels if forward else problem.in_channels
    return Operands(
        first,
        second,
        bias=draw(channels) if problem.bias else None,
        residual=draw(*result_shape(problem)) if problem.residual else None,
    )


def input_positions(problem: ConvProblem, axis: int) -> Array:
    """Table [output position, tap] of the input position read along one axis; -1: zero padding."""
    extent = problem.input[axis]
    outputs = np.arange(problem.output[axis])[:, None] * problem.stride[axis]
    taps = np.arange(problem.kernel[axis])[None, :] * problem.dilation[axis]
    positions: Array = outputs + taps - problem.padding[axis][0]
    if problem.padding_mode == "replicate":
        return np.clip(positions, 0, extent - 1)
    if problem.padding_mode == "circular":
        return np.mod(positions, extent)
    if problem.padding_mode == "reflect":
        positions = np.abs(positions)
        return np.where(positions >= extent, 2 * (extent - 1) - positions, positions)
    return np.where((positions < 0) | (positions >= extent), -1, positions)


def sample_positions(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> Array:
    """Distinct positions [sample, axis] in an array: all if they are few, else `count` draws.

    Along each axis a draw is the first or the last element half of the time: borders err first.
    """
    if np.prod(shape, dtype=float) <= count:
        return np.argwhere(np.ones(shape, dtype=bool))
    extents = np.array(shape)
    uniform = rng.integers(0, extents, size=(count, len(shape)))
    place = rng.integers(0, 4, size=uniform.shape)
    chosen = np.where(place == 0, 0, np.where(place == 1, extents - 1, uniform))
    return np.unique(chosen, axis=0)


@dataclass(frozen=True)
class Truth:
    """Values of a result at some positions; `index` addresses the result in its data format."""

    index: tuple[Array, ...]
    values: Array

    def error(self, result: Array) -> float:
        """Largest |result - truth| over largest |truth|; inf if any of the result is not finite."""
        if not np.isfinite(result).all():
            return float("inf")
        if not self.values.size:
            return 0.0
        scale = np.abs(self.values).max() or 1.0
        return float(np.abs(result[self.index] - self.values).max() / scale)


def sampled_truth(
    problem: ConvProblem,
    operands: Operands,
    rng: np.random.Generator,
    samples: int = 256,
    products: float = 4e6,
) -> Truth:
    """The truth at up to `samples` positions; fewer (at least 32) where each sums many products.

    Parameters
    ----------
    products : the multiply-adds to spend on all samples together.
    """
    last = problem.data_format == "channels_last"

    def channels_first(array: Array) -> Array:
        return np.moveaxis(array, -1, 1) if last else array

    rank = problem.rank
    weighted = problem.direction != "backward_weight"
    first = channels_first(operands.first)
    second = operands.second if weighted else channels_first(operands.second)
    shape = result_shape(problem)
    if last and weighted:
        shape = (shape[0], shape[-1], *shape[1:-1])

    size = max(1.0, float(np.prod(shape, dtype=float)))
    each = max(1.0, problem.flops / 2 / size)
    positions = sample_positions(shape, min(samples, max(32, int(products / each))), rng)
    tables = [input_positions(problem, axis) for axis in range(rank)]
    in_group = problem.in_channels // problem.groups
    out_group = problem.out_channels // problem.groups

    def forward(n: int, k: int, *out: int) -> float:
        rows = [table[o] for table, o in zip(tables, out, strict=True)]
        taps = [np.flatnonzero(row >= 0) for row in rows]
        pixels = [row[row >= 0] for row in rows]
        c = k // out_group * in_group
        x = first[n, c : c + in_group][block(pixels)]
        return total(x, second[k][block(taps)])

    def backward_input(n: int, c: int, *pixel: int) -> float:
        pairs = [np.nonzero(table == i) for table, i in zip(tables, pixel, strict=True)]
        k = c // in_group * out_group
        dy = first[n, k : k + out_group][block([o for o, _ in pairs])]
        w = second[k : k + out_group, c % in_group]
        return total(dy, w[block([t for _, t in pairs])])

    def backward_weight(k: int, c: int, *tap: int) -> float:
        rows = [table[:, t] for table, t in zip(tables, tap, strict=True)]
        outs = [np.flatnonzero(row >= 0) for row in rows]
        pixels = [row[row >= 0] for row in rows]
        dy = first[:, k][block(outs)]
        x = second[:, k // out_group * in_group + c]
        return total(dy, x[block(pixels)])

    rule = {
        "forward": forward,
        "backward_input": backward_input,
        "backward_weight": backward_weight,
    }[problem.direction]
    values = np.array([rule(*position) for position in positions.tolist()], dtype=np.float64)

    columns = tuple(positions.T)
    if weighted:
        if operands.bias is not None:
            values += operands.bias[columns[1]]
        if last:
            columns = (columns[0], *columns[2:], columns[1])
        if operands.residual is not None:
            values += operands.residual[columns]
        values = ACTIVATIONS[problem.activation or "none"](values)
    return Truth(columns, values)


def block(positions: Sequence[Array]) -> tuple[Any, ...]:
    """Index of everything on the first axis, and of the given positions along each further axis."""
    return (slice(None), *np.ix_(*positions))


def total(a: Array, b: Array) -> float:
    """Sum of products in float64."""
    return float(np.sum(np.multiply(a, b, dtype=np.float64)))
