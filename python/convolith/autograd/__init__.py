"""Automatic differentiation of convolith's functions on NumPy arrays.

>>> from convolith.autograd import Tensor, functional
>>> x = Tensor([3.0], requires_grad=True)
>>> functional.sum(x * x).backward()
>>> x.grad
Tensor([6.])
"""

from convolith.autograd._tensor import Tensor  # first: the others are made of it

# isort: split
from convolith.autograd import functional
from convolith.autograd._check import gradcheck, gradgradcheck
from convolith.autograd._engine import grad
from convolith.autograd._mode import is_recording, no_grad

__all__ = ["Tensor", "functional", "grad", "gradcheck", "gradgradcheck", "is_recording", "no_grad"]
