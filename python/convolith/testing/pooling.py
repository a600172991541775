"""Pooling and its gradients: sliding, adaptive and global windows, and max unpooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convolith.testing import bounds
from convolith.testing.convolutions import plain_padding
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


class Pooling(Family):
    """`max_pool2d` and its like; the gradients take (dy, x) and the forward's arguments."""

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(x, kernel_size), with dy in front for a gradient."""
        x = draw(maps(problem, problem.in_channels, problem.input), "lone")
        forward = self.forward(problem, x)
        if problem.direction == "forward":
            return forward
        # The result's shape; NaN in dy is no concern of these problems, x has them.
        shape = run_reference(problem.op, self.forward(problem, np.zeros_like(x)))[0].shape
        options = {k: v for k, v in forward.options.items() if k != "return_indices"}
        if problem.indices:
            options["indices"] = run_reference(problem.op, forward)[1]
            options.pop("rng", None)
        return Call((draw(shape, "plain"), *forward.args), options)

    def forward(self, problem: Problem, x: Array) -> Call:
        """The forward call on x."""
        given = dict(problem.geometry)
        options: dict[str, Any] = {}
        for name in ("dilation", "ceil_mode", "divisor_override", "training", "rng"):
            if name in given:
                options[name] = given[name]
        if "exclude_pad" in given:
            options["count_include_pad"] = False
        if problem.expectation:
            options["training"] = False
        elif "stochastic" in problem.op:
            options["rng"] = problem.seed
        if "padding" in given:
            options["padding"] = plain_padding(given["padding"])
        if "indices" in given:
            options["return_indices"] = True
        if problem.data_format != "channels_first":
            options["data_format"] = problem.data_format
        if "global" in problem.op:
            return Call((x,), options)
        if "adaptive" in problem.op:
            return Call((x, problem.output_size), options)
        if "stride" in given:
            options["stride"] = given["stride"]
        if "lp" in problem.op:
            return Call((x, problem.norm_type, problem.kernel), options)
        return Call((x, problem.kernel), options)

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """Exact for what chooses or adds integers, otherwise the bounds of a sum and a quotient."""
        u, name = settings.u(problem), self.function(problem)
        values = run_reference(name, call)
        chooses = ("max" in problem.op) or ("stochastic" in problem.op and not problem.expectation)
        if problem.direction == "forward" and chooses:
            scale = tuple(2 * u * np.abs(v) + bounds.smallest(problem.dtype) for v in values)
            return Truth(values, (None,) * len(values), scale, signed_zeros=problem.data == "zeros")
        magnitude = self.magnitude(problem, call, name)
        count = overlapping(problem)
        factor = self.roundings(problem, count)
        rounded = 2.0 + (count if problem.expectation else 0)  # in the range of subnormals
        limit = factor * (u + bounds.DOUBLE) * magnitude + rounded * bounds.smallest(problem.dtype)
        adds = chooses or "sum" in problem.op or problem.divisor_override in (1, -1)
        exact = adds and stays_exact(problem, magnitude, u)
        return truth_of(problem, values, (limit,), exact)

    def magnitude(self, problem: Problem, call: Call, name: str) -> Array:
        """The operation on absolute values; of the gradients, with the choices of the call."""
        finite = call.map_arrays(lambda a: np.where(np.isfinite(a), a, 0).astype(a.dtype))
        if problem.direction == "forward" or "avg" in problem.op or "sum" in problem.op:
            finite = finite.map_arrays(np.abs)
        else:
            dy, *rest = finite.args
            finite = Call((np.abs(dy), *rest), finite.options)
        if problem.divisor_override:
            finite.options["divisor_override"] = abs(problem.divisor_override)
        return np.abs(run_reference(name, finite)[0])

    def roundings(self, problem: Problem, count: float) -> float:
        """Of sums and quotients; an Lp norm's also of powers and roots."""
        if "lp" not in problem.op or math.isinf(problem.norm_type):
            return bounds.sum_error(count) + 4
        p = float(problem.norm_type)
        root = (bounds.sum_error(count) + 4 * bounds.FEW) / p + 2 * p + 2 * bounds.FEW
        if problem.direction == "forward":
            return root
        return abs(p - 1) * (root + 4) + bounds.sum_error(count) + 4 * bounds.FEW


def overlapping(problem: Problem) -> float:
    """Elements of a window, or windows of an element, whichever are more."""
    if problem.kernel is None:
        return float(math.prod(problem.input))
    return float(math.prod(problem.kernel))


class LpGradient(Pooling):
    """Terms of the gradient of an Lp norm may cancel: magnitudes are those of |x| and |dy|."""

    def magnitude(self, problem: Problem, call: Call, name: str) -> Array:
        """The operation on absolute values."""
        finite = call.map_arrays(lambda a: np.abs(np.where(np.isfinite(a), a, 0)).astype(a.dtype))
        return np.abs(run_reference(name, finite)[0])


class StochasticPooling(Pooling):
    """Draws that depend on nothing but the seed, and expectations."""

    def roundings(self, problem: Problem, count: float) -> float:
        """A quotient of two sums."""
        return 2 * bounds.sum_error(count) + 8

    def magnitude(self, problem: Problem, call: Call, name: str) -> Array:
        """The gradient's slope is a difference: (2 max(x, 0) - y) / total."""
        if problem.direction == "forward" or not problem.expectation:
            return super().magnitude(problem, call, name)
        dy = np.abs(call.args[0]).max(initial=0)
        return np.full(call.args[1].shape, 4.0 * dy * overlapping(problem))


class Unpooling(Family):
    """`max_unpool2d`: the indices are those of a max pooling with the same windows."""

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(x, indices, kernel_size), with dy in front for a gradient."""
        source = draw(maps(problem, problem.in_channels, problem.input), "plain")
        options: dict[str, Any] = {}
        given = dict(problem.geometry)
        if "stride" in given:
            options["stride"] = given["stride"]
        if "padding" in given:
            options["padding"] = plain_padding(given["padding"])
        if problem.data_format != "channels_first":
            options["data_format"] = problem.data_format
        pool = Call((source, problem.kernel), {**options, "return_indices": True})
        y, indices = run_reference(f"max_pool{problem.rank}d", pool)
        x = draw(y.shape, "lone")
        if overlaps(problem):
            x = np.ones_like(x)  # of equal indices any may win, where libraries differ
        options["output_size"] = problem.input
        if problem.direction == "forward":
            return Call((x, indices, problem.kernel), options)
        return Call((draw(source.shape, "lone"), x, indices, problem.kernel), options)

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """Numbers are moved, so every one is exact."""
        values = run_reference(self.function(problem), call)
        scale = 2 * settings.u(problem) * np.abs(values[0]) + bounds.smallest(problem.dtype)
        return Truth(values, (None,), (scale,))


def overlaps(problem: Problem) -> bool:
    """Whether windows have elements in common."""
    return any(f > s for f, s in zip(problem.kernel, problem.stride, strict=True))
