"""Figures and what they have in common: tiles, scales, files."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from convolith._arguments import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Path = str | PathLike[str]
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
INK = "#333333"
DPI = 120


def require_matplotlib(module: str = "matplotlib.figure") -> Any:
    """A module of matplotlib, imported when it is first needed.

    Args:
        module: Its full name.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'convolith[viz]'", name=error.name
        ) from error


_classes: dict[Any, Any] = {}


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """A figure without pyplot's state, which notebooks show.

    Args:
        width, height: In inches.
        layout: How matplotlib arranges what is in it; None leaves it.
    """
    base = require_matplotlib().Figure
    if base not in _classes:

        class Picture(base):  # type: ignore[misc, valid-type]
            """A Figure that notebooks show without pyplot."""

            def _repr_png_(self) -> bytes:
                buffer = io.BytesIO()
                self.savefig(buffer, format="png")
                return buffer.getvalue()

        _classes[base] = Picture
    figure: Figure = _classes[base](figsize=(width, height), dpi=DPI, layout=layout)
    return figure


def saved(figure: Figure, path: Path | None) -> Figure:
    """The figure, written to a file if there is a path.

    Args:
        figure: The figure.
        path: The file; its suffix chooses the format, PNG without one.

    Raises:
        ValueError: A format that matplotlib does not write.
        OSError: The file cannot be written.
    """
    if path is not None:
        target = fspath(path)
        known = figure.canvas.get_supported_filetypes()
        suffix = target.rpartition("/")[2].rpartition(".")
        form = suffix[2].lower() if suffix[1] else "png"
        if form not in known:
            raise ValueError(f"path is {target!r}; formats are {', '.join(sorted(known))}")
        figure.savefig(target, format=form)
    return figure


def columns_for(count: int, columns: int | None, aspect: float = 1.0) -> int:
    """How many tiles stand in a row: as asked, or as a picture a little wider than high has them.

    Args:
        count: Tiles.
        columns: As asked, or None.
        aspect: Height of a tile over its width.
    """
    if columns is not None:
        if columns < 1:
            raise ValueError(f"columns is {columns}; it must be at least 1")
        return min(columns, count)

    def badness(across: int) -> float:
        down = -(-count // across)
        shape = across / (down * aspect)
        return abs(math.log(shape / 1.6)) + 3 * (across * down - count) / count

    return min(range(1, count + 1), key=badness)


def scale_of(tiles: Array, signed: bool) -> dict[str, Any]:
    """Colours and limits of imshow: about 0 for signed numbers.

    Args:
        tiles: All numbers of a scale.
        signed: Whether 0 is the middle.
    """
    finite = tiles[np.isfinite(tiles)]
    if signed:
        most = float(np.abs(finite).max(initial=0)) or 1.0
        return {"cmap": DIVERGING, "vmin": -most, "vmax": most}
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return {"cmap": "gray", "vmin": low, "vmax": high if high > low else low + 1}


def as_picture(pixels: Array) -> tuple[Array, bool]:
    """What imshow takes: grey (rows, columns), or colour (rows, columns, 3) from 0 to 1.

    Args:
        pixels: (rows, columns, channels); of 1 or 3 channels, else their mean is grey.

    Returns:
        The picture, and whether it has colours.
    """
    if pixels.shape[2] != 3:
        return pixels.mean(2), False
    if pixels.dtype == np.uint8:
        return pixels, True
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels - low) / (high - low if high > low else 1.0), True


def bare(axes: Axes) -> None:
    """No ticks, and a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
        spine.set_color("#bbbbbb")


def tile_figure(
    tiles: Sequence[Array],
    *,
    title: str,
    labels: Sequence[str] | None = None,
    columns: int | None = None,
    tile: float | None = None,
    bar: str | None = None,
    per_tile: bool = False,
    **scale: Any,
) -> tuple[Figure, list[Axes]]:
    """A grid of pictures, pixels unblurred.

    Args:
        tiles: Grey (rows, columns) or colour (rows, columns, 3).
        title: Over all.
        labels: Over each.
        columns: Tiles of a row.
        tile: Inches of a tile's longer side.
        bar: What the colours mean, if a bar is to tell.
        per_tile: Each tile has a scale of its own, from its least to its greatest.
        scale: cmap, vmin, vmax of imshow.

    Returns:
        The figure, and the axes of the tiles.
    """
    count = len(tiles)
    rows_of, columns_of = tiles[0].shape[:2]
    aspect = rows_of / columns_of
    across = columns_for(count, columns, aspect)
    down = -(-count // across)
    side = tile if tile is not None else min(1.6, max(0.3, min(9.0 / across, 10.0 / down)))
    width, height = (side, side * aspect) if aspect <= 1 else (side / aspect, side)
    # Inches, from the top left; laid out here, for constrained layout is slow with many axes.
    edge, gap, between = 0.06, 0.06, 0.22 if labels else 0.06
    head = 0.12 + 0.17 * (1 + title.count("\n"))
    legend = 0.85 if bar and not per_tile else 0.0
    inner = across * (width + gap) - gap
    least = 0.09 * max(len(line) for line in title.split("\n")) + 0.2
    total = max(inner + legend + 2 * edge, least)
    left = (total - inner - legend) / 2
    body = down * (height + between) - (0 if labels else between)
    high = head + body + edge
    figure = new_figure(total, high, layout=None)
    figure.suptitle(title, fontsize=10, color=INK, y=1 - 0.06 / high, va="top")

    def place(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / total, 1 - (y + h) / high, w / total, h / high))

    used: list[Axes] = []
    image = None
    for i in range(count):
        row, column = divmod(i, across)
        top = head + row * (height + between) + (between if labels else 0)
        axes = place(left + column * (width + gap), top, width, height)
        options = dict(scale)
        if per_tile:
            options.pop("vmin", None)
            options.pop("vmax", None)
        image = axes.imshow(tiles[i], interpolation="nearest", **options)
        bare(axes)
        if labels:
            axes.set_title(labels[i], fontsize=7, pad=2, color=INK)
        used.append(axes)
    if legend and image is not None:
        room = min(body, 5.0)
        beside = place(left + inner + 0.12, head + 0.05 * room, 0.12, 0.9 * room)
        colours = figure.colorbar(image, cax=beside)
        colours.ax.tick_params(labelsize=7)
        colours.set_label(bar or "", fontsize=8)
    return figure, used
