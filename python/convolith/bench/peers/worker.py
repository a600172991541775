"""The process of one library: reads requests, one JSON object a line, and answers each with one.

    python -m convolith.bench.peers.worker MODULE CLASS THREADS

First it says {"versions": {name: version}}, or {"absent": module} and ends. Then
{"problem", "seed"} -> {"errors": {way: |error| over the largest |y|}} or {"unsupported": reason}
{"way", "seconds"} -> {"clean": seconds of undisturbed samples, "disturbed": of the others}
and {"failed": message} instead where an exception was raised. It ends with its input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from convolith import _core
from convolith.bench.peers.adapter import Adapter, Unsupported, check_plain
from convolith.bench.pools import PoolProblem, is_pool, make_input, pool_truth
from convolith.bench.timing import Stopwatch
from convolith.bench.truth import make_operands, result_shape, sampled_truth

Answerer = Callable[[dict[str, Any]], dict[str, Any]]
"""The answer to a request."""

NAP, LONGEST_REST = 2e-3, 0.25
"""Seconds."""


class Server:
    """Answers requests; holds the problem that was prepared last."""

    def __init__(self, adapter: Adapter) -> None:
        """Nothing is prepared yet."""
        self.adapter = adapter
        self.watches: dict[str, Stopwatch] = {}
        self.arrays: object = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        try:
            if "problem" in request:
                return {"errors": self.prepare(request["problem"], request["seed"])}
            return self.time(request["way"], request["seconds"])
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        except Exception as error:
            return {"failed": brief(error)}

    def prepare(self, text: str, seed: int) -> dict[str, float]:
        """Make the runs of a problem on arrays drawn from the seed; their errors."""
        self.watches = {}
        rng = np.random.default_rng(seed)
        if is_pool(text):
            pool = PoolProblem.parse(text)
            self.arrays = x = make_input(pool, rng)
            truth, shape = pool_truth(pool, x), pool.shape
            runs = self.adapter.prepare_pool(pool, x)
        else:
            problem = _core.ConvProblem.parse(text)
            check_plain(problem, self.adapter.weight_gradients)
            self.arrays = operands = make_operands(problem, rng)
            truth, shape = sampled_truth(problem, operands, rng), result_shape(problem)
            runs = self.adapter.prepare(problem, operands)
        errors = {}
        for way, run in runs.items():
            errors[way] = truth.error(np.asarray(run()).reshape(shape))
            self.watches[way] = Stopwatch(run)
        return errors

    def time(self, way: str, seconds: float) -> dict[str, Any]:
        """Samples of one run for a while, after calls that wake the threads up."""
        watch = self.watches[way]
        watch.restart()
        watch.sample()
        watch.restart()
        while not watch.done(seconds):
            watch.sample()
        rest()
        return {"clean": watch.clean, "disturbed": watch.disturbed}


def rest() -> None:
    """Wait until the library's threads sleep: those that spin would disturb whoever is next."""
    end = time.perf_counter() + LONGEST_REST
    while time.perf_counter() < end:
        busy = time.process_time()
        time.sleep(NAP)
        if time.process_time() - busy < NAP / 10:
            return


def brief(error: Exception) -> str:
    """The first line of what an exception says: some libraries go on for pages."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:160]


def private_output() -> TextIO:
    """Standard output for answers alone; what a library prints there goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def serve(start: Callable[[], tuple[dict[str, str], Answerer]]) -> None:
    """Tell the versions of what `start` sets up, or why it cannot be; answer until input ends."""
    output = private_output()

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=output, flush=True)

    try:
        versions, answer = start()
        tell({"versions": versions})
    except ModuleNotFoundError as error:
        return tell({"absent": error.name})
    except Exception as error:
        return tell({"failed": brief(error)})
    for line in sys.stdin:
        tell(answer(json.loads(line)))


def main(module: str, name: str, threads: str) -> None:
    """Serve one library's adapter."""

    def start() -> tuple[dict[str, str], Answerer]:
        adapter = getattr(importlib.import_module(module), name)(int(threads))
        return adapter.versions(), Server(adapter).answer

    serve(start)


if __name__ == "__main__":
    main(*sys.argv[1:])
