"""`convolith info`: what was built, and what runs here."""

from __future__ import annotations

import argparse
from typing import Any

import convolith


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "info",
        help="version, compiler, instruction sets, threads",
        description="Print the version, compiler, instruction sets, threads and OpenMP runtime.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print show_config()."""
    convolith.show_config()
    return 0
