"""Training on images: data sets, a loop that can be interrupted and resumed, and what it found."""

from convolith.train._data import Data, Split, cifar10, digits, load, mnist
from convolith.train._loop import Epoch, Settings, Trainer, confusion_matrix, predict

__all__ = [
    "Data",
    "Epoch",
    "Settings",
    "Split",
    "Trainer",
    "cifar10",
    "confusion_matrix",
    "digits",
    "load",
    "mnist",
    "predict",
]
