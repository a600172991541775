"""Do the tests notice mistakes? Plants those of mutations/, one at a time, in a copy of the
sources, and runs the tests that concern the file until one fails.

All mistakes are compiled at once, each behind a number that the process reads when it starts, so
that there is one build. Run it in an environment that has what the tests need, CMake and Ninja:

    python tests/mutate.py                      all of them: hours
    python tests/mutate.py src/kernels/fft      those of files whose path begins so
    python tests/mutate.py --list               number, file and what is wrong

It fails if a mistake survives, or if one no longer fits the sources.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mutations import MUTATIONS

ROOT = Path(__file__).resolve().parent.parent
CONVOLUTION = (
    "test_guard_pages.py::test_convolution",
    "test_weight_gradient.py",
    "test_grid.py",
    "test_plan.py::test_a_residual_has_strides_of_its_own",
    "test_plan.py::test_results_that_outgrow_the_caches",
    "test_plan.py::test_blocks_that_end_within_a_row_of_tiles",
    "test_plan.py::test_results_do_not_depend_on_how_vectors_go_through_datapaths",
    "test_fft.py",
    "test_workspaces.py",
)
POOLING = ("test_guard_pages.py::test_pooling", "test_pooling.py")
TRAINING = ("test_guard_pages.py::test_training", "test_training.py")
# The tests that concern a file, likeliest to fail first: the longest path that begins it counts.
TESTS = {
    "src/": CONVOLUTION,
    "src/gemm/thin": TRAINING,
    "src/gemm/": ("test_gemm.py", *CONVOLUTION),
    "src/kernels/gemm": ("test_gemm.py", *TRAINING, *CONVOLUTION),
    "src/column_sums/": ("test_column_sums.py", *CONVOLUTION),
    "src/kernels/column_sums": ("test_column_sums.py", *CONVOLUTION),
    "src/stride_two/": ("test_stride_two.py", *CONVOLUTION),
    "src/kernels/stride_two": ("test_stride_two.py", *CONVOLUTION),
    "src/bias_gradient": ("test_grid.py::test_bias_gradient",),
    "src/pooling/": POOLING,
    "src/kernels/pooling": POOLING,
    "src/training/": TRAINING,
    "src/kernels/activation": TRAINING,
    "src/kernels/normalization": TRAINING,
    "src/kernels/softmax": TRAINING,
}
HEADER = "extern int convolith_mutant;\n"
DEFINITION = """
#include <cstdlib>
static const char* const number = std::getenv("CONVOLITH_MUTANT");
int convolith_mutant = number != nullptr ? std::atoi(number) : 0;
"""
SECONDS = 900  # for the tests of a mistake; one that runs longer hangs


class Stale(Exception):
    """A mistake does not fit the sources."""


@dataclass(frozen=True)
class Mutant:
    """One mistake; `begin` and `end` are where it stands in the file."""

    number: int
    file: str
    begin: int
    end: int
    replacement: str
    why: str


def find(file: str, source: str, first: int) -> list[Mutant]:
    """The mistakes of a file; Stale unless each piece is there once."""
    found = []
    for number, (piece, replacement, why) in enumerate(MUTATIONS[file], first):
        parts = re.fullmatch(r"([^«»]*)«([^«»]+)»([^«»]*)", piece)
        if parts is None:
            raise Stale(f"{file}: no single part in «» in {piece!r}")
        patterns = (r"\s+".join(map(re.escape, part.split(" "))) for part in parts.groups())
        places = list(re.finditer("({})({})({})".format(*patterns), source))
        if len(places) != 1:
            raise Stale(f"{file}: found {len(places)} times: {piece}")
        found.append(Mutant(number, file, *places[0].span(2), replacement, why))
    return found


def plant(source: str, mutants: list[Mutant], begin: int = 0, end: int | None = None) -> str:
    """The source between two places with a switch at each mistake."""
    end = len(source) if end is None else end
    result = ""
    rest = sorted(mutants, key=lambda m: (m.begin, -m.end))
    while rest:
        outer = rest[0]
        within = [m for m in rest if m.begin < outer.end]
        if any(m.end > outer.end for m in within):
            raise Stale(f"{outer.file}: mistakes overlap: {outer.why}")
        rest = rest[len(within) :]
        same = [m for m in within if (m.begin, m.end) == (outer.begin, outer.end)]
        inner = [m for m in within if m not in same]
        text = plant(source, inner, outer.begin, outer.end)
        for mutant in same:
            test = f"convolith_mutant == {mutant.number}"
            if text.rstrip().endswith(";"):
                text = f"if ({test}) {{ {mutant.replacement} }} else {{ {text} }}"
            else:
                text = f"({test} ? ({mutant.replacement}) : ({text}))"
        result += source[begin : outer.begin] + text
        begin = outer.end
    return result + source[begin:end]


def copy_sources(work: Path) -> list[Mutant]:
    """Copies the checkout with all mistakes planted; unchanged files keep their time stamps."""
    listed = subprocess.check_output(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], text=True
    )
    mutants: list[Mutant] = []
    planted = {}
    for file in MUTATIONS:
        source = (ROOT / file).read_text(encoding="utf-8")
        of_file = find(file, source, len(mutants) + 1)
        planted[file] = plant(source, of_file)
        mutants += of_file
    for name in listed.splitlines():
        if not (ROOT / name).is_file():
            continue
        content = planted.get(name, "").encode() or (ROOT / name).read_bytes()
        if name == "src/runtime/cpu.cpp":
            content += DEFINITION.encode()
        if name == "cmake/IsaUnits.cmake":
            content = content.replace(b"-O3", b"-O1")  # compiles in half the time
        target = work / "copy" / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    header = work / "mutant.hpp"
    if not header.exists():
        header.write_text(HEADER, encoding="utf-8")
    return mutants


def build(work: Path, isa: str, jobs: int) -> None:
    """Compiles the copy for one ISA and puts the module beside its Python package."""
    import pybind11

    folder = work / "build"
    options = {
        "SKBUILD": "ON",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_FLAGS": f"-include {work / 'mutant.hpp'} -w",
        "CMAKE_CXX_FLAGS_RELEASE": "-O1",
        "CONVOLITH_ISAS": isa,
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(
        ["cmake", "-S", str(work / "copy"), "-B", str(folder), "-G", "Ninja", *defines],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(["ninja", "-C", str(folder), f"-j{jobs}"], check=True)
    for module in folder.glob("_core*.so"):
        new = shutil.copy(module, work / "copy/python/convolith/new")
        os.replace(new, work / "copy/python/convolith" / module.name)
    problems = work / "copy/python/convolith/bench/problems"
    shutil.copytree(work / "copy/benchmarks/problems", problems, dirs_exist_ok=True)


def tests_of(file: str) -> tuple[str, ...]:
    return TESTS[max((path for path in TESTS if file.startswith(path)), key=len)]


def environment(work: Path, number: int) -> dict[str, str]:
    return {
        **os.environ,
        "CONVOLITH_MUTANT": str(number),
        "PYTHONPATH": str(work / "copy/python"),
        "MALLOC_PERTURB_": "170",
    }


def module_in_use(work: Path) -> Path:
    """An editable install would be found before the copy."""
    command = [sys.executable, "-c", "import convolith._core; print(convolith._core.__file__)"]
    return Path(subprocess.check_output(command, env=environment(work, 0), text=True).strip())


def run_tests(work: Path, tests: tuple[str, ...], number: int) -> str | None:
    """What noticed the mistake: a test, a crash, a hang; or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=work / "copy/tests",
            env=environment(work, number),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py\S*)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"ends with code {done.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", help="files whose path begins so (default: all)")
    parser.add_argument("--number", type=int, action="append", help="only this (repeatable)")
    parser.add_argument("--list", action="store_true", help="list, and do nothing")
    parser.add_argument("--work", type=Path, default=Path("build/mutate"), help="scratch folder")
    parser.add_argument("--isa", default="avx512", help="the one that is compiled")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="of the build")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    mutants = copy_sources(work)
    if arguments.paths:
        mutants = [m for m in mutants if m.file.startswith(tuple(arguments.paths))]
    if arguments.number:
        mutants = [m for m in mutants if m.number in arguments.number]
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.number:3} {mutant.file}: {mutant.why}")
        return 0
    build(work, arguments.isa, arguments.jobs)
    if not (module := module_in_use(work)).is_relative_to(work):
        print(f"another convolith is in the way: {module}")
        return 1
    for tests in sorted({tests_of(m.file) for m in mutants}):
        if (broken := run_tests(work, tests, 0)) is not None:
            print(f"without a mistake, {broken} fails")
            return 1
    survived = 0
    for mutant in mutants:
        start = time.perf_counter()
        killer = run_tests(work, tests_of(mutant.file), mutant.number)
        seconds = time.perf_counter() - start
        survived += killer is None
        verdict = f"killed by {killer}" if killer else "SURVIVED"
        what = f"{mutant.number:3} {mutant.file}: {mutant.why}"
        print(f"{what}: {verdict}, {seconds:.0f} s", flush=True)
    print(f"{len(mutants) - survived} of {len(mutants)} mistakes noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
