"""`convolith bench --peers`: this library beside others, each in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convolith.bench.layers import Layer
from convolith.bench.peers import PEERS
from convolith.bench.peers.comparison import OURS, Comparison, Standing
from convolith.cli.errors import CliError, require

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
WRONG = 1

# Options that say how this library's algorithms are compared with one another.
OTHERS = {
    "algorithm": None,
    "data_format": None,
    "dtype": None,
    "reference": True,
    "prepack": True,
}


def check(arguments: argparse.Namespace) -> None:
    """CliError for a peer that is not known, or an option that does not go with --peers."""
    for name in arguments.peers:
        if name not in PEERS:
            raise CliError(f"--peers {name!r} is unknown; known: {', '.join(PEERS)}")
    for name, default in OTHERS.items():
        if getattr(arguments, name) != default:
            option = name.replace("_", "-")
            raise CliError(f"--{'no-' if default else ''}{option} does not go with --peers")
    if arguments.direction == "backward_weight":
        raise CliError("--direction backward_weight does not go with --peers")


def run(
    arguments: argparse.Namespace,
    layers: Sequence[Layer],
    threads: int,
    console: Console,
    progress: Callable[..., Any],
) -> int:
    """Compare on the layers; print, write and draw what was found."""
    report = require("convolith.bench.peers.report", "bench")
    peers = {name: PEERS[name] for name in dict.fromkeys(arguments.peers or PEERS)}
    interrupted = False
    with Comparison(layers, peers, threads, arguments.seconds) as comparison:
        try:
            for _ in progress(comparison.run(), len(layers), describe):
                pass
        except KeyboardInterrupt:
            interrupted = True
    standing = comparison.standing

    def say(text: str, style: str = "") -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False, style=style)

    timings = standing.timings
    if timings:
        wide = console.width >= report.ROOMY
        console.print(report.layer_table(timings, wide))
        console.print(report.net_table(timings))
        say(report.heading(standing))
    for note in standing.notes:
        say(f"Left out: {note}.")
    if timings:
        say(report.conclusion(standing), style="bold")
        if remark := report.disturbance(timings):
            say(remark)
        write(arguments, report, standing, say)
    if interrupted:
        done = len(timings and {(t.net, t.layer) for t in timings})
        print(f"convolith bench: interrupted after {done} of {len(layers)} layers", file=sys.stderr)
        return INTERRUPTED
    if OURS not in standing.versions:
        raise CliError("the library's own process did not start")
    return WRONG if any(report.is_wrong(t) for t in timings if t.library == OURS) else 0


def describe(layer: Layer) -> str:
    """What the progress bar says of a layer."""
    return f"{layer.net} {layer.name}"


def write(
    arguments: argparse.Namespace, report: Any, standing: Standing, say: Callable[[str], None]
) -> None:
    """The files that were asked for."""
    if arguments.json:
        report.write_json(arguments.json, standing)
    if arguments.csv:
        report.write_csv(arguments.csv, standing)
    if arguments.plot and report.summarize(report.rows_of(standing.timings)):
        require("convolith.bench.peers.plot", "bench").draw(arguments.plot, standing)
    written = [str(p) for p in (arguments.json, arguments.csv, arguments.plot) if p and p.exists()]
    if written:
        say(f"Wrote {', '.join(written)}.")
