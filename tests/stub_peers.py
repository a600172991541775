"""Adapters for tests: libraries that are right, wrong, picky, or that break."""

from __future__ import annotations

import os
import time

import numpy as np

from convolith import reference
from convolith._core import ConvProblem
from convolith.bench.peers.adapter import Adapter, Run, Unsupported
from convolith.bench.truth import Operands, result_shape


class Right(Adapter):
    """Computes with the reference; chats on standard output."""

    name = "right"

    def versions(self) -> dict[str, str]:
        print("hello from", self.name)
        return {self.name: f"1.0 with {self.threads}"}

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        print("prepare", problem)
        return {
            "plain": lambda: reference.conv2d(
                operands.first, operands.second, padding=problem.padding
            )
        }


class Wrong(Right):
    """Computes zeros."""

    name = "wrong"

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        return {"": lambda: np.zeros(result_shape(problem))}


class Picky(Right):
    """Supports nothing."""

    name = "picky"

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        raise Unsupported("not today")


class Raising(Right):
    """Raises at length."""

    name = "raising"

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        raise RuntimeError("first line\n" + "more\n" * 1000)


class Crashing(Right):
    """Ends its process on the second shape."""

    name = "crashing"
    shapes = 0

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        self.shapes += 1
        if self.shapes > 1:
            os._exit(7)
        return super().prepare(problem, operands)


class Hanging(Right):
    """Never answers once it is asked to compute."""

    name = "hanging"

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        time.sleep(600)
        return {}


class Failing(Right):
    """Cannot be set up."""

    def __init__(self, threads: int) -> None:
        raise OSError("no licence")
