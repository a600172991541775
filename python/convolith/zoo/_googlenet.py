"""GoogLeNet."""

from __future__ import annotations

from typing import Any

from convolith.autograd import Tensor
from convolith.autograd import functional as F
from convolith.nn import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    Module,
    Sequential,
    init,
)


class _ConvNorm(Module):
    def __init__(
        self, before: int, after: int, kernel: int, data_format: str, **options: Any
    ) -> None:
        self.conv = Conv2d(before, after, kernel, bias=False, data_format=data_format, **options)
        self.bn = BatchNorm2d(after, 0.001, activation="relu", data_format=data_format)

    def forward(self, x: Any) -> Tensor:
        return self.bn.after(self.conv, x)


class Inception(Module):
    """Four branches side by side, their channels one after the other.

    Args:
        before: Channels of the input.
        widths: Channels of the branch of kernel 1; before and in the branches of kernel 3, twice;
            and of the pooled branch.
        data_format: Of the maps.
    """

    def __init__(
        self, before: int, widths: tuple[int, int, int, int, int, int], data_format: str
    ) -> None:
        f = data_format
        one, three_before, three, five_before, five, pooled = widths
        self.branch1 = _ConvNorm(before, one, 1, f)
        self.branch2 = Sequential(
            _ConvNorm(before, three_before, 1, f), _ConvNorm(three_before, three, 3, f, padding=1)
        )
        # The paper's kernel of 5 is a 3 in torchvision, whose weights these are.
        self.branch3 = Sequential(
            _ConvNorm(before, five_before, 1, f), _ConvNorm(five_before, five, 3, f, padding=1)
        )
        self.branch4 = Sequential(
            MaxPool2d(3, 1, 1, data_format=f), _ConvNorm(before, pooled, 1, f)
        )
        self.channel_axis = 1 if f == "channels_first" else 3

    def forward(self, x: Any) -> Tensor:
        """The branches' maps.

        Args:
            x: Maps.
        """
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return F.concat([branch.forward(x) for branch in branches], self.channel_axis)


class GoogLeNet(Module):
    """GoogLeNet with batch norm and without auxiliary heads, with torchvision's names.

    Source: Szegedy et al., arXiv:1409.4842.

    Args:
        num_classes: Outputs.
        dropout: Probability of zero before the linear layer.
        data_format: Of the images, of 32x32 pixels or more; trained on 224x224.
    """

    _STAGES = (
        ("3a", 192, (64, 96, 128, 16, 32, 32)),
        ("3b", 256, (128, 128, 192, 32, 96, 64)),
        ("4a", 480, (192, 96, 208, 16, 48, 64)),
        ("4b", 512, (160, 112, 224, 24, 64, 64)),
        ("4c", 512, (128, 128, 256, 24, 64, 64)),
        ("4d", 512, (112, 144, 288, 32, 64, 64)),
        ("4e", 528, (256, 160, 320, 32, 128, 128)),
        ("5a", 832, (256, 160, 320, 32, 128, 128)),
        ("5b", 832, (384, 192, 384, 48, 128, 128)),
    )

    def __init__(self, num_classes: int, dropout: float, data_format: str) -> None:
        f = data_format

        def pool(kernel: int, stride: int) -> Module:
            return MaxPool2d(kernel, stride, ceil_mode=True, data_format=f)

        self.conv1 = _ConvNorm(3, 64, 7, f, stride=2, padding=3)
        self.maxpool1 = pool(3, 2)
        self.conv2 = _ConvNorm(64, 64, 1, f)
        self.conv3 = _ConvNorm(64, 192, 3, f, padding=1)
        self.maxpool2 = pool(3, 2)
        for name, before, widths in self._STAGES:
            setattr(self, f"inception{name}", Inception(before, widths, f))
            if name == "3b":
                self.maxpool3 = pool(3, 2)
            elif name == "4e":
                self.maxpool4 = pool(2, 2)
        self.avgpool = GlobalAvgPool(data_format=f)
        self.flatten = Flatten(f)
        self.dropout = Dropout(dropout)
        self.fc = Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, (Conv2d, Linear)):
                init.trunc_normal_(module.weight, 0, 0.01)

    def forward(self, x: Any) -> Tensor:
        """Logits (batch, num_classes).

        Args:
            x: Images (batch, 3, height, width), or with the channels last.
        """
        for _, child in self.named_children():  # in the order in which they were set
            x = child.forward(x)
        logits: Tensor = x
        return logits

    def adapt_state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        """Without the auxiliary heads, which only training had.

        Args:
            state: What load_state_dict was given.
        """
        return {n: v for n, v in state.items() if not n.startswith(("aux1.", "aux2."))}


def googlenet(
    num_classes: int = 1000, dropout: float = 0.2, *, data_format: str = "channels_first"
) -> GoogLeNet:
    """GoogLeNet; see `GoogLeNet`.

    Args:
        num_classes: Outputs.
        dropout: Probability of zero before the linear layer.
        data_format: Of the images.
    """
    return GoogLeNet(num_classes, dropout, data_format)
