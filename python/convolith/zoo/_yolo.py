"""Tiny YOLO v2: a detector, the boxes that it tells, and which of them to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convolith._arguments import Array
from convolith.autograd import Tensor, no_grad
from convolith.nn import BatchNorm2d, Conv2d, MaxPool2d, Module, Sequential

VOC_ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
"""Widths and heights of the anchors for Pascal VOC, in cells."""


class TinyYoloV2(Module):
    """416x416 pixels to a grid of 13x13 cells, each with boxes of five shapes.

    Source: Redmon & Farhadi, arXiv:1612.08242; the layers of darknet's yolov2-tiny-voc.cfg.

    Args:
        num_classes: Classes of objects.
        anchors: Widths and heights of the box shapes, in cells.
        data_format: Of the images.
    """

    def __init__(
        self,
        num_classes: int = 20,
        anchors: Sequence[tuple[float, float]] = VOC_ANCHORS,
        *,
        data_format: str = "channels_first",
    ) -> None:
        f = data_format
        layers: dict[str, Module] = {}
        before = 3
        for i, width in enumerate((16, 32, 64, 128, 256, 512, 1024, 1024), 1):
            layers[f"conv{i}"] = Conv2d(before, width, 3, padding=1, bias=False, data_format=f)
            layers[f"bn{i}"] = BatchNorm2d(width, activation=("leaky_relu", 0.1), data_format=f)
            if i < 6:
                layers[f"pool{i}"] = MaxPool2d(2, data_format=f)
            elif i == 6:
                layers[f"pool{i}"] = MaxPool2d(2, 1, padding="same", data_format=f)
            before = width
        outputs = len(anchors) * (5 + num_classes)
        layers["conv9"] = Conv2d(before, outputs, 1, data_format=f)
        self.layers = Sequential(layers)
        self.anchors = tuple(anchors)
        self.num_classes = num_classes
        self.data_format = f

    def forward(self, x: Any) -> Tensor:
        """What `decode_boxes` reads: (batch, anchors * (5 + num_classes), rows, columns).

        Args:
            x: Images (batch, 3, height, width), or with the channels last; extents are multiples
                of 32.
        """
        maps: Tensor = self.layers.forward(x)
        return maps

    def detect(
        self, x: Any, threshold: float = 0.3, overlap: float = 0.45
    ) -> list[tuple[Array, Array, Array]]:
        """The objects in each image.

        Args:
            x: Images, as in forward.
            threshold, overlap: As in `non_maximum_suppression`.

        Returns:
            For each image the boxes, scores and classes that are kept.
        """
        with no_grad():
            maps = self.forward(x).data
        if self.data_format == "channels_last":
            maps = np.moveaxis(maps, -1, 1)
        boxes, scores = decode_boxes(maps, self.anchors, self.num_classes)
        return [
            non_maximum_suppression(b, s, threshold, overlap)
            for b, s in zip(boxes, scores, strict=True)
        ]


def tiny_yolo_v2(num_classes: int = 20, *, data_format: str = "channels_first") -> TinyYoloV2:
    """Tiny YOLO version 2; see `TinyYoloV2`.

    Args:
        num_classes: Classes of objects.
        data_format: Of the images.
    """
    return TinyYoloV2(num_classes, data_format=data_format)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def decode_boxes(
    maps: Array, anchors: Sequence[tuple[float, float]], num_classes: int
) -> tuple[Array, Array]:
    """The boxes that a grid of cells tells.

    In a cell at (column, row), an anchor of (width, height) gives the centre
    (column + sigmoid(tx), row + sigmoid(ty)) and the extents (width e^tw, height e^th), in cells,
    an objectness sigmoid(to), and class probabilities by softmax.

    Args:
        maps: (batch, anchors * (5 + num_classes), rows, columns).
        anchors: Their widths and heights in cells.
        num_classes: Classes of objects.

    Returns:
        Boxes (batch, rows * columns * anchors, 4), left, top, right, bottom as shares of the
        image; and scores (batch, rows * columns * anchors, num_classes), objectness times
        probability.

    Raises:
        ValueError: A number of channels that does not fit.
    """
    count = len(anchors)
    if maps.ndim != 4 or maps.shape[1] != count * (5 + num_classes):
        raise ValueError(
            f"maps has shape {maps.shape}; it must be "
            f"(batch, {count * (5 + num_classes)}, rows, columns)"
        )
    batch, _, rows, columns = maps.shape
    cells = maps.reshape(batch, count, 5 + num_classes, rows, columns).transpose(0, 3, 4, 1, 2)
    sizes = np.asarray(anchors, maps.dtype)
    x = (_sigmoid(cells[..., 0]) + np.arange(columns)[:, None]) / columns
    y = (_sigmoid(cells[..., 1]) + np.arange(rows)[:, None, None]) / rows
    half_width = sizes[:, 0] * np.exp(cells[..., 2]) / (2 * columns)
    half_height = sizes[:, 1] * np.exp(cells[..., 3]) / (2 * rows)
    boxes = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)
    e = np.exp(cells[..., 5:] - cells[..., 5:].max(-1, keepdims=True))
    scores = _sigmoid(cells[..., 4:5]) * e / e.sum(-1, keepdims=True)
    return (
        boxes.reshape(batch, -1, 4).astype(maps.dtype),
        scores.reshape(batch, -1, num_classes).astype(maps.dtype),
    )


def box_overlap(box: Array, boxes: Array) -> Array:
    """Intersection over union of one box and several.

    Args:
        box: (4,), left, top, right, bottom.
        boxes: (n, 4).

    Returns:
        (n,), from 0 to 1.
    """
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    area = np.prod(np.maximum(box[2:] - box[:2], 0))
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    return np.asarray(shared / np.maximum(area + areas - shared, np.finfo(boxes.dtype).tiny))


def non_maximum_suppression(
    boxes: Array, scores: Array, threshold: float = 0.3, overlap: float = 0.45
) -> tuple[Array, Array, Array]:
    """The best boxes of each class: one that overlaps a better one too much is dropped.

    Args:
        boxes: (n, 4), left, top, right, bottom.
        scores: (n, classes).
        threshold: Boxes of a score that is less are dropped.
        overlap: The greatest intersection over union with a better box.

    Returns:
        Boxes (kept, 4), scores (kept,) and classes (kept,), the best first.
    """
    kept: list[tuple[float, int, int]] = []
    for c in range(scores.shape[1]):
        candidates = np.flatnonzero(scores[:, c] >= threshold)
        order = candidates[np.argsort(-scores[candidates, c], kind="stable")]
        while order.size:
            best, order = int(order[0]), order[1:]
            kept.append((float(scores[best, c]), best, c))
            order = order[box_overlap(boxes[best], boxes[order]) <= overlap]
    kept.sort(key=lambda entry: -entry[0])
    chosen = np.array([i for _, i, _ in kept], np.int64)
    classes = np.array([c for _, _, c in kept], np.int64)
    return boxes[chosen], scores[chosen, classes], classes
