"""Times this library and its peers on layers, in interleaved rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from convolith.bench.peers import OWN, Address
from convolith.bench.peers.process import PeerError, PeerProcess

OURS = "convolith"
ROUNDS, MOST_ROUNDS = 4, 8
ENOUGH = 12
"""Undisturbed samples of a run that make rounds beyond the fourth needless."""
SHORTEST, LONGEST = 2e-3, 50e-3
"""Seconds of one run in one round."""


class Problem(Protocol):
    """A convolution or a pooling; `str` gives its text form, and equal ones are one shape."""

    @property
    def flops(self) -> float:
        """Operations of the direct method."""


class Case(Protocol):
    """A layer of a network: what to compare on."""

    @property
    def net(self) -> str:
        """The network's name."""

    @property
    def name(self) -> str:
        """The layer's."""

    @property
    def problem(self) -> Problem:
        """What it computes."""


@dataclass(frozen=True)
class Timing:
    """One way of one library to compute one layer, or a note why there is none.

    `seconds` is the median of undisturbed samples, the least if every one was disturbed; `error` is
    the largest |error| against float64 over the largest |y|, at sampled outputs.
    """

    problem: str
    net: str
    layer: str
    library: str
    way: str
    seconds: float | None = None
    gflops: float | None = None
    error: float | None = None
    samples: int = 0
    disturbed: int = 0
    note: str = ""


@dataclass
class Standing:
    """What a comparison found so far."""

    timings: list[Timing] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    """By library; more of them than libraries where one names another that it uses."""
    notes: list[str] = field(default_factory=list)
    """On libraries that are not there, or not any more, or that failed on a layer."""
    threads: int = 0


class Comparison:
    """Compares on layers one by one; a shape that several networks share is measured once.

    Use it as a context: at its end no process is left.
    """

    def __init__(
        self,
        layers: Sequence[Case],
        peers: Mapping[str, Address],
        threads: int,
        seconds: float,
        timeout: float = 60.0,
    ) -> None:
        """Start nothing yet; `timeout` is the longest wait for an answer, in seconds."""
        self.layers = layers
        self.addresses = {OURS: OWN, **peers}
        self.seconds = seconds
        self.timeout = timeout
        self.standing = Standing(threads=threads)
        self.processes: dict[str, PeerProcess] = {}
        self.measured: dict[Problem, list[Timing]] = {}

    def __enter__(self) -> Comparison:
        """Nothing to do before `run`."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.close()

    def run(self) -> Iterator[Case]:
        """Measure into `standing`; before each layer, yield it."""
        self.start()
        shapes = len({layer.problem for layer in self.layers})
        for layer in self.layers:
            if OURS not in self.processes:
                return
            yield layer
            if layer.problem not in self.measured:
                self.measured[layer.problem] = self.measure(layer, self.seconds / shapes)
            self.standing.timings += [
                replace(timing, net=layer.net, layer=layer.name)
                for timing in self.measured[layer.problem]
            ]

    def start(self) -> None:
        """Start a process for each library; a note for each that is not there."""
        for name, address in self.addresses.items():
            self.processes[name] = PeerProcess(address, self.standing.threads)
        for name in self.addresses:
            answer = self.receive(name, "at its start")
            if answer is not None and "versions" in answer:
                self.standing.versions.update(answer["versions"])
            elif answer is not None:
                reason = answer.get("failed") or f"not installed (no module {answer['absent']})"
                self.leave_out(name, reason)

    def receive(self, name: str, when: str) -> dict[str, Any] | None:
        """A library's answer; None, and the library is left out from then on, if there is none."""
        try:
            return self.processes[name].receive(self.timeout)
        except PeerError as error:
            self.leave_out(name, f"{error} {when}, left out from there on")
            return None

    def report(self, note: str) -> None:
        """Add a note, once."""
        if note not in self.standing.notes:
            self.standing.notes.append(note)

    def leave_out(self, name: str, reason: str) -> None:
        """Go on without a library."""
        self.report(f"{name}: {reason}")
        self.processes.pop(name).close()

    def measure(self, layer: Case, seconds: float) -> list[Timing]:
        """The timings of all ways of all libraries on one shape."""
        place = f"at {layer.net} {layer.name}"
        blank = Timing(str(layer.problem), "", "", "", "")
        timings = []
        for process in self.processes.values():
            process.send({"problem": str(layer.problem), "seed": 0})
        for name in list(self.processes):
            answer = self.receive(name, place)
            if answer is None:
                timings.append(replace(blank, library=name, note="left out"))
            elif "errors" not in answer:
                note = answer.get("failed") or answer["unsupported"]
                timings.append(replace(blank, library=name, note=note))
                if "failed" in answer:
                    self.report(f"{name}: {note}")
            else:
                timings += [
                    replace(blank, library=name, way=way, error=error)
                    for way, error in answer["errors"].items()
                ]
        clean, disturbed = self.sample(timings, seconds, place)
        return [
            self.conclude(layer.problem, timing, clean[place], disturbed[place])
            for place, timing in enumerate(timings)
        ]

    def sample(
        self, timings: Sequence[Timing], seconds: float, place: str
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Undisturbed and disturbed samples for each timing, in interleaved rounds.

        Runs that were disturbed go on in further rounds.
        """
        clean: list[list[float]] = [[] for _ in timings]
        disturbed: list[list[float]] = [[] for _ in timings]
        share = seconds / max(1, len(timings)) / ROUNDS
        request = {"seconds": min(max(share, SHORTEST), LONGEST)}
        for turn in range(MOST_ROUNDS):
            for number, timing in enumerate(timings):
                if timing.note or timing.library not in self.processes:
                    continue
                if turn >= ROUNDS and len(clean[number]) >= ENOUGH:
                    continue
                self.processes[timing.library].send({"way": timing.way, **request})
                if answer := self.receive(timing.library, place):
                    clean[number] += answer.get("clean", ())
                    disturbed[number] += answer.get("disturbed", ())
        return clean, disturbed

    def conclude(
        self, problem: Problem, timing: Timing, clean: list[float], disturbed: list[float]
    ) -> Timing:
        """The timing with its time; with a note where it has none."""
        if timing.note:
            return timing
        if timing.library not in self.processes or not (clean or disturbed):
            return replace(timing, note="left out")
        seconds = statistics.median(clean) if clean else min(disturbed)
        return replace(
            timing,
            seconds=seconds,
            gflops=problem.flops / seconds / 1e9,
            samples=len(clean) + len(disturbed),
            disturbed=len(disturbed),
        )
