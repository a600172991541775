"""Receptive fields: the pixels that an element of a layer can see.

The tape is walked back from the element, and at every call the box of elements that matter becomes
the box of the inputs that they were made of: by the window of a convolution or a pooling, as it is
by what goes element by element, and everything where a result depends on the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from convolith import _arguments
from convolith.autograd import Tensor
from convolith.autograd._operation import Node
from convolith.nn import Module
from convolith.viz._capture import as_batch, data_format_of, layer_output

Span = tuple[int, int]
"""First and last index on an axis."""
Box = tuple[Span, ...]


def receptive_field(
    net: Module,
    layer: str,
    image: Any,
    position: tuple[int, int] | None = None,
    *,
    data_format: str | None = None,
) -> tuple[slice, slice]:
    """The pixels that the units of a layer at one place depend on: a box that holds them all.

    Computed from the windows of the layers between, whatever the weights; what windows see of a
    margin is left out. Where branches meet, the box holds the fields of all of them.
    Source: Araujo, Norris & Sim, Computing receptive fields of convolutional neural networks,
    Distill (2019), the recurrence for arbitrary paths.

    Args:
        net: The network.
        layer: A name of `net.named_modules()`.
        image: What the network takes, (channels, rows, columns) or with the channels last; only its
            shape counts.
        position: Row and column of the maps; None for their middle. Ignored for vectors.
        data_format: Of images and maps; None for that of the network's first layer.

    Returns:
        Rows and columns of the image, in pixels.

    Raises:
        ValueError: There is no such layer, or its maps have no such position.
    """
    layout = data_format_of(net, data_format)
    x = Tensor(np.zeros_like(as_batch(net, image)), requires_grad=True)
    y = layer_output(net, layer, x)
    rows, columns = (1, 2) if layout == "channels_last" else (2, 3)
    box = list(_whole(y.shape))
    if y.ndim == 4:
        extents = (y.shape[rows], y.shape[columns])
        for axis, place in zip((rows, columns), check_position(position, extents), strict=True):
            box[axis] = (place, place)
    found = _walk_back(y, tuple(box), x)
    if found is None:
        raise ValueError(f"layer {layer!r} does not depend on the image")
    return tuple(slice(found[a][0], found[a][1] + 1) for a in (rows, columns))  # type: ignore[return-value]


def check_position(position: Any, extents: tuple[int, int]) -> tuple[int, int]:
    """A place of maps; their middle for None."""
    if position is None:
        return (extents[0] // 2, extents[1] // 2)
    row, column = _arguments.integers(position, 2, "position")
    if not (0 <= row < extents[0] and 0 <= column < extents[1]):
        raise ValueError(f"position is {(row, column)}; the maps have extents {extents}")
    return row, column


def _whole(shape: Sequence[int]) -> Box:
    return tuple((0, n - 1) for n in shape)


def _walk_back(y: Tensor, box: Box, x: Tensor) -> Box | None:
    """The box of x that a box of y was made of. Consumers have greater numbers than their nodes."""
    if y.node is None:
        return box if y is x else None
    boxes: dict[Node | Tensor, Box] = {y.node: box}
    queue = [(-y.node.number, y.node)]
    while queue:
        node = heappop(queue)[1]
        here = boxes.pop(node)
        for place, edge in enumerate(node.edges or ()):
            if edge is None or (isinstance(edge, Tensor) and edge is not x):
                continue
            behind = _behind(node, place, edge.shape, here)
            if behind is None:
                continue
            if edge in boxes:
                pairs = zip(boxes[edge], behind, strict=True)
                behind = tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs)
            elif isinstance(edge, Node):
                heappush(queue, (-edge.number, edge))
            boxes[edge] = behind
    return boxes.get(x)


def _behind(node: Node, place: int, shape: tuple[int, ...], box: Box) -> Box | None:
    """The box of one input of a call, given that of its result."""
    name = node.operation.name
    if name in _WINDOWED and place == 0:
        spans = dict(enumerate(_whole(shape)))
        spans[0] = box[0]  # images of a batch do not see one another
        spans |= _WINDOWED[name](node, shape, box)
        return tuple((max(a, 0), min(b, shape[i] - 1)) for i, (a, b) in spans.items())
    if name in ("linear", "matmul") and place == 0 and len(shape) == 2:
        return (box[0], (0, shape[1] - 1))
    if name == "transpose":
        axes = _options(node)["axes"] or tuple(reversed(range(len(shape))))
        return tuple(box[axes.index(i)] for i in range(len(shape)))
    if name == "concat":
        options = _options(node)
        axis, before = options["axis"], sum(options["sizes"][:place])
        first, last = box[axis][0] - before, box[axis][1] - before
        if last < 0 or first >= shape[axis]:
            return None
        span = (max(first, 0), min(last, shape[axis] - 1))
        return (*box[:axis], span, *box[axis + 1 :])
    if name in _ELEMENTWISE and shape == node.shape:
        return box
    if name == "batch_norm" and not _options(node)["training"] and shape == node.shape:
        return box
    return _whole(shape)


# Of convolutions this is the residual, which is added to the result.
_ELEMENTWISE = frozenset(
    ("abs", "activation", "add", "cast", "clip", "conv", "conv_transpose", "divide", "erf", "exp")
) | frozenset(
    ("log", "maximum", "minimum", "multiply", "negative", "power", "sqrt", "subtract", "where")
)


def _options(node: Node) -> dict[str, Any]:
    return dict(zip(node.operation.options, node.options, strict=True))


def _spatial(layout: str, nd: int, ndim: int) -> range:
    last = _arguments.data_format(layout, nd) == "channels_last"
    return range(ndim - 1 - nd, ndim - 1) if last else range(ndim - nd, ndim)


def _margin(padding: Any, axis: int, n: int, out: int, window: int, stride: int) -> int:
    """What is put before an axis; see `convolith.conv2d` for the rules with a name."""
    if not isinstance(padding, str):
        return int(padding[axis][0])
    if padding == "valid":
        return 0
    total = max((out - 1) * stride + window - n, 0)
    return total // 2 if padding == "same" else total - total // 2


def _conv(node: Node, shape: tuple[int, ...], box: Box) -> dict[int, Span]:
    window = _options(node)["window"]
    weight = next(value for name, value, _ in node.saved if name == "weight")
    nd = weight.ndim - 2
    kernel, layout = weight.shape[2:], window["data_format"]
    spans = _sliding(node, shape, box, _spatial(layout, nd, len(shape)), kernel, window)
    if window["padding_mode"] == "circular":
        for axis, (first, last) in spans.items():
            if first < 0 or last >= shape[axis]:
                spans[axis] = (0, shape[axis] - 1)
    return spans


def _sliding(
    node: Node,
    shape: tuple[int, ...],
    box: Box,
    axes: range,
    kernel: tuple[int, ...],
    window: dict[str, Any],
) -> dict[int, Span]:
    nd = len(kernel)
    stride = _arguments.integers(window["stride"], nd, "stride")
    dilation = _arguments.integers(window["dilation"], nd, "dilation")
    padding = _arguments.padding(window["padding"], nd)
    spans = {}
    for i, axis in enumerate(axes):
        reach = dilation[i] * (kernel[i] - 1)
        before = _margin(padding, i, shape[axis], node.shape[axis], reach + 1, stride[i])
        first, last = (place * stride[i] - before for place in box[axis])
        spans[axis] = (first, last + reach)
    return spans


def _conv_transpose(node: Node, shape: tuple[int, ...], box: Box) -> dict[int, Span]:
    window = _options(node)["window"]
    weight = next(value for name, value, _ in node.saved if name == "weight")
    nd = weight.ndim - 2
    stride = _arguments.integers(window["stride"], nd, "stride")
    dilation = _arguments.integers(window["dilation"], nd, "dilation")
    padding = _arguments.padding(window["padding"], nd)
    spans = {}
    for i, axis in enumerate(_spatial(window["data_format"], nd, len(shape))):
        if isinstance(padding, str):
            spans[axis] = (0, shape[axis] - 1)
            continue
        first, last = (place + padding[i][0] for place in box[axis])
        reach = dilation[i] * (weight.shape[2 + i] - 1)
        low, high = math.ceil((first - reach) / stride[i]), last // stride[i]
        # Between windows that leave gaps there is nothing; the nearest input stands for it.
        low = min(max(low, 0), shape[axis] - 1)
        spans[axis] = (low, min(max(high, low), shape[axis] - 1))
    return spans


_POOL_ARGUMENTS = {
    "max": ("kernel_size", "stride", "padding", "dilation"),
    "avg": ("kernel_size", "stride", "padding"),
    "sum": ("kernel_size", "stride", "padding"),
    "lp": ("norm_type", "kernel_size", "stride"),
}


def _pool(node: Node, shape: tuple[int, ...], box: Box) -> dict[int, Span]:
    options = _options(node)
    name, arguments, more = options["name"], options["arguments"], options["options"]
    nd = int(name[-2])
    axes = _spatial(more["data_format"], nd, len(shape))
    if name.startswith("adaptive"):
        spans = {}
        for axis in axes:
            n, out = shape[axis], node.shape[axis]
            first, last = box[axis]
            spans[axis] = (first * n // out, -(-(last + 1) * n // out) - 1)
        return spans
    window: dict[str, Any] = {"stride": None, "padding": 0, "dilation": 1}
    window |= dict(zip(_POOL_ARGUMENTS[name.partition("_")[0]], arguments, strict=False))
    window |= {key: value for key, value in more.items() if key in window}
    kernel = _arguments.integers(window["kernel_size"], nd, "kernel_size")
    if window["stride"] is None:
        window["stride"] = kernel
    return _sliding(node, shape, box, axes, kernel, window)


def _pad(node: Node, shape: tuple[int, ...], box: Box) -> dict[int, Span]:
    widths = _options(node)["widths"]
    return {i: (a - widths[i][0], b - widths[i][0]) for i, (a, b) in enumerate(box)}


def _resample(node: Node, shape: tuple[int, ...], box: Box) -> dict[int, Span]:
    options = _options(node)
    axis, low, high = options["axis"], options["low"], options["high"]
    spans = dict(enumerate(box))
    first, last = box[axis]
    spans[axis] = (int(np.min(low[first : last + 1])), int(np.max(high[first : last + 1])))
    return spans


_WINDOWED: dict[str, Callable[[Node, tuple[int, ...], Box], dict[int, Span]]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "max_pool": _pool,
    "linear_pool": _pool,
    "lp_pool": _pool,
    "pad": _pad,
    "resample": _resample,
}
