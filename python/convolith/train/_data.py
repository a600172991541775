"""Data sets of labelled images, in channels_last, each channel of mean 0 and deviation 1."""

from __future__ import annotations

import gzip
import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convolith._arguments import Array

EXTENT = 32  # rows and columns of all images, as LeNet takes them


@dataclass(frozen=True)
class Split:
    """Images and what they show.

    Attributes:
        images: float32 (count, 32, 32, channels).
        labels: int64 (count,), from 0.
    """

    images: Array
    labels: Array

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: Of the set.
        classes: The names of the classes, by label.
        train, test: To learn from, and held out.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.train.images.shape[-1])


def load(name: str, folder: Path | None = None) -> Data:
    """A data set by name.

    Args:
        name: "digits", "mnist" or "cifar10".
        folder: Where the files of mnist and cifar10 are.

    Raises:
        ValueError: An unknown name, a folder that is missing or not needed, or a file that is not
            whole; the message names the file.
        ModuleNotFoundError: digits without scikit-learn.
    """
    if name == "digits":
        if folder is not None:
            raise ValueError(f"digits come with scikit-learn and need no folder, {folder}")
        return digits()
    loaders = {"mnist": mnist, "cifar10": cifar10}
    if name not in loaders:
        raise ValueError(f"data is {name!r}; it must be digits, {', '.join(loaders)}")
    if folder is None:
        raise ValueError(f"{name} needs the folder of its files")
    return loaders[name](folder)


def _normalized(train: Array, test: Array) -> tuple[Array, Array]:
    """Both by the mean and deviation of each channel of the first."""
    axes = tuple(range(train.ndim - 1))
    mean = train.mean(axes, dtype=np.float64).astype(np.float32)
    deviation = train.std(axes, dtype=np.float64).astype(np.float32)
    deviation = np.where(deviation > 0, deviation, np.float32(1))
    return (train - mean) / deviation, (test - mean) / deviation


def _data(
    name: str,
    classes: tuple[str, ...],
    train: tuple[Array, Array],
    test: tuple[Array, Array],
) -> Data:
    images, held_out = _normalized(train[0], test[0])
    return Data(
        name,
        classes,
        Split(images, train[1].astype(np.int64)),
        Split(held_out, test[1].astype(np.int64)),
    )


def digits() -> Data:
    """1797 handwritten digits of 8x8 pixels, enlarged; a fifth of them, 360, are held out.

    Which ones does not depend on a seed.

    Source: Alpaydin & Kaynak, Optical recognition of handwritten digits, UCI repository; its test
    set, as scikit-learn brings it.
    """
    bunch = importlib.import_module("sklearn.datasets").load_digits()
    images = _enlarged(np.asarray(bunch.images, np.float32)[..., None], EXTENT // 8)
    labels = np.asarray(bunch.target)
    order = np.random.default_rng(0).permutation(len(labels))
    held_out = math.ceil(len(labels) / 5)
    test, train = order[:held_out], order[held_out:]
    return _data(
        "digits",
        tuple("0123456789"),
        (images[train], labels[train]),
        (images[test], labels[test]),
    )


def _enlarged(images: Array, factor: int) -> Array:
    """Resampled between pixels, in channels_last."""
    from convolith.autograd import functional as F
    from convolith.autograd import no_grad

    with no_grad():
        options: dict[str, Any] = {"mode": "bilinear", "data_format": "channels_last"}
        return F.upsample(images, scale_factor=factor, **options).data


# ---- MNIST ---------------------------------------------------------------------------------


def _bytes_of(folder: Path, name: str) -> tuple[Path, bytes]:
    """A file's content, or that of the file's gzip."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    path = folder / name
    if path.is_file():
        return path, path.read_bytes()
    packed = folder / f"{name}.gz"
    if not packed.is_file():
        raise ValueError(f"{folder} has no {name} and no {name}.gz")
    try:
        return packed, gzip.decompress(packed.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{packed} is no whole gzip file: {error}") from None


def _idx(folder: Path, name: str, axes: int) -> Array:
    """An array of an IDX file of unsigned bytes: two zero bytes, type 8, axes, big-endian extents.

    Source: Yann LeCun, "The MNIST database", the IDX file format.
    """
    path, content = _bytes_of(folder, name)
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{path} has {len(content)} bytes; its header alone has {start}")
    if content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(
            f"{path} begins with {content[:4].hex(' ')}; an IDX file of {axes} axes of bytes "
            f"begins with {bytes([0, 0, 8, axes]).hex(' ')}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, 4))
    needed = start + math.prod(shape)
    if len(content) != needed:
        raise ValueError(f"{path} has {len(content)} bytes; shape {shape} needs {needed}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def mnist(folder: Path) -> Data:
    """MNIST, or a set in its format (Fashion-MNIST, ...), of 28x28 pixels in a margin.

    Args:
        folder: Has train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each as it is or with .gz.

    Raises:
        ValueError: A file that is missing or not whole; the message names it.
    """
    splits = []
    for part in ("train", "t10k"):
        images = _idx(folder, f"{part}-images-idx3-ubyte", 3)
        labels = _idx(folder, f"{part}-labels-idx1-ubyte", 1)
        if len(images) != len(labels) or not len(labels):
            raise ValueError(f"{folder}: {part} has {len(images)} images and {len(labels)} labels")
        if images.shape[1:] != (28, 28):
            raise ValueError(f"{folder}: {part} has images of {images.shape[1:]}, not (28, 28)")
        if labels.max() > 9:
            raise ValueError(f"{folder}: {part} has the label {labels.max()}; labels are 0 to 9")
        margin = (EXTENT - 28) // 2
        widths = ((0, 0), (margin, margin), (margin, margin))
        splits.append((np.pad(images, widths)[..., None].astype(np.float32), labels))
    return _data("mnist", tuple("0123456789"), splits[0], splits[1])


# ---- CIFAR-10 ------------------------------------------------------------------------------

_CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CIFAR_RECORD = 1 + 3 * EXTENT * EXTENT


def _cifar_file(folder: Path, name: str) -> tuple[Array, Array]:
    """Images and labels of a file: for each image its label, then its channels, all bytes."""
    path, content = _bytes_of(folder, name)
    if not content or len(content) % _CIFAR_RECORD:
        raise ValueError(
            f"{path} has {len(content)} bytes; it must be a multiple of {_CIFAR_RECORD}, a label "
            "and an image"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{path} has the label {records[:, 0].max()}; labels are 0 to 9")
    images = records[:, 1:].reshape(-1, 3, EXTENT, EXTENT).transpose(0, 2, 3, 1)
    return images.astype(np.float32), records[:, 0]


def cifar10(folder: Path) -> Data:
    """CIFAR-10 in its binary version, 32x32 pixels in colour.

    Source: Krizhevsky, Learning multiple layers of features from tiny images (2009).

    Args:
        folder: Has data_batch_1.bin to data_batch_5.bin (those that are there are used) and
            test_batch.bin, or a folder cifar-10-batches-bin that has.

    Raises:
        ValueError: A file that is missing or not whole; the message names it.
    """
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    there = [n for n in names if (folder / n).is_file() or (folder / f"{n}.gz").is_file()]
    batches = [_cifar_file(folder, name) for name in there or names[:1]]
    train = tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return _data(
        "cifar10", _CIFAR_CLASSES, (train[0], train[1]), _cifar_file(folder, "test_batch.bin")
    )
