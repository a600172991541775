"""This library: plans with packed weights and functional calls, in both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np

import convolith
from convolith import _core
from convolith.bench.arrays import Array, aligned, aligned_empty
from convolith.bench.peers.adapter import Adapter, Run, is_transposed
from convolith.bench.pools import PoolProblem, make_gradient
from convolith.bench.truth import Operands, result_shape


class Own(Adapter):
    """The algorithm that the library chooses."""

    name = "convolith"
    weight_gradients = True

    def __init__(self, threads: int) -> None:
        """Set the threads of functional calls."""
        super().__init__(threads)
        convolith.set_num_threads(threads)

    def versions(self) -> dict[str, str]:
        """The library's."""
        return {"convolith": convolith.__version__}

    def prepare(self, problem: _core.ConvProblem, operands: Operands) -> dict[str, Run]:
        """A plan's call with its output given, and a function's, for each layout."""
        runs = {}
        for layout in ("channels_first", "channels_last"):
            turned = problem.replace(data_format=layout)
            first, second = operands.first, operands.second
            if layout == "channels_last":
                first = aligned(np.moveaxis(first, 1, -1))
                if problem.direction == "backward_weight":
                    second = aligned(np.moveaxis(second, 1, -1))
            runs[f"{layout} plan"] = plan_run(turned, first, second, self.threads)
            runs[f"{layout} call"] = call_run(turned, first, second)
        return runs

    def prepare_pool(self, problem: PoolProblem, x: Array) -> dict[str, Run]:
        """A call of a sliding or, where one window holds all, of a global function."""
        last = aligned(np.moveaxis(x, 1, -1))
        arrays = {"channels_first": x, "channels_last": last}
        run = pool_gradient_run if problem.backward else pool_run
        return {f"{layout} call": run(problem, x, layout) for layout, x in arrays.items()}


def pool_run(problem: PoolProblem, x: Array, layout: str) -> Run:
    """A call of a public function."""
    function: Any
    if problem.is_global:
        function = getattr(convolith, f"global_{problem.operation}_pool")
        return lambda: channels_first(layout, function(x, data_format=layout))
    function = getattr(convolith, f"{problem.operation}_pool{problem.window.rank}d")
    return lambda: channels_first(layout, function(x, *problem.arguments, data_format=layout))


def pool_gradient_run(problem: PoolProblem, x: Array, layout: str) -> Run:
    """A call of a gradient, max pooling with the indices of its forward."""
    dy = make_gradient(problem)
    if layout == "channels_last":
        dy = np.ascontiguousarray(np.moveaxis(dy, 1, -1))
    name = f"{problem.operation}_pool{problem.window.rank}d"
    options: dict[str, Any] = {"data_format": layout}
    if problem.operation == "max":
        forward = getattr(convolith, name)
        _, indices = forward(x, *problem.arguments, return_indices=True, **options)
        options["indices"] = indices
    elif problem.is_global:
        whole = convolith.global_avg_pool_backward
        return lambda: channels_first(layout, whole(dy, x, **options))
    backward = getattr(convolith, f"{name}_backward")
    return lambda: channels_first(layout, backward(dy, x, *problem.arguments, **options))


def channels_first(layout: str, result: Array) -> Array:
    """A view of a result with its channels on axis 1."""
    return np.moveaxis(result, -1, 1) if layout == "channels_last" else result


def plan_run(problem: _core.ConvProblem, x: Array, second: Array, threads: int) -> Run:
    """A call of a plan, with packed weights where it takes weights."""
    plan = _core.Plan(problem, threads=threads)
    given: Array | None = second
    if problem.direction != "backward_weight":
        plan, given = plan.pack(second), None
    out = aligned_empty(result_shape(problem), problem.dtype)
    view = out
    if problem.direction != "backward_weight":
        view = channels_first(problem.data_format, out)

    def run() -> object:
        plan.execute(x, given, out=out)
        return view

    return run


def call_run(problem: _core.ConvProblem, x: Array, second: Array) -> Run:
    """A call of a public function."""
    layout = problem.data_format
    arguments: dict[str, Any] = {
        "stride": problem.stride,
        "padding": problem.padding,
        "dilation": problem.dilation,
        "groups": problem.groups,
        "data_format": layout,
    }
    if problem.direction == "backward_weight":
        gradient = convolith.conv_backward_weight
        return lambda: gradient(x, second, problem.weight_shape, **arguments)
    if is_transposed(problem):
        shape, backward = problem.x_shape, convolith.conv_backward_input
        return lambda: channels_first(layout, backward(x, second, shape, **arguments))
    forward = getattr(convolith, f"conv{problem.rank}d")
    return lambda: channels_first(layout, forward(x, second, **arguments))
