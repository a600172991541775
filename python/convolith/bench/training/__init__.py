"""Training steps of whole networks, this library beside PyTorch: a process each.

`worker` is a library's process, `comparison` asks in turns, `report` shows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A network of `convolith.zoo` and the images that it is trained on."""

    net: str
    batch: int
    channels: int = 3
    pixels: int = 224
    """Of a side of an image."""
    classes: int = 1000


TASKS = {
    task.net: task
    for task in (
        Task("lenet", 32, channels=1, pixels=32, classes=10),
        Task("resnet18", 8),
        Task("resnet50", 8),
        Task("vgg16", 4),
    )
}
"""By network, with the batch that is the default."""

LIBRARIES = {
    "convolith": "convolith.bench.training.own",
    "torch": "convolith.bench.training.pytorch",
}
"""Modules with a class Trainer each."""
