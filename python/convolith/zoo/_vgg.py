"""AlexNet and its kin: ZFNet, VGG, and the net that has convolutions alone."""

from __future__ import annotations

from typing import Any

from convolith.autograd import Tensor
from convolith.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Identity,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    Sequential,
    init,
)


class FeaturesAndClassifier(Module):
    """Maps, pooled to a fixed extent, then linear layers; named as in torchvision.

    Args:
        features: Convolutions.
        pooled: Extent of the maps before the classifier.
        classifier: Linear layers.
        data_format: Of the images.
    """

    def __init__(
        self, features: Sequential, pooled: int, classifier: Sequential, data_format: str
    ) -> None:
        self.features = features
        self.avgpool = AdaptiveAvgPool2d(pooled, data_format=data_format)
        self.flatten = Flatten(data_format)
        self.classifier = classifier

    def forward(self, x: Any) -> Tensor:
        """Logits (batch, num_classes).

        Args:
            x: Images (batch, 3, height, width), or with the channels last.
        """
        x = self.avgpool.forward(self.features.forward(x))
        logits: Tensor = self.classifier.forward(self.flatten.forward(x))
        return logits


def _conv(before: int, after: int, kernel: int, data_format: str, **options: Any) -> list[Module]:
    """A convolution that applies the ReLU behind it, and the place of that ReLU."""
    layer = Conv2d(before, after, kernel, activation="relu", data_format=data_format, **options)
    return [layer, Identity()]


def _classifier(features: int, num_classes: int, dropout: float) -> Sequential:
    """Dropout before each linear layer but the last, as in AlexNet."""
    return Sequential(
        Dropout(dropout),
        Linear(features, 4096, activation="relu"),
        Identity(),
        Dropout(dropout),
        Linear(4096, 4096, activation="relu"),
        Identity(),
        Linear(4096, num_classes),
    )


def alexnet(
    num_classes: int = 1000, dropout: float = 0.5, *, data_format: str = "channels_first"
) -> FeaturesAndClassifier:
    """AlexNet in one group, with torchvision's names (Krizhevsky, arXiv:1404.5997).

    Args:
        num_classes: Outputs.
        dropout: Probability of zero before linear layers.
        data_format: Of the images, of 63x63 pixels or more; trained on 224x224.
    """
    f = data_format
    pool = {"data_format": f}
    features = Sequential(
        *_conv(3, 64, 11, f, stride=4, padding=2),
        MaxPool2d(3, 2, **pool),
        *_conv(64, 192, 5, f, padding=2),
        MaxPool2d(3, 2, **pool),
        *_conv(192, 384, 3, f, padding=1),
        *_conv(384, 256, 3, f, padding=1),
        *_conv(256, 256, 3, f, padding=1),
        MaxPool2d(3, 2, **pool),
    )
    return FeaturesAndClassifier(features, 6, _classifier(256 * 36, num_classes, dropout), f)


def alexnet_two_groups(
    num_classes: int = 1000, dropout: float = 0.5, *, data_format: str = "channels_first"
) -> FeaturesAndClassifier:
    """AlexNet as it was on two devices: two groups in the second, fourth and fifth convolution.

    Source: Krizhevsky, Sutskever & Hinton, NIPS 2012.

    Args:
        num_classes: Outputs.
        dropout: Probability of zero before linear layers.
        data_format: Of the images, of 67x67 pixels or more; trained on 227x227.
    """
    f = data_format
    pool = {"data_format": f}
    features = Sequential(
        *_conv(3, 96, 11, f, stride=4),
        LocalResponseNorm(5, 1e-4 * 5, 0.75, 2.0, data_format=f),
        MaxPool2d(3, 2, **pool),
        *_conv(96, 256, 5, f, padding=2, groups=2),
        LocalResponseNorm(5, 1e-4 * 5, 0.75, 2.0, data_format=f),
        MaxPool2d(3, 2, **pool),
        *_conv(256, 384, 3, f, padding=1),
        *_conv(384, 384, 3, f, padding=1, groups=2),
        *_conv(384, 256, 3, f, padding=1, groups=2),
        MaxPool2d(3, 2, **pool),
    )
    return FeaturesAndClassifier(features, 6, _classifier(256 * 36, num_classes, dropout), f)


def zfnet(
    num_classes: int = 1000, dropout: float = 0.5, *, data_format: str = "channels_first"
) -> FeaturesAndClassifier:
    """ZFNet: AlexNet with a finer first layer (Zeiler & Fergus, arXiv:1311.2901).

    Args:
        num_classes: Outputs.
        dropout: Probability of zero before linear layers.
        data_format: Of the images, of 64x64 pixels or more; trained on 224x224.
    """
    f = data_format
    pool = {"data_format": f}
    features = Sequential(
        *_conv(3, 96, 7, f, stride=2, padding=1),
        MaxPool2d(3, 2, 1, **pool),
        LocalResponseNorm(5, 1e-4 * 5, 0.75, 2.0, data_format=f),
        *_conv(96, 256, 5, f, stride=2),
        MaxPool2d(3, 2, 1, **pool),
        LocalResponseNorm(5, 1e-4 * 5, 0.75, 2.0, data_format=f),
        *_conv(256, 384, 3, f, padding=1),
        *_conv(384, 384, 3, f, padding=1),
        *_conv(384, 256, 3, f, padding=1),
        MaxPool2d(3, 2, **pool),
    )
    return FeaturesAndClassifier(features, 6, _classifier(256 * 36, num_classes, dropout), f)


_VGG = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def _vgg(
    depth: int, num_classes: int, dropout: float, batch_norm: bool, f: str
) -> FeaturesAndClassifier:
    layers: list[Module] = []
    channels = 3
    for count, width in zip(_VGG[depth], (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            if batch_norm:
                conv = Conv2d(channels, width, 3, padding=1, data_format=f)
                layers += [conv, BatchNorm2d(width, activation="relu", data_format=f), Identity()]
            else:
                layers += _conv(channels, width, 3, f, padding=1)
            channels = width
        layers.append(MaxPool2d(2, data_format=f))
    classifier = Sequential(
        Linear(512 * 49, 4096, activation="relu"),
        Identity(),
        Dropout(dropout),
        Linear(4096, 4096, activation="relu"),
        Identity(),
        Dropout(dropout),
        Linear(4096, num_classes),
    )
    net = FeaturesAndClassifier(Sequential(*layers), 7, classifier, f)
    for module in net.modules():
        if isinstance(module, Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Linear):
            init.normal_(module.weight, 0, 0.01)
        if isinstance(module, (Conv2d, Linear)) and module.bias is not None:
            init.zeros_(module.bias)
    return net


def vgg11(
    num_classes: int = 1000,
    dropout: float = 0.5,
    batch_norm: bool = False,
    *,
    data_format: str = "channels_first",
) -> FeaturesAndClassifier:
    """VGG of 11 layers, with torchvision's names (Simonyan & Zisserman, arXiv:1409.1556).

    Args:
        num_classes: Outputs.
        dropout: Probability of zero behind linear layers.
        batch_norm: Normalize behind every convolution, as in torchvision's vgg11_bn.
        data_format: Of the images, of 32x32 pixels or more; trained on 224x224.
    """
    return _vgg(11, num_classes, dropout, batch_norm, data_format)


def vgg13(
    num_classes: int = 1000,
    dropout: float = 0.5,
    batch_norm: bool = False,
    *,
    data_format: str = "channels_first",
) -> FeaturesAndClassifier:
    """VGG of 13 layers; see `vgg11`.

    Args:
        num_classes, dropout, batch_norm, data_format: As in `vgg11`.
    """
    return _vgg(13, num_classes, dropout, batch_norm, data_format)


def vgg16(
    num_classes: int = 1000,
    dropout: float = 0.5,
    batch_norm: bool = False,
    *,
    data_format: str = "channels_first",
) -> FeaturesAndClassifier:
    """VGG of 16 layers; see `vgg11`.

    Args:
        num_classes, dropout, batch_norm, data_format: As in `vgg11`.
    """
    return _vgg(16, num_classes, dropout, batch_norm, data_format)


def vgg19(
    num_classes: int = 1000,
    dropout: float = 0.5,
    batch_norm: bool = False,
    *,
    data_format: str = "channels_first",
) -> FeaturesAndClassifier:
    """VGG of 19 layers; see `vgg11`.

    Args:
        num_classes, dropout, batch_norm, data_format: As in `vgg11`.
    """
    return _vgg(19, num_classes, dropout, batch_norm, data_format)


def all_convolutional(
    num_classes: int = 10, in_channels: int = 3, *, data_format: str = "channels_first"
) -> Sequential:
    """All-CNN-C: strides in place of pooling (Springenberg et al., arXiv:1412.6806).

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images, of 32x32 pixels.
        data_format: Of the images.
    """

    def conv(before: int, after: int, kernel: int, **options: Any) -> Conv2d:
        return Conv2d(before, after, kernel, activation="relu", data_format=data_format, **options)

    return Sequential(
        Dropout(0.2),
        conv(in_channels, 96, 3, padding=1),
        conv(96, 96, 3, padding=1),
        conv(96, 96, 3, padding=1, stride=2),
        Dropout(0.5),
        conv(96, 192, 3, padding=1),
        conv(192, 192, 3, padding=1),
        conv(192, 192, 3, padding=1, stride=2),
        Dropout(0.5),
        conv(192, 192, 3),
        conv(192, 192, 1),
        conv(192, num_classes, 1),
        GlobalAvgPool(data_format=data_format),
        Flatten(data_format),
    )
