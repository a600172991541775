"""The images that excite a unit most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convolith import _arguments
from convolith.autograd import no_grad
from convolith.nn import Module
from convolith.viz._capture import (
    as_batches,
    check_unit,
    data_format_of,
    layer_output,
    maps_of,
)
from convolith.viz._draw import (
    Path,
    as_picture,
    require_matplotlib,
    saved,
    scale_of,
    tile_figure,
)
from convolith.viz._receptive_field import receptive_field

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOX = "#D55E00"


@dataclass(frozen=True)
class Excitation:
    """How an image excites a unit.

    Attributes:
        image: Its number.
        value: The greatest number in the unit's map, before the activation of its layer.
        position: Row and column of that number; (0, 0) for a unit without a map.
    """

    image: int
    value: float
    position: tuple[int, int]


def most_exciting(
    net: Module,
    layer: str,
    unit: int,
    images: Any,
    count: int = 9,
    *,
    batch: int = 64,
    data_format: str | None = None,
) -> list[Excitation]:
    """The images whose greatest activation of a unit is the greatest, in falling order.

    Args:
        net: The network; it is run out of training.
        layer: A name of `net.named_modules()`; "" for the network's own result, its classes.
        unit: The number of a map, or of an element of a vector.
        images: (count, channels, rows, columns), or with the channels last.
        count: At most so many; of equals the first come first.
        batch: Images of a call.
        data_format: Of images and maps; None for that of the network's first layer.

    Raises:
        ValueError: No such layer or unit, or images of another shape.
    """
    pixels = as_batches(net, images)
    for name, number in (("count", count), ("batch", batch)):
        if _arguments.integer(number, name) < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")
    last = data_format_of(net, data_format) == "channels_last"
    values, places, width = [], [], 1
    with no_grad():
        for first in range(0, len(pixels), batch):
            part = np.ascontiguousarray(pixels[first : first + batch])
            result = layer_output(net, layer, part, before_activation=True)
            maps = maps_of(result, layer, last)
            flat = maps[:, check_unit(unit, maps.shape[1], layer)].reshape(len(part), -1)
            width = maps.shape[3]
            places.append(flat.argmax(1))
            values.append(flat.max(1))
    best, where = np.concatenate(values), np.concatenate(places)
    order = np.argsort(-best, kind="stable")[:count]
    return [
        Excitation(int(i), float(best[i]), (int(where[i]) // width, int(where[i]) % width))
        for i in order
    ]


def exciting_images(
    net: Module,
    layer: str,
    unit: int | Sequence[int],
    images: Any,
    *,
    count: int = 9,
    batch: int = 64,
    title: str | None = None,
    data_format: str | None = None,
    path: Path | None = None,
) -> Figure:
    """The images that excite a unit most, with what it sees of each in a box.

    The box is the receptive field of the place of the greatest activation, as `receptive_field`
    has it. Source: Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV
    2014, figure 2.

    Args:
        net: The network; it is run out of training.
        layer: A name of `net.named_modules()`; "" for the network's own result, its classes.
        unit: The number of a map or of an element of a vector, or several, each in a row.
        images: (count, channels, rows, columns), or with the channels last.
        count: Images for each unit.
        batch: Images of a call.
        title: Over the images; None for one that tells layer and unit.
        data_format: Of images and maps; None for that of the network's first layer.
        path: A file to write, or None.

    Returns:
        A Figure, which notebooks show; over every image, its number and the activation.

    Raises:
        ValueError: No such layer or unit, or images of another shape.
    """
    rectangle = require_matplotlib("matplotlib.patches").Rectangle
    layout = data_format_of(net, data_format)
    several = _arguments.is_sequence(unit)
    units: list[int] = list(unit) if several else [unit]  # type: ignore[arg-type, list-item]
    if not units:
        raise ValueError("unit is empty; it must name a unit or several")
    pixels = as_batches(net, images)
    tiles, labels, boxes = [], [], []
    grey = True
    for number in units:
        found = most_exciting(net, layer, number, pixels, count, batch=batch, data_format=layout)
        for one in found:
            image = pixels[one.image]
            field = receptive_field(net, layer, image, one.position, data_format=layout)
            shown = image if layout == "channels_last" else np.moveaxis(image, 0, 2)
            picture, colour = as_picture(shown)
            grey = grey and not colour
            tiles.append(picture)
            boxes.append(field)
            head = f"unit {number}, " if several else ""
            labels.append(f"{head}#{one.image}: {one.value:.3g}")
    text = title or (
        f"images that excite {layer or type(net).__name__} most"
        if several
        else f"images that excite unit {units[0]} of {layer or type(net).__name__} most"
    )
    figure, axes = tile_figure(
        tiles,
        title=text,
        labels=labels,
        columns=len(tiles) // len(units) if several else None,
        tile=1.2 if several else 1.4,
        **(scale_of(np.stack(tiles), False) if grey else {}),
    )
    for one_axes, (rows, columns) in zip(axes, boxes, strict=True):
        one_axes.add_patch(
            rectangle(
                (columns.start - 0.5, rows.start - 0.5),
                columns.stop - columns.start,
                rows.stop - rows.start,
                fill=False,
                edgecolor=BOX,
                linewidth=1.6,
            )
        )
    return saved(figure, path)
