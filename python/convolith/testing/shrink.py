"""The smallest problem that still fails."""

from __future__ import annotations

import time
from collections.abc import Callable

from convolith.testing.operations import family_of
from convolith.testing.outcome import FAILED, Outcome
from convolith.testing.problem import Problem

Run = Callable[[Problem], Outcome]


def shrink(
    problem: Problem, outcome: Outcome, run: Run, seconds: float = 5.0, most: int = 400
) -> tuple[Problem, Outcome]:
    """Take the first simpler problem that fails in any way, again and again.

    Returns the problem and its outcome; the given ones where nothing simpler fails, and the best so
    far once the time or the number of runs is spent.
    """
    until, runs, seen = time.monotonic() + seconds, 0, {problem}
    progress = True
    while progress:
        progress = False
        for candidate in family_of(problem).smaller(problem):
            if candidate in seen:
                continue
            seen.add(candidate)
            if runs >= most or time.monotonic() > until:
                return problem, outcome
            runs += 1
            try:
                found = run(candidate)
            except (ValueError, TypeError, ZeroDivisionError, IndexError):
                continue  # it makes no sense
            if found.status == FAILED:
                problem, outcome, progress = candidate, found, True
                break
    return problem, outcome
