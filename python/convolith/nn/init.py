"""Initial values of parameters, in place.

Numbers come from one generator for the process, which `manual_seed` restarts, or from a generator
that is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from convolith._arguments import Array
from convolith.autograd import Tensor

__all__ = [
    "constant_",
    "default_rng",
    "kaiming_normal_",
    "kaiming_uniform_",
    "manual_seed",
    "normal_",
    "ones_",
    "skip",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


class _Source:
    rng = np.random.default_rng()
    skipped = False


def manual_seed(seed: int | Sequence[int]) -> np.random.Generator:
    """Restart the generator of the process, which initialisers and dropout draw from.

    Args:
        seed: An integer that is not negative, or several.

    Returns:
        The generator.
    """
    _Source.rng = np.random.default_rng(seed)
    return _Source.rng


def default_rng() -> np.random.Generator:
    """The generator of the process."""
    return _Source.rng


@contextmanager
def skip() -> Iterator[None]:
    """Within the context initialisers leave the zeros that parameters begin with.

    A network whose weights are loaded anyway is made at once, and takes no memory before.
    """
    before, _Source.skipped = _Source.skipped, True
    try:
        yield
    finally:
        _Source.skipped = before


def _fill(tensor: Tensor, draw: Any) -> Tensor:
    if not _Source.skipped:
        tensor.data[...] = draw(tensor.shape)
        tensor.changed_in_place()
    return tensor


def _uniform(rng: np.random.Generator | None, low: float, high: float) -> Any:
    def draw(shape: tuple[int, ...]) -> Array:
        values = (rng or _Source.rng).random(shape, np.float32)
        values *= np.float32(high - low)
        values += np.float32(low)
        return values

    return draw


def _normal(rng: np.random.Generator | None, mean: float, std: float) -> Any:
    def draw(shape: tuple[int, ...]) -> Array:
        values = (rng or _Source.rng).standard_normal(shape, np.float32)
        values *= np.float32(std)
        values += np.float32(mean)
        return values

    return draw


def uniform_(
    tensor: Tensor, low: float = 0.0, high: float = 1.0, *, rng: np.random.Generator | None = None
) -> Tensor:
    """Evenly distributed numbers.

    Args:
        tensor: Filled in place, and returned.
        low, high: The ends.
        rng: Where the numbers come from; None for the generator of the process.
    """
    return _fill(tensor, _uniform(rng, low, high))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, rng: np.random.Generator | None = None
) -> Tensor:
    """Normal numbers.

    Args:
        tensor: Filled in place, and returned.
        mean, std: Of the distribution.
        rng: Where the numbers come from; None for the generator of the process.
    """
    return _fill(tensor, _normal(rng, mean, std))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    *,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Normal numbers, drawn again until they lie between low and high.

    Args:
        tensor: Filled in place, and returned.
        mean, std: Of the distribution before.
        low, high: The ends.
        rng: Where the numbers come from; None for the generator of the process.
    """
    if not (low < mean + 8 * std and high > mean - 8 * std and low < high):
        raise ValueError(f"low is {low} and high {high}; normal numbers are never found there")

    def draw(shape: tuple[int, ...]) -> Array:
        values = np.asarray(_normal(rng, mean, std)(shape))
        while (outside := (values < low) | (values > high)).any():
            values[outside] = _normal(rng, mean, std)((int(outside.sum()),))
        return values

    return _fill(tensor, draw)


def constant_(tensor: Tensor, value: float) -> Tensor:
    """One number everywhere.

    Args:
        tensor: Filled in place, and returned.
        value: The number.
    """
    return _fill(tensor, lambda shape: np.float32(value))


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros; fills tensor in place and returns it."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones; fills tensor in place and returns it."""
    return constant_(tensor, 1)


def fans(tensor: Tensor) -> tuple[int, int]:
    """How many inputs an output sums, and how many outputs an input reaches, of stride 1."""
    if tensor.ndim < 2:
        raise ValueError(f"tensor has shape {tensor.shape}; weights have 2 axes or more")
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}


def _gain(nonlinearity: str, slope: float) -> float:
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(
            f"nonlinearity is {nonlinearity!r}; it must be one of "
            f"{', '.join((*_GAINS, 'leaky_relu'))}"
        )
    return _GAINS[nonlinearity]


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode is {mode!r}; it must be 'fan_in' or 'fan_out'")
    return fans(tensor)[mode == "fan_out"]


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Even numbers whose variance keeps that of activations (He et al., arXiv:1502.01852).

    Args:
        tensor: Weights (out, in, *kernel), filled in place, and returned.
        a: The slope of leaky_relu.
        mode: "fan_in" keeps the variance on the way forward, "fan_out" on the way back.
        nonlinearity: "linear", "sigmoid", "tanh", "relu" or "leaky_relu".
        rng: Where the numbers come from; None for the generator of the process.
    """
    bound = _gain(nonlinearity, a) * math.sqrt(3 / max(1, _fan(tensor, mode)))
    return uniform_(tensor, -bound, bound, rng=rng)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Normal numbers whose variance keeps that of activations (He et al., arXiv:1502.01852).

    Args:
        tensor, a, mode, nonlinearity, rng: As in `kaiming_uniform_`.
    """
    std = _gain(nonlinearity, a) / math.sqrt(max(1, _fan(tensor, mode)))
    return normal_(tensor, 0, std, rng=rng)


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, *, rng: np.random.Generator | None = None
) -> Tensor:
    """Even numbers of variance gain^2 2 / (in + out) (Glorot & Bengio, AISTATS 2010).

    Args:
        tensor: Weights (out, in, *kernel), filled in place, and returned.
        gain: Factor.
        rng: Where the numbers come from; None for the generator of the process.
    """
    bound = gain * math.sqrt(6 / max(1, sum(fans(tensor))))
    return uniform_(tensor, -bound, bound, rng=rng)


def xavier_normal_(
    tensor: Tensor, gain: float = 1.0, *, rng: np.random.Generator | None = None
) -> Tensor:
    """Normal numbers of variance gain^2 2 / (in + out) (Glorot & Bengio, AISTATS 2010).

    Args:
        tensor, gain, rng: As in `xavier_uniform_`.
    """
    return normal_(tensor, 0, gain * math.sqrt(2 / max(1, sum(fans(tensor)))), rng=rng)
