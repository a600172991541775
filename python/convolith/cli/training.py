"""`convolith bench training`: a training step beside PyTorch's, a process each."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from convolith.bench.peers.comparison import OURS
from convolith.bench.training import LIBRARIES, TASKS
from convolith.bench.training.comparison import TrainingBenchmark
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


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "training",
        help="time a training step beside PyTorch's",
        description="Time forward, backward and update of a network in channels_last, from the "
        "same weights on the same images: medians over rounds in turns, each library in a process "
        "of its own, and the most memory that it had.",
    )
    parser.add_argument("--net", choices=TASKS, default="resnet50", help="(default: %(default)s)")
    parser.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="images in a step (default: "
        + ", ".join(f"{task.batch} for {name}" for name, task in TASKS.items())
        + ")",
    )
    add_threads(parser)
    parser.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=2.0,
        metavar="S",
        help="time of a library in a round (default: %(default).0f)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a record for each library")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure one network."""
    console = make_console()
    check_writable(arguments.json)
    task = TASKS[arguments.net]
    if arguments.batch:
        task = replace(task, batch=arguments.batch)
    report = require("convolith.bench.training.report", "bench")
    threads = thread_count(arguments.threads)
    interrupted = False
    with TrainingBenchmark(
        task, LIBRARIES, threads, arguments.rounds, arguments.seconds
    ) as benchmark:
        try:
            total = (arguments.rounds + 1) * len(LIBRARIES)
            for _ in progress(benchmark.run(), total, str):
                pass
        except KeyboardInterrupt:
            interrupted = True

    def say(text: str, style: str = "") -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False, style=style)

    rows = report.measured(benchmark)
    if rows:
        console.print(report.table(benchmark))
        versions = ", ".join(f"{name} {text}" for name, text in benchmark.versions.items())
        say(f"{versions}; {threads} threads, medians of {min(row.steps for row in rows)} steps.")
    for row in benchmark.results.values():
        if row.note:
            say(f"Note: {row.library}: {row.note}.")
    if sentence := report.conclusion(benchmark):
        say(sentence, style="bold")
    if rows and arguments.json:
        report.write_json(arguments.json, benchmark)
        say(f"Wrote {arguments.json}.")
    if interrupted:
        print("convolith bench training: interrupted", file=sys.stderr)
        return INTERRUPTED
    if note := benchmark.results[OURS].note:
        raise CliError(f"the library's own process: {note}")
    return 0
