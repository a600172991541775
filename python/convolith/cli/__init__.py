"""The command line: `convolith info | bench | check | train | look | filter`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from convolith.cli import bench, check, filter, info, look, train
from convolith.cli.errors import CliError

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command sets `run`, which takes the arguments."""
    parser = Parser(prog="convolith", description="Fast convolutions for NumPy arrays.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in (info, bench, check, train, look, filter):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: success; 1: a result was wrong; 2: an error, told in one line; 130: Ctrl-C.
    """
    arguments = make_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader is gone, as in `convolith bench | head`: let the last flush at exit succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        problem = f"out of memory: {error}" if str(error) else "out of memory"
    except (CliError, ValueError, OverflowError, OSError) as error:
        problem = str(error)
    print(f"convolith {arguments.command}: error: {problem}", file=sys.stderr)
    return 2
