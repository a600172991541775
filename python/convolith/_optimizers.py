"""Steps of gradient descent, in place and in one pass over memory."""

from __future__ import annotations

from convolith import _arguments, _core
from convolith._arguments import Array


def sgd_step(
    parameter: Array,
    gradient: Array,
    velocity: Array | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> None:
    """One step of stochastic gradient descent, in place, as torch.optim.SGD does it.

    g = gradient + weight_decay * parameter; velocity = momentum * velocity + g;
    parameter -= lr * velocity, or lr * (g + momentum * velocity) with nesterov (Sutskever et al.,
    ICML 2013).

    Args:
        parameter: Changed in place: C-contiguous and writable, float32 or float64, any shape.
        gradient: Of its shape and dtype.
        velocity: Of its shape and dtype, changed in place; zeros before the first step. None if
            momentum is 0.
        lr: Step size.
        momentum: Share of the velocity that is kept.
        weight_decay: Factor of the parameter in the gradient.
        nesterov: Whether to look ahead along the velocity.

    Raises:
        ValueError: Shapes that differ, arrays that cannot be changed in place, or momentum
            without velocity.
    """
    _core.sgd_step(
        [parameter],
        [gradient],
        [velocity],
        _arguments.real(lr, "lr"),
        _arguments.real(momentum, "momentum"),
        _arguments.real(weight_decay, "weight_decay"),
        _arguments.flag(nesterov, "nesterov"),
    )


def adam_step(
    parameter: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    step: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """One step of Adam, in place, as torch.optim.Adam and AdamW do it.

    Kingma & Ba, "Adam" (ICLR 2015); with decoupled, Loshchilov & Hutter, "Decoupled weight decay
    regularization" (ICLR 2019).

    Args:
        parameter: Changed in place: C-contiguous and writable, float32 or float64, any shape.
        gradient: Of its shape and dtype.
        mean, square: Running means of the gradient and of its square, of the same shape and
            dtype, changed in place; zeros before the first step.
        step: Number of this step, from 1.
        lr: Step size.
        betas: What the running means keep of themselves, each at least 0 and below 1.
        eps: Added to the root of the square.
        weight_decay: Factor of the parameter in the gradient; or, with decoupled, lr times it is
            taken off the parameter first.
        decoupled: Whether the decay stays out of the gradient: AdamW.

    Raises:
        ValueError: Shapes that differ, arrays that cannot be changed in place, or numbers out of
            range.
    """
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas is {betas!r}; it must be a pair of numbers")
    _core.adam_step(
        [parameter],
        [gradient],
        [mean],
        [square],
        _arguments.integer(step, "step"),
        _arguments.real(lr, "lr"),
        _arguments.real(betas[0], "betas"),
        _arguments.real(betas[1], "betas"),
        _arguments.real(eps, "eps"),
        _arguments.real(weight_decay, "weight_decay"),
        _arguments.flag(decoupled, "decoupled"),
    )
