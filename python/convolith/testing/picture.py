"""Where an error sits: in words, as characters, and as an image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ROWS, COLUMNS = 16, 64


def axis_names(rank: int, ndim: int, data_format: str) -> tuple[str, ...]:
    """Names of a result's axes."""
    spatial = {1: ("column",), 2: ("row", "column"), 3: ("slice", "row", "column")}.get(rank, ())
    if ndim == rank + 2:
        return (
            ("sample", *spatial, "channel")
            if data_format == "channels_last"
            else (
                "sample",
                "channel",
                *spatial,
            )
        )
    return tuple(f"axis {axis}" for axis in range(ndim))


def describe(wrong: Array, names: Sequence[str]) -> str:
    """Which part of the result is wrong, axis by axis."""
    count = int(np.count_nonzero(wrong))
    parts = []
    for axis, name in enumerate(names):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        hit = np.flatnonzero(wrong.any(axis=others))
        n = wrong.shape[axis]
        if n > 1 and hit.size < n:
            parts.append(f"{name} {_indices(hit, n)} of {n}")
    where = f": {', '.join(parts)}" if parts else ""
    return f"{count} of {wrong.size} elements are wrong{where}"


def _indices(hit: Array, n: int) -> str:
    if hit.size == 1:
        last = " (the last)" if hit[0] == n - 1 else ""
        return f"{hit[0]}{last}"
    steps = np.diff(hit)
    if np.all(steps == 1):
        return f"{hit[0]}..{hit[-1]}" + (" (the last)" if hit[-1] == n - 1 else "")
    if steps.size > 1 and np.all(steps == steps[0]):
        return f"{hit[0]}, {hit[1]}, .. {hit[-1]}"
    return ", ".join(map(str, hit[:6])) + (", .." if hit.size > 6 else "")


def plane_of(error: Array, wrong: Array) -> tuple[Array, Array, tuple[int, ...]]:
    """The 2-D plane of the last axes with the most wrong elements, and the index of it."""
    if error.ndim < 2:
        return error.reshape(1, -1), wrong.reshape(1, -1), ()
    lead = error.shape[:-2]
    flat_error = error.reshape(math.prod(lead), *error.shape[-2:])
    flat_wrong = wrong.reshape(flat_error.shape)
    place = int(np.argmax(flat_wrong.sum(axis=(1, 2))))
    index = tuple(int(i) for i in np.unravel_index(place, lead)) if lead else ()
    return flat_error[place], flat_wrong[place], index


def spatial_last(array: Array, rank: int, data_format: str) -> Array:
    """Channels first, so that the last axes are those of a picture."""
    if data_format == "channels_last" and rank and array.ndim == rank + 2:
        return np.moveaxis(array, -1, 1)
    return array


def draw(error: Array, wrong: Array, nonfinite: Array) -> str:
    """Characters for a plane of errors in units of the bound.

    . is right, 1 to 9 are powers of ten, # is more, N not finite.
    """
    shape = wrong.shape
    rows = _cuts(shape[0], ROWS)
    columns = _cuts(shape[1], COLUMNS)
    lines = []
    for top, bottom in rows:
        line = ""
        for left, right in columns:
            block = (slice(top, bottom), slice(left, right))
            line += _character(error[block], wrong[block], nonfinite[block])
        lines.append("  " + line)
    note = "" if shape[0] <= ROWS and shape[1] <= COLUMNS else " (each character is a block)"
    return "\n".join([f"  {shape[0]} x {shape[1]}{note}", *lines])


def _character(error: Array, wrong: Array, nonfinite: Array) -> str:
    if not wrong.any():
        return "."
    if (wrong & nonfinite).any():
        return "N"
    most = float(error[wrong].max())
    if not math.isfinite(most) or most >= 1e9:
        return "#"
    return str(max(1, math.ceil(math.log10(max(most, 1.0)))))


def _cuts(n: int, most: int) -> list[tuple[int, int]]:
    parts = min(n, most)
    edges = [n * i // max(parts, 1) for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def save_png(path: Path, plane: Array, title: str) -> bool:
    """Draw a plane of errors in units of the bound; False where there is no matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    shown = np.where(np.isfinite(plane), plane, np.nan)
    image = axes.imshow(np.log10(np.maximum(shown, 1e-3)), cmap="magma", interpolation="nearest")
    figure.colorbar(image, label="log10 of error / bound (white: not finite)")
    axes.set_title(title, fontsize=8, wrap=True)
    figure.savefig(path)
    return True
