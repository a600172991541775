"""How near forward convolution comes to what bounds it, layer by layer.

    python benchmarks/limits.py --net resnet50 --net vgg16
    python benchmarks/limits.py --seconds 0.1 --csv limits.csv       every list, more slowly

For the algorithm that "auto" takes, planned, in its better layout and with all threads unless a
column says otherwise:

    peak        share of the measured FMA peak; for transforms, of direct convolution's operations
    copy        time of a copy that moves as many bytes as the maps have, over the layer's: both
                come from the same level of cache
    efficiency  one thread's time over that of all threads, divided by their number
    layouts     time of channels_first over that of channels_last
    transform   time of implicit_gemm over a Winograd's, where "auto" takes one
    workspace   of the better layout, MiB
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import convolith as cl
from convolith import _core
from convolith.bench.arrays import aligned, aligned_empty
from convolith.bench.layers import Layer, parse_layers, problem_files
from convolith.bench.peak import fma_peak
from convolith.bench.report import format_seconds
from convolith.bench.timing import measure, undisturbed

LAYOUTS = ("channels_first", "channels_last")
COLUMNS = ("peak", "copy", "efficiency", "layouts", "transform", "workspace")


def plan(problem: _core.ConvProblem, weight: Any, algorithm: str, threads: int) -> Any:
    return _core.Plan(problem, algorithm=algorithm, threads=threads).pack(weight)


def measure_layer(
    problem: _core.ConvProblem, threads: int, peak: float, seconds: float
) -> dict[str, Any]:
    """The columns of one layer, and its algorithm, layout and time."""
    rng = np.random.default_rng(0)
    x = aligned(rng.standard_normal(problem.x_shape, dtype=np.float32))
    weight = rng.standard_normal(problem.weight_shape, dtype=np.float32)
    runs, plans = {}, {}
    for layout in LAYOUTS:
        turned = problem.replace(data_format=layout)
        source = x if layout == "channels_first" else aligned(np.moveaxis(x, 1, -1))
        out = aligned_empty(turned.y_shape, np.float32)
        made = {
            "all": plan(turned, weight, "auto", threads),
            "one": plan(turned, weight, "auto", 1),
        }
        if made["all"].algorithm.startswith("winograd"):
            made["direct"] = plan(turned, weight, "implicit_gemm", threads)
        for name, each in made.items():
            plans[layout, name] = each
            runs[layout, name] = partial(each.execute, source, None, out=out)
    watches = dict(zip(runs, measure(list(runs.values()), seconds), strict=True))
    times = {key: watch.seconds for key, watch in watches.items()}
    layout = min(LAYOUTS, key=lambda name: times[name, "all"])
    best = plans[layout, "all"]
    time = times[layout, "all"]
    size = 4 * (int(np.prod(problem.x_shape)) + int(np.prod(problem.y_shape)))
    copied = undisturbed(lambda: _core.measure_copy(size // 2, threads))
    direct = times.get((layout, "direct"))
    return {
        "algorithm": best.algorithm,
        "layout": layout,
        "seconds": time,
        "peak": problem.flops / time / peak,
        "copy": size / copied / time,
        "efficiency": times[layout, "one"] / time / threads,
        "layouts": times["channels_first", "all"] / times["channels_last", "all"],
        "transform": direct / time if direct else None,
        "workspace": best.workspace_bytes / 2**20,
    }


def layers(nets: list[str]) -> Iterator[Layer]:
    """The forward float32 layers of some lists, each shape once."""
    seen = set()
    for net, text in problem_files().items():
        for layer in parse_layers(net, text):
            problem = layer.problem
            fits = problem.direction == "forward" and problem.dtype == "float32"
            if net in nets and fits and problem not in seen:
                seen.add(problem)
                yield layer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", action="append", choices=list(problem_files()), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=0.03, help="for each of a layer's runs")
    parser.add_argument("--threads", type=int, default=cl.get_num_threads())
    parser.add_argument("--csv", metavar="FILE")
    options = parser.parse_args()
    peak = fma_peak("float32", options.threads)
    console = Console()
    table = Table(
        "layer", "problem", "algorithm", "layout", "time", *COLUMNS, box=None, highlight=False
    )
    rows = []
    chosen = list(layers(options.net or list(problem_files())))
    for layer in track(chosen, console=Console(file=sys.stderr), transient=True):
        row = measure_layer(layer.problem, options.threads, peak, options.seconds)
        rows.append({"net": layer.net, "layer": layer.name, "problem": str(layer.problem), **row})
        table.add_row(
            f"{layer.net} {layer.name}",
            str(layer.problem),
            row["algorithm"],
            row["layout"],
            format_seconds(row["seconds"]),
            *("" if row[name] is None else f"{row[name]:.2f}" for name in COLUMNS),
        )
    console.width = max(console.width, 180)
    console.print(table)
    console.print(f"FMA peak: {peak / 1e9:.0f} GFLOP/s on {options.threads} threads")
    if options.csv:
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
