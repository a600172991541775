"""Optimizers, whose formulas are torch's, and schedules of their learning rates."""

from convolith.optim._optimizers import SGD, Adam, AdamW, Optimizer
from convolith.optim._schedules import CosineAnnealingLR, Schedule, StepLR

__all__ = ["SGD", "Adam", "AdamW", "CosineAnnealingLR", "Optimizer", "Schedule", "StepLR"]
