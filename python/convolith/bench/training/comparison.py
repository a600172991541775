"""Times training steps of several libraries in turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from convolith.bench.peers.process import PeerError, PeerProcess
from convolith.bench.training import Task

WORKER = "convolith.bench.training.worker"
TIMEOUT = 300.0
"""Seconds to wait for an answer."""


@dataclass
class Training:
    """What one library did, or a note why there is nothing.

    The parts are medians over the steps, in seconds; the loss is that of the very first step.
    """

    library: str
    forward: float = 0.0
    backward: float = 0.0
    update: float = 0.0
    loss: float = 0.0
    steps: int = 0
    disturbed: int = 0
    peak_bytes: int = 0
    note: str = ""
    samples: list[tuple[float, float, float]] = field(default_factory=list, repr=False)

    @property
    def seconds(self) -> float:
        """Of a step."""
        return self.forward + self.backward + self.update


class TrainingBenchmark:
    """One task, a process for each library, rounds in turns. Use it as a context."""

    def __init__(
        self, task: Task, libraries: Mapping[str, str], threads: int, rounds: int, seconds: float
    ) -> None:
        """Start nothing yet; `seconds` is the time of one library in one round."""
        self.task, self.threads, self.rounds, self.seconds = task, threads, rounds, seconds
        self.modules = dict(libraries)
        self.results = {name: Training(name) for name in libraries}
        self.versions: dict[str, str] = {}
        self.processes: dict[str, PeerProcess] = {}

    def __enter__(self) -> TrainingBenchmark:
        """Nothing to do before `run`."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.close()

    def run(self) -> Iterator[str]:
        """Measure into `results`; before each turn, yield the library's name.

        The first round warms up: plans are made, and memory grows to what it needs.
        """
        task = (self.task.net, str(self.task.batch))
        for name, module in self.modules.items():
            self.processes[name] = PeerProcess((module, *task), self.threads, WORKER)
        for name in list(self.processes):
            self.receive(name)
        for turn in range(self.rounds + 1):
            for name in list(self.processes):
                yield name
                self.processes[name].send({"seconds": self.seconds})
                self.receive(name, warms_up=turn == 0)

    def receive(self, name: str, *, warms_up: bool = False) -> None:
        """Take a library's answer in; leave it out if there is none."""
        result = self.results[name]
        try:
            answer = self.processes[name].receive(TIMEOUT)
        except PeerError as error:
            answer = {"failed": str(error)}
        if "versions" in answer:
            self.versions.update(answer["versions"])
            return
        if "steps" not in answer:
            absent = f"not installed (no module {answer.get('absent')})"
            result.note = answer.get("failed", absent)
            self.processes.pop(name).close()
            return
        if warms_up:
            result.loss = answer["steps"][0][3]
            return
        result.samples += [(f, b, u) for f, b, u, _ in answer["steps"]]
        result.steps = len(result.samples)
        result.disturbed += answer["disturbed"]
        result.peak_bytes = answer["peak_bytes"]
        parts = zip(*result.samples, strict=True)
        result.forward, result.backward, result.update = (statistics.median(p) for p in parts)
