"""One picture of a network: what it learned first, what it makes of an image, what it looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convolith._arguments import Array
from convolith.autograd import no_grad
from convolith.nn import Conv2d, Module
from convolith.viz._ascent import maximized_input
from convolith.viz._capture import as_batch, data_format_of, layer_output, maps_of, module_named
from convolith.viz._draw import (
    DIVERGING,
    INK,
    SEQUENTIAL,
    Path,
    as_picture,
    bare,
    new_figure,
    saved,
    scale_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tiles = list[tuple[Array, dict[str, Any]] | None]  # with the scales of their colours; or a gap
MOST = 10  # tiles of a row


def overview(
    net: Module,
    image: Any,
    *,
    layer: str | None = None,
    classes: Sequence[str] | None = None,
    title: str | None = None,
    data_format: str | None = None,
    path: Path | None = None,
    **options: Any,
) -> Figure:
    """Three rows: the filters of a convolution, its maps of an image, and a picture of each class.

    Args:
        net: The network, which tells classes; it is run out of training.
        image: (channels, rows, columns), or with the channels last, as the network takes it.
        layer: The name of a Conv2d; None for the first.
        classes: Names of the classes, or None for their numbers.
        title: Over all, or None.
        data_format: Of images and maps; None for that of the network's first layer.
        path: A file to write, or None.
        options: Of `maximized_input`, but for shape; without start it begins with weak noise.

    Returns:
        A Figure, which notebooks show. At most ten filters, maps and classes are drawn.

    Raises:
        ValueError: No convolution of that name, or a network whose result is no vector.
    """
    layout = data_format_of(net, data_format)
    last = layout == "channels_last"
    if layer is None:
        found = [name for name, module in net.named_modules() if isinstance(module, Conv2d)]
        if not found:
            raise ValueError(f"{type(net).__name__} has no Conv2d; layer is None")
        layer = found[0]
    conv = module_named(net, layer)
    if not isinstance(conv, Conv2d):
        raise ValueError(f"layer {layer!r} is a {type(conv).__name__}; it must be a Conv2d")
    batch = as_batch(net, image)
    with no_grad():
        logits = layer_output(net, "", batch)
        maps = maps_of(layer_output(net, layer, batch), layer, last)[0][:MOST]
    if logits.ndim != 2:
        raise ValueError(f"net gives shape {logits.shape}; it must be (batch, classes)")
    names = [str(i) for i in range(logits.shape[1])] if classes is None else list(classes)
    if len(names) != logits.shape[1]:
        raise ValueError(f"classes has {len(names)} names; net has {logits.shape[1]} outputs")
    if options.get("start") is None:
        options = {**options, "start": None, "shape": batch.shape[1:]}

    def drawn(x: Array) -> tuple[Array, dict[str, Any]]:
        picture, colour = as_picture(x if last else np.moveaxis(x, 0, 2))
        return picture, {} if colour else scale_of(picture, False)

    filters = conv.weight.data[:MOST]
    first: Tiles
    if filters.shape[1] == 3:
        planes = [as_picture(np.moveaxis(f, 0, 2)) for f in filters]
        first = [None]
        first += [(picture, {}) for picture, _ in planes]
    else:
        scale = scale_of(filters[:, 0], True)
        first = [None, *[(f[0], scale) for f in filters]]  # over their maps
    signed = bool(maps.min() < 0)
    of_maps = scale_of(maps, signed)
    of_maps |= {"cmap": DIVERGING if signed else SEQUENTIAL}
    second: Tiles = [drawn(batch[0]), *[(plane, of_maps) for plane in maps]]
    third: Tiles = [
        drawn(maximized_input(net, "", i, data_format=layout, **options))
        for i in range(min(MOST, len(names)))
    ]
    called = f"layer {layer}" if layer.isdigit() else layer
    taken = names[int(logits.data[0].argmax())]
    rows: list[tuple[str, Tiles, list[str]]] = [
        (f"the filters of {called}", first, []),
        (f"an image, taken for {taken}, and what {called} makes of it", second, []),
        ("inputs that maximise each class", third, names),
    ]
    width = 7.2
    sides = [min(0.85, (width - 0.2) / len(tiles) - 0.05) for _, tiles, _ in rows]
    heights = [
        side + 0.25 + (0.16 if labels else 0)
        for side, (*_, labels) in zip(sides, rows, strict=True)
    ]
    figure = new_figure(width, sum(heights) + (0.3 if title else 0.05))
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    parts: Any = figure.subfigures(len(rows), 1, height_ratios=heights)
    for part, side, (text, tiles, labels) in zip(parts, sides, rows, strict=True):
        part.suptitle(text, fontsize=8, color=INK, x=0.01, ha="left")
        # As many columns as tiles of this side fill the width with.
        across = max(len(tiles), int((width - 0.2) / (side + 0.05)))
        grid = part.subplots(1, across, squeeze=False)[0]
        for i, axes in enumerate(grid):
            if i >= len(tiles) or (tile := tiles[i]) is None:
                axes.set_axis_off()
                continue
            picture, scale = tile
            axes.imshow(picture, interpolation="nearest", **scale)
            bare(axes)
            if labels:
                axes.set_title(labels[i], fontsize=7, pad=2, color=INK)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.0)  # type: ignore[union-attr, call-arg]
    return saved(figure, path)
