"""`convolith bench`: the algorithms against one another and against the machine's peak."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolith import _core
from convolith.bench.layers import NETS, Layer, parse_layers, problem_files
from convolith.bench.measure import REFERENCE, Benchmark, Settings, candidates
from convolith.bench.peak import PeakBenchmark
from convolith.bench.peers import PEERS
from convolith.bench.pools import pool_layers
from convolith.cli import peers, training
from convolith.cli.common import (
    INTERRUPTED,
    add_threads,
    check_writable,
    make_console,
    positive,
    progress,
    seconds,
    thread_count,
)
from convolith.cli.errors import CliError, require

if TYPE_CHECKING:
    pass

DESCRIPTION = """\
Time every algorithm on the distinct convolution layers of classic networks, beside the NumPy
reference where that ends in reasonable time: time, GFLOP/s, share of the measured FMA peak,
workspace, and the largest error against float64 at sampled outputs. Ctrl-C prints what was measured
so far.
"""
EPILOG = """\
examples:
  convolith bench
  convolith bench --net resnet50 --threads 1 --plot resnet50.png
  convolith bench --problem "conv2d n8 c64 i56x56 k64 f3x3 p1" --direction backward_weight
  convolith bench --net resnet50 --net operations --peers --plot peers.png
  convolith bench peak
  convolith bench training --net resnet50
"""
CUSTOM = "custom"
DIRECTIONS = ("forward", "backward_input", "backward_weight", "backward")
ROOMY = 125  # columns that a table with problems in text form takes

WRONG = 1


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="time the algorithms on the layers of classic networks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_layers)
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--net",
        action="append",
        metavar="NAME",
        help="a list of layers: a network, or operations (repeatable; default: every network)",
    )
    what.add_argument(
        "--problem", action="append", metavar="TEXT", help="a problem in text form (repeatable)"
    )
    what.add_argument(
        "--algorithm", action="append", metavar="NAME", help="an algorithm, or auto (repeatable)"
    )
    what.add_argument("--direction", choices=DIRECTIONS, help="backward: of --pool")
    what.add_argument("--batch", type=positive, metavar="N", help="batch size (default: 1)")
    what.add_argument("--data-format", choices=("channels_first", "channels_last"))
    what.add_argument("--dtype", choices=("float32", "float64"))
    what.add_argument(
        "--reference",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the NumPy reference where it ends soon",
    )
    what.add_argument(
        "--peers",
        nargs="*",
        metavar="NAME",
        help=f"instead: this library beside {', '.join(PEERS)} (default: all that are installed)",
    )
    what.add_argument(
        "--pool", action="store_true", help="instead: pooling layers of networks, beside torch"
    )
    how = parser.add_argument_group("how to measure")
    add_threads(how)
    how.add_argument(
        "--prepack",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="forward: pack the weights once, outside the time",
    )
    how.add_argument(
        "--seconds",
        type=seconds,
        default=Settings.seconds,
        metavar="S",
        help="time to spend on all layers together (default: %(default).0f)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write a list of records")
    output.add_argument("--csv", type=Path, metavar="FILE", help="write records as CSV")
    output.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw a roofline and bars (.png, .svg, .pdf)"
    )

    commands = parser.add_subparsers(metavar="peak | training", title="other measurements")
    training.add_parser(commands)
    peak = commands.add_parser(
        "peak",
        help="measure the FMA peak, the copy bandwidth and the GEMM's share of the peak",
        description="Measure the FMA peak, the copy bandwidth, and the share of the peak that the "
        "library's 1024 x 1024 x 1024 GEMM reaches: medians of interleaved rounds.",
    )
    add_threads(peak)
    peak.add_argument("--rounds", type=positive, default=7, metavar="N", help="(default: 7)")
    peak.add_argument("--json", type=Path, metavar="FILE", help="write a list of records")
    peak.set_defaults(run=run_peak)


def run_layers(arguments: argparse.Namespace) -> int:
    """Measure layers."""
    console = make_console()
    plots = load_plots(arguments.plot)
    for path in (arguments.json, arguments.csv, arguments.plot):
        check_writable(path)
    if arguments.peers is not None or arguments.pool:
        peers.check(arguments)
        if arguments.pool:
            cases: Sequence[Any] = pool_layers(arguments.direction == "backward")
        else:
            cases = select_layers(arguments)
        return peers.run(arguments, cases, thread_count(arguments.threads), console, progress)
    if arguments.direction == "backward":
        raise CliError("--direction backward goes with --pool alone")
    layers = select_layers(arguments)
    check_algorithms(arguments.algorithm or (), layers)
    settings = Settings(
        algorithms=tuple(dict.fromkeys(arguments.algorithm or ())),
        threads=thread_count(arguments.threads),
        reference=arguments.reference,
        prepack=arguments.prepack,
        seconds=arguments.seconds,
    )
    benchmark = Benchmark(settings, layers)
    interrupted = False
    try:
        for _ in progress(benchmark.run(), benchmark.steps, describe):
            pass
    except KeyboardInterrupt:
        interrupted = True

    from convolith.bench import report

    outcome = benchmark.outcome
    if outcome.records:
        console.print(report.layer_table(outcome.records, wide=console.width >= ROOMY))
        if len({record.net for record in outcome.records}) > 1:
            console.print(report.net_table(outcome.records))
        console.print(report.heading(outcome) + ".", soft_wrap=True, highlight=False)
        console.print(report.conclusion(outcome), soft_wrap=True, highlight=False, style="bold")
        if remark := report.disturbance(outcome):
            console.print(remark, soft_wrap=True, highlight=False)
        if arguments.json:
            report.write_json(arguments.json, outcome.records)
        if arguments.csv:
            report.write_csv(arguments.csv, outcome.records)
        if plots:
            plots.draw(arguments.plot, outcome)
        written = [str(p) for p in (arguments.json, arguments.csv, arguments.plot) if p]
        if written:
            console.print(f"Wrote {', '.join(written)}.", soft_wrap=True, highlight=False)
    if interrupted:
        done = sum(layer.problem in benchmark.measured for layer in layers)
        print(f"convolith bench: interrupted after {done} of {len(layers)} layers", file=sys.stderr)
        return INTERRUPTED
    return WRONG if any(report.is_wrong(record) for record in outcome.records) else 0


def describe(step: tuple[str, Layer]) -> str:
    """What the progress bar says of a step."""
    what, layer = step
    return f"{layer.net} {layer.name}" + (", NumPy reference" if what == REFERENCE else "")


def run_peak(arguments: argparse.Namespace) -> int:
    """Measure the machine."""
    console = make_console()
    check_writable(arguments.json)
    threads = sorted({1, thread_count(arguments.threads)})
    benchmark = PeakBenchmark(threads, arguments.rounds)
    interrupted = False
    try:
        total = benchmark.rounds * len(benchmark.quantities)
        for _ in progress(benchmark.run(), total, lambda quantity: quantity.what):
            pass
    except KeyboardInterrupt:
        interrupted = True

    from convolith.bench import report

    if any(quantity.rounds for quantity in benchmark.quantities):
        console.print(report.peak_table(benchmark))
        if benchmark.find("gemm", "float32", 1).rounds:
            console.print(
                report.peak_conclusion(benchmark), soft_wrap=True, highlight=False, style="bold"
            )
        if arguments.json:
            text = json.dumps(report.peak_records(benchmark), indent=1)
            arguments.json.write_text(text + "\n", encoding="utf-8")
    return INTERRUPTED if interrupted else 0


def load_plots(path: Path | None) -> Any:
    """The plotting module if a plot is wanted; CliError before the measurement, not after."""
    if path is None:
        return None
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise CliError(f"--plot writes .png, .svg or .pdf, got {str(path)!r}")
    require("matplotlib.figure", "bench")
    return require("convolith.bench.plots", "bench")


def select_layers(arguments: argparse.Namespace) -> list[Layer]:
    """The layers that the arguments ask for, with batch, direction, dtype and format applied."""
    layers = []
    if arguments.net or not arguments.problem:
        files = problem_files()
        for net in dict.fromkeys(arguments.net or NETS):
            if net not in files:
                raise CliError(f"--net {net!r} is unknown; known: {', '.join(files)}")
            layers += parse_layers(net, files[net])
    for place, text in enumerate(arguments.problem or (), start=1):
        problem = _core.ConvProblem.parse(text)
        if not problem.batch and not arguments.batch:
            raise CliError(f"--problem {text!r} has batch 0: nothing to time")
        layers.append(Layer(CUSTOM, f"problem {place}", problem))
    changes = {
        name: value
        for name in ("batch", "direction", "dtype", "data_format")
        if (value := getattr(arguments, name)) is not None
    }
    return [replace(layer, problem=layer.problem.replace(**changes)) for layer in layers]


def check_algorithms(names: Sequence[str], layers: Sequence[Layer]) -> None:
    """CliError if an algorithm does not exist or serves none of the layers."""
    entries = _core.algorithms(layers[0].problem)
    known = [entry["name"] for entry in entries]
    for name in names:
        if name not in (*known, "auto"):
            raise CliError(f"--algorithm {name!r} is unknown; known: auto, {', '.join(known)}")
        if not any(candidates(layer.problem, [name], 0) for layer in layers):
            reason = next(entry["reason"] for entry in entries if entry["name"] == name)
            raise CliError(f"--algorithm {name} supports none of the layers: {reason}")
