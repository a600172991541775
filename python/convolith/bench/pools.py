"""Pooling layers of networks, in a text form like that of convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convolith import reference
from convolith._core import ConvProblem
from convolith.bench.arrays import Array, aligned
from convolith.bench.truth import Truth

OPERATIONS = ("max", "avg")
BACKWARD = " backward"

LAYERS = (
    ("vgg16", "pool1", "max_pool2d c64 i224x224 f2x2 s2"),
    ("googlenet", "pool3", "max_pool2d c480 i28x28 f3x3 s2 p1"),
    ("googlenet", "inception4a", "max_pool2d c480 i14x14 f3x3 p1"),
    ("resnet50", "maxpool", "max_pool2d c64 i112x112 f3x3 s2 p1"),
    ("resnet50", "avgpool", "avg_pool2d c2048 i7x7 f7x7"),
    ("densenet121", "transition1", "avg_pool2d c128 i56x56 f2x2 s2"),
    ("mobilenet_v2", "avgpool", "avg_pool2d c1280 i7x7 f7x7"),
    ("inception3", "5b", "avg_pool2d c192 i35x35 f3x3 p1"),
    ("c3d", "pool2", "max_pool3d c128 i16x56x56 f2x2x2 s2"),
)
"""Network, layer and problem; where the networks are from is told in the lists of convolutions."""


@dataclass(frozen=True)
class PoolProblem:
    """Pooling of a batch of one, float32: the windows of a depthwise convolution."""

    text: str
    operation: str
    window: ConvProblem
    backward: bool = False

    def __str__(self) -> str:
        """The text form."""
        return self.text

    @classmethod
    def parse(cls, text: str) -> PoolProblem:
        """Read the text form; ValueError where it is wrong."""
        name, _, rest = text.partition(" ")
        operation, _, shape = name.partition("_pool")
        backward = rest.endswith(BACKWARD)
        rest = rest.removesuffix(BACKWARD)
        channels = next((word[1:] for word in rest.split() if word.startswith("c")), "")
        if operation not in OPERATIONS or not channels.isdigit():
            raise ValueError(f"expected '{{max|avg}}_pool{{1|2|3}}d c...', got {text!r}")
        return cls(
            text,
            operation,
            ConvProblem.parse(f"conv{shape} {rest} k{channels} g{channels}"),
            backward,
        )

    @property
    def flops(self) -> float:
        """One operation for each element of each window."""
        return self.window.flops / 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result, channels first."""
        return self.window.x_shape if self.backward else self.window.y_shape

    @property
    def is_global(self) -> bool:
        """Whether one window holds all of a channel."""
        return self.window.kernel == self.window.input

    @cached_property
    def arguments(self) -> tuple[tuple[int, ...], ...]:
        """Kernel, stride and padding, as pooling functions take them."""
        padding = tuple(before for before, _ in self.window.padding)
        return self.window.kernel, self.window.stride, padding


@dataclass(frozen=True)
class PoolLayer:
    """One pooling of a network."""

    net: str
    name: str
    problem: PoolProblem


def pool_layers(backward: bool = False) -> list[PoolLayer]:
    """The layers that are compared, or their gradients."""
    suffix = BACKWARD if backward else ""
    return [PoolLayer(net, name, PoolProblem.parse(text + suffix)) for net, name, text in LAYERS]


def is_pool(text: str) -> bool:
    """Whether a text is that of a pooling problem."""
    return "_pool" in text


def make_input(problem: PoolProblem, rng: np.random.Generator) -> Array:
    """An array drawn uniformly from [-1, 1), channels first."""
    return aligned(rng.random(problem.window.x_shape, dtype=np.float32) * 2 - 1)


def make_gradient(problem: PoolProblem) -> Array:
    """The gradient of the forward's result, the same for every library, channels first."""
    rng = np.random.default_rng(len(problem.text))
    return rng.random(problem.window.y_shape, dtype=np.float32) * 2 - 1


def pool_truth(problem: PoolProblem, x: Array) -> Truth:
    """The whole result in float64."""
    name = f"{problem.operation}_pool{problem.window.rank}d"
    if problem.backward:
        dy = make_gradient(problem).astype(np.float64)
        backward = getattr(reference, f"{name}_backward")
        return Truth((), backward(dy, x.astype(np.float64), *problem.arguments))
    function = getattr(reference, name)
    return Truth((), function(x.astype(np.float64), *problem.arguments))
