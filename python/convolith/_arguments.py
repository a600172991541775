"""Spelling: what callers may write for an argument, turned into the one form the core takes.

Meaning (is this stride positive, does this kernel fit) is checked once, in the core.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = SupportsIndex | Sequence[SupportsIndex] | npt.NDArray[np.integer[Any]]
Padding = str | Ints | Sequence[Sequence[SupportsIndex]]
Activation = str | tuple[str, float] | None

_LAYOUTS = {
    "channels_first": ("channels_first", None),
    "channels_last": ("channels_last", None),
    "NCL": ("channels_first", 1),
    "NCHW": ("channels_first", 2),
    "NCDHW": ("channels_first", 3),
    "NLC": ("channels_last", 1),
    "NHWC": ("channels_last", 2),
    "NDHWC": ("channels_last", 3),
}
_PADDING_RULES = ("valid", "same", "same_lower")
_INT64_MAX = 2**63 - 1


def integer(value: object, name: str) -> int:
    """Whatever operator.index takes, but no bool; OverflowError beyond 64 bits."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is a bool; it must be an integer")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be an integer") from None
    if not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise OverflowError(f"{name} is {number}, which does not fit 64 bits")
    return number


def is_sequence(value: object) -> bool:
    """Whether a value has one entry per axis; 0-d arrays and strings do not."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return False
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence)


def integers(value: object, count: int, name: str) -> tuple[int, ...]:
    """One integer for every axis: an int or a 1-tuple serves all."""
    if not is_sequence(value):
        return (integer(value, name),) * count
    values = tuple(integer(item, name) for item in value)  # type: ignore[attr-defined]
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values {values}; it must have {count}")
    return values


def shape(value: object, name: str) -> tuple[int, ...]:
    """A shape: a sequence of integers."""
    if not is_sequence(value):
        raise TypeError(f"{name} is {value!r}; it must be a tuple of integers")
    extents = tuple(integer(item, name) for item in value)  # type: ignore[attr-defined]
    for extent in extents:
        if extent < 0:
            raise ValueError(f"{name} is {extents}; no extent may be negative")
    return extents


def padding(value: object, nd: int, name: str = "padding") -> str | tuple[tuple[int, int], ...]:
    """A rule by name, or one (before, after) pair for every axis."""
    if isinstance(value, str):
        if value not in _PADDING_RULES:
            raise ValueError(
                f"{name} is {value!r}; it must be integers, (before, after) pairs, "
                "'valid', 'same' or 'same_lower'"
            )
        return value
    if not is_sequence(value):
        amount = integer(value, name)
        return ((amount, amount),) * nd
    items = list(value)  # type: ignore[call-overload]
    if not any(is_sequence(item) for item in items):
        return tuple((amount, amount) for amount in integers(items, nd, name))
    pairs = []
    for item in items:
        if not is_sequence(item) or len(item) != 2:
            raise ValueError(f"{name} has the entry {item!r}; each axis takes (before, after)")
        pairs.append((integer(item[0], name), integer(item[1], name)))
    if len(pairs) == 1:
        pairs *= nd
    if len(pairs) != nd:
        raise ValueError(f"{name} has {len(pairs)} pairs; it must have {nd}")
    return tuple(pairs)


def data_format(value: object, nd: int) -> str:
    """'channels_first' or 'channels_last', from those or an alias of the right rank."""
    if not isinstance(value, str):
        raise TypeError(f"data_format is {value!r}; it must be a string")
    layout, rank = _LAYOUTS.get(value, (None, None))
    if layout is None:
        raise ValueError(f"data_format is {value!r}; it must be one of {', '.join(_LAYOUTS)}")
    if rank is not None and rank != nd:
        raise ValueError(f"data_format {value!r} is for {rank} spatial axes; this call has {nd}")
    return layout


def format_rank(value: object) -> int | None:
    """The number of spatial axes that a data_format tells: None unless it is an alias."""
    if not isinstance(value, str):
        raise TypeError(f"data_format is {value!r}; it must be a string")
    return _LAYOUTS.get(value, (None, None))[1]


def choice(value: object, name: str) -> str:
    """A name that the core will look up, which is ASCII: others may have no form in UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; it must be a string")
    if not value.isascii():
        raise ValueError(f"{name} is {value!r}, which is not the name of any")
    return value


def flag(value: object, name: str) -> bool:
    """True or False and nothing else."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def real(value: object, name: str) -> float:
    """A real number; bool, str and complex are TypeErrors."""
    if isinstance(value, (bool, np.bool_, str, bytes, complex)):
        raise TypeError(f"{name} is {value!r}; it must be a real number")
    try:
        return float(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be a real number") from None


def activation(value: object) -> tuple[str, float]:
    """The name of an activation and its slope, which leaky_relu alone reads."""
    default_slope = 0.01
    if value is None:
        return "none", default_slope
    if isinstance(value, str):
        if value == "none":
            raise ValueError("activation is 'none'; no activation is None")
        return choice(value, "activation"), default_slope
    if isinstance(value, tuple) and len(value) == 2 and value[0] == "leaky_relu":
        return "leaky_relu", real(value[1], "slope of leaky_relu")
    raise TypeError(f"activation is {value!r}; it must be None, a name or ('leaky_relu', slope)")
