"""Tables and files of training steps."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from convolith.bench.peers.comparison import OURS
from convolith.bench.training.comparison import Training, TrainingBenchmark


def table(benchmark: TrainingBenchmark) -> Table:
    """A row for each library."""
    task = benchmark.task
    result = Table(title=f"{task.net}, batch {task.batch}, {task.pixels} x {task.pixels} pixels")
    result.add_column("library")
    for name in ("forward, ms", "backward, ms", "update, ms", "images/s", "peak, MB", "first loss"):
        result.add_column(name, justify="right")
    for row in measured(benchmark):
        result.add_row(
            row.library,
            *(f"{1e3 * part:.4g}" for part in (row.forward, row.backward, row.update)),
            f"{task.batch / row.seconds:.1f}",
            f"{row.peak_bytes / 1e6:.0f}" if row.peak_bytes else "",
            f"{row.loss:.6f}",
        )
    return result


def measured(benchmark: TrainingBenchmark) -> list[Training]:
    """The libraries that have steps."""
    return [row for row in benchmark.results.values() if row.steps]


def conclusion(benchmark: TrainingBenchmark) -> str:
    """How this library stands beside each other one."""
    ours = benchmark.results[OURS]
    sentences = []
    for row in measured(benchmark):
        if row is ours or not ours.steps:
            continue
        learning = (row.forward + row.backward) / (ours.forward + ours.backward)
        text = (
            f"{row.seconds / ours.seconds:.2f} times the speed of {row.library} "
            f"({learning:.2f} without the update)"
        )
        if row.peak_bytes:
            text += f", {ours.peak_bytes / row.peak_bytes:.2f} times its peak memory"
        gap = abs(row.loss - ours.loss) / max(abs(row.loss), 1e-12)
        sentences.append(f"{text}; first losses differ by {gap:.1e}.")
    return " ".join(sentences)


def write_json(path: Path, benchmark: TrainingBenchmark) -> None:
    """One record a library, with every sample."""
    head = {
        **asdict(benchmark.task), "threads": benchmark.threads, "versions": benchmark.versions
    }  # fmt: skip
    records = [{**head, **asdict(row)} for row in benchmark.results.values()]
    path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
