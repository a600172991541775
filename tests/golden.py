"""What "auto" chooses on the layers of benchmarks/problems, for machines that are described rather
than asked, so that the answers are the same everywhere.

    python tests/golden.py      rewrites tests/golden_choices.txt, whose diff shows what moved
"""

from __future__ import annotations

from pathlib import Path

import convolith as cl
from convolith import _core
from convolith.bench.layers import NETS, parse_layers

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "golden_choices.txt"
LAYOUTS = ("channels_first", "channels_last")
GRADIENTS = ("backward_input", "backward_weight")
GRADIENT_BATCH = 4
CACHES = {"l1_bytes": 48 << 10, "l2_bytes": 1 << 20, "l3_bytes": 32 << 20}
FAR_CACHES = {"l1_bytes": 48 << 10, "l2_bytes": 2 << 20, "l3_bytes": 480 << 20}
MACHINES = {
    "avx512": ("avx512", CACHES),
    "avx2": ("avx2", CACHES),
    "baseline": ("baseline", CACHES),
    "far": ("avx512", FAR_CACHES),
}
HEADER = f"""\
# What "auto" chooses on a core with 48 KiB of L1, 1 MiB of L2 and 32 MiB of L3, with each ISA, and
# with AVX-512 on one with 2 MiB of L2 and 480 MiB of an L3 far away: {", ".join(MACHINES)};
# one name where all agree. Written by: python tests/golden.py
"""


def problems() -> dict[str, str]:
    """The distinct problems of the layer lists, each with the name of its first layer.

    Forward convolutions come with their gradients, of a batch of 4.
    """
    found: dict[str, str] = {}
    files = {path.stem: path for path in (ROOT / "benchmarks" / "problems").glob("*.txt")}
    for net in sorted(files, key=lambda n: (NETS.index(n) if n in NETS else len(NETS), n)):
        for layer in parse_layers(net, files[net].read_text(encoding="utf-8")):
            p = layer.problem
            asked = [p]
            if p.direction == "forward":
                asked += [p.replace(direction=d, batch=GRADIENT_BATCH) for d in GRADIENTS]
            for each in asked:
                found.setdefault(str(each), f"{net}/{layer.name}")
    return found


def choices(machines: tuple[str, ...] = tuple(MACHINES)) -> list[tuple[str, dict[str, str]]]:
    """For each problem and layout, in order: its line's head and the choice of each machine."""
    lines = []
    for text, name in problems().items():
        for layout in LAYOUTS:
            p = _core.ConvProblem.parse(text).replace(data_format=layout)
            chosen = {}
            for machine in machines:
                isa, caches = MACHINES[machine]
                chosen[machine] = _core.choose(p, isa, **caches)
            lines.append((f"{name} {p}", chosen))
    return lines


def compiled() -> tuple[str, ...]:
    """Those of the file's machines whose ISA this library has."""
    have = cl.show_config(mode="dicts")["isas_compiled"]
    return tuple(machine for machine, (isa, _) in MACHINES.items() if isa in have)


def written() -> list[tuple[str, dict[str, str]]]:
    """The file, in the form of `choices`."""
    lines = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            head, _, tail = line.rpartition(": ")
            names = tail.split()
            names *= len(MACHINES) if len(names) == 1 else 1
            lines.append((head, dict(zip(MACHINES, names, strict=True))))
    return lines


def main() -> None:
    """Rewrite the file."""
    if compiled() != tuple(MACHINES):
        raise SystemExit("needs a library with every ISA")
    text = HEADER
    for head, chosen in choices():
        names = list(chosen.values())
        text += f"{head}: {' '.join(names if len(set(names)) > 1 else names[:1])}\n"
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
