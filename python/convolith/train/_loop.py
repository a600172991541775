"""The loop: one seed gives one run, bit for bit, interrupted and resumed or not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from convolith import nn, optim
from convolith._arguments import Array
from convolith.autograd import functional as F
from convolith.autograd import no_grad
from convolith.nn import safetensors
from convolith.train._data import Data, Split


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        epochs: How often every image is seen.
        batch: Images of a step.
        lr: The learning rate at first, which falls to 0 along half a cosine.
        weight_decay: What AdamW takes off the weights.
        shift: Images are moved at random by up to so many pixels on each axis.
        smoothing: The share of a target that is spread over all classes.
        seed: Of everything random.
    """

    epochs: int = 20
    batch: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.02
    shift: int = 2
    smoothing: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: From 1.
        loss: Mean over the epoch's images.
        accuracy: Share of the epoch's images that were told right, while learning.
        test_accuracy: Share of the held-out images that are told right after it.
        images_per_second: Of training.
        lr: The learning rate.
    """

    epoch: int
    loss: float
    accuracy: float
    test_accuracy: float
    images_per_second: float
    lr: float


Progress = Callable[[int, float, float, float], None]
"""Called after each step with the images seen, mean loss, accuracy and images per second."""


class Trainer:
    """Trains a network that tells the class of images in channels_last.

    Args:
        net: From images (batch, 32, 32, channels) to logits (batch, classes).
        data: What it learns.
        settings: How.
    """

    def __init__(self, net: nn.Module, data: Data, settings: Settings) -> None:
        self.net = net
        self.data = data
        self.settings = settings
        self.epoch = 0
        self.history: list[Epoch] = []
        self.optimizer = optim.AdamW(
            net.parameters(), settings.lr, weight_decay=settings.weight_decay
        )
        self.schedule = optim.CosineAnnealingLR(self.optimizer, settings.epochs)
        self.windows = shift_windows(data.train.images, settings.shift)

    def run(self, progress: Progress | None = None) -> Iterator[Epoch]:
        """Train what is left of the epochs, and tell each.

        Args:
            progress: See `Progress`.
        """
        while self.epoch < self.settings.epochs:
            lr = self.optimizer.lr
            loss, accuracy, rate = self._train_epoch(progress)
            self.epoch += 1
            self.schedule.step()
            test = float((predict(self.net, self.data.test.images) == self.data.test.labels).mean())
            done = Epoch(self.epoch, loss, accuracy, test, rate, lr)
            self.history.append(done)
            yield done

    def _train_epoch(self, progress: Progress | None) -> tuple[float, float, float]:
        """Mean loss, accuracy, and images per second."""
        # Dropout and what else layers draw follows from seed and epoch too.
        nn.manual_seed([self.settings.seed, self.epoch])
        rng = np.random.default_rng([self.settings.seed, self.epoch, 1])
        train, batch = self.data.train, self.settings.batch
        order = rng.permutation(len(train))
        seen, right, total = 0, 0, 0.0
        start = time.perf_counter()
        self.net.train()
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            down, across = rng.integers(0, 2 * self.settings.shift + 1, (2, len(chosen)))
            images = self.windows[chosen, down, across]
            labels = train.labels[chosen]
            self.optimizer.zero_grad()
            logits = self.net(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.settings.smoothing)
            loss.backward()
            self.optimizer.step()
            seen += len(chosen)
            right += int((logits.data.argmax(1) == labels).sum())
            total += loss.item() * len(chosen)
            if progress is not None:
                rate = seen / (time.perf_counter() - start)
                progress(seen, total / seen, right / seen, rate)
        return total / seen, right / seen, seen / (time.perf_counter() - start)

    # ---- files -------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write a checkpoint, at once or not at all.

        Args:
            path: The file.
        """
        tensors = {f"net.{name}": array for name, array in self.net.state_dict().items()}
        state = self.optimizer.state_dict()
        tensors |= {f"optimizer.{name}": array for name, array in state.items()}
        history = [asdict(epoch) for epoch in self.history]
        progress = {"history": history, "settings": asdict(self.settings), "data": self.data.name}
        safetensors.save_file(tensors, path, {"training": json.dumps(progress)})

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Args:
            path: The file.

        Raises:
            ValueError: A file that is no checkpoint, or one of other settings, data or network.
        """
        text = safetensors.load_metadata(path).get("training")
        if text is None:
            raise ValueError(f"{path} is no checkpoint: its metadata lacks 'training'")
        progress = json.loads(text)
        if progress["data"] != self.data.name:
            raise ValueError(f"{path} was trained on {progress['data']}, not on {self.data.name}")
        for name, value in asdict(self.settings).items():
            if progress["settings"].get(name) != value:
                was = progress["settings"].get(name)
                raise ValueError(f"{path} has {name} {was}; a run with {value} is another one")
        tensors = safetensors.load_file(path)

        def part(prefix: str) -> dict[str, Array]:
            return {
                name.removeprefix(prefix): array
                for name, array in tensors.items()
                if name.startswith(prefix)
            }

        self.net.load_state_dict(part("net."))
        self.optimizer.load_state_dict(part("optimizer."))
        self.history = [Epoch(**epoch) for epoch in progress["history"]]
        self.epoch = self.schedule.epoch = len(self.history)


def shift_windows(images: Array, most: int) -> Array:
    """Every way to move images by some pixels, their edges repeated: a view into wider ones.

    Args:
        images: (count, rows, columns, channels).
        most: The greatest distance on an axis, in pixels.

    Returns:
        (count, 2 most + 1, 2 most + 1, rows, columns, channels); the middle is not moved.
    """
    rows, columns = images.shape[1:3]
    wide = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (rows, columns), (1, 2))
    return np.moveaxis(windows, 3, -1)


def predict(net: nn.Module, images: Array, batch: int = 256) -> Array:
    """The class of each image.

    Args:
        net: From images to logits.
        images: (count, 32, 32, channels).
        batch: Images of a call.

    Returns:
        int64 (count,).
    """
    training = net.training
    net.eval()
    try:
        with no_grad():
            found = [
                net(images[first : first + batch]).data.argmax(1)
                for first in range(0, len(images), batch)
            ]
    finally:
        net.train(training)
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def confusion_matrix(net: nn.Module, split: Split, classes: int) -> Array:
    """How often images of a class (row) were taken for a class (column).

    Args:
        net: From images to logits.
        split: Images and labels.
        classes: How many there are.

    Returns:
        int64 (classes, classes).
    """
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (split.labels, predict(net, split.images)), 1)
    return counts
