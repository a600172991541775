"""What every library's adapter has: a name, versions, and runs of a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from convolith._core import ConvProblem
from convolith.bench.arrays import Array
from convolith.bench.pools import PoolProblem
from convolith.bench.truth import Operands

Run = Callable[[], object]
"""One convolution; returns what `numpy.asarray` turns into the result, channels first."""


class Unsupported(Exception):
    """The library cannot compute the problem; says why, in a few words."""


class Adapter(ABC):
    """One library with a number of threads, float32, channels-first problems without epilogue."""

    name: ClassVar[str]
    weight_gradients: ClassVar[bool] = False
    """Whether the library computes backward_weight."""

    def __init__(self, threads: int) -> None:
        """Set the library up; ImportError where it is not installed."""
        self.threads = threads

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the library and of what it is known to depend on."""

    @abstractmethod
    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        """The ways to compute a problem, by name, with weights packed where the library can.

        The operands outlive the runs. Raises Unsupported.
        """

    def prepare_pool(self, problem: PoolProblem, x: Array) -> dict[str, Run]:
        """The ways to compute a pooling problem, by name; x outlives the runs."""
        raise Unsupported("pooling")


def check_plain(problem: ConvProblem, weight_gradients: bool = False) -> None:
    """Unsupported unless the problem is one that frameworks have as one operation."""
    if problem.direction == "backward_weight" and not weight_gradients:
        raise Unsupported("gradient of the weights")
    if problem.dtype != "float32":
        raise Unsupported(problem.dtype)
    if problem.padding_mode != "zeros":
        raise Unsupported(f"padding mode {problem.padding_mode}")
    if problem.bias or problem.residual or problem.activation != "none":
        raise Unsupported("epilogue")


def is_transposed(problem: ConvProblem) -> bool:
    """Whether frameworks call the problem a transposed convolution."""
    return problem.direction == "backward_input"


def output_padding(problem: ConvProblem) -> tuple[int, ...]:
    """What a transposed convolution adds to the least extents that its window gives."""
    return tuple(
        extent - ((outputs - 1) * stride + (taps - 1) * dilation + 1 - before - after)
        for extent, outputs, stride, taps, dilation, (before, after) in zip(
            problem.input,
            problem.output,
            problem.stride,
            problem.kernel,
            problem.dilation,
            problem.padding,
            strict=True,
        )
    )
