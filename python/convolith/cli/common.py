"""What several commands share: options, the console, the progress bar."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import convolith
from convolith.cli.errors import CliError, require

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 150  # columns, where the output is no terminal
INTERRUPTED = 130

Step = TypeVar("Step")


def thread_count(threads: int | None) -> int:
    """Make the library use the threads asked for, if any; returns how many it uses."""
    if threads is not None:
        convolith.set_num_threads(threads)
    return convolith.get_num_threads()


def add_threads(group: Any) -> None:
    """Declare --threads."""
    group.add_argument(
        "--threads", type=positive, metavar="N", help="(default: the library's setting)"
    )


def positive(text: str) -> int:
    """An argument that is an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return value


def seconds(text: str) -> float:
    """An argument that is a positive, finite number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


def make_console() -> Console:
    """The console of the tables: as wide as the terminal, wide where there is none."""
    console = require("rich.console", "bench").Console
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return console()  # type: ignore[no-any-return]
    return console(width=WIDE)  # type: ignore[no-any-return]


def check_writable(path: Path | None) -> None:
    """CliError if the file cannot be written."""
    if path is None:
        return
    folder = path.parent
    if not folder.is_dir():
        raise CliError(f"cannot write {str(path)!r}: no folder {str(folder)!r}")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise CliError(f"cannot write {str(path)!r}")


def progress(steps: Iterator[Step], total: int, describe: Callable[[Step], str]) -> Iterator[Step]:
    """Show a progress bar on standard error while the steps go on."""
    rich = require("rich.progress", "bench")
    console = require("rich.console", "bench").Console(stderr=True)
    with rich.Progress(
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("measuring the machine's peak", total=total)
        for place, step in enumerate(steps):
            bar.update(task, completed=place, description=describe(step))
            yield step
