"""Errors of the command line."""

from __future__ import annotations

import importlib
from typing import Any


class CliError(Exception):
    """A mistake of the user's or the machine's, told in one line without a traceback."""


def require(module: str, extra: str) -> Any:
    """Import an optional module; CliError names the extra that brings what is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if missing.partition(".")[0] == "convolith":
            raise
        raise CliError(f"{missing} is not installed: pip install 'convolith[{extra}]'") from error
