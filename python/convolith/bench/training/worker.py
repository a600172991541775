"""The process of one library: one JSON object a line in and out, as in `bench.peers.worker`.

    python -m convolith.bench.training.worker MODULE NET BATCH THREADS

First it says {"versions": ...}, {"absent": module} or {"failed": message}. Then
{"seconds"} -> {"steps": [[forward, backward, update, loss], ...], "disturbed": how many of them,
                "peak_bytes": the most memory that the process has had}
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import replace
from typing import Any

from convolith.bench.peers.worker import brief, private_output, rest
from convolith.bench.timing import context_switches
from convolith.bench.training import TASKS
from convolith.bench.training.trainer import Step

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


def main(module: str, net: str, batch: str, threads: str) -> None:
    """Serve until the input ends."""
    output = private_output()

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=output, flush=True)

    try:
        task = replace(TASKS[net], batch=int(batch))
        trainer = importlib.import_module(module).Trainer(task, int(threads))
        tell({"versions": trainer.versions()})
    except ModuleNotFoundError as error:
        return tell({"absent": error.name})
    except Exception as error:
        return tell({"failed": brief(error)})
    for line in sys.stdin:
        end = time.perf_counter() + json.loads(line)["seconds"]
        steps: list[Step] = []
        disturbed = 0
        try:
            while not steps or time.perf_counter() < end:
                switches = context_switches()
                steps.append(trainer.step())
                disturbed += context_switches() != switches
        except Exception as error:
            return tell({"failed": brief(error)})
        rest()
        tell({"steps": steps, "disturbed": disturbed, "peak_bytes": peak_bytes()})


if __name__ == "__main__":
    main(*sys.argv[1:])
