"""Convolution and transposed convolution, with their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convolith._core import ConvProblem
from convolith.bench import truth as sampled
from convolith.reference._windows import output_size, same_padding
from convolith.testing import bounds
from convolith.testing.data import Draw
from convolith.testing.family import (
    Array,
    Call,
    Family,
    Settings,
    Truth,
    maps,
    run_reference,
    stays_exact,
    truth_of,
)
from convolith.testing.problem import Problem

EXACT_ACTIVATIONS = (None, "relu", "relu6")
FULL_REFERENCE = 3e7  # products up to which the whole result is compared


class Convolution(Family):
    """`conv1d` to `conv_transpose3d`: y, and the gradients of x and the weights."""

    directions = ("forward", "backward_input", "backward_weight")

    def function(self, problem: Problem) -> str:
        """conv2d, conv_backward_input, conv_transpose_backward_weight, ..."""
        if problem.direction == "forward":
            return problem.op
        return f"{problem.op[:-2]}_{problem.direction}"

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(x, weight), (dy, weight, input_shape) or (dy, x, weight_shape), and the window."""
        x_shape = maps(problem, problem.in_channels, problem.input)
        y_shape = maps(problem, problem.out_channels, output_extents(problem))
        w_shape = weight_shape(problem)
        options = window_options(problem)
        if problem.direction == "forward":
            args: tuple[Any, ...] = (draw(x_shape, "first"), draw(w_shape, "second"))
            if problem.bias:
                options["bias"] = draw((problem.out_channels,), "sum")
            if problem.residual:
                options["residual"] = draw(y_shape, "sum")
            if problem.activation:
                options["activation"] = problem.activation
        elif problem.direction == "backward_input":
            args = (draw(y_shape, "first"), draw(w_shape, "second"), x_shape)
        else:
            # The array that is padded holds the NaN: times padding, one of the other is undefined.
            roles = ("first", "second") if "transpose" in problem.op else ("second", "first")
            args = (draw(y_shape, roles[0]), draw(x_shape, roles[1]), w_shape)
            if problem.bias_grad:
                options["bias_grad"] = True
        if problem.direction != "forward" and problem.output_padding:
            options.pop("output_padding")  # the shape of dy tells
        return Call(args, options)

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """The reference, at sampled positions where all of them would take too long."""
        u = settings.u(problem)
        if products(problem) > FULL_REFERENCE and is_plain(problem):
            return sampled_truth(problem, call, settings)
        name = self.function(problem)
        values = run_reference(name, call)
        linear = Call(call.args, {k: v for k, v in call.options.items() if k != "activation"})
        if problem.data in ("nan", "inf", "minus_inf"):
            linear = linear.map_arrays(lambda a: np.where(np.isfinite(a), a, 0))
        magnitudes = run_reference(name, linear.map_arrays(np.abs))
        exact = (
            settings.tolerance is None or not (settings.tolerance(problem) or {}).get("uniform")
        ) and problem.activation in EXACT_ACTIVATIONS
        exact = exact and all(stays_exact(problem, m, u) for m in magnitudes)
        limits = [self.bound(problem, call, settings, magnitudes[0])]
        limits[0] = bounds.activated(problem, limits[0], values[0], u)
        if len(magnitudes) == 2:  # the bias gradient, a plain sum
            pixels = problem.batch * math.prod(output_extents(problem))
            limits.append(bounds.sums(problem, magnitudes[1], pixels, u))
        return truth_of(problem, values, tuple(limits), exact)

    def bound(self, problem: Problem, call: Call, settings: Settings, magnitude: Array) -> Array:
        """Of the sums of products, before the activation."""
        u = settings.u(problem)
        given = settings.tolerance(problem) if settings.tolerance else None
        if given is None:
            return bounds.sums(problem, magnitude, terms(problem), u)
        reference_error = bounds.sum_error(terms(problem)) * bounds.DOUBLE
        own = (given.get("componentwise", 0.0) + reference_error) * magnitude
        spread = bounds.uniform(problem, given, call.args[0], call.args[1])
        return np.asarray(own + spread + bounds.smallest(problem.dtype))


def weight_shape(problem: Problem) -> tuple[int, ...]:
    """(out, in / groups, *kernel), or (in, out / groups, *kernel) of a transposed convolution."""
    c, k, g = problem.in_channels, problem.out_channels, problem.groups
    if c % g or k % g:
        raise ValueError("groups do not divide the channels")
    first, second = (c, k) if "transpose" in problem.op else (k, c)
    return (first, second // g, *problem.kernel)


def padding_pairs(problem: Problem) -> tuple[tuple[int, int], ...]:
    """(before, after) of each axis."""
    padding = problem.padding
    if not isinstance(padding, str):
        return tuple(padding)
    if padding == "valid":
        return ((0, 0),) * problem.rank
    pairs = []
    for n, f, s, d in zip(
        problem.input, problem.kernel, problem.stride, problem.dilation, strict=True
    ):
        extent = n * s if "transpose" in problem.op else n
        pairs.append(same_padding(extent, d * (f - 1) + 1, s, padding == "same_lower"))
    return tuple(pairs)


def output_extents(problem: Problem) -> tuple[int, ...]:
    """Spatial extents of the result; ValueError where the kernel does not fit."""
    extents = []
    more = problem.output_padding or (0,) * problem.rank
    for axis, (before, after) in enumerate(padding_pairs(problem)):
        n, s = problem.input[axis], problem.stride[axis]
        effective = problem.dilation[axis] * (problem.kernel[axis] - 1) + 1
        if "transpose" in problem.op:
            if problem.padding in ("same", "same_lower"):
                out = n * s
            else:
                out = (n - 1) * s - before - after + effective + more[axis]
        else:
            out = output_size(n, effective, s, before, after)
        if out < 1:
            raise ValueError(f"axis {axis} has no output")
        extents.append(out)
    return tuple(extents)


def window_options(problem: Problem) -> dict[str, Any]:
    """The geometry's options that differ from their defaults, equal padding as one number each."""
    options: dict[str, Any] = {}
    given = dict(problem.geometry)
    for name in ("stride", "dilation", "groups", "output_padding", "padding_mode"):
        if name in given:
            options[name] = given[name]
    if "padding" in given:
        options["padding"] = plain_padding(given["padding"])
    if problem.data_format != "channels_first":
        options["data_format"] = problem.data_format
    return options


def plain_padding(padding: Any) -> Any:
    """One number per axis if both sides have the same everywhere."""
    if isinstance(padding, str) or any(before != after for before, after in padding):
        return padding
    return tuple(before for before, _ in padding)


def terms(problem: Problem) -> float:
    """Products that one element of the result sums at most."""
    g, taps = problem.groups, math.prod(problem.kernel)
    transposed = "transpose" in problem.op
    pixels = math.prod(problem.input) if transposed else math.prod(output_extents(problem))
    folded = 1 if problem.padding_mode in (None, "zeros") else 3**problem.rank
    if problem.direction == "backward_weight":
        return float(problem.batch * pixels)
    forward = problem.direction == "forward"
    channels = problem.in_channels if forward else problem.out_channels
    return float(channels // g * taps * (folded if forward == transposed else 1))


def products(problem: Problem) -> float:
    """Multiply-adds of the whole problem."""
    transposed = "transpose" in problem.op
    pixels = math.prod(problem.input) if transposed else math.prod(output_extents(problem))
    each = problem.in_channels * problem.out_channels // problem.groups * math.prod(problem.kernel)
    return float(problem.batch * pixels * each)


def is_plain(problem: Problem) -> bool:
    """Whether the sampled truth knows the problem."""
    words = ("transpose" in problem.op, problem.unbatched, problem.bias, problem.residual)
    return not any((*words, problem.activation, problem.bias_grad))


def as_core(problem: Problem) -> ConvProblem:
    """The library's own form of a plain convolution."""
    axes = "x".join

    def numbers(values: tuple[int, ...]) -> str:
        return axes(map(str, values))

    pairs = axes(f"{before}:{after}" for before, after in padding_pairs(problem))
    words = [
        f"{problem.op} n{problem.batch} c{problem.in_channels} i{numbers(problem.input)}",
        f"k{problem.out_channels} f{numbers(problem.kernel)} s{numbers(problem.stride)} p{pairs}",
        f"d{numbers(problem.dilation)} g{problem.groups} {problem.dtype} {problem.data_format}",
        problem.direction,
    ]
    if problem.padding_mode:
        words.append(problem.padding_mode)
    return ConvProblem.parse(" ".join(words))


def of_core(core: ConvProblem, **changes: Any) -> Problem:
    """A problem of a layer list; the gradient of the input, where that is meant, as such."""
    return Problem.make(
        f"conv{core.rank}d",
        core.direction,
        batch=core.batch,
        in_channels=core.in_channels,
        out_channels=core.out_channels,
        groups=core.groups,
        input=tuple(core.input),
        kernel=tuple(core.kernel),
        stride=tuple(core.stride),
        dilation=tuple(core.dilation),
        padding=tuple(core.padding),
        padding_mode=None if core.padding_mode == "zeros" else core.padding_mode,
    ).replace(**changes)


def sampled_truth(problem: Problem, call: Call, settings: Settings) -> Truth:
    """The truth at positions of which borders have their share; see `convolith.bench.truth`."""
    core = as_core(problem)
    operands = sampled.Operands(call.args[0], call.args[1], None, None)
    absolute = sampled.Operands(np.abs(call.args[0]), np.abs(call.args[1]), None, None)
    # The same seed twice: the same positions.
    found, magnitude = (
        sampled.sampled_truth(core, a, np.random.default_rng(problem.seed))
        for a in (operands, absolute)
    )
    given = settings.tolerance(problem) if settings.tolerance else None
    transform = bool(given and given.get("uniform"))
    if transform:
        full = np.zeros(sampled.result_shape(core))
        full[magnitude.index] = magnitude.values
        limit = CONVOLUTION.bound(problem, call, settings, full)[magnitude.index]
    else:
        limit = CONVOLUTION.bound(problem, call, settings, magnitude.values)
    exact = not transform and stays_exact(problem, magnitude.values, settings.u(problem))
    return Truth(
        (found.values,),
        (None if exact else limit,),
        (limit,),
        index=found.index,
        shape=sampled.result_shape(core),
    )


CONVOLUTION = Convolution()
