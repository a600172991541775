"""The process of one library: one JSON object a line in and out, as in `bench.peers.worker`.

    python -m convolith.bench.training.worker MODULE NET BATCH THREADS

First it says {"versions": ...}, {"absent": module} or {"failed": message}. Then
{"seconds"} -> {"steps": [[forward, backward, update, loss], ...], "disturbed": how many of them,
                "peak_bytes": the most memory that the process has had}
"""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

from convolith.bench.peers.worker import Answerer, brief, rest, serve
from convolith.bench.timing import context_switches
from convolith.bench.training import TASKS
from convolith.bench.training.trainer import BaseTrainer, Step

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def peak_bytes() -> int:
    """The most resident memory of this process so far; 0 where the system does not tell."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def answer(trainer: BaseTrainer, request: dict[str, Any]) -> dict[str, Any]:
    """Steps for a while, one at least."""
    end = time.perf_counter() + request["seconds"]
    steps: list[Step] = []
    disturbed = 0
    try:
        while not steps or time.perf_counter() < end:
            switches = context_switches()
            steps.append(trainer.step())
            disturbed += context_switches() != switches
    except Exception as error:
        return {"failed": brief(error)}
    rest()
    return {"steps": steps, "disturbed": disturbed, "peak_bytes": peak_bytes()}


def main(module: str, net: str, batch: str, threads: str) -> None:
    """Serve one library's trainer."""

    def start() -> tuple[dict[str, str], Answerer]:
        task = replace(TASKS[net], batch=int(batch))
        trainer = importlib.import_module(module).Trainer(task, int(threads))
        return trainer.versions(), partial(answer, trainer)

    serve(start)


if __name__ == "__main__":
    main(*sys.argv[1:])
