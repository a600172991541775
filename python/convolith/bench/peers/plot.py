"""One picture of a comparison: every peer's time over ours, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from convolith.bench.peers.comparison import Standing
from convolith.bench.peers.report import (
    Row,
    libraries_of,
    machine,
    rows_of,
    seconds_of,
    summarize,
)
from convolith.bench.plots import COLOURS, INK, MARKERS
from convolith.bench.report import thread_label

AHEAD, BEHIND = "#56B4E9", "#CC79A7"
READABLE = 60
"""Up to here, layers' names have room below a picture."""
CEILING = 16.0
"""Marks above would squeeze those that matter; they stand at the edge."""


def draw(path: Path, standing: Standing) -> None:
    """Write the picture; the file's suffix chooses the format."""
    rows = [row for row in rows_of(standing.timings) if row.ratio is not None]
    peers = libraries_of(standing.timings)
    figure = Figure(dpi=130, layout="constrained")
    figure.set_size_inches(15, 8)
    axes = figure.subplots()
    draw_ratios(axes, rows, peers)
    separate_nets(axes, rows)
    name_layers(axes, rows)
    figure.legend(
        loc="outside lower center",
        ncols=len(peers),
        title=f"bar: from 1 to the fastest peer; mark: each peer, {CEILING:g} where it is more",
    )
    summary = summarize(rows)
    assert summary
    place = machine(standing)
    figure.suptitle(
        f"convolith and its peers: ahead of the best on {summary.ahead} of {summary.layers} "
        f"layers, geometric mean {summary.mean:.2f}, least {summary.least:.2f} "
        f"({summary.least_at})\n"
        f"{', '.join(f'{name} {version}' for name, version in standing.versions.items())}\n"
        f"{place['cpu']}, {place['isa']}, {thread_label(standing.threads)}, float32, "
        "better layout on either side",
        fontsize=11,
        color=INK,
    )
    figure.savefig(path)


def draw_ratios(axes: Axes, rows: Sequence[Row], peers: Sequence[str]) -> None:
    """A stem from 1 to the best peer of each layer, and a mark for every peer."""
    ratios = [row.ratio or 1.0 for row in rows]
    axes.vlines(
        range(len(rows)),
        1,
        [min(ratio, CEILING) for ratio in ratios],
        colors=[AHEAD if ratio >= 1 else BEHIND for ratio in ratios],
        linewidth=max(1.5, min(8.0, 300 / len(rows))),
        alpha=0.55,
        zorder=2,
    )
    for place, name in enumerate(peers):
        pairs = [(x, row.best(name), row.ours) for x, row in enumerate(rows)]
        found = [(x, seconds_of(p) / seconds_of(o)) for x, p, o in pairs if p and o]
        axes.scatter(
            [x for x, _ in found],
            [min(ratio, CEILING) for _, ratio in found],
            clip_on=False,
            s=26 if len(rows) <= READABLE else 16,
            marker=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            edgecolor="white",
            linewidth=0.4,
            label=name,
            zorder=3,
        )
    axes.axhline(1, color=INK, linewidth=1.2, zorder=2.5)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("peer's time / convolith's time (above 1: convolith is faster)")
    axes.grid(axis="y", which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.8), min(max(high, 1.25), CEILING))
    axes.set_xlim(-1, len(rows))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def separate_nets(axes: Axes, rows: Sequence[Row]) -> None:
    """The networks' names with their means, and lines between them."""
    nets = [row.net for row in rows]
    for net in dict.fromkeys(nets):
        start = nets.index(net)
        group = [row for row in rows if row.net == net]
        summary = summarize(group)
        assert summary
        if start:
            axes.axvline(start - 0.5, color=INK, linewidth=0.6, linestyle=":", zorder=1)
        crowded = len(group) < len(rows) / 12
        axes.annotate(
            f"{net} {summary.mean:.2f}" if crowded else f"{net}\n{summary.mean:.2f}",
            (start + (len(group) - 1) / 2, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90 if crowded else 0,
            fontsize=9,
            color=INK,
        )


def name_layers(axes: Axes, rows: Sequence[Row]) -> None:
    """The layers' names below the axis where they can be read."""
    if len(rows) > READABLE:
        axes.set_xticks([])
        axes.set_xlabel("layers, in the order of their networks")
        return
    axes.set_xticks(range(len(rows)), [row.layer for row in rows], rotation=90, fontsize=8)
    axes.tick_params(axis="x", length=0)
