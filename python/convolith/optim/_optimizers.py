"""Steps down the gradient, in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from convolith import _core
from convolith._arguments import Array
from convolith.autograd import Tensor


def _at_least(value: float, least: float, name: str) -> float:
    if not value >= least:
        raise ValueError(f"{name} is {value}; it must be at least {least:g}")
    return float(value)


def _share(value: float, name: str) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 0 and less than 1")
    return float(value)


class Optimizer:
    """What optimizers have in common.

    Attributes:
        parameters: What is learned.
        lr: The learning rate, which schedules change.
        steps: How many steps were made.
    """

    slots: tuple[str, ...] = ()  # names of the arrays that are kept for each parameter

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters is empty")
        self.lr = _at_least(lr, 0, "lr")
        self.steps = 0
        self._kept: dict[str, list[Array | None]] = {
            slot: [None] * len(self.parameters) for slot in self.slots
        }

    def zero_grad(self) -> None:
        """Forget the gradients of the parameters."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        self.steps += 1
        learned = [(i, p, p.grad) for i, p in enumerate(self.parameters) if p.grad is not None]
        self._update(
            [i for i, _, _ in learned],
            [p.data for _, p, _ in learned],
            [g.data for *_, g in learned],
        )
        for _, parameter, _ in learned:
            parameter.changed_in_place()

    def _update(self, numbers: list[int], ps: list[Array], gs: list[Array]) -> None:
        """Change the arrays of some parameters by their gradients."""
        raise NotImplementedError

    def _kept_for(self, slot: str, numbers: list[int], like: list[Array]) -> list[Array]:
        """The arrays that are kept for some parameters, at first zeros."""
        kept = self._kept[slot]
        arrays = []
        for i, p in zip(numbers, like, strict=True):
            array = kept[i]
            if array is None:
                array = kept[i] = np.zeros_like(p)
            arrays.append(array)
        return arrays

    def state_dict(self) -> dict[str, Array]:
        """Learning rate, steps, and what is kept for each parameter, as arrays by name."""
        state = {"lr": np.array(self.lr), "steps": np.array(self.steps)}
        for slot, arrays in self._kept.items():
            for i, array in enumerate(arrays):
                if array is not None:
                    state[f"{slot}.{i}"] = array
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: What state_dict returned, of an optimizer of the same kind and parameters.

        Raises:
            ValueError: Names or shapes that do not fit.
        """
        expected = {
            f"{slot}.{i}": parameter.shape
            for slot in self.slots
            for i, parameter in enumerate(self.parameters)
        }
        for name in ("lr", "steps"):
            if name not in state:
                raise ValueError(f"state lacks {name}")
        for name, value in state.items():
            if name in ("lr", "steps"):
                continue
            if name not in expected:
                raise ValueError(f"state has {name}, which {type(self).__name__} does not keep")
            if np.shape(value) != expected[name]:
                raise ValueError(f"{name} has shape {np.shape(value)}; it must be {expected[name]}")
        self.lr, self.steps = float(state["lr"]), int(state["steps"])
        for slot in self.slots:
            self._kept[slot] = [
                np.array(state[f"{slot}.{i}"], parameter.dtype) if f"{slot}.{i}" in state else None
                for i, parameter in enumerate(self.parameters)
            ]


class SGD(Optimizer):
    """Gradient descent: v = momentum v + (1 - dampening) g; p -= lr v (v = g in the first step).

    Source: Sutskever et al., ICML 2013, in torch's form.

    Args:
        parameters: Tensors to change.
        lr: Learning rate.
        momentum: What is kept of the last step.
        dampening: What is held back of the gradient.
        weight_decay: weight_decay * p is added to the gradient.
        nesterov: Step by g + momentum v.
    """

    slots = ("momentum",)

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum = _at_least(momentum, 0, "momentum")
        self.dampening = float(dampening)
        self.weight_decay = _at_least(weight_decay, 0, "weight_decay")
        self.nesterov = nesterov
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                f"nesterov is True, momentum {momentum} and dampening {dampening}; "
                "it needs a momentum and no dampening"
            )

    def _update(self, numbers: list[int], ps: list[Array], gs: list[Array]) -> None:
        rate, momentum, decay = float(self.lr), self.momentum, self.weight_decay
        if not momentum:
            _core.sgd_step(ps, gs, [None] * len(ps), rate, 0.0, decay, False)
            return
        fresh = [self._kept["momentum"][i] is None for i in numbers]
        vs = self._kept_for("momentum", numbers, ps)
        if not self.dampening:
            _core.sgd_step(ps, gs, vs, rate, momentum, decay, self.nesterov)
            return
        for p, g, v, first in zip(ps, gs, vs, fresh, strict=True):
            if decay:
                g = g + decay * p
            v *= momentum
            v += g if first else (1 - self.dampening) * g
            p -= self.lr * v


class Adam(Optimizer):
    """Steps by the mean gradient over the root of its mean square (Kingma & Ba, arXiv:1412.6980).

    Args:
        parameters: Tensors to change.
        lr: Learning rate.
        betas: What is kept of the means of the gradient and of its square.
        eps: Added to the root.
        weight_decay: weight_decay * p is added to the gradient.
    """

    slots = ("mean", "square")
    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        self.betas = (_share(betas[0], "betas[0]"), _share(betas[1], "betas[1]"))
        self.eps = _at_least(eps, 0, "eps")
        self.weight_decay = _at_least(weight_decay, 0, "weight_decay")

    def _update(self, numbers: list[int], ps: list[Array], gs: list[Array]) -> None:
        _core.adam_step(
            ps,
            gs,
            self._kept_for("mean", numbers, ps),
            self._kept_for("square", numbers, ps),
            self.steps,
            float(self.lr),
            *self.betas,
            self.eps,
            self.weight_decay,
            self.decoupled,
        )


class AdamW(Adam):
    """Adam whose weight decay does not pass through the means (Loshchilov, arXiv:1711.05101).

    Args:
        parameters: Tensors to change.
        lr: Learning rate.
        betas: What is kept of the means of the gradient and of its square.
        eps: Added to the root.
        weight_decay: p shrinks by lr * weight_decay * p in each step.
    """

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)
