"""One picture of a benchmark: a roofline of all layers, and bars by network or by layer.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from convolith._core import ConvProblem
from convolith.bench.measure import REFERENCE, Outcome, Record
from convolith.bench.report import algorithms_of, geometric_mean, significant, thread_label

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
MARKERS = "osD^vP"
GREY = "#8c8c8c"
INK = "#333333"
FEW = 12
"""Up to here, bars have room beside the roofline, and for their numbers."""


def intensity(record: Record) -> float:
    """Operations per byte, where each of x, w and y moves once between memory and core."""
    problem = ConvProblem.parse(record.problem)
    shapes = (problem.x_shape, problem.weight_shape, problem.y_shape)
    elements = sum(math.prod(shape) for shape in shapes)
    return problem.flops / (elements * np.dtype(problem.dtype).itemsize)


def draw(path: Path, outcome: Outcome) -> None:
    """Write the picture; the file's suffix chooses the format."""
    records = [record for record in outcome.records if record.gflops > 0]
    nets = list(dict.fromkeys(record.net for record in records))
    names = algorithms_of(records)
    colours = dict(
        zip([name for name in names if name != REFERENCE], COLOURS * len(names), strict=False)
    )
    colours[REFERENCE] = GREY
    markers = {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(names)}

    by_net = len(nets) > 1
    groups = nets if by_net else list(dict.fromkeys(record.layer for record in records))
    figure = Figure(dpi=130, layout="constrained")
    if len(groups) <= FEW:
        figure.set_size_inches(15, 6.5)
        roofline, bars = figure.subplots(1, 2, width_ratios=(1.15, 1))
    else:
        figure.set_size_inches(15, 12)
        roofline, bars = figure.subplots(2, 1, height_ratios=(1.2, 1))
    draw_roofline(roofline, records, outcome, names, colours, markers)
    draw_bars(bars, records, outcome, names, colours, by_net, groups)
    problem = ConvProblem.parse(records[0].problem)
    figure.suptitle(
        f"convolith bench: {', '.join(nets)}\n"
        f"{problem.direction.replace('_', ' ')}, batch {problem.batch}, {problem.dtype}, "
        f"{problem.data_format.replace('_', ' ')}, {thread_label(outcome.threads)}, {outcome.isa}",
        fontsize=12,
        color=INK,
    )
    figure.savefig(path)


def draw_roofline(
    axes: Axes,
    records: Sequence[Record],
    outcome: Outcome,
    names: Sequence[str],
    colours: dict[str, str],
    markers: dict[str, str],
) -> None:
    """Rate over operations per byte, below what arithmetic and memory allow."""
    x = np.array([intensity(record) for record in records])
    ridges = [peak / outcome.bandwidth for peak in outcome.peaks.values()]
    low, high = min(x.min() / 2, min(ridges) / 8), max(x.max() * 2, max(ridges) * 8)
    span = np.geomspace(low, high, 200)
    for dtype, peak in outcome.peaks.items():
        roof = np.minimum(span * outcome.bandwidth, peak) / 1e9
        axes.plot(span, roof, color=INK, linewidth=1.8, zorder=1)
        axes.annotate(
            f"FMA peak, {dtype}: {peak / 1e9:.0f} GFLOP/s",
            (high, peak / 1e9),
            xytext=(-6, 5),
            textcoords="offset points",
            ha="right",
            color=INK,
        )
    axes.fill_between(span, roof, roof.max() * 1e3, color="#f2f2f2", zorder=0)
    slope = outcome.bandwidth / 1e9
    foot = low * 1.25
    axes.text(
        foot,
        1.12 * foot * slope,
        f"copy: {slope:.0f} GB/s",
        rotation=math.degrees(math.atan(slope)),
        rotation_mode="anchor",
        transform_rotates_text=True,
        color=INK,
    )
    for name in reversed(names):
        chosen = np.array([record.algorithm == name for record in records])
        axes.scatter(
            x[chosen],
            [record.gflops for record in records if record.algorithm == name],
            s=34,
            marker=markers[name],
            color=colours[name],
            edgecolor="white",
            linewidth=0.5,
            alpha=0.85,
            label=name,
            zorder=2,
        )
    rates = [record.gflops for record in records]
    ceiling = max(max(rates), roof.max())
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(min(rates), roof.min()) / 1.6, ceiling * 2)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.set_xlabel("operations per byte of input, weights and output (FLOP/byte)")
    axes.set_ylabel("GFLOP/s, counted as direct convolution")
    axes.set_title("Roofline: one mark per layer and algorithm", loc="left", fontsize=11, color=INK)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="lower right", framealpha=0.95)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_bars(
    axes: Axes,
    records: Sequence[Record],
    outcome: Outcome,
    names: Sequence[str],
    colours: dict[str, str],
    by_net: bool,
    groups: Sequence[str],
) -> None:
    """Rates by network (bar: geometric mean, dots: its layers) or by layer."""
    thickness = 0.8 / len(names)
    longest = max(record.gflops for record in records)
    peak = max(outcome.peaks.values()) / 1e9
    for place, name in enumerate(names):
        offset = (place - (len(names) - 1) / 2) * thickness
        for column, group in enumerate(groups):
            rates = [
                record.gflops
                for record in records
                if record.algorithm == name and group == (record.net if by_net else record.layer)
            ]
            if not rates:
                continue
            x, mean = column + offset, geometric_mean(rates)
            alpha = 0.75 if by_net else 1.0
            axes.bar(x, mean, 0.92 * thickness, color=colours[name], alpha=alpha, zorder=2)
            if by_net:
                axes.scatter(
                    [x] * len(rates), rates, s=9, color=INK, alpha=0.55, linewidth=0, zorder=3
                )
            if len(groups) <= FEW:
                # Means stand in a row of their own, clear of the dots; single rates on the bar.
                axes.annotate(
                    significant(mean),
                    (x, 1 if by_net else mean),
                    xycoords=axes.get_xaxis_transform() if by_net else "data",
                    xytext=(0, -2 if by_net else 3),
                    textcoords="offset points",
                    rotation=90,
                    ha="center",
                    va="top" if by_net else "bottom",
                    fontsize=8,
                    color=INK,
                    zorder=4,
                    path_effects=[Stroke(linewidth=2, foreground="white"), Normal()],
                )
    axes.axhline(peak, color=INK, linewidth=1.2, linestyle="--", zorder=1)
    axes.annotate(
        "FMA peak",
        (0, peak),
        xycoords=("axes fraction", "data"),
        xytext=(3, 3),
        textcoords="offset points",
        fontsize=9,
        color=INK,
    )
    rotation = 0 if len(groups) <= 4 else 30 if len(groups) <= FEW else 90
    axes.set_xticks(
        range(len(groups)),
        groups,
        rotation=rotation,
        rotation_mode="anchor" if rotation == 30 else "default",
        ha="right" if rotation == 30 else "center",
        fontsize=8 if len(groups) > FEW else 10,
    )
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(0, (1.25 if len(groups) <= FEW else 1.08) * max(longest, peak))
    axes.set_ylabel("GFLOP/s, counted as direct convolution")
    axes.set_title(
        "Bar and number: geometric mean of a network's layers; dots: the layers"
        if by_net
        else "Layer by layer",
        loc="left",
        fontsize=11,
        color=INK,
    )
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)
