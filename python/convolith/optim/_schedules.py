"""Learning rates over time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convolith._arguments import Array
from convolith.optim._optimizers import Optimizer


class Schedule:
    """Sets an optimizer's learning rate, to begin with its own.

    Attributes:
        base_lr: The learning rate at first.
        epoch: How many steps the schedule has made.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.epoch = 0

    def rate(self) -> float:
        """The learning rate of the current epoch."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
        self.optimizer.lr = self.rate()

    def state_dict(self) -> dict[str, Array]:
        """The first learning rate and the epoch, as arrays by name."""
        return {"base_lr": np.array(self.base_lr), "epoch": np.array(self.epoch)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: What state_dict returned.
        """
        self.base_lr, self.epoch = float(state["base_lr"]), int(state["epoch"])
        self.optimizer.lr = self.rate()


class StepLR(Schedule):
    """The learning rate is multiplied by gamma every step_size epochs.

    Args:
        optimizer: Whose learning rate it is.
        step_size: Epochs between changes.
        gamma: The factor.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer)
        if step_size < 1:
            raise ValueError(f"step_size is {step_size}; it must be at least 1")
        self.step_size = step_size
        self.gamma = gamma

    def rate(self) -> float:
        """base_lr * gamma ** (epoch // step_size)."""
        return self.base_lr * float(self.gamma) ** (self.epoch // self.step_size)


class CosineAnnealingLR(Schedule):
    """The learning rate falls to eta_min along half a cosine (Loshchilov, arXiv:1608.03983).

    Args:
        optimizer: Whose learning rate it is.
        t_max: Epochs until it is eta_min; after as many more it is back.
        eta_min: The least learning rate.
    """

    def __init__(self, optimizer: Optimizer, t_max: int, eta_min: float = 0.0) -> None:
        super().__init__(optimizer)
        if t_max < 1:
            raise ValueError(f"t_max is {t_max}; it must be at least 1")
        self.t_max = t_max
        self.eta_min = eta_min

    def rate(self) -> float:
        """eta_min + (base_lr - eta_min) (1 + cos(pi epoch / t_max)) / 2."""
        wave = 1 + math.cos(math.pi * self.epoch / self.t_max)
        return self.eta_min + (self.base_lr - self.eta_min) * wave / 2
