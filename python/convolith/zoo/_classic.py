"""LeNet, the networks that introductions draw, and a stack in the style of the Neocognitron."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolith.autograd import Tensor
from convolith.autograd import functional as F
from convolith.nn import (
    Buffer,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    Parameter,
    Sequential,
    init,
)


class LeNet(Module):
    """32x32 -> 6 filters 5x5 -> pool -> 16 filters 5x5 -> pool -> 120 -> 100 -> classes.

    Source: LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86
    (1998); with ReLU and max pooling, and 100 units in the last hidden layer.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images, of 32x32 pixels.
        data_format: Of the images; "channels_last" is the fast one.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        *,
        data_format: str = "channels_first",
    ) -> None:
        form = {"data_format": data_format}
        self.conv1 = Conv2d(in_channels, 6, 5, activation="relu", data_format=data_format)
        self.pool1 = MaxPool2d(2, **form)
        self.conv2 = Conv2d(6, 16, 5, activation="relu", data_format=data_format)
        self.pool2 = MaxPool2d(2, **form)
        self.flatten = Flatten(data_format)
        self.fc1 = Linear(400, 120, activation="relu")
        self.fc2 = Linear(120, 100, activation="relu")
        self.fc3 = Linear(100, num_classes)

    def forward(self, x: Any) -> Tensor:
        """Logits (batch, num_classes).

        Args:
            x: Images (batch, in_channels, 32, 32), or with the channels last.
        """
        x = self.pool1.forward(self.conv1.forward(x))
        x = self.flatten.forward(self.pool2.forward(self.conv2.forward(x)))
        return self.fc3.forward(self.fc2.forward(self.fc1.forward(x)))


def lenet(
    num_classes: int = 10, in_channels: int = 1, *, data_format: str = "channels_first"
) -> LeNet:
    """LeNet; see `LeNet`.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images, of 32x32 pixels.
        data_format: Of the images.
    """
    return LeNet(num_classes, in_channels, data_format=data_format)


def fully_connected(
    num_classes: int = 10, in_features: int = 1024, hidden: tuple[int, ...] = (120, 100)
) -> Sequential:
    """A network without convolutions, to set beside LeNet.

    Args:
        num_classes: Outputs.
        in_features: Elements of an input, which is flattened.
        hidden: Units of the hidden layers, with ReLU.
    """
    layers: list[Module] = [Flatten()]
    for units in hidden:
        layers.append(Linear(in_features, units, activation="relu"))
        in_features = units
    return Sequential(*layers, Linear(in_features, num_classes))


def example_digit(*, data_format: str = "channels_first") -> Sequential:
    """28x28x1 -> 8 filters 5x5 -> 24x24x8 -> pool -> 12x12x8.

    Args:
        data_format: Of the images.
    """
    return Sequential(
        Conv2d(1, 8, 5, data_format=data_format), MaxPool2d(2, data_format=data_format)
    )


def example_color(*, data_format: str = "channels_first") -> Sequential:
    """32x32x3 -> 20 filters 7x7 -> 26x26x20 -> 30 filters 5x5 -> 22x22x30.

    Args:
        data_format: Of the images.
    """
    return Sequential(
        Conv2d(3, 20, 7, activation="relu", data_format=data_format),
        Conv2d(20, 30, 5, activation="relu", data_format=data_format),
    )


def example_photo(*, data_format: str = "channels_first") -> Sequential:
    """443x592x3 -> 6 filters 5x5, valid -> 439x588x6, of 456 parameters.

    Args:
        data_format: Of the images.
    """
    return Sequential(Conv2d(3, 6, 5, padding="valid", data_format=data_format))


def _bell(size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A kernel that falls off from its centre, of sum 1."""
    away = np.arange(size) - (size - 1) / 2
    row = np.exp(-0.5 * (away / (size / 4)) ** 2)
    kernel = np.outer(row, row)
    return np.asarray(kernel / kernel.sum(), np.float32)


class SLayer(Module):
    """S-cells: features found where excitation overcomes inhibition.

    r * relu((1 + e) / (1 + r / (1 + r) * b * v) - 1), where e sums the inputs times excitatory
    weights, v is the root of their weighted mean square, and b how much it inhibits.

    Source: Fukushima, Neocognitron, Biol. Cybernetics 36 (1980), equations 1 to 3.

    Args:
        in_channels, out_channels: Cell planes before and after.
        kernel_size: Extent of a cell's window.
        selectivity: r, the efficacy of inhibition.
        data_format: Of the maps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        selectivity: float = 4.0,
        *,
        data_format: str = "channels_first",
    ) -> None:
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = Parameter(np.zeros(shape, np.float32))
        self.inhibition = Parameter(np.zeros(out_channels, np.float32))
        bell = np.broadcast_to(_bell(kernel_size) / in_channels, (1, *shape[1:]))
        self.spread = Buffer(np.array(bell))
        self.selectivity = selectivity
        self.options: dict[str, Any] = {"padding": "same", "data_format": data_format}
        init.uniform_(self.weight, 0, 2 / (in_channels * kernel_size**2))
        init.constant_(self.inhibition, 0.5)

    def forward(self, x: Any) -> Tensor:
        """The cells' outputs, not negative.

        Args:
            x: Maps that are not negative.
        """
        r = self.selectivity
        excitation = F.conv2d(x, F.relu(self.weight), **self.options)
        mean_square = F.conv2d(x * x, self.spread, **self.options)
        # One more weight than a root of zero, which has no slope.
        inhibition = F.sqrt(mean_square + 1e-6)
        strength = F.relu(self.inhibition)
        if self.options["data_format"] == "channels_first":
            strength = strength.reshape(-1, 1, 1)
        ratio = (1 + excitation) / (1 + r / (1 + r) * strength * inhibition)
        return r * F.relu(ratio - 1)


class CLayer(Module):
    """C-cells: the features of S-cells, wherever they lie in a window; saturating.

    v / (1 + v) of the blurred maps v, every second pixel.

    Source: Fukushima, Neocognitron, Biol. Cybernetics 36 (1980), equations 4 and 5.

    Args:
        channels: Cell planes.
        kernel_size: Extent of a cell's window.
        stride: Distance between windows.
        data_format: Of the maps.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int = 2,
        *,
        data_format: str = "channels_first",
    ) -> None:
        kernel = _bell(kernel_size)
        self.blur = Buffer(np.array(np.broadcast_to(kernel, (channels, 1, *kernel.shape))))
        self.options: dict[str, Any] = {
            "stride": stride,
            "padding": "same",
            "groups": channels,
            "data_format": data_format,
        }

    def forward(self, x: Any) -> Tensor:
        """The cells' outputs, from 0 to 1.

        Args:
            x: Maps that are not negative.
        """
        v = F.conv2d(x, self.blur, **self.options)
        pooled: Tensor = v / (1 + v)
        return pooled


class Neocognitron(Module):
    """A stack of S and C layers that ends in one C-cell for each class.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images, of 16x16 pixels or more.
        planes: Cell planes of each stage.
        data_format: Of the images.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        planes: tuple[int, ...] = (12, 38, 32),
        *,
        data_format: str = "channels_first",
    ) -> None:
        stages: list[Module] = []
        before = in_channels
        for count in planes:
            stages += [
                SLayer(before, count, 5, data_format=data_format),
                CLayer(count, 5, data_format=data_format),
            ]
            before = count
        self.stages = Sequential(*stages)
        self.last = SLayer(before, num_classes, 3, data_format=data_format)
        self.data_format = data_format

    def forward(self, x: Any) -> Tensor:
        """How much each class is seen, (batch, num_classes).

        Args:
            x: Images of elements from 0 to 1.
        """
        maps = self.last.forward(self.stages.forward(x))
        return F.global_max_pool(maps, data_format=self.data_format).flatten(1)


def neocognitron(
    num_classes: int = 10, in_channels: int = 1, *, data_format: str = "channels_first"
) -> Neocognitron:
    """A stack of S and C layers; see `Neocognitron`.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        data_format: Of the images.
    """
    return Neocognitron(num_classes, in_channels, data_format=data_format)
