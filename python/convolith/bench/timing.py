"""Timing: medians of interleaved samples, with disturbed samples repeated.

A sample during which the kernel took a core away (an involuntary context switch) is set aside and
taken again while the time budget lasts: a thread that waits at a barrier for one that lost its core
makes a call look several times slower than it is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

try:
    import resource
except ImportError:  # Windows: no count of context switches, every sample counts as clean
    resource = None  # type: ignore[assignment]

SAMPLE_SECONDS = 1e-3
FIRST_SAMPLES = 3
FIRST_SECONDS = 1e-2
MIN_SAMPLES = 3
MAX_SAMPLES = 25


def context_switches() -> int:
    """Involuntary context switches of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


class Stopwatch:
    """Samples of the time of one call; a sample repeats a short call for about a millisecond."""

    def __init__(self, run: Callable[[], object]) -> None:
        """Warm up and choose the number of repeats."""
        self.run = run
        self.clean: list[float] = []
        self.disturbed: list[float] = []
        self.spent = 0.0
        self.repeats = 1
        run()  # first touch of memory, threads started
        self.sample()
        while len(self.samples) < FIRST_SAMPLES and self.spent < FIRST_SECONDS:
            self.sample()  # a short call looks long if it is interrupted
        shortest = min(self.samples)
        if shortest < SAMPLE_SECONDS:
            self.repeats = int(SAMPLE_SECONDS / max(shortest, 1e-7)) + 1
            self.restart()

    @property
    def samples(self) -> list[float]:
        """Seconds of a call, by sample: undisturbed ones, then the others."""
        return self.clean + self.disturbed

    def restart(self) -> None:
        """Forget the samples."""
        self.clean.clear()
        self.disturbed.clear()
        self.spent = 0.0

    def sample(self) -> None:
        """Take one sample."""
        switches = context_switches()
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.run()
        elapsed = time.perf_counter() - start
        samples = self.clean if context_switches() == switches else self.disturbed
        samples.append(elapsed / self.repeats)
        self.spent += elapsed

    def done(self, budget: float) -> bool:
        """Whether there are enough samples, or no time for more."""
        if len(self.clean) >= MAX_SAMPLES or self.spent >= 3 * budget:
            return bool(self.samples)
        return self.spent >= budget and len(self.clean) >= MIN_SAMPLES

    @property
    def seconds(self) -> float:
        """Median of the undisturbed samples; the shortest if every one was disturbed."""
        return statistics.median(self.clean) if self.clean else min(self.samples)


def measure(runs: Sequence[Callable[[], object]], budget: float) -> list[Stopwatch]:
    """Time the runs in interleaved rounds, each for about `budget` seconds."""
    watches = [Stopwatch(run) for run in runs]
    while pending := [watch for watch in watches if not watch.done(budget)]:
        for watch in pending:
            watch.sample()
    return watches


def undisturbed(measurement: Callable[[], float], attempts: int = 3) -> float:
    """A measured rate; the best of a few attempts where each was disturbed."""
    rates = []
    for _ in range(attempts):
        switches = context_switches()
        rates.append(measurement())
        if context_switches() == switches:
            return rates[-1]
    return max(rates)
