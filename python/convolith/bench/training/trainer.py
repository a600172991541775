"""What every library's trainer does: one step at a time, on the same weights and images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from convolith import nn, zoo
from convolith.bench.arrays import Array
from convolith.bench.training import Task

SEED = 0
LEARNING_RATE, MOMENTUM = 1e-3, 0.9


class Step(NamedTuple):
    """Seconds of the parts of a step, and the loss before it."""

    forward: float
    backward: float
    update: float
    loss: float


class BaseTrainer(ABC):
    """A network in channels_last, cross-entropy and SGD with momentum; dropout is off."""

    def __init__(self, task: Task, threads: int) -> None:
        """Draw the images and the classes that they are said to show."""
        self.task = task
        self.threads = threads
        rng = np.random.default_rng(SEED)
        shape = (task.batch, task.pixels, task.pixels, task.channels)
        self.images: Array = rng.standard_normal(shape, dtype=np.float32)
        self.targets: Array = rng.integers(0, task.classes, task.batch)

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the library."""

    @abstractmethod
    def step(self) -> Step:
        """One step of training."""


def make_net(task: Task) -> Any:
    """The network of this library, with the weights that every library starts from."""
    nn.manual_seed(SEED)
    net = getattr(zoo, task.net)(num_classes=task.classes, data_format="channels_last")
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net
