"""The comparison's table, its summary, and record files."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from convolith import _core
from convolith.bench.peers.comparison import OURS, Standing, Timing
from convolith.bench.report import (
    ERROR_BOUNDS,
    format_seconds,
    geometric_mean,
    significant,
    thread_label,
)

WRONG = "wrong"
OWN_PLANS = {
    "plan,\nfirst": ("channels_first", "plan"),
    "plan,\nlast": ("channels_last", "plan"),
    "call,\nbetter": ("call",),
}
OWN_POOLS = {"ours,\nfirst": ("channels_first",), "ours,\nlast": ("channels_last",)}
"""Columns of our own times: words of the ways that they show the best of."""
ROOMY = 125
"""Columns that a table with problems in text form takes."""


def is_wrong(timing: Timing) -> bool:
    """Whether there is a result, with an error beyond what this library promises."""
    return timing.error is not None and not timing.error <= ERROR_BOUNDS["float32"]


def counts(timing: Timing) -> bool:
    """Whether there is a time, of a right result."""
    return timing.seconds is not None and not is_wrong(timing)


@dataclass(frozen=True)
class Row:
    """All timings of one layer."""

    net: str
    layer: str
    problem: str
    timings: tuple[Timing, ...]

    def best(self, library: str, *words: str) -> Timing | None:
        """A library's fastest right way, among those whose name has the words in it."""
        ways = [
            timing
            for timing in self.timings
            if timing.library == library
            and set(words) <= set(timing.way.split())
            and counts(timing)
        ]
        return min(ways, key=seconds_of, default=None)

    def note(self, library: str) -> str:
        """Why there is no time of a library."""
        own = [timing for timing in self.timings if timing.library == library]
        if any(is_wrong(timing) for timing in own):
            return WRONG
        return next((timing.note for timing in own if timing.note), "-")

    @property
    def ours(self) -> Timing | None:
        """The plan in the layout where it is faster; the function where there are no plans."""
        return self.best(OURS, "plan") or self.best(OURS)

    @property
    def rival(self) -> Timing | None:
        """The fastest peer."""
        libraries = dict.fromkeys(timing.library for timing in self.timings)
        peers = [self.best(name) for name in libraries if name != OURS]
        return min((peer for peer in peers if peer), key=seconds_of, default=None)

    @property
    def ratio(self) -> float | None:
        """The fastest peer's time over ours: above 1 where this library is ahead."""
        if self.ours is None or self.rival is None:
            return None
        return seconds_of(self.rival) / seconds_of(self.ours)


def seconds_of(timing: Timing) -> float:
    """The time of a timing that has one."""
    assert timing.seconds is not None
    return timing.seconds


def rows_of(timings: Sequence[Timing]) -> list[Row]:
    """Timings grouped by layer."""
    groups: dict[tuple[str, str, str], list[Timing]] = {}
    for timing in timings:
        groups.setdefault((timing.net, timing.layer, timing.problem), []).append(timing)
    return [Row(*key, tuple(group)) for key, group in groups.items()]


def libraries_of(timings: Iterable[Timing]) -> list[str]:
    """The peers, in order of appearance."""
    return [name for name in dict.fromkeys(t.library for t in timings) if name != OURS]


def layer_table(timings: Sequence[Timing], wide: bool = True) -> Table:
    """One row per layer: our plans and function, each peer's best, the ratio."""
    peers = libraries_of(timings)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=8)
    if wide:
        table.add_column("problem", overflow="fold", min_width=20)
    own = OWN_POOLS if not any("plan" in t.way for t in timings) else OWN_PLANS
    for name in (*own, *(f"\n{name}" for name in peers)):
        table.add_column(name, justify="right", min_width=7)
    table.add_column("peer /\nours", justify="right", no_wrap=True, min_width=5)
    net_above = None
    for row in rows_of(timings):
        if row.net != net_above:
            if net_above is not None:
                table.add_section()
            table.add_row(Text(row.net, style="underline"))
            net_above = row.net
        cells = [time_cell(row, OURS, *words) for words in own.values()]
        cells += [time_cell(row, name) for name in peers]
        title = [row.layer, row.problem] if wide else [row.layer]
        table.add_row(*title, *cells, ratio_cell(row.ratio))
    return table


def time_cell(row: Row, library: str, *words: str) -> Text:
    """A library's best time, bold where it enters the ratio; a short note where there is none."""
    timing = row.best(library, *words)
    if timing is None:
        note = row.note(library)
        return Text(note.partition(":")[0][:24], style="bold red" if note == WRONG else "dim")
    entered = timing in (row.ours, row.rival)
    return Text(format_seconds(seconds_of(timing)), style="bold" if entered else "")


def ratio_cell(ratio: float | None) -> Text:
    """The ratio, red where a peer is ahead."""
    if ratio is None:
        return Text("-", style="dim")
    return Text(f"{ratio:.2f}", style="bold green" if ratio >= 1 else "bold red")


@dataclass(frozen=True)
class Summary:
    """Ratios of some layers: how often this library is ahead, and how far."""

    layers: int
    ahead: int
    mean: float
    """Geometric."""
    least: float
    least_at: str


def summarize(rows: Sequence[Row]) -> Summary | None:
    """None where no layer has a ratio."""
    ratios = {f"{row.net} {row.layer}": row.ratio for row in rows if row.ratio is not None}
    if not ratios:
        return None
    least_at = min(ratios, key=lambda layer: ratios[layer])
    return Summary(
        layers=len(ratios),
        ahead=sum(ratio >= 1 for ratio in ratios.values()),
        mean=geometric_mean(ratios.values()),
        least=ratios[least_at],
        least_at=least_at,
    )


def peer_ratio(rows: Sequence[Row], library: str) -> float:
    """Geometric mean of one peer's time over ours; 0 where there is none."""
    pairs = [(row.best(library), row.ours) for row in rows]
    return geometric_mean(seconds_of(peer) / seconds_of(own) for peer, own in pairs if peer and own)


def net_table(timings: Sequence[Timing]) -> Table:
    """One row per network: the ratios against the best peer, then against each."""
    rows, peers = rows_of(timings), libraries_of(timings)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("net", no_wrap=True)
    for name in ("layers", "ahead", "best peer / ours,\ngeometric mean", "least"):
        table.add_column(name, justify="right")
    for name in peers:
        table.add_column(f"{name} / ours,\ngeometric mean", justify="right")
    nets = list(dict.fromkeys(row.net for row in rows))
    groups = {net: [row for row in rows if row.net == net] for net in nets}
    if len(groups) > 1:
        groups["all"] = rows
    for net, group in groups.items():
        if net == "all":
            table.add_section()
        summary = summarize(group)
        cells = ["0", "-", "-", "-"]
        if summary:
            cells = [str(summary.layers), str(summary.ahead)]
            cells += [significant(summary.mean), significant(summary.least)]
        means = [peer_ratio(group, name) for name in peers]
        table.add_row(net, *cells, *(significant(mean) if mean else "-" for mean in means))
    return table


def conclusion(standing: Standing) -> str:
    """Who is ahead, how far, and whether the results are right."""
    rows = rows_of(standing.timings)
    summary = summarize(rows)
    wrong = [timing for timing in standing.timings if is_wrong(timing)]
    verdict = "every result agrees with float64"
    if wrong:
        worst = max(wrong, key=lambda timing: timing.error or 0.0)
        verdict = (
            f"{len(wrong)} results are WRONG and do not count, the worst by {worst.error:.1e} of "
            f"max |y| ({worst.library} {worst.way}, {worst.net} {worst.layer})"
        )
    if summary is None:
        return f"No layer was timed on both sides; {verdict}."
    return (
        f"The best peer takes {summary.mean:.2f} times as long as convolith (geometric mean; least "
        f"{summary.least:.2f} at {summary.least_at}); convolith is ahead on {summary.ahead} of "
        f"{summary.layers} layers; {verdict}."
    )


def machine(standing: Standing) -> dict[str, str | int]:
    """Where the figures are from."""
    config = _core.config()
    return {
        "cpu": cpu_name(),
        "isa": config["isa"],
        "cores": os.cpu_count() or 0,
        "threads": standing.threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def heading(standing: Standing) -> str:
    """The circumstances, in a line."""
    place = machine(standing)
    versions = ", ".join(f"{name} {version}" for name, version in standing.versions.items())
    return (
        f"{versions}; {place['cpu']}, {place['isa']}, {thread_label(standing.threads)}; float32, "
        "a process for each library. A peer's time is that of the fastest way it offers"
    )


def disturbance(timings: Sequence[Timing]) -> str | None:
    """A remark on busy neighbours, where there were any worth a remark."""
    samples = sum(timing.samples for timing in timings)
    disturbed = sum(timing.disturbed for timing in timings)
    if disturbed * 20 < samples or not samples:
        return None
    return (
        f"{disturbed} of {samples} samples were disturbed by other processes and set aside: "
        "a quieter machine gives steadier figures."
    )


def write_json(path: Path, standing: Standing) -> None:
    """The machine, versions, notes, ratios by layer, and all timings."""
    rows = rows_of(standing.timings)
    summary = summarize(rows)
    content = {
        "machine": machine(standing),
        "versions": standing.versions,
        "notes": standing.notes,
        "summary": asdict(summary) if summary else None,
        "layers": [ratio_record(row) for row in rows],
        "timings": [asdict(timing) for timing in standing.timings],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def ratio_record(row: Row) -> dict[str, Any]:
    """What a row of the table concludes, as plain values."""
    record: dict[str, Any] = {"net": row.net, "layer": row.layer, "problem": row.problem}
    for side, timing in (("ours", row.ours), ("peer", row.rival)):
        record[f"{side}_seconds"] = timing.seconds if timing else None
        record[f"{side}_way"] = f"{timing.library} {timing.way}".strip() if timing else None
    return {**record, "ratio": row.ratio}


def write_csv(path: Path, standing: Standing) -> None:
    """A header line, then one line per timing, each with the library's version and the machine."""
    place = machine(standing)
    columns = [column.name for column in fields(Timing)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "version", *place])
        writer.writeheader()
        for timing in standing.timings:
            version = standing.versions.get(timing.library, "")
            writer.writerow({**asdict(timing), "version": version, **place})
