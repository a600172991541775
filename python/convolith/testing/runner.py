"""Runs problems here, or in a child process that may crash."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import signal
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from convolith.testing import guard
from convolith.testing.examine import Conditions, examine
from convolith.testing.kernels import Kernel
from convolith.testing.outcome import FAILED, Outcome
from convolith.testing.problem import Problem

MakeKernel = Callable[[], Kernel]


class Here:
    """Runs problems in this process."""

    def __init__(self, make: MakeKernel, conditions: Conditions) -> None:
        """Make the kernel."""
        self.kernel, self.conditions = make(), conditions

    def run(self, problem: Problem) -> Outcome:
        """What became of it; ValueError for a problem that makes no sense."""
        return examine(self.kernel, problem, self.conditions)

    def close(self) -> None:
        """Nothing to end."""


class Forked:
    """Runs problems in a child, and starts another one when that died or hung."""

    def __init__(self, make: MakeKernel, conditions: Conditions, timeout: float = 60.0) -> None:
        """`make` is called in each child; `timeout` in seconds, for a problem."""
        self.make, self.conditions, self.timeout = make, conditions, timeout
        self.process: Any = None
        self.pipe: Any = None

    def run(self, problem: Problem) -> Outcome:
        """What became of it, also if that is a crash; ValueError as in `Here`."""
        if self.process is None:
            self._start()
        self.pipe.send(problem)
        try:
            if not self.pipe.poll(self.timeout):
                self.close()
                reason = f"no answer within {self.timeout:g} s"
                return Outcome(FAILED, "hung", reason, float("inf"))
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            self.close()
            return Outcome(FAILED, "crashed", _death(code), float("inf"))
        if isinstance(answer, Exception):
            raise answer
        found: Outcome = answer
        return found

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.make, self.conditions), daemon=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            self.process.start()
        theirs.close()

    def close(self) -> None:
        """End the child."""
        if self.process is not None:
            self.pipe.close()
            self.process.kill()
            self.process.join()
            self.process = None


def _serve(pipe: Connection, make: MakeKernel, conditions: Conditions) -> None:
    """The child: answer problems until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.disable()  # the parent tells of crashes
    guard.poison_allocations()
    kernel: Kernel | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            problem = pipe.recv()
            answer: Any
            try:
                if kernel is None:
                    kernel = make()
                answer = examine(kernel, problem, conditions)
            except Exception as error:
                answer = error
            pipe.send(answer)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            touched = " (it touched memory outside of its buffers)"
            return f"the process died of {name}" + (
                touched if name in ("SIGSEGV", "SIGBUS") else ""
            )
    return f"the process ended with code {code}"


def can_fork() -> bool:
    """Whether this system can run kernels in a child."""
    return "fork" in multiprocessing.get_all_start_methods()
