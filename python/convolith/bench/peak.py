"""What the machine can do: fused multiply-adds, copies, and the library's GEMM in relation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from convolith import _core
from convolith.bench.timing import undisturbed

COPY_BYTES = 1 << 28
"""Copied by one measurement: well past the caches."""

GEMM_SIZE = 1024

GEMM_RUNS = 11
"""A value is the median of so many runs, as the FMA peak is one of bursts."""

DTYPES = ("float32", "float64")


def fma_peak(dtype: str, threads: int) -> float:
    """FLOP/s of back-to-back fused multiply-adds, the best of five: what the machine can do."""
    return max(_core.measure_peak(dtype, threads) for _ in range(5))


def copy_bandwidth(threads: int) -> float:
    """Bytes/s of a copy, read + written, the best of three."""
    return max(_core.measure_copy(COPY_BYTES, threads) for _ in range(3))


@dataclass(frozen=True)
class Quantity:
    """One measured rate: `what` is "fma" or "gemm" (FLOP/s), or "copy" (bytes/s, no dtype)."""

    what: str
    dtype: str
    threads: int
    rounds: list[float] = field(default_factory=list, compare=False)

    @property
    def value(self) -> float:
        """Median over the rounds so far."""
        return statistics.median(self.rounds)


class PeakBenchmark:
    """FMA peak, GEMM and copy, in interleaved rounds so that all see the same machine."""

    def __init__(self, threads: Sequence[int], rounds: int = 7) -> None:
        """Measure nothing yet."""
        self.threads = threads
        self.rounds = rounds
        self.quantities = [
            Quantity(what, dtype, count)
            for dtype in DTYPES
            for count in threads
            for what in ("fma", "gemm")
        ] + [Quantity("copy", "", count) for count in threads]
        square = np.random.default_rng(0).random((2, GEMM_SIZE, GEMM_SIZE)) - 0.5
        self.matrices = {dtype: square.astype(dtype) for dtype in DTYPES}
        self.products = {dtype: np.zeros(square.shape[1:], dtype) for dtype in DTYPES}

    def run(self) -> Iterator[Quantity]:
        """Measure all quantities, round by round, yielding each before its turn."""
        for _ in range(self.rounds):
            for quantity in self.quantities:
                yield quantity
                quantity.rounds.append(undisturbed(partial(self.once, quantity)))

    def once(self, quantity: Quantity) -> float:
        """One value."""
        if quantity.what == "fma":
            return _core.measure_peak(quantity.dtype, quantity.threads)
        if quantity.what == "copy":
            return _core.measure_copy(COPY_BYTES, quantity.threads)
        a, b = self.matrices[quantity.dtype]
        product = self.products[quantity.dtype]
        _core.gemm(a, b, quantity.threads, product)
        seconds = []
        for _ in range(GEMM_RUNS):
            start = time.perf_counter()
            _core.gemm(a, b, quantity.threads, product)
            seconds.append(time.perf_counter() - start)
        return 2 * GEMM_SIZE**3 / statistics.median(seconds)

    def find(self, what: str, dtype: str, threads: int) -> Quantity:
        """One of the quantities."""
        return self.quantities[self.quantities.index(Quantity(what, dtype, threads))]

    def gemm_share(self, dtype: str, threads: int) -> float | None:
        """Median over the rounds of GEMM over FMA peak; None before the first."""
        gemm = self.find("gemm", dtype, threads)
        peak = self.find("fma", dtype, threads)
        ratios = [value / top for value, top in zip(gemm.rounds, peak.rounds, strict=False)]
        return statistics.median(ratios) if ratios else None
