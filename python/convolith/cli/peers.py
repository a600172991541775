"""`convolith bench --peers` and `--pool`: this library beside others, a process each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convolith.bench.peers import PEERS
from convolith.bench.peers.comparison import OURS, Case, Comparison, Standing
from convolith.cli.errors import CliError, require

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
WRONG = 1
POOLING_PEER = "torch"

# Defaults of options that compare this library's algorithms with one another, and of those that
# choose convolutions and what to compare them with: pooling has its own.
OTHERS = {"algorithm": None, "data_format": None, "dtype": None, "reference": True, "prepack": True}
CHOICES = {"net": None, "problem": None, "batch": None, "peers": None}


def check(arguments: argparse.Namespace) -> None:
    """CliError for a peer that is not known, or for options that do not go together."""
    mode, others = ("--pool", {**OTHERS, **CHOICES}) if arguments.pool else ("--peers", OTHERS)
    for name, default in others.items():
        if getattr(arguments, name) != default:
            option = name.replace("_", "-")
            raise CliError(f"--{'no-' if default else ''}{option} does not go with {mode}")
    refused = ("backward_weight", "backward_input") if arguments.pool else ("backward",)
    if arguments.direction in refused:
        raise CliError(f"--direction {arguments.direction} does not go with {mode}")
    for name in arguments.peers or ():
        if name not in PEERS:
            raise CliError(f"--peers {name!r} is unknown; known: {', '.join(PEERS)}")


def run(
    arguments: argparse.Namespace,
    layers: Sequence[Case],
    threads: int,
    console: Console,
    progress: Callable[..., Any],
) -> int:
    """Compare on the layers; print, write and draw what was found."""
    report = require("convolith.bench.peers.report", "bench")
    names = [POOLING_PEER] if arguments.pool else dict.fromkeys(arguments.peers or PEERS)
    peers = {name: PEERS[name] for name in names}
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
        console.print(report.layer_table(timings, wide=console.width >= report.ROOMY))
        console.print(report.net_table(timings))
        say(f"{report.heading(standing)}.")
    for note in standing.notes:
        say(f"Note: {note}.")
    if timings:
        say(report.conclusion(standing), style="bold")
        if remark := report.disturbance(timings):
            say(remark)
        write(arguments, standing, say)
    if interrupted:
        done = len({(timing.net, timing.layer) for timing in timings})
        print(f"convolith bench: interrupted after {done} of {len(layers)} layers", file=sys.stderr)
        return INTERRUPTED
    if OURS not in standing.versions:
        raise CliError("the library's own process did not start")
    return WRONG if any(report.is_wrong(t) for t in timings if t.library == OURS) else 0


def describe(layer: Case) -> str:
    """What the progress bar says of a layer."""
    return f"{layer.net} {layer.name}"


def write(arguments: argparse.Namespace, standing: Standing, say: Callable[[str], None]) -> None:
    """The files that were asked for; no picture where there is no ratio to draw."""
    report = require("convolith.bench.peers.report", "bench")
    written = []
    if arguments.json:
        report.write_json(arguments.json, standing)
        written.append(str(arguments.json))
    if arguments.csv:
        report.write_csv(arguments.csv, standing)
        written.append(str(arguments.csv))
    if arguments.plot and report.summarize(report.rows_of(standing.timings)):
        require("convolith.bench.peers.plot", "bench").draw(arguments.plot, standing)
        written.append(str(arguments.plot))
    if written:
        say(f"Wrote {', '.join(written)}.")
