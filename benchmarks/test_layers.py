"""pytest-benchmark over the layer lists: every network, layer, direction and algorithm.

    pip install '.[dev]'
    pytest benchmarks -k "resnet50 and forward"             # one network, one direction
    pytest benchmarks -k "vgg16 and direct" --benchmark-save=before
    pytest benchmarks -k "vgg16 and direct" --benchmark-compare --benchmark-compare-fail=median:10%

A test's name is net-layer-direction-algorithm; times of one layer and direction form a group. The
extra columns of a saved run hold the problem's text form and GFLOP/s at the median. For a table of
all layers with errors and shares of the machine's peak, run `convolith bench`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from convolith import _core
from convolith.bench.layers import parse_layers, problem_files
from convolith.bench.measure import plan_run
from convolith.bench.truth import make_operands, result_shape

DIRECTIONS = ("forward", "backward_input", "backward_weight")


def cases() -> Iterator[Any]:
    """One parameter set per network, layer, direction and algorithm that supports it."""
    for net, text in problem_files().items():
        for layer in parse_layers(net, text):
            for direction in DIRECTIONS:
                problem = layer.problem.replace(direction=direction)
                for entry in _core.algorithms(problem):
                    if entry["supported"]:
                        name = f"{net}-{layer.name}-{direction}"
                        algorithm = entry["name"]
                        yield pytest.param(problem, algorithm, name, id=f"{name}-{algorithm}")


@pytest.mark.benchmark(max_time=0.1, min_rounds=5, warmup=True, warmup_iterations=1)
@pytest.mark.parametrize(("problem", "algorithm", "group"), list(cases()))
def test_layer(benchmark: Any, problem: _core.ConvProblem, algorithm: str, group: str) -> None:
    operands = make_operands(problem, np.random.default_rng(0))
    out = np.empty(result_shape(problem), dtype=problem.dtype)
    plan = _core.Plan(problem, algorithm=algorithm)
    benchmark.group = group
    benchmark.extra_info["problem"] = str(problem)
    benchmark(plan_run(plan, problem, operands, out, prepack=True))
    if benchmark.stats:  # absent under --benchmark-disable
        benchmark.extra_info["gflops"] = problem.flops / benchmark.stats["median"] / 1e9
