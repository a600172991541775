"""Index maps: which input element each tap of each window reads.

Along one axis of extent n, with kernel k, stride s, dilation d and padding (before, after),
tap t of output o reads the padded coordinate o*s + t*d, which is the input coordinate
o*s + t*d - before. Padded coordinates outside the input are mapped by the padding mode:

    zeros      -1 (reads as zero)
    reflect    mirrored about the edge element, which is not repeated
    replicate  the nearest edge element
    circular   modulo n
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """The windows along one spatial axis."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int


def effective_kernel(kernel: int, dilation: int) -> int:
    """Extent that a dilated kernel spans."""
    return dilation * (kernel - 1) + 1


def output_size(
    n: int, effective: int, stride: int, before: int, after: int, ceil_mode: bool = False
) -> int:
    """floor((n + before + after - effective) / stride) + 1, or the ceil_mode variant of it."""
    room = n + before + after - effective
    if not ceil_mode:
        return room // stride + 1
    out = -(-room // stride) + 1
    # A last window that would start in the padding after the input is dropped.
    return out - 1 if (out - 1) * stride >= n + before else out


def same_padding(n: int, effective: int, stride: int, lower: bool) -> tuple[int, int]:
    """Padding for which the output has ceil(n / stride) elements (TensorFlow's rule).

    The odd element goes to the end, or to the start if `lower`.
    """
    out = -(-n // stride)
    total = max(0, (out - 1) * stride + effective - n)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def padded_source(n: int, before: int, after: int, mode: str) -> Indices:
    """Source index of each padded coordinate -before, ..., n + after - 1; -1 reads as zero."""
    p: Indices = np.arange(-before, n + after, dtype=np.int64)
    if mode == "reflect":
        mirrored: Indices = (n - 1) - np.abs((n - 1) - np.abs(p))
        return mirrored
    if mode == "replicate":
        return np.clip(p, 0, n - 1)
    if mode == "circular":
        return p % n
    return np.where((p >= 0) & (p < n), p, -1)


def pad(x: Array, axes: Sequence[Axis], mode: str) -> Array:
    """Pad the trailing axes of x: padded[p] = x[source[p]]."""
    for number, axis in enumerate(axes, start=x.ndim - len(axes)):
        source = padded_source(axis.size, axis.before, axis.after, mode)
        x = np.take(x, source, axis=number)
        np.moveaxis(x, number, 0)[source < 0] = 0
    return x


def fold(padded: Array, axes: Sequence[Axis], mode: str) -> Array:
    """The adjoint of `pad`: x[source[p]] += padded[p]."""
    for number, axis in enumerate(axes, start=padded.ndim - len(axes)):
        source = padded_source(axis.size, axis.before, axis.after, mode)
        rows = np.moveaxis(padded, number, 0)
        x = np.zeros((axis.size, *rows.shape[1:]))
        for p, index in enumerate(source):
            if index >= 0:
                x[index] += rows[p]
        padded = np.moveaxis(x, 0, number)
    return padded


def tap_slice(axis: Axis, t: int) -> slice:
    """The padded elements o*stride + t*dilation that kernel tap t reads, for every output o."""
    start = t * axis.dilation
    return slice(start, start + (axis.out - 1) * axis.stride + 1, axis.stride)


def window_source(axis: Axis) -> Indices:
    """Input coordinate of tap t of output o, as an (out, kernel) array; -1 outside the input."""
    o = np.arange(axis.out, dtype=np.int64)[:, None]
    t = np.arange(axis.kernel, dtype=np.int64)
    i = o * axis.stride + t * axis.dilation - axis.before
    return np.where((i >= 0) & (i < axis.size), i, -1)


def window_extent(axis: Axis) -> Indices:
    """Extent of each undilated window clipped to the padded input, as an (out,) array."""
    start = np.arange(axis.out, dtype=np.int64) * axis.stride
    return np.minimum(start + axis.kernel, axis.before + axis.size + axis.after) - start


def adaptive_source(n: int, out: int) -> Indices:
    """Like `window_source`, for windows [floor(o*n/out), ceil((o+1)*n/out))."""
    o = np.arange(out, dtype=np.int64)
    start, end = o * n // out, -(-(o + 1) * n // out)
    i = start[:, None] + np.arange((end - start).max(), dtype=np.int64)
    return np.where(i < end[:, None], i, -1)


class Windows:
    """Pooling windows over a plane: `at[*o, t]` is the flat index that tap t of output o reads.

    Taps are in row-major window order. The index one past the plane, `size`, stands for padding.
    """

    def __init__(self, spatial: Sequence[int], sources: Sequence[Indices]) -> None:
        nd = len(spatial)
        flat: Indices = np.zeros((1,) * (2 * nd), dtype=np.int64)
        inside: Mask = np.ones((1,) * (2 * nd), dtype=np.bool_)
        for i, (n, source) in enumerate(zip(spatial, sources, strict=True)):
            # (out_i, kernel_i) become axes i and nd + i of (out_0, ..., kernel_0, ...).
            shape = [1] * (2 * nd)
            shape[i], shape[nd + i] = source.shape
            along = source.reshape(shape)
            flat = flat * n + along
            inside = inside & (along >= 0)
        self.spatial = tuple(spatial)
        self.size = math.prod(spatial)
        self.out = tuple(source.shape[0] for source in sources)
        taps = math.prod(source.shape[1] for source in sources)
        self.at: Indices = np.where(inside, flat, self.size).reshape(*self.out, taps)
        self.inside: Mask = self.at < self.size

    def gather(self, x: Array, fill: float) -> Array:
        """(N, C, *spatial) -> (N, C, *out, taps), with `fill` where a tap reads padding."""
        n, c = x.shape[:2]
        plane = np.full((n, c, self.size + 1), fill)
        plane[..., : self.size] = x.reshape(n, c, self.size)
        return plane[..., self.at]

    def scatter(self, index: Indices, values: Array) -> Array:
        """Add values (N, C, ...) to their flat indices: the adjoint of gathering from there."""
        n, c = values.shape[:2]
        count = math.prod(values.shape[2:])
        plane = self.size + 1
        index = np.broadcast_to(index, values.shape).reshape(n * c, count)
        index = index + plane * np.arange(n * c, dtype=np.int64)[:, None]
        sums = np.bincount(index.ravel(), values.ravel(), n * c * plane).astype(np.float64)
        return sums.reshape(n, c, plane)[..., : self.size].reshape(n, c, *self.spatial)
