"""Times every algorithm, and the NumPy reference, on layers; judges the results in float64."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convolith import _core
from convolith.bench.arrays import Array, aligned_empty
from convolith.bench.layers import Layer
from convolith.bench.peak import copy_bandwidth, fma_peak
from convolith.bench.timing import Stopwatch, measure
from convolith.bench.truth import Operands, make_operands, result_shape, sampled_truth

REFERENCE = "reference"
"""The name under which the NumPy reference appears among the algorithms."""

LONGEST = 0.5
"""Seconds for the samples of one algorithm on one layer."""

REFERENCE_SHARE = 0.3
"""Of the time, where the reference runs at all."""


@dataclass(frozen=True)
class Record:
    """One algorithm on one layer.

    `gflops` counts the direct method's operations, 2 per multiply-add, in 1e9 per second;
    `peak_share` relates it to the measured FMA peak; `error` is the largest |error| against float64
    over the largest |y|, at sampled outputs. `workspace_bytes` is None where it is not known.
    """

    problem: str
    net: str
    layer: str
    algorithm: str
    seconds: float
    gflops: float
    peak_share: float
    workspace_bytes: int | None
    error: float


@dataclass(frozen=True)
class Settings:
    """What to measure, and for how long."""

    algorithms: Sequence[str] = ()
    """Names, or "auto"; empty: every algorithm that supports the layer."""
    threads: int = 0
    """0: the setting of the process."""
    reference: bool = True
    prepack: bool = True
    """Pack the weights once, outside the time, where the direction is forward."""
    seconds: float = 75.0
    """To spend on all layers together; each run gets at most half a second."""


@dataclass
class Outcome:
    """What a benchmark found so far."""

    records: list[Record] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)
    """dtype -> FLOP/s of fused multiply-adds."""
    bandwidth: float = 0.0
    """Bytes/s of a copy, read + written."""
    isa: str = ""
    threads: int = 0
    samples: int = 0
    disturbed: int = 0

    def count(self, watch: Stopwatch) -> None:
        """Add a stopwatch's samples to the statistics."""
        self.samples += len(watch.samples)
        self.disturbed += len(watch.disturbed)


def candidates(problem: _core.ConvProblem, names: Sequence[str], threads: int) -> list[str]:
    """The algorithms that support a problem, out of `names` if any are given."""
    supported = [
        entry["name"] for entry in _core.algorithms(problem, threads=threads) if entry["supported"]
    ]
    if names:
        return [name for name in names if name == "auto" or name in supported]
    return supported


class Budget:
    """Shares out time among the distinct shapes of layers."""

    def __init__(self, seconds: float, layers: Sequence[Layer]) -> None:
        """Start the clock."""
        self.end = time.perf_counter() + seconds
        self.waiting = {layer.problem for layer in layers}

    def claim(self, problem: _core.ConvProblem) -> float:
        """Seconds for a shape, an even share of what is left; 0 if the shape has had its turn."""
        if problem not in self.waiting:
            return 0.0
        share = (self.end - time.perf_counter()) / len(self.waiting)
        self.waiting.remove(problem)
        return max(1e-3, share)


class Benchmark:
    """Measures layers one by one; a shape that several networks share is measured once.

    The reference has its turn when the algorithms are done with all layers: the threads of NumPy's
    BLAS go on spinning after a product and would disturb what is timed next.
    """

    def __init__(self, settings: Settings, layers: Sequence[Layer]) -> None:
        """Measure nothing yet."""
        self.settings = settings
        self.layers = layers
        self.outcome = Outcome()
        self.measured: dict[_core.ConvProblem, list[Record]] = {}

    def run(self) -> Iterator[tuple[str, Layer]]:
        """Measure into `outcome`; before each of the `steps` turns, yield what it is about.

        That is ("algorithms", layer) for every layer, then (REFERENCE, layer) for every layer.
        """
        settings, outcome = self.settings, self.outcome
        for dtype in {layer.problem.dtype for layer in self.layers}:
            outcome.peaks[dtype] = fma_peak(dtype, settings.threads)
        outcome.bandwidth = copy_bandwidth(settings.threads)
        share = REFERENCE_SHARE if settings.reference else 0.0
        budget = Budget((1 - share) * settings.seconds, self.layers)
        for layer in self.layers:
            yield "algorithms", layer
            if seconds := budget.claim(layer.problem):
                self.add(layer.problem, self.measure_algorithms(layer.problem, seconds))
        if settings.reference:
            budget = Budget(share * settings.seconds, self.layers)
            clock = ReferenceClock()
            for layer in self.layers:
                yield REFERENCE, layer
                if seconds := budget.claim(layer.problem):
                    self.add(layer.problem, self.measure_reference(layer.problem, seconds, clock))

    @property
    def steps(self) -> int:
        """How many turns `run` takes."""
        return len(self.layers) * (2 if self.settings.reference else 1)

    def add(self, problem: _core.ConvProblem, records: list[Record]) -> None:
        """Append a shape's records, under every layer of that shape."""
        self.measured.setdefault(problem, []).extend(records)
        self.outcome.records = [
            replace(record, net=layer.net, layer=layer.name)
            for layer in self.layers
            for record in self.measured.get(layer.problem, ())
        ]

    def record(
        self,
        problem: _core.ConvProblem,
        algorithm: str,
        seconds: float,
        workspace_bytes: int | None,
        error: float,
    ) -> Record:
        """A record that belongs to no layer yet."""
        rate = problem.flops / seconds
        return Record(
            problem=str(problem),
            net="",
            layer="",
            algorithm=algorithm,
            seconds=seconds,
            gflops=rate / 1e9,
            peak_share=rate / self.outcome.peaks[problem.dtype],
            workspace_bytes=workspace_bytes,
            error=error,
        )

    def measure_algorithms(self, problem: _core.ConvProblem, seconds: float) -> list[Record]:
        """The records of the library's algorithms on one shape."""
        settings = self.settings
        rng = np.random.default_rng(0)
        operands = make_operands(problem, rng)
        truth = sampled_truth(problem, operands, rng)
        out = aligned_empty(result_shape(problem), problem.dtype)
        names = candidates(problem, settings.algorithms, settings.threads)
        plans = [_core.Plan(problem, algorithm=n, threads=settings.threads) for n in names]
        runs = [plan_run(plan, problem, operands, out, settings.prepack) for plan in plans]
        errors = []
        for run in runs:
            out.fill(np.nan)  # an output that the algorithm forgets to write must not go unnoticed
            errors.append(truth.error(run()))
        watches = measure(runs, min(LONGEST, seconds / max(1, len(runs))))
        records = []
        for name, plan, watch, error in zip(names, plans, watches, errors, strict=True):
            records.append(self.record(problem, name, watch.seconds, plan.workspace_bytes, error))
            self.outcome.count(watch)
            self.outcome.isa, self.outcome.threads = plan.isa, plan.threads
        return records

    def measure_reference(
        self, problem: _core.ConvProblem, seconds: float, clock: ReferenceClock
    ) -> list[Record]:
        """The record of the NumPy reference on one shape, where it is predicted to end in time."""
        if not reference_serves(problem) or clock.predict(problem) > max(seconds, LONGEST / 2):
            return []
        rng = np.random.default_rng(0)
        operands = make_operands(problem, rng)
        truth = sampled_truth(problem, operands, rng)
        run = reference_run(problem, operands)
        start = time.perf_counter()
        result = run()
        elapsed = time.perf_counter() - start
        if elapsed < seconds / 2:
            watch = measure([run], min(LONGEST, seconds / 4))[0]
            self.outcome.count(watch)
            elapsed = watch.seconds
        clock.learn(problem, elapsed)
        return [self.record(problem, REFERENCE, elapsed, None, truth.error(result))]


def plan_run(
    plan: _core.Plan, problem: _core.ConvProblem, operands: Operands, out: Array, prepack: bool
) -> Callable[[], Array]:
    """A call of the plan on the operands, into `out`."""
    second: Array | None = operands.second
    if prepack and problem.direction == "forward":
        plan = plan.pack(operands.second)
        second = None
    first, bias, residual = operands.first, operands.bias, operands.residual
    return lambda: plan.execute(first, second, bias=bias, residual=residual, out=out)


def has_epilogue(problem: _core.ConvProblem) -> bool:
    """Whether a bias, residual or activation follows the convolution."""
    return problem.bias or problem.residual or problem.activation not in (None, "none")


def reference_serves(problem: _core.ConvProblem) -> bool:
    """Whether the reference has the problem as one function: its gradients take no epilogue."""
    return problem.direction == "forward" or not has_epilogue(problem)


def reference_run(problem: _core.ConvProblem, operands: Operands) -> Callable[[], Array]:
    """A call of the NumPy reference on the operands."""
    reference = importlib.import_module("convolith.reference")
    arguments: dict[str, Any] = {
        "stride": problem.stride,
        "padding": problem.padding,
        "dilation": problem.dilation,
        "groups": problem.groups,
        "data_format": problem.data_format,
        "padding_mode": problem.padding_mode,
    }
    if problem.direction == "backward_input":
        function, arguments["input_shape"] = reference.conv_backward_input, problem.x_shape
    elif problem.direction == "backward_weight":
        function, arguments["weight_shape"] = reference.conv_backward_weight, problem.weight_shape
    else:
        function = getattr(reference, f"conv{problem.rank}d")
        if has_epilogue(problem):
            arguments["bias"], arguments["residual"] = operands.bias, operands.residual
            arguments["activation"] = None if problem.activation == "none" else problem.activation
    return lambda: np.asarray(function(operands.first, operands.second, **arguments))


class ReferenceClock:
    """Predicts the reference's time, so that it runs only where it ends soon.

    Rates are averaged with a short memory, for dense and grouped problems apart.
    """

    CALIBRATION = ("conv2d c32 i56x56 k32 f3x3 p1", "conv2d c64 i56x56 k64 f3x3 p1 g64")
    MEANINGFUL_SECONDS = 5e-3  # a shorter run is all overhead and says nothing about long ones

    def __init__(self) -> None:
        """Time two small problems."""
        self.rates: dict[bool, float] = {}
        for text in self.CALIBRATION:
            problem = _core.ConvProblem.parse(text)
            run = reference_run(problem, make_operands(problem, np.random.default_rng(0)))
            self.learn(problem, measure([run], budget=0.02)[0].seconds)

    def predict(self, problem: _core.ConvProblem) -> float:
        """Seconds that one run will take."""
        return problem.flops / self.rates[problem.groups > 1]

    def learn(self, problem: _core.ConvProblem, seconds: float) -> None:
        """Take note of one run's time."""
        grouped, rate = problem.groups > 1, problem.flops / seconds
        if seconds >= self.MEANINGFUL_SECONDS or grouped not in self.rates:
            self.rates[grouped] = math.sqrt(rate * self.rates.get(grouped, rate))
