"""Residual networks and their kin: DenseNet and MobileNet."""

from __future__ import annotations

from typing import Any

from convolith.autograd import Tensor
from convolith.autograd import functional as F
from convolith.nn import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Identity,
    Linear,
    MaxPool2d,
    Module,
    Sequential,
    init,
)


def _kaiming(net: Module, mode: str) -> None:
    for module in net.modules():
        if isinstance(module, Conv2d):
            init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


class Block(Module):
    """Two convolutions beside a shortcut (He et al., arXiv:1512.03385, figure 5 left).

    Args:
        before: Channels of the input.
        width: Channels of the convolutions.
        stride: Of the first convolution.
        data_format: Of the maps.
    """

    expansion = 1

    def __init__(self, before: int, width: int, stride: int, data_format: str) -> None:
        self._make(before, width, data_format, [(3, stride), (3, 1)])
        self._shortcut(before, width, stride, data_format)

    def _make(self, before: int, width: int, f: str, shapes: list[tuple[int, int]]) -> None:
        """Convolutions of (kernel, stride), each with its norm and ReLU."""
        after = width * self.expansion
        for i, (kernel, stride) in enumerate(shapes, 1):
            out = after if i == len(shapes) else width
            conv = Conv2d(before, out, kernel, stride, kernel // 2, bias=False, data_format=f)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", BatchNorm2d(out, activation="relu", data_format=f))
            before = out
        self.steps = len(shapes)

    def _shortcut(self, before: int, width: int, stride: int, f: str) -> None:
        """A convolution where the shortcut changes its shape."""
        after = width * self.expansion
        self.downsample: Module | None = None
        if stride != 1 or before != after:
            self.downsample = Sequential(
                Conv2d(before, after, 1, stride, bias=False, data_format=f),
                BatchNorm2d(after, data_format=f),
            )

    def forward(self, x: Any) -> Tensor:
        """relu(convolutions(x) + shortcut(x)).

        Args:
            x: Maps.
        """
        own = vars(self)
        y = x
        for i in range(1, self.steps):
            y = own[f"bn{i}"].after(own[f"conv{i}"], y)
        residual = x if self.downsample is None else self.downsample.forward(x)
        i = self.steps
        result: Tensor = own[f"bn{i}"].after(own[f"conv{i}"], y, residual)
        return result


class Bottleneck(Block):
    """Convolutions of kernel 1, 3 and 1 beside a shortcut (He et al., figure 5 right).

    The stride is in the middle, as in torchvision.

    Args:
        before: Channels of the input.
        width: Channels of the first two convolutions, a quarter of the output's.
        stride: Of the middle convolution.
        data_format: Of the maps.
    """

    expansion = 4

    def __init__(self, before: int, width: int, stride: int, data_format: str) -> None:
        self._make(before, width, data_format, [(1, 1), (3, stride), (1, 1)])
        self._shortcut(before, width, stride, data_format)


class ResNet(Module):
    """A residual network, with torchvision's names (He et al., arXiv:1512.03385).

    Args:
        block: Block or Bottleneck.
        counts: How many blocks each of the four stages has.
        num_classes: Outputs.
        data_format: Of the images, of 32x32 pixels or more; trained on 224x224.
    """

    def __init__(
        self, block: type[Block], counts: tuple[int, ...], num_classes: int, data_format: str
    ) -> None:
        f = data_format
        self.conv1 = Conv2d(3, 64, 7, 2, 3, bias=False, data_format=f)
        self.bn1 = BatchNorm2d(64, activation="relu", data_format=f)
        self.maxpool = MaxPool2d(3, 2, 1, data_format=f)
        channels = 64
        for stage, count in enumerate(counts):
            width = 64 << stage
            blocks: list[Module] = []
            for i in range(count):
                blocks.append(block(channels, width, 2 if stage and not i else 1, f))
                channels = width * block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(*blocks))
        self.avgpool = GlobalAvgPool(data_format=f)
        self.flatten = Flatten(f)
        self.fc = Linear(channels, num_classes)
        _kaiming(self, "fan_out")

    def forward(self, x: Any) -> Tensor:
        """Logits (batch, num_classes).

        Args:
            x: Images (batch, 3, height, width), or with the channels last.
        """
        x = self.maxpool.forward(self.bn1.after(self.conv1, x))
        own = vars(self)
        for stage in range(1, 5):
            x = own[f"layer{stage}"].forward(x)
        return self.fc.forward(self.flatten.forward(self.avgpool.forward(x)))


def resnet18(num_classes: int = 1000, *, data_format: str = "channels_first") -> ResNet:
    """ResNet of 18 layers; see `ResNet`.

    Args:
        num_classes: Outputs.
        data_format: Of the images.
    """
    return ResNet(Block, (2, 2, 2, 2), num_classes, data_format)


def resnet34(num_classes: int = 1000, *, data_format: str = "channels_first") -> ResNet:
    """ResNet of 34 layers; see `ResNet`.

    Args:
        num_classes: Outputs.
        data_format: Of the images.
    """
    return ResNet(Block, (3, 4, 6, 3), num_classes, data_format)


def resnet50(num_classes: int = 1000, *, data_format: str = "channels_first") -> ResNet:
    """ResNet of 50 layers; see `ResNet`.

    Args:
        num_classes: Outputs.
        data_format: Of the images.
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, data_format)


def resnet101(num_classes: int = 1000, *, data_format: str = "channels_first") -> ResNet:
    """ResNet of 101 layers; see `ResNet`.

    Args:
        num_classes: Outputs.
        data_format: Of the images.
    """
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, data_format)


# ---- DenseNet --------------------------------------------------------------------------------


class _DenseLayer(Module):
    def __init__(self, before: int, growth: int, data_format: str) -> None:
        f = data_format
        self.norm1 = BatchNorm2d(before, activation="relu", data_format=f)
        self.conv1 = Conv2d(before, 4 * growth, 1, bias=False, data_format=f)
        self.norm2 = BatchNorm2d(4 * growth, activation="relu", data_format=f)
        self.conv2 = Conv2d(4 * growth, growth, 3, padding=1, bias=False, data_format=f)

    def forward(self, x: Any) -> Tensor:
        return self.conv2.forward(self.norm2.after(self.conv1, self.norm1.forward(x)))


class _DenseBlock(Module):
    def __init__(self, count: int, before: int, growth: int, data_format: str) -> None:
        for i in range(count):
            layer = _DenseLayer(before + i * growth, growth, data_format)
            setattr(self, f"denselayer{i + 1}", layer)
        self.channel_axis = 1 if data_format == "channels_first" else 3

    def forward(self, x: Any) -> Tensor:
        for _, layer in self.named_children():
            x = F.concat([x, layer.forward(x)], self.channel_axis)
        result: Tensor = x
        return result


class DenseNet(Module):
    """A network whose layers see all before them, with torchvision's names.

    Source: Huang et al., arXiv:1608.06993.

    Args:
        counts: How many layers each block has.
        growth: Channels that a layer adds.
        num_classes: Outputs.
        data_format: Of the images, of 32x32 pixels or more; trained on 224x224.
    """

    def __init__(
        self, counts: tuple[int, ...], growth: int, num_classes: int, data_format: str
    ) -> None:
        f = data_format
        channels = 2 * growth
        parts: dict[str, Module] = {
            "conv0": Conv2d(3, channels, 7, 2, 3, bias=False, data_format=f),
            "norm0": BatchNorm2d(channels, activation="relu", data_format=f),
            "pool0": MaxPool2d(3, 2, 1, data_format=f),
        }
        for i, count in enumerate(counts, 1):
            parts[f"denseblock{i}"] = _DenseBlock(count, channels, growth, f)
            channels += count * growth
            if i < len(counts):
                transition: dict[str, Module] = {
                    "norm": BatchNorm2d(channels, activation="relu", data_format=f),
                    "conv": Conv2d(channels, channels // 2, 1, bias=False, data_format=f),
                    "pool": AvgPool2d(2, data_format=f),
                }
                parts[f"transition{i}"] = Sequential(transition)
                channels //= 2
        parts["norm5"] = BatchNorm2d(channels, activation="relu", data_format=f)
        self.features = Sequential(parts)
        self.avgpool = GlobalAvgPool(data_format=f)
        self.flatten = Flatten(f)
        self.classifier = Linear(channels, num_classes)
        _kaiming(self, "fan_in")
        if self.classifier.bias is not None:
            init.zeros_(self.classifier.bias)

    def forward(self, x: Any) -> Tensor:
        """Logits (batch, num_classes).

        Args:
            x: Images (batch, 3, height, width), or with the channels last.
        """
        x = self.avgpool.forward(self.features.forward(x))
        return self.classifier.forward(self.flatten.forward(x))

    def adapt_state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        """Old checkpoints write norm.1 for norm1, and so on.

        Args:
            state: What load_state_dict was given.
        """
        for part in ("norm", "conv"):
            for i in "12":
                old, new = f".{part}.{i}.", f".{part}{i}."
                state = {
                    name.replace(old, new) if ".denselayer" in name else name: value
                    for name, value in state.items()
                }
        return state


def densenet121(num_classes: int = 1000, *, data_format: str = "channels_first") -> DenseNet:
    """DenseNet of 121 layers; see `DenseNet`.

    Args:
        num_classes: Outputs.
        data_format: Of the images.
    """
    return DenseNet((6, 12, 24, 16), 32, num_classes, data_format)


# ---- MobileNet -------------------------------------------------------------------------------


def _conv_norm(
    before: int, after: int, kernel: int, stride: int, groups: int, data_format: str
) -> Sequential:
    return Sequential(
        Conv2d(
            before,
            after,
            kernel,
            stride,
            kernel // 2,
            groups=groups,
            bias=False,
            data_format=data_format,
        ),
        BatchNorm2d(after, activation="relu6", data_format=data_format),
        Identity(),
    )


class InvertedResidual(Module):
    """Channels expanded, convolved one by one, and projected, beside a shortcut.

    Args:
        before, after: Channels of the input and the output.
        stride: Of the convolution.
        expand: Factor by which channels are expanded.
        data_format: Of the maps.
    """

    def __init__(self, before: int, after: int, stride: int, expand: int, data_format: str) -> None:
        f = data_format
        hidden = before * expand
        layers: list[Module] = []
        if expand != 1:
            layers.append(_conv_norm(before, hidden, 1, 1, 1, f))
        layers.append(_conv_norm(hidden, hidden, 3, stride, hidden, f))
        layers.append(Conv2d(hidden, after, 1, bias=False, data_format=f))
        layers.append(BatchNorm2d(after, data_format=f))
        self.conv = Sequential(*layers)
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Any) -> Tensor:
        """convolutions(x), plus x where the shapes are the same.

        Args:
            x: Maps.
        """
        if not self.shortcut:
            plain: Tensor = self.conv.forward(x)
            return plain
        *layers, conv, norm = self.conv
        assert isinstance(norm, BatchNorm2d)
        y = x
        for layer in layers:
            y = layer.forward(y)
        return norm.after(conv, y, x)


class MobileNetV2(Module):
    """A network of inverted residuals, with torchvision's names (Sandler, arXiv:1801.04381).

    Args:
        num_classes: Outputs.
        dropout: Probability of zero before the linear layer.
        data_format: Of the images, of 32x32 pixels or more; trained on 224x224.
    """

    # expansion, channels, how many, stride of the first
    _STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, num_classes: int, dropout: float, data_format: str) -> None:
        f = data_format
        layers: list[Module] = [_conv_norm(3, 32, 3, 2, 1, f)]
        channels = 32
        for expand, after, count, stride in self._STAGES:
            for i in range(count):
                layers.append(InvertedResidual(channels, after, 1 if i else stride, expand, f))
                channels = after
        layers.append(_conv_norm(channels, 1280, 1, 1, 1, f))
        self.features = Sequential(*layers)
        self.avgpool = GlobalAvgPool(data_format=f)
        self.flatten = Flatten(f)
        self.classifier = Sequential(Dropout(dropout), Linear(1280, num_classes))
        _kaiming(self, "fan_out")
        last = self.classifier[1]
        assert isinstance(last, Linear)
        init.normal_(last.weight, 0, 0.01)
        if last.bias is not None:
            init.zeros_(last.bias)

    def forward(self, x: Any) -> Tensor:
        """Logits (batch, num_classes).

        Args:
            x: Images (batch, 3, height, width), or with the channels last.
        """
        x = self.avgpool.forward(self.features.forward(x))
        logits: Tensor = self.classifier.forward(self.flatten.forward(x))
        return logits


def mobilenet_v2(
    num_classes: int = 1000, dropout: float = 0.2, *, data_format: str = "channels_first"
) -> MobileNetV2:
    """MobileNet version 2; see `MobileNetV2`.

    Args:
        num_classes: Outputs.
        dropout: Probability of zero before the linear layer.
        data_format: Of the images.
    """
    return MobileNetV2(num_classes, dropout, data_format)
