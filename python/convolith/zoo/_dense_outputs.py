"""Networks whose output is a map or a signal: U-Net and WaveNet."""

from __future__ import annotations

import itertools
from typing import Any

from convolith.autograd import Tensor
from convolith.autograd import functional as F
from convolith.nn import Conv1d, Conv2d, ConvTranspose2d, MaxPool2d, Module, ModuleList, Sequential


def _twice(before: int, after: int, padding: str, data_format: str) -> Sequential:
    return Sequential(
        *[
            Conv2d(channels, after, 3, padding=padding, activation="relu", data_format=data_format)
            for channels in (before, after)
        ]
    )


class UNet(Module):
    """Maps made coarser, then finer again by transposed convolutions, with shortcuts between.

    Source: Ronneberger et al., arXiv:1505.04597.

    Args:
        in_channels: Channels of the images.
        num_classes: Channels of the result.
        width: Channels of the finest level.
        depth: How many times maps are made coarser.
        padding: "valid" as in the paper, where 572x572 pixels give 388x388, or "same", where
            extents are multiples of 2 ** depth and stay.
        data_format: Of the images.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        width: int = 64,
        depth: int = 4,
        padding: str = "valid",
        *,
        data_format: str = "channels_first",
    ) -> None:
        f = data_format
        widths = [width << level for level in range(depth + 1)]
        self.down = ModuleList(
            _twice(before, after, padding, f)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = MaxPool2d(2, data_format=f)
        coarse_to_fine = widths[::-1]
        pairs = list(itertools.pairwise(coarse_to_fine))
        self.up = ModuleList(ConvTranspose2d(a, b, 2, 2, data_format=f) for a, b in pairs)
        self.merge = ModuleList(_twice(a, b, padding, f) for a, b in pairs)
        self.head = Conv2d(width, num_classes, 1, data_format=f)
        self.spatial, self.channel_axis = ((2, 3), 1) if f == "channels_first" else ((1, 2), 3)

    def forward(self, x: Any) -> Tensor:
        """Logits, a map of num_classes channels.

        Args:
            x: Images (batch, in_channels, height, width), or with the channels last.
        """
        kept = []
        for level, down in enumerate(self.down):
            x = down.forward(x if level == 0 else self.pool.forward(x))
            kept.append(x)
        for up, merge, fine in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = up.forward(x)
            x = merge.forward(F.concat([self._cropped(fine, x), x], self.channel_axis))
        return self.head.forward(x)

    def _cropped(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """The middle of `fine`, with the extents of `coarse`."""
        index = [slice(None)] * 4
        for axis in self.spatial:
            margin = (fine.shape[axis] - coarse.shape[axis]) // 2
            index[axis] = slice(margin, margin + coarse.shape[axis])
        return fine if fine.shape == coarse.shape else fine[tuple(index)]


def unet(
    in_channels: int = 1,
    num_classes: int = 2,
    width: int = 64,
    depth: int = 4,
    padding: str = "valid",
    *,
    data_format: str = "channels_first",
) -> UNet:
    """U-Net; see `UNet`.

    Args:
        in_channels, num_classes, width, depth, padding, data_format: As there.
    """
    return UNet(in_channels, num_classes, width, depth, padding, data_format=data_format)


class _Gated(Module):
    """tanh(filter) * sigmoid(gate) of a causal dilated convolution, residual and skip.

    The last of a stack has no residual, which nothing would read.
    """

    def __init__(
        self,
        channels: int,
        skip_channels: int,
        kernel: int,
        dilation: int,
        last: bool,
        data_format: str,
    ) -> None:
        causal: dict[str, Any] = {
            "padding": ((dilation * (kernel - 1), 0),),
            "dilation": dilation,
            "data_format": data_format,
        }
        self.filter = Conv1d(channels, channels, kernel, activation="tanh", **causal)
        self.gate = Conv1d(channels, channels, kernel, activation="sigmoid", **causal)
        self.residual = None if last else Conv1d(channels, channels, 1, data_format=data_format)
        self.skip = Conv1d(channels, skip_channels, 1, data_format=data_format)

    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        gated = self.filter.forward(x) * self.gate.forward(x)
        further = x if self.residual is None else self.residual.forward(gated, x)
        return further, self.skip.forward(gated)


class WaveNet(Module):
    """A stack of causal dilated convolutions, gated, with residual and skip connections.

    Output t depends on the inputs up to t; shifted by one, they predict the next.

    Source: van den Oord et al., arXiv:1609.03499.

    Args:
        classes: Channels of the input (one-hot) and of the result; the paper has 256.
        channels: Channels of the stack.
        skip_channels: Channels of the skip connections.
        layers: Layers of a block, of dilations 1, 2, 4, ...
        blocks: How often they come.
        kernel_size: Taps of each convolution.
        data_format: Of the signals.
    """

    def __init__(
        self,
        classes: int = 256,
        channels: int = 32,
        skip_channels: int = 256,
        layers: int = 10,
        blocks: int = 3,
        kernel_size: int = 2,
        *,
        data_format: str = "channels_first",
    ) -> None:
        f = data_format
        causal = ((kernel_size - 1, 0),)
        last = (blocks - 1, layers - 1)
        self.causal = Conv1d(classes, channels, kernel_size, padding=causal, data_format=f)
        self.stack = ModuleList(
            _Gated(channels, skip_channels, kernel_size, 2**layer, last == (block, layer), f)
            for block in range(blocks)
            for layer in range(layers)
        )
        self.head1 = Conv1d(skip_channels, skip_channels, 1, activation="relu", data_format=f)
        self.head2 = Conv1d(skip_channels, classes, 1, data_format=f)
        self.receptive_field = 1 + (kernel_size - 1) * (1 + blocks * (2**layers - 1))

    def forward(self, x: Any) -> Tensor:
        """Logits of the next element, (batch, classes, length).

        Args:
            x: One-hot signals (batch, classes, length), or with the channels last.
        """
        x = self.causal.forward(x)
        total: Any = None
        for layer in self.stack:
            x, skip = layer.forward(x)
            total = skip if total is None else total + skip
        return self.head2.forward(self.head1.forward(F.relu(total)))


def wavenet(
    classes: int = 256,
    channels: int = 32,
    skip_channels: int = 256,
    layers: int = 10,
    blocks: int = 3,
    kernel_size: int = 2,
    *,
    data_format: str = "channels_first",
) -> WaveNet:
    """WaveNet; see `WaveNet`.

    Args:
        classes, channels, skip_channels, layers, blocks, kernel_size, data_format: As there.
    """
    return WaveNet(
        classes, channels, skip_channels, layers, blocks, kernel_size, data_format=data_format
    )
