"""One typed definition, three public functions: the 1-D, 2-D and 3-D variants of an operation."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_WORDS = {
    "{rank}": ("1", "2", "3"),
    "{spatial}": ("length", "height, width", "depth, height, width"),
}


def for_ranks(
    name: str, function: Callable[Concatenate[int, P], R]
) -> tuple[Callable[P, R], Callable[P, R], Callable[P, R]]:
    """Bind the spatial rank, the first parameter of `function`, to 1, 2 and 3.

    "{rank}" in `name`, and "{rank}" and "{spatial}" in the docstring, are filled in.
    """
    signature = inspect.signature(function)
    without_rank = signature.replace(parameters=list(signature.parameters.values())[1:])

    def bind(rank: int) -> Callable[P, R]:
        @functools.wraps(function)
        def bound(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(rank, *args, **kwargs)

        doc = inspect.getdoc(function) or ""
        for placeholder, words in _WORDS.items():
            doc = doc.replace(placeholder, words[rank - 1])
        bound.__doc__ = doc
        bound.__name__ = bound.__qualname__ = name.replace("{rank}", str(rank))
        bound.__module__ = "convolith"
        bound.__signature__ = without_rank  # type: ignore[attr-defined]
        del bound.__wrapped__
        return bound

    return bind(1), bind(2), bind(3)
