"""What a check found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convolith.testing import picture
from convolith.testing.outcome import FAILED, PASSED, SKIPPED, Outcome
from convolith.testing.problem import Problem


@dataclass(frozen=True)
class Failure:
    """One problem that failed, and the smallest one found that fails too."""

    problem: Problem
    outcome: Outcome
    smallest: Problem
    smallest_outcome: Outcome
    reproducer: str

    @property
    def kind(self) -> str:
        """A word for what went wrong: "values", "nonfinite", "out of bounds", "crashed", ..."""
        return self.outcome.kind

    def __str__(self) -> str:
        """The report."""
        found = self.smallest_outcome
        lines = [f"{found.kind}: {self.smallest}", f"  {found.reason}"]
        if found.picture:
            lines += ["  " + line for line in found.picture.splitlines()]
        if self.smallest != self.problem:
            lines.append(f"  found as: {self.problem}")
        lines.append(f"  again: {self.reproducer}")
        return "\n".join(lines)

    def save_png(self, path: str | Path) -> bool:
        """Draw where the error sits; False without matplotlib, or where there is no result."""
        found = self.smallest_outcome if self.smallest_outcome.plane is not None else self.outcome
        if found.plane is None:
            return False
        return picture.save_png(Path(path), found.plane, f"{self.smallest}\n{found.reason}")


@dataclass
class Report:
    """Counts, failures and the largest error of a check. True if something passed and nothing
    failed."""

    kernel: str
    op: str
    direction: str
    passed: int = 0
    failed: int = 0
    skips: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    worst: float = 0.0
    worst_problem: Problem | None = None
    seconds: float = 0.0

    @property
    def skipped(self) -> int:
        """Problems that were not run, for whatever reason."""
        return sum(self.skips.values())

    @property
    def kinds(self) -> Counter[str]:
        """How many problems failed in which way."""
        return Counter(failure.kind for failure in self.failures)

    def __bool__(self) -> bool:
        """Whether problems passed and none failed."""
        return self.passed > 0 and self.failed == 0

    def count(self, problem: Problem, outcome: Outcome) -> None:
        """Take in one outcome; failures are added by `failures`."""
        if outcome.status == SKIPPED:
            self.skips[outcome.reason] += 1
        elif outcome.status == PASSED:
            self.passed += 1
            if outcome.error > self.worst:
                self.worst, self.worst_problem = outcome.error, problem
        elif outcome.status == FAILED:
            self.failed += 1

    def distinct(self) -> list[Failure]:
        """Failures with different smallest problems."""
        found: dict[Problem, Failure] = {}
        for failure in self.failures:
            found.setdefault(failure.smallest, failure)
        return list(found.values())

    def summary(self) -> str:
        """One line of counts."""
        what = f"{self.kernel}, {self.op} {self.direction}"
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return f"{what}: {counts}; {self.seconds:.1f} s"

    def __str__(self) -> str:
        """The report."""
        lines = [self.summary()]
        if self.passed:
            lines.append(
                f"largest error that passed: {self.worst:.2f} of its bound ({self.worst_problem})"
            )
        if not self.passed and not self.failed:
            lines.append("nothing was checked")
        for reason, count in self.skips.most_common(12):
            lines.append(f"skipped {count}: {reason}")
        distinct = self.distinct()
        for failure in distinct[:8]:
            lines += ["", str(failure)]
        if len(distinct) > 8:
            lines.append(f"\nand {len(distinct) - 8} more; see report.failures")
        return "\n".join(lines)

    def assert_ok(self) -> None:
        """AssertionError with the report if a problem failed, or none passed."""
        if not self:
            raise AssertionError(str(self))

    def save_pictures(self, folder: str | Path) -> list[Path]:
        """A PNG for each distinct failure that has a picture; their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, failure in enumerate(self.distinct(), start=1):
            path = folder / f"failure-{number}.png"
            if failure.save_png(path):
                paths.append(path)
        return paths

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kernel": self.kernel,
            "op": self.op,
            "direction": self.direction,
            "passed": self.passed,
            "failed": self.failed,
            "skipped": self.skipped,
            "skips": dict(self.skips),
            "worst": self.worst,
            "worst_problem": str(self.worst_problem) if self.worst_problem else None,
            "seconds": self.seconds,
            "failures": [
                {
                    "kind": failure.kind,
                    "problem": str(failure.problem),
                    "reason": failure.outcome.reason,
                    "smallest": str(failure.smallest),
                    "smallest_kind": failure.smallest_outcome.kind,
                    "smallest_reason": failure.smallest_outcome.reason,
                    "picture": failure.smallest_outcome.picture,
                    "reproducer": failure.reproducer,
                }
                for failure in self.failures
            ],
        }
