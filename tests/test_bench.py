"""Layer lists, sampled truth, timing, and the reports of `convolith bench`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convolith import _core, reference
from convolith.bench import timing, truth
from convolith.bench.layers import NETS, Layer, parse_layers, problem_files
from convolith.bench.measure import (
    REFERENCE,
    Benchmark,
    Outcome,
    Record,
    Settings,
    has_epilogue,
    reference_run,
)

SMALL = "conv2d c4 i9x8 k6 f3x3 p1"

# Distinct shapes, and multiply-adds of a list's distinct shapes at batch 1.
LISTS = {
    "lenet": (3, 405_600),
    "alexnet": (5, 655_566_528),
    "vgg16": (9, 10_722_410_496),
    "googlenet": (49, 1_503_875_072),
    "resnet50": (23, 1_967_702_016),
    "densenet121": (66, 1_743_917_056),
    "mobilenet_v2": (30, 189_778_176),
    "operations": (55, 30_217_211_424),
}


@pytest.fixture(autouse=True, scope="module")
def known_machine() -> Iterator[None]:
    """Spares these tests the measurement of the machine's peak."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convolith.bench.measure.fma_peak", lambda dtype, threads: 1e11)
        patch.setattr("convolith.bench.measure.copy_bandwidth", lambda threads: 3e10)
        yield


def layers(net: str) -> list[Layer]:
    return parse_layers(net, problem_files()[net])


# ---- layer lists ---------------------------------------------------------------------------


def test_lists_come_in_the_default_order() -> None:
    assert tuple(problem_files()) == (*NETS, "operations")


@pytest.mark.parametrize("net", LISTS)
def test_list_holds_the_distinct_shapes(net: str) -> None:
    found = layers(net)
    assert len({layer.problem for layer in found}) == len(found) == LISTS[net][0]
    assert len({layer.name for layer in found}) == len(found)
    assert sum(layer.problem.flops for layer in found) / 2 == LISTS[net][1]
    for layer in found:
        problem = layer.problem
        assert (problem.dtype, problem.batch) == ("float32", 1)
        assert problem.direction == "forward" or net == "operations"


def test_further_operations_are_there() -> None:
    problems = [layer.problem for layer in layers("operations")]
    assert {problem.rank for problem in problems} == {1, 2, 3}
    assert {problem.direction for problem in problems} == {"forward", "backward_input"}
    assert any(1 < problem.groups < problem.in_channels for problem in problems)
    assert any(problem.groups == problem.in_channels > 1 for problem in problems)
    assert any(max(problem.dilation) > 1 for problem in problems)
    assert any(max(problem.kernel) > 30 for problem in problems)


def test_depthwise_layers_have_one_channel_a_group() -> None:
    depthwise = [la.problem for la in layers("mobilenet_v2") if la.name.endswith("depthwise")]
    assert len(depthwise) == 10
    assert all(p.groups == p.in_channels == p.out_channels for p in depthwise)


def test_resnet_strides_on_the_3x3() -> None:
    strided = [la.problem for la in layers("resnet50") if la.problem.stride == (2, 2)]
    kernels = sorted(p.kernel for p in strided)
    assert kernels == [(1, 1)] * 3 + [(3, 3)] * 3 + [(7, 7)]


def test_layer_list_grammar() -> None:
    text = f"# heading\n\n a: {SMALL}  # remark\nb.c: conv1d c1 i5 k1 f3\n"
    assert [(la.net, la.name) for la in parse_layers("net", text)] == [("net", "a"), ("net", "b.c")]


@pytest.mark.parametrize("line", ["no colon", "name:", ": conv1d c1 i5 k1 f3", "a: conv9d c1"])
def test_layer_list_errors_name_the_line(line: str) -> None:
    with pytest.raises(ValueError, match="net, line 2: "):
        parse_layers("net", f"a: {SMALL}\n{line}\n")


# ---- sampled truth -------------------------------------------------------------------------

PROBLEMS = [
    "conv1d n2 c4 i11 k6 f3 s2 p1 g2",
    "conv2d n2 c4 i7x9 k6 f3x2 s2x1 p1x0 d1x2 g2",
    "conv2d c3 i8x8 k4 f4x4 p1:2x2:1 reflect",
    "conv2d c3 i8x8 k4 f3x3 p2 replicate",
    "conv2d c4 i8x8 k4 f5x5 p2 circular g4",
    "conv3d c2 i4x5x6 k3 f2x3x3 p1",
]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("direction", ["forward", "backward_input", "backward_weight"])
@pytest.mark.parametrize("text", PROBLEMS)
def test_truth_agrees_with_the_reference(text: str, direction: str, data_format: str) -> None:
    problem = _core.ConvProblem.parse(text).replace(direction=direction, data_format=data_format)
    rng = np.random.default_rng(1)
    operands = truth.make_operands(problem, rng)
    values = truth.sampled_truth(problem, operands, rng, samples=10_000)
    result = reference_run(problem, operands)()
    assert result.shape == truth.result_shape(problem)
    assert values.values.size == result.size
    assert values.error(result) < 1e-13


@pytest.mark.parametrize("activation", sorted(truth.ACTIVATIONS))
def test_truth_of_an_epilogue(activation: str) -> None:
    word = "" if activation == "none" else activation
    problem = _core.ConvProblem.parse(f"{SMALL} bias residual channels_last {word}")
    assert has_epilogue(problem)
    rng = np.random.default_rng(2)
    operands = truth.make_operands(problem, rng)
    values = truth.sampled_truth(problem, operands, rng, samples=10_000)
    assert values.error(reference_run(problem, operands)()) < 1e-13


def test_truth_sees_errors_at_borders_and_anywhere_not_finite() -> None:
    problem = _core.ConvProblem.parse("conv2d c8 i40x40 k16 f3x3 p1")
    rng = np.random.default_rng(3)
    operands = truth.make_operands(problem, rng)
    values = truth.sampled_truth(problem, operands, rng)
    result = reference.conv2d(operands.first, operands.second, padding=1)
    assert values.error(result) < 1e-13
    corner = result.copy()
    corner[..., -1, -1] *= 1.01
    assert values.error(corner) > 1e-4
    lost = result.copy()
    lost[0, 7, 19, 23] = np.nan
    assert values.error(lost) == float("inf")


def test_truth_of_an_empty_batch() -> None:
    problem = _core.ConvProblem.parse(f"{SMALL} n0")
    rng = np.random.default_rng(4)
    operands = truth.make_operands(problem, rng)
    values = truth.sampled_truth(problem, operands, rng)
    assert values.error(np.empty(truth.result_shape(problem))) == 0.0


# ---- timing --------------------------------------------------------------------------------


class Clock:
    """Time that passes only in calls."""

    def __init__(self) -> None:
        self.now = 0.0

    def call(self, seconds: float) -> Callable[[], None]:
        """A call that lasts this long."""

        def run() -> None:
            self.now += seconds

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    monkeypatch.setattr(timing, "context_switches", lambda: 0)
    return clock


@pytest.mark.parametrize(("seconds", "repeats"), [(1e-5, 101), (4e-4, 3), (1e-3, 1), (0.2, 1)])
def test_a_stopwatch_repeats_short_calls(clock: Clock, seconds: float, repeats: int) -> None:
    watch = timing.Stopwatch(clock.call(seconds))
    watch.sample()
    assert watch.repeats == pytest.approx(repeats, abs=1)
    assert watch.seconds == pytest.approx(seconds)


def test_an_interrupted_first_call_does_not_pass_for_a_long_one(clock: Clock) -> None:
    lengths = iter([1e-3, 5e-3] + 10**4 * [1e-5])  # of the warm-up, of the first sample
    watch = timing.Stopwatch(lambda: clock.call(next(lengths))())
    assert watch.repeats == pytest.approx(101, abs=1)


def test_disturbed_samples_are_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = iter(range(1000))  # a switch between any two looks
    watch = timing.Stopwatch(lambda: None)
    watch.clean.clear()
    watch.disturbed.clear()
    monkeypatch.setattr(timing, "context_switches", lambda: next(switches))
    watch.sample()
    assert (len(watch.clean), len(watch.disturbed)) == (0, 1)
    monkeypatch.setattr(timing, "context_switches", lambda: 0)
    watch.sample()
    assert watch.seconds == watch.clean[0]


def test_measure_keeps_to_its_budget_even_if_always_disturbed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = iter(range(10**6))
    monkeypatch.setattr(timing, "context_switches", lambda: next(switches))
    watches = timing.measure([clock.call(1e-6), clock.call(2e-3)], budget=0.01)
    assert all(not watch.clean and watch.seconds > 0 for watch in watches)
    assert all(0.03 <= watch.spent < 0.033 for watch in watches)


# ---- benchmark and reports -----------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    text = f"a: {SMALL}\nb: conv2d c8 i8x8 k8 f3x3 p1 g8\n"
    found = parse_layers("one", text) + parse_layers("two", f"c: {SMALL}\n")
    benchmark = Benchmark(Settings(seconds=0.05), found)
    turns = list(benchmark.run())
    assert turns == [(what, la) for what in ("algorithms", REFERENCE) for la in found]
    assert len(turns) == benchmark.steps
    return benchmark.outcome


def test_benchmark_measures_every_supporting_algorithm(outcome: Outcome) -> None:
    for text, layer in ((SMALL, "a"), ("conv2d c8 i8x8 k8 f3x3 p1 g8", "b")):
        supported = {
            entry["name"]
            for entry in _core.algorithms(_core.ConvProblem.parse(text))
            if entry["supported"]
        }
        names = {record.algorithm for record in outcome.records if record.layer == layer}
        assert names == supported | {REFERENCE}


def test_records_are_consistent(outcome: Outcome) -> None:
    for record in outcome.records:
        problem = _core.ConvProblem.parse(record.problem)
        assert record.seconds > 0
        assert record.gflops == pytest.approx(problem.flops / record.seconds / 1e9)
        assert record.peak_share == pytest.approx(record.gflops * 1e9 / outcome.peaks["float32"])
        assert record.error < 1e-5
        assert (record.workspace_bytes is None) == (record.algorithm == REFERENCE)


def test_a_shared_shape_is_measured_once(outcome: Outcome) -> None:
    first = [record for record in outcome.records if record.layer == "a"]
    again = [record for record in outcome.records if record.layer == "c"]
    assert [replace(record, net="two", layer="c") for record in first] == again


@pytest.mark.parametrize("direction", ["backward_input", "backward_weight"])
def test_benchmark_of_gradients(direction: str) -> None:
    problem = _core.ConvProblem.parse(SMALL).replace(direction=direction)
    benchmark = Benchmark(Settings(seconds=0.02), [Layer("net", "a", problem)])
    assert list(benchmark.run())
    assert {record.algorithm for record in benchmark.outcome.records} > {REFERENCE}
    assert all(record.error < 1e-5 for record in benchmark.outcome.records)


def test_json_and_csv(outcome: Outcome, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    from convolith.bench import report

    report.write_json(tmp_path / "r.json", outcome.records)
    read = json.loads((tmp_path / "r.json").read_text())
    assert [Record(**entry) for entry in read] == outcome.records
    report.write_csv(tmp_path / "r.csv", outcome.records)
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [record.layer for record in outcome.records]
    assert float(rows[0]["seconds"]) == outcome.records[0].seconds


def rendered(*parts: Any) -> str:
    console = pytest.importorskip("rich.console").Console(width=150, record=True, quiet=False)
    with console.capture() as capture:
        console.print(*parts, soft_wrap=True)
    return str(capture.get())


def test_tables_and_conclusion(outcome: Outcome) -> None:
    pytest.importorskip("rich")
    from convolith.bench import report

    table = rendered(report.layer_table(outcome.records))
    for record in outcome.records:
        assert record.problem in table
        assert record.algorithm in table
    summary = rendered(report.net_table(outcome.records))
    assert "one" in summary
    assert "two" in summary
    line = report.conclusion(outcome)
    assert "ahead on" in line
    assert "of peak" in line
    assert "largest error" in line


def test_a_wrong_result_is_called_wrong(outcome: Outcome) -> None:
    pytest.importorskip("rich")
    from convolith.bench import report

    for error in (0.1, float("inf"), float("nan")):
        bad = replace(outcome.records[0], error=error)
        assert report.is_wrong(bad)
        assert "WRONG" in report.conclusion(replace(outcome, records=[bad]))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.5, "1.50 s"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 µs"), (0.000789, "789 µs")],
)
def test_format_seconds(seconds: float, text: str) -> None:
    pytest.importorskip("rich")
    from convolith.bench import report

    assert report.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (3 << 30, "3.0 GiB")],
)
def test_format_bytes(count: int | None, text: str) -> None:
    pytest.importorskip("rich")
    from convolith.bench import report

    assert report.format_bytes(count) == text


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot(outcome: Outcome, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    from convolith.bench import plots

    plots.draw(tmp_path / f"p.{suffix}", outcome)
    one = replace(outcome, records=[r for r in outcome.records if r.net == "two"])
    plots.draw(tmp_path / f"q.{suffix}", one)
    assert (tmp_path / f"p.{suffix}").stat().st_size > 5000
    assert (tmp_path / f"q.{suffix}").stat().st_size > 5000
