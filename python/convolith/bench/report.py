"""Tables, the concluding line, and record files."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from convolith.bench.measure import REFERENCE, Outcome, Record
from convolith.bench.peak import DTYPES, GEMM_SIZE, PeakBenchmark

ERROR_BOUNDS = {"float32": 1.4e-4, "float64": 1e-10}
"""What the library promises on ordinary data, as |error| over the largest |y|."""


def format_seconds(seconds: float) -> str:
    """Three significant digits with a unit: '1.23 ms'."""
    scale, unit = next(
        ((scale, unit) for scale, unit in ((1.0, "s"), (1e-3, "ms")) if seconds >= scale),
        (1e-6, "µs"),
    )
    return f"{significant(seconds / scale)} {unit}"


def format_bytes(count: int | None) -> str:
    """Binary units: '1.5 MiB'; a dash where the count is not known."""
    if count is None:
        return "-"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"


def significant(value: float) -> str:
    """Three significant digits without an exponent."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{min(decimals, 3)}f}"


def is_wrong(record: Record) -> bool:
    """Whether the error is beyond what the library promises for the dtype."""
    dtype = "float64" if "float64" in record.problem.split() else "float32"
    return not record.error <= ERROR_BOUNDS[dtype]


def geometric_mean(values: Iterable[float]) -> float:
    """Geometric mean of positive values; 0 where there are none."""
    logs = [math.log(value) for value in values if value > 0]
    return math.exp(sum(logs) / len(logs)) if logs else 0.0


def algorithms_of(records: Sequence[Record]) -> list[str]:
    """The algorithms in order of appearance, the reference last."""
    names = list(dict.fromkeys(record.algorithm for record in records))
    return sorted(names, key=lambda name: name == REFERENCE)


def by_layer(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Records grouped by net, layer and problem."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.net, record.layer, record.problem), []).append(record)
    return groups


def winners(records: Sequence[Record]) -> dict[tuple[str, str, str], str]:
    """The fastest algorithm of each layer."""
    return {
        layer: min(group, key=lambda record: record.seconds).algorithm
        for layer, group in by_layer(records).items()
    }


def layer_table(records: Sequence[Record], wide: bool = True) -> Table:
    """One row per layer and algorithm, the fastest in bold; a narrow table omits the problem."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    if wide:
        table.add_column("net", no_wrap=True)
    table.add_column("layer", overflow="fold", min_width=8)
    if wide:
        table.add_column("problem", overflow="fold", min_width=20)
    table.add_column("algorithm", no_wrap=True)
    for name, width in (
        ("time", 7),
        ("GFLOP/s", 7),
        ("of peak", 7),
        ("workspace", 9),
        ("error", 7),
    ):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    net_above = None
    for (net, layer, problem), group in by_layer(records).items():
        if net != net_above:
            if net_above is not None:
                table.add_section()
            if not wide:
                table.add_row(Text(net, style="underline"))
        best = min(record.seconds for record in group)
        for row, record in enumerate(group):
            style = "bold" if record.seconds == best and len(group) > 1 else ""
            title = [net if net != net_above else "", layer, problem] if wide else [layer]
            table.add_row(
                *(title if row == 0 else [""] * len(title)),
                Text(record.algorithm, style=style),
                Text(format_seconds(record.seconds), style=style),
                Text(significant(record.gflops), style=style),
                Text(f"{record.peak_share:.1%}", style=style),
                format_bytes(record.workspace_bytes),
                Text(f"{record.error:.1e}", style="bold red" if is_wrong(record) else ""),
            )
            net_above = net
    return table


def net_table(records: Sequence[Record]) -> Table:
    """One row per network: geometric mean of GFLOP/s, and layers won, for each algorithm."""
    names = algorithms_of(records)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("net", "all", no_wrap=True)
    first = winners(records)
    table.add_column("layers", str(len(first)), justify="right")
    for name in names:
        own = [record for record in records if record.algorithm == name]
        table.add_column(f"{name}\nGFLOP/s", mean_rate(own), justify="right", overflow="fold")
        ahead = sum(winner == name for winner in first.values())
        table.add_column("\nahead on", str(ahead), justify="right")
    for net in dict.fromkeys(record.net for record in records):
        row = [net, str(sum(layer[0] == net for layer in first))]
        for name in names:
            own = [r for r in records if (r.net, r.algorithm) == (net, name)]
            ahead = sum(w == name for layer, w in first.items() if layer[0] == net)
            row += [mean_rate(own), str(ahead)]
        table.add_row(*row)
    return table


def mean_rate(records: Sequence[Record]) -> str:
    """Geometric mean of GFLOP/s; a dash where there is nothing to average."""
    return significant(geometric_mean(r.gflops for r in records)) if records else "-"


def heading(outcome: Outcome) -> str:
    """The circumstances, in a line."""
    peaks = ", ".join(
        f"{peak / 1e9:.0f} GFLOP/s {dtype}" for dtype, peak in sorted(outcome.peaks.items())
    )
    threads = f"{outcome.threads} thread{'s' if outcome.threads != 1 else ''}"
    return (
        f"{outcome.isa}, {threads}; measured FMA peak {peaks}; "
        f"copy {outcome.bandwidth / 1e9:.0f} GB/s (read + written)"
    )


def conclusion(outcome: Outcome) -> str:
    """Who is ahead, how far from the peak, and whether the results are right."""
    records = outcome.records
    first = Counter(winners(records).values())
    layers = sum(first.values())
    parts = []
    for name in sorted(algorithms_of(records), key=lambda n: (n == REFERENCE, -first[n])):
        own = [record for record in records if record.algorithm == name]
        share = geometric_mean(record.peak_share for record in own)
        ahead = (
            f"ahead on {first[name]} of {layers}"
            if len(own) == layers
            else (f"ahead on {first[name]} of the {len(own)} it ran")
        )
        parts.append(f"{name} is {ahead}, {mean_rate(own)} GFLOP/s ({share:.1%} of peak)")
    worst = max(records, key=lambda record: record.error)
    wrong = sum(is_wrong(record) for record in records)
    verdict = (
        f"{wrong} of {len(records)} results are WRONG, the worst by {worst.error:.1e} "
        f"({worst.algorithm}, {worst.net} {worst.layer})"
        if wrong
        else f"largest error {worst.error:.1e} of max |y| ({worst.algorithm})"
    )
    return f"Geometric means over layers: {'; '.join(parts)}; {verdict}."


def disturbance(outcome: Outcome) -> str | None:
    """A remark on busy neighbours, where there were any worth a remark."""
    if outcome.disturbed * 20 < outcome.samples:
        return None
    return (
        f"{outcome.disturbed} of {outcome.samples} samples were disturbed by other processes and "
        "set aside: a quieter machine gives steadier figures."
    )


def write_json(path: Path, records: Sequence[Record]) -> None:
    """A list of records."""
    text = json.dumps([asdict(record) for record in records], indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """A header line, then one line per record."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Record)])
        writer.writeheader()
        writer.writerows(asdict(record) for record in records)


def thread_label(count: int) -> str:
    """'1 thread', '2 threads'."""
    return f"{count} thread{'s' if count != 1 else ''}"


def peak_table(benchmark: PeakBenchmark) -> Table:
    """FMA peak, GEMM and its share, copy: a column per thread count."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for count in benchmark.threads:
        table.add_column(thread_label(count), justify="right")

    def rates(what: str, dtype: str) -> list[str]:
        found = [benchmark.find(what, dtype, count) for count in benchmark.threads]
        return [significant(q.value / 1e9) if q.rounds else "-" for q in found]

    for dtype in DTYPES:
        shares = [benchmark.gemm_share(dtype, count) for count in benchmark.threads]
        table.add_row(f"{dtype} FMA peak, GFLOP/s", *rates("fma", dtype))
        table.add_row(f"{dtype} GEMM {GEMM_SIZE}³, GFLOP/s", *rates("gemm", dtype))
        table.add_row(
            f"{dtype} GEMM, share of peak",
            *("-" if share is None else f"{share:.1%}" for share in shares),
            end_section=True,
        )
    table.add_row("copy, GB/s read + written", *rates("copy", ""))
    return table


def peak_conclusion(benchmark: PeakBenchmark) -> str:
    """The GEMM's share of the peak, in a line."""
    parts = [
        f"{share:.1%} on {thread_label(count)} ({dtype})"
        for dtype in DTYPES
        for count in benchmark.threads
        if (share := benchmark.gemm_share(dtype, count)) is not None
    ]
    return f"The GEMM reaches {', '.join(parts)} of the FMA peak measured beside it."


def peak_records(benchmark: PeakBenchmark) -> list[dict[str, Any]]:
    """The measured quantities as plain values, for a JSON file."""
    return [
        {
            "quantity": quantity.what,
            "dtype": quantity.dtype or None,
            "threads": quantity.threads,
            "rate": quantity.value,
            "unit": "bytes/s" if quantity.what == "copy" else "FLOP/s",
            "peak_share": (
                benchmark.gemm_share(quantity.dtype, quantity.threads)
                if quantity.what == "gemm"
                else None
            ),
        }
        for quantity in benchmark.quantities
        if quantity.rounds
    ]
