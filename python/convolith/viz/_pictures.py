"""Pictures of what is there: weights, maps, counts, curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np

from convolith import _arguments
from convolith._arguments import Array
from convolith.autograd import no_grad
from convolith.nn import Module
from convolith.viz._capture import as_batch, data_format_of, layer_output, maps_of
from convolith.viz._draw import (
    INK,
    SEQUENTIAL,
    Path,
    new_figure,
    saved,
    scale_of,
    tile_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TILES = 256


def filters(
    weight: Any, *, columns: int | None = None, title: str | None = None, path: Path | None = None
) -> Figure:
    """The filters of a convolution as tiles.

    Filters of 3 input channels are in colour, each stretched from its least number to its greatest,
    as in Krizhevsky, Sutskever & Hinton, NIPS 2012, figure 3. Of others every input channel is a
    tile, a row for each filter, in colours about 0: red is positive, blue negative.

    Args:
        weight: (out_channels, in_channels, rows, columns), an array or a Tensor.
        columns: Tiles of a row; None chooses, and is the number of input channels where a filter
            has several tiles.
        title: Over the tiles; None for one that tells the shape.
        path: A file to write, or None.

    Returns:
        A Figure, which notebooks show. At most 256 tiles are drawn, and the title tells.

    Raises:
        ValueError: A weight of another shape.
    """
    array = np.asarray(weight)
    if array.ndim != 4 or not array.size:
        raise ValueError(
            f"weight has shape {array.shape}; filters in two dimensions have four axes"
        )
    count, channels, rows, width = array.shape
    text = title or f"{count} filters {rows}x{width}"
    if title is None and channels > 1:
        text += f" of {channels} channels"
    if channels == 3:
        moved = np.moveaxis(array, 1, 3)[:MOST_TILES]
        low = moved.min(axis=(1, 2, 3), keepdims=True)
        spread = moved.max(axis=(1, 2, 3), keepdims=True) - low
        tiles = (moved - low) / np.where(spread > 0, spread, 1)
        text += _more(len(tiles), count)
        figure, _ = tile_figure(list(tiles), title=text, columns=columns)
        return saved(figure, path)
    tiles = array.reshape(-1, rows, width)[:MOST_TILES]
    if channels > 1:
        columns = columns or channels
        text += ", a row for each" if columns == channels else ""
    text += _more(len(tiles), count * channels)
    figure, _ = tile_figure(
        list(tiles), title=text, columns=columns, bar="weight", **scale_of(tiles, True)
    )
    return saved(figure, path)


def _more(shown: int, count: int) -> str:
    return f" (the first {shown} of {count} tiles)" if shown < count else ""


def activations(
    net: Module,
    image: Any,
    layer: str,
    *,
    columns: int | None = None,
    title: str | None = None,
    data_format: str | None = None,
    path: Path | None = None,
) -> Figure:
    """What a layer makes of an image: its maps as a grid, all on one scale.

    Maps without a negative number are bright where they are great; others are in colours about 0.
    Source: Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014.

    Args:
        net: The network; it is run out of training.
        image: (channels, rows, columns), or with the channels last, as the network takes it.
        layer: A name of `net.named_modules()`, such as "conv1".
        columns: Maps of a row; None chooses.
        title: Over the maps; None for one that tells the layer.
        data_format: Of images and maps; None for that of the network's first layer.
        path: A file to write, or None.

    Returns:
        A Figure, which notebooks show. At most 256 maps are drawn. The result of a layer without
        maps, such as a linear one, is drawn as bars.

    Raises:
        ValueError: There is no such layer, or its result is neither maps nor vectors.
    """
    last = data_format_of(net, data_format) == "channels_last"
    with no_grad():
        maps = maps_of(layer_output(net, layer, as_batch(net, image)), layer, last)[0]
    units, rows, width = maps.shape
    text = title or f"{layer or type(net).__name__}: {units} maps {rows}x{width}"
    if rows == width == 1:
        figure = new_figure(max(4.0, min(12.0, 0.12 * units + 1)), 2.6)
        axes = figure.subplots()
        axes.bar(np.arange(units), maps[:, 0, 0], color="#0072B2", width=0.8)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set_xlabel("unit")
        axes.set_ylabel("activation")
        axes.set_title(title or f"{layer or type(net).__name__}: {units} units", fontsize=10)
        axes.margins(x=0.01)
        if units <= 20:
            axes.set_xticks(np.arange(units))
        return saved(figure, path)
    shown = maps[:MOST_TILES]
    scale = scale_of(shown, bool(shown.min() < 0))
    if scale["cmap"] == "gray":
        scale |= {"cmap": SEQUENTIAL, "vmin": 0.0, "vmax": max(scale["vmax"], 1e-30)}
    figure, _ = tile_figure(
        list(shown),
        title=text + _more(len(shown), units),
        labels=[str(i) for i in range(len(shown))],
        columns=columns,
        bar="activation",
        **scale,
    )
    return saved(figure, path)


def templates(
    linear_weight: Any,
    shape: Sequence[int],
    *,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """The template of each output of a linear layer: its weights, laid out as the inputs are.

    An output is the inner product of its template and the input. One channel is in colours about 0:
    red speaks for the class, blue against it. Three channels are in colour, each template stretched
    from its least number to its greatest.

    Args:
        linear_weight: (outputs, inputs), an array or a Tensor.
        shape: How the inputs are laid out: (rows, columns), or (channels, rows, columns).
        classes: Names of the outputs; None numbers them.
        columns: Templates of a row; None chooses.
        title: Over the templates; None for one that tells the shape.
        path: A file to write, or None.

    Returns:
        A Figure, which notebooks show. Of another number of channels than 1 and 3, the sum over
        the channels is drawn. At most 256 templates are drawn.

    Raises:
        ValueError: A weight that is no matrix, or whose rows do not have that shape.
    """
    array = np.asarray(linear_weight)
    extents = _arguments.shape(shape, "shape")
    if array.ndim != 2 or not array.size:
        raise ValueError(f"linear_weight has shape {array.shape}; it must be (outputs, inputs)")
    if len(extents) not in (2, 3):
        raise ValueError(f"shape is {extents}; it must be (rows, columns), maybe after channels")
    if math.prod(extents) != array.shape[1]:
        raise ValueError(
            f"shape is {extents}, {math.prod(extents)} elements; linear_weight has "
            f"{array.shape[1]} inputs"
        )
    count = array.shape[0]
    names = [str(i) for i in range(count)] if classes is None else list(classes)
    if len(names) != count:
        raise ValueError(f"classes has {len(names)} names; linear_weight has {count} outputs")
    planes = array.reshape(count, *([1] if len(extents) == 2 else []), *extents)[:MOST_TILES]
    text = title or f"{count} templates {extents[-2]}x{extents[-1]}"
    text += _more(len(planes), count)
    if planes.shape[1] == 3:
        colours = np.moveaxis(planes, 1, 3)
        low = colours.min(axis=(1, 2, 3), keepdims=True)
        spread = colours.max(axis=(1, 2, 3), keepdims=True) - low
        tiles = (colours - low) / np.where(spread > 0, spread, 1)
        figure, _ = tile_figure(list(tiles), title=text, labels=names, columns=columns)
        return saved(figure, path)
    tiles = planes.sum(1)
    figure, _ = tile_figure(
        list(tiles),
        title=text,
        labels=names,
        columns=columns,
        bar="weight",
        **scale_of(tiles, True),
    )
    return saved(figure, path)


# ---- confusion ---------------------------------------------------------------------------------


def confusion_counts(targets: Any, predictions: Any, classes: int) -> Array:
    """How often each class (row) was taken for each class (column).

    Args:
        targets: Integers from 0, (count,): what the images show.
        predictions: Integers from 0, (count,): what they were taken for.
        classes: How many there are.

    Returns:
        int64 (classes, classes).

    Raises:
        ValueError: Shapes that differ, or numbers that are no class.
    """
    pair = []
    for name, given in (("targets", targets), ("predictions", predictions)):
        labels = np.asarray(given)
        if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
            raise ValueError(
                f"{name} has shape {labels.shape} and dtype {labels.dtype}; it must be a vector of "
                "integers"
            )
        if labels.size and (labels.min() < 0 or labels.max() >= classes):
            bad = labels.min() if labels.min() < 0 else labels.max()
            raise ValueError(f"{name} has {bad}; the classes are 0 to {classes - 1}")
        pair.append(labels.astype(np.intp))
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"targets has {len(pair[0])} elements and predictions {len(pair[1])}")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (pair[0], pair[1]), 1)
    return counts


def confusion_matrix(
    targets: Any,
    predictions: Any,
    classes: int | Sequence[str],
    *,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """How often each class was taken for each class, as counts in a square.

    A cell is as dark as its share of the row, the images of one class.

    Args:
        targets: Integers from 0, (count,): what the images show.
        predictions: Integers from 0, (count,): what they were taken for.
        classes: Names of the classes, or how many there are.
        title: Over the square; None for the accuracy.
        path: A file to write, or None.

    Returns:
        A Figure, which notebooks show.

    Raises:
        ValueError: Shapes that differ, or numbers that are no class.
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
    counts = confusion_counts(targets, predictions, len(names))
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    longest = max((len(name) for name in names), default=1)
    side = max(3.4, 0.42 * len(names) + 0.9 + 0.06 * longest)
    figure = new_figure(side + 0.3, side + 0.3)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                dark = shares[row, column] > 0.55
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=8 if counts.max() < 1000 else 6,
                    color="white" if dark else INK,
                )
    if len(names) <= 60:
        turned = 90 if longest > 3 else 0
        axes.set_xticks(range(len(names)), names, rotation=turned, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel("taken for", fontsize=9)
    axes.set_ylabel("shown", fontsize=9)
    right, seen = int(counts.trace()), int(counts.sum())
    accuracy = f"{right} of {seen} right, {100 * right / max(1, seen):.2f} %"
    axes.set_title(title or accuracy, fontsize=10, color=INK)
    return saved(figure, path)


# ---- curves ------------------------------------------------------------------------------------

_SERIES = ("loss", "accuracy", "test_accuracy")
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")


def read_log(log: Any) -> dict[str, list[dict[str, Any]]]:
    """The epochs of each network of a log.

    Args:
        log: A file that `convolith train --json` wrote, or its records: mappings or
            `train.Epoch` values.

    Returns:
        Records in the order of the log, by the network's name.

    Raises:
        ValueError: A line that is no record of an epoch; the message names it.
        OSError: The file cannot be read.
    """
    records: Iterable[Any]
    where = "log"
    if isinstance(log, (str, PathLike)):
        where = fspath(log)
        text = FilePath(log).read_text(encoding="utf-8", errors="replace")
        records = [line for line in text.splitlines() if line.strip()]
    else:
        records = list(log)
    runs: dict[str, list[dict[str, Any]]] = {}
    for number, record in enumerate(records, 1):
        try:
            entry = json.loads(record) if isinstance(record, str) else record
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: record {number} is not JSON: {error}") from None
        entry = entry if isinstance(entry, Mapping) else getattr(entry, "__dict__", {})
        missing = [
            name
            for name in ("epoch", *_SERIES)
            if isinstance(entry.get(name), bool) or not isinstance(entry.get(name), (int, float))
        ]
        if missing:
            raise ValueError(f"{where}: record {number} lacks the number {missing[0]!r}")
        runs.setdefault(str(entry.get("net", "network")), []).append(dict(entry))
    if not runs:
        raise ValueError(f"{where} has no records")
    return runs


def training_curves(log: Any, *, title: str | None = None, path: Path | None = None) -> Figure:
    """Loss and error by epoch, of every network in the log.

    The error, the share of images that are told wrong, is in percent; it is drawn for the images
    that were learned (dashed; as they were seen, in training) and for those held out.

    Args:
        log: A file that `convolith train --json` wrote, or its records: mappings or `train.Epoch`
            values, such as `Trainer.history`.
        title: Over the curves, or None.
        path: A file to write, or None.

    Returns:
        A Figure, which notebooks show.

    Raises:
        ValueError: A line that is no record of an epoch.
        OSError: The file cannot be read.
    """
    runs = read_log(log)
    figure = new_figure(8.4, 3.4)
    losses, errors = figure.subplots(1, 2)
    for i, (name, epochs) in enumerate(runs.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        at = [epoch["epoch"] for epoch in epochs]
        marker = {"marker": "o", "markersize": 3, "color": colour, "linewidth": 1.4}
        losses.plot(at, [epoch["loss"] for epoch in epochs], label=name, **marker)
        held_out = [100 * (1 - epoch["test_accuracy"]) for epoch in epochs]
        learned = [100 * (1 - epoch["accuracy"]) for epoch in epochs]
        errors.plot(at, held_out, label=f"{name}, held out", **marker)
        errors.plot(
            at, learned, label=f"{name}, training", color=colour, linewidth=1, linestyle="--"
        )
    integers = {"integer": True}
    for axes, label in ((losses, "loss"), (errors, "error, %")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
        axes.locator_params(axis="x", **integers)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_ylim(bottom=0)
    # Errors fall by orders of magnitude, and may be 0: linear up to 1 %, logarithmic above.
    errors.set_yscale("symlog", linthresh=1)
    errors.set_ylim(0, 100)
    ticks = [0, 0.5, 1, 2, 5, 10, 20, 50, 100]
    errors.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    errors.minorticks_off()
    errors.legend(fontsize=7, frameon=False)
    losses.legend(fontsize=7, frameon=False)
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    return saved(figure, path)
