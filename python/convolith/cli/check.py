"""`convolith check`: kernels, this library's or anybody's, against the float64 reference."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convolith
from convolith.cli.common import check_writable, make_console, positive, progress, seconds
from convolith.cli.errors import CliError, require
from convolith.testing import checking, ckernels
from convolith.testing.examine import Conditions
from convolith.testing.family import Settings
from convolith.testing.kernels import Kernel, PythonKernel
from convolith.testing.operations import OPERATIONS, resolve
from convolith.testing.problem import DATA_FORMATS, DTYPES, Problem
from convolith.testing.report import Report

DESCRIPTION = """\
Check a kernel against the float64 reference on a catalogue of problems: edges of every argument,
sizes about vectors and tiles, NaN, infinities, subnormal and huge numbers, random problems and
the layers of networks. Integers must come out exact, other numbers within the bound of their sums.
Buffers lie between guard pages, results are poisoned, and the kernel runs in a child process: a
crash is a failure. Each failure is shrunk to a small problem, with a picture of where it sits.
"""
EPILOG = """\
examples:
  convolith check --lib ./kernel.so --symbol conv2d_f32
  convolith check --module mypackage.kernels:conv2d --op conv2d --direction backward_input
  convolith check --torch --op max_pool2d
  convolith check --self --op conv2d --thorough
  convolith check --header                    where the C signature is described
"""
FAILED = 1
INTERRUPTED = 130
MINUTES = 3.0  # for --self, unless it is told what to check
LEAST = 0.05  # seconds for each kernel
APART = 10  # a kernel of --self that will not come to its last problem takes every tenth first
OUT_OF_TIME = "s were spent"  # how the reason ends for which such problems are skipped
SHOWN = 4  # failures of a kernel that are printed

Make = Callable[[], Kernel]


@dataclass(frozen=True)
class Job:
    """One kernel on one operation and direction."""

    label: str
    op: str
    direction: str
    make: Make
    conditions: Conditions
    command: str


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "check",
        help="check a kernel against the float64 reference",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    who = parser.add_argument_group("what to check").add_mutually_exclusive_group(required=True)
    who.add_argument("--lib", metavar="FILE", help="a shared library, with --symbol")
    who.add_argument("--module", metavar="PKG.MOD:NAME", help="a Python callable")
    who.add_argument(
        "--self",
        action="store_true",
        dest="own",
        help="this library: every algorithm, ISA and number of threads",
    )
    who.add_argument("--torch", action="store_true", help="the installed torch")
    who.add_argument(
        "--header", action="store_true", help="print the path of the C signature and exit"
    )
    parser.add_argument("--symbol", metavar="NAME", help="the function of --lib")
    what = parser.add_argument_group("problems")
    what.add_argument("--op", action="append", metavar="NAME", help="operation (repeatable)")
    what.add_argument(
        "--direction", choices=("forward", "backward", "backward_input", "backward_weight")
    )
    what.add_argument("--dtype", action="append", choices=DTYPES)
    what.add_argument("--data-format", action="append", choices=DATA_FORMATS)
    what.add_argument("--problem", action="append", metavar="TEXT", help="only this (repeatable)")
    what.add_argument("--seed", type=int, default=0, help="of the random problems (default: 0)")
    what.add_argument("--thorough", action="store_true", help="ten times as many random problems")
    what.add_argument(
        "--networks",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the layers of networks (default: yes, but not for --self)",
    )
    how = parser.add_argument_group("what the kernel promises")
    how.add_argument(
        "--tolerance",
        metavar="ALGORITHM",
        help="as this algorithm of the library: winograd_4x4, fft, .., or what auto chooses: auto",
    )
    how.add_argument(
        "--fast", action="store_true", help="NaN may spread; nothing near the ends of the range"
    )
    how.add_argument("--unit-roundoff", type=seconds, metavar="U", help="of its arithmetic")
    how.add_argument("--array-module", metavar="NAME", help="--module takes torch, cupy, .. arrays")
    how.add_argument("--device", metavar="NAME", help="where those arrays lie, such as cuda")
    how.add_argument(
        "--alignment", type=positive, default=0, metavar="BYTES", help="of every buffer"
    )
    run_as = parser.add_argument_group("how to run")
    run_as.add_argument(
        "--threads", type=positive, action="append", metavar="N", help="--self: (default: 1, 2)"
    )
    run_as.add_argument("--isa", action="append", metavar="NAME", help="--self: (default: all)")
    run_as.add_argument(
        "--algorithm", action="append", metavar="NAME", help="--self: (default: all, and auto)"
    )
    run_as.add_argument(
        "--minutes",
        type=seconds,
        metavar="M",
        help="--self: for all kernels together, some problems of each (default: 3; no limit with "
        "--op, --problem or --thorough)",
    )
    run_as.add_argument(
        "--all", action="store_true", help="--self: every problem, which takes an hour or more"
    )
    run_as.add_argument(
        "--seconds",
        type=seconds,
        metavar="S",
        help="for each kernel (default: 60; thorough: no limit)",
    )
    run_as.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="S", help="for a problem (default: 60)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write a list of reports")
    output.add_argument("--pictures", type=Path, metavar="FOLDER", help="write PNGs of failures")
    output.add_argument("--stream", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Check; 0 if problems passed and none failed."""
    if arguments.header:
        print(ckernels.HEADER)
        return 0
    check_writable(arguments.json)
    if arguments.stream:
        return stream(arguments)
    records: list[dict[str, Any]] = []
    interrupted = False
    try:
        if arguments.own:
            records_of_isas(arguments, records)
        else:
            for job in make_jobs(arguments):
                report, shown = run_job(arguments, job)
                records.append(shown)
                if arguments.pictures:
                    report.save_pictures(arguments.pictures)
    except KeyboardInterrupt:
        interrupted = True
    show(records)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if interrupted:
        print("convolith check: interrupted", file=sys.stderr)
        return INTERRUPTED
    checked = any(record["passed"] for record in records)
    return 0 if checked and not any(record["failed"] for record in records) else FAILED


def run_job(arguments: argparse.Namespace, job: Job) -> tuple[Report, dict[str, Any]]:
    """Run one kernel with a progress bar; its report, and the same for JSON."""
    chosen = problems_of(arguments, job)
    report = Report(job.label, job.op, job.direction)
    steps = steps_of(arguments, job, chosen, report)
    for _ in progress(steps, len(chosen), lambda p: f"{job.label}: {p}"[:70]):
        pass
    return report, report.to_dict()


def problems_of(arguments: argparse.Namespace, job: Job) -> list[Problem]:
    """The problems that the arguments ask for."""
    networks = not arguments.own if arguments.networks is None else arguments.networks
    given = [p for p in given_problems(arguments) if (p.op, p.direction) == (job.op, job.direction)]
    return checking.choose(
        job.op,
        job.direction,
        given or None,
        dtypes=tuple(arguments.dtype or default_dtypes(arguments)),
        data_formats=tuple(arguments.data_format or DATA_FORMATS),
        thorough=arguments.thorough,
        seed=arguments.seed,
        networks=networks,
    )


def steps_of(
    arguments: argparse.Namespace,
    job: Job,
    chosen: Sequence[Problem],
    report: Report,
    limit: float | None = None,
) -> Iterator[Problem]:
    """The run of one job, problem by problem, in `limit` seconds or what the arguments say."""
    limit = arguments.seconds if limit is None else limit
    if limit is None:
        limit = float("inf") if arguments.thorough else checking.SECONDS
    try:
        yield from checking.run(
            job.make,
            chosen,
            job.conditions,
            report,
            isolate=True,
            seconds=limit,
            timeout=arguments.timeout,
            reproducer=lambda p: f"{job.command} --problem {str(p)!r}",
        )
    except (ImportError, AttributeError) as error:
        raise CliError(f"{job.label}: {error}") from error


def given_problems(arguments: argparse.Namespace) -> list[Problem]:
    """Those of --problem; CliError for an operation that is not known."""
    found = [Problem.parse(text) for text in arguments.problem or ()]
    for problem in found:
        resolve(problem.op, problem.direction)
    return found


def default_dtypes(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Of a C function the one of its name, else float32 and float64."""
    if arguments.lib:
        return ("float64",) if str(arguments.symbol).endswith("f64") else ("float32",)
    return ("float32", "float64")


# ---- which kernels ---------------------------------------------------------------------------


def make_jobs(arguments: argparse.Namespace) -> list[Job]:
    """The kernels that the arguments name, each on the operations asked for."""
    if arguments.lib and not arguments.symbol:
        raise CliError("--lib needs --symbol, the name of the function")
    if arguments.symbol and not arguments.lib:
        raise CliError("--symbol goes with --lib")
    settings = Settings(
        checking.tolerance_rule(arguments.tolerance),
        arguments.unit_roundoff,
        strict=not arguments.fast,
    )
    conditions = Conditions(settings, guard="pages", alignment=arguments.alignment)
    jobs = []
    for op, direction in operations_of(arguments):
        if arguments.lib:
            command = f"convolith check --lib {arguments.lib} --symbol {arguments.symbol}"
            bits = 64 if (arguments.dtype or default_dtypes(arguments))[0] == "float64" else 32
            make: Make = _Library(arguments.lib, arguments.symbol, bits)
            label = arguments.symbol
        elif arguments.module:
            command = f"convolith check --module {arguments.module}"
            make = _Module(arguments.module, arguments.array_module, arguments.device)
            label = arguments.module.partition(":")[2] or arguments.module
        else:
            require("torch", "peers")
            command, label = "convolith check --torch", "torch"
            make = _Torch(op, direction, arguments.device)
            try:
                make()
            except NotImplementedError:
                continue
        jobs.append(Job(label, op, direction, make, conditions, command))
    return jobs


def operations_of(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """(operation, direction) pairs: those of --op or --problem, of the name, or all."""
    if problems := given_problems(arguments):
        return list(dict.fromkeys((p.op, p.direction) for p in problems))
    ops = arguments.op
    if not ops and (arguments.lib or arguments.module):
        ops, direction = guess(arguments.symbol or arguments.module.rpartition(":")[2])
        arguments.direction = arguments.direction or direction
    pairs = []
    for op in ops or OPERATIONS:
        single = arguments.lib or arguments.module
        default = ("forward",) if single or op not in OPERATIONS else OPERATIONS[op].directions
        for direction in (arguments.direction,) if arguments.direction else default:
            try:
                pairs.append(resolve(op, direction))
            except ValueError:
                if ops:
                    raise
    return list(dict.fromkeys(pairs))


def guess(name: str) -> tuple[list[str], str]:
    """Operation and direction from the name of a function; CliError if it does not tell."""
    base = name.removesuffix("_f32").removesuffix("_f64")
    for direction in ("backward_input", "backward_weight", "backward"):
        if base.endswith(f"_{direction}"):
            return guess(base[: -len(direction) - 1])[0], direction
    for op in sorted(OPERATIONS, key=len, reverse=True):
        if op in base:
            return [op], "forward"
    raise CliError(f"the name {name!r} does not tell the operation: give --op")


@dataclass(frozen=True)
class _Library:
    path: str
    symbol: str
    bits: int

    def __call__(self) -> Kernel:
        return ckernels.CKernel(self.path, self.symbol, self.bits)


@dataclass(frozen=True)
class _Module:
    name: str
    array_module: str | None
    device: str | None

    def __call__(self) -> Kernel:
        module, colon, attribute = self.name.partition(":")
        if not colon:
            raise CliError(f"--module is {self.name!r}; it must be package.module:function")
        sys.path.insert(0, os.getcwd())
        function: Any = importlib.import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
        return PythonKernel(function, array_module=self.array_module, device=self.device)


@dataclass(frozen=True)
class _Torch:
    op: str
    direction: str
    device: str | None

    def __call__(self) -> Kernel:
        from convolith.testing import torch_kernels

        return PythonKernel(torch_kernels.kernel_for(self.op, self.direction, self.device))


@dataclass(frozen=True)
class _Own:
    op: str
    direction: str
    algorithm: str
    threads: int

    def __call__(self) -> Kernel:
        from convolith import _core
        from convolith.testing import own

        _core.set_poison(True)
        _core.set_brief_operations(0)  # small problems too are shared among threads
        return PythonKernel(own.kernel_of(self.op, self.direction, self.algorithm, self.threads))


# ---- this library ----------------------------------------------------------------------------


def own_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Every algorithm and number of threads, on the ISA of this process."""
    from convolith.testing import own

    known = (*own.algorithm_names(), own.AUTO)
    algorithms = tuple(arguments.algorithm or known)
    for name in algorithms:
        if name not in known:
            raise CliError(f"--algorithm {name!r} is unknown; known: {', '.join(known)}")
    isa = convolith.show_config(mode="dicts")["isa"]
    jobs = []
    for op, direction in operations_of(arguments):
        for threads in arguments.threads or (1, 2):
            for name in algorithms if op.startswith("conv") else (own.AUTO,):
                tolerance = None if name == own.AUTO else own.tolerance_of(name)
                supports = None if name == own.AUTO else own.supports(name)
                conditions = Conditions(Settings(tolerance), supports, guard="pages")
                label = (
                    f"{name if op.startswith('conv') else 'convolith'}, {isa}, {threads} threads"
                )
                command = f"CONVOLITH_ISA={isa} convolith check --self --isa {isa}"
                command += f" --threads {threads} --algorithm {name}"
                make = _Own(op, direction, name, threads)
                jobs.append(Job(label, op, direction, make, conditions, command))
    return jobs


def stream(arguments: argparse.Namespace) -> int:
    """Check the library on this process's ISA: a line of JSON per report, and dots of progress."""
    jobs = own_jobs(arguments)
    print(json.dumps({"jobs": len(jobs)}), flush=True)
    minutes = minutes_of(arguments)
    deadline = time.monotonic() + 60 * (minutes or 0)
    problems: dict[tuple[str, str], list[Problem]] = {}
    for number, job in enumerate(jobs):
        report = Report(job.label, job.op, job.direction)
        if (job.op, job.direction) not in problems:
            problems[job.op, job.direction] = problems_of(arguments, job)
        chosen = problems[job.op, job.direction]
        limit = None
        if minutes is not None:
            chosen = [p for i in range(APART) for p in chosen[(number + i) % APART :: APART]]
            limit = (deadline - time.monotonic()) / (len(jobs) - number)
            limit = max(LEAST, round(limit, 2))
        for _ in steps_of(arguments, job, chosen, report, limit):
            pass
        print(json.dumps(report.to_dict()), flush=True)
    return 0


def minutes_of(arguments: argparse.Namespace) -> float | None:
    """The limit of a check of the library, or None."""
    if arguments.minutes is not None:
        return float(arguments.minutes)
    told = arguments.op or arguments.problem or arguments.thorough or arguments.all
    return None if told else MINUTES


def records_of_isas(arguments: argparse.Namespace, records: list[dict[str, Any]]) -> None:
    """Check the library once per ISA, each in a process of its own, and collect the reports."""
    available = tuple(convolith.show_config(mode="dicts")["isas_available"])
    for isa in arguments.isa or available:
        if isa not in available:
            raise CliError(f"--isa {isa!r} is not here; available: {', '.join(available)}")
    own_jobs(arguments)  # tells mistakes before anything runs
    options = forward(arguments)
    if (minutes := minutes_of(arguments)) is not None:
        options.append(f"--minutes={minutes / len(arguments.isa or available)}")
    for isa in arguments.isa or available:
        command = [sys.executable, "-m", "convolith", "check", "--self", "--stream", *options]
        environment = {**os.environ, "CONVOLITH_ISA": isa, "CONVOLITH_CACHE": "off"}
        environment.setdefault("GOMP_SPINCOUNT", "20000")
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            total = json.loads(first)["jobs"] if first else 0
            lines = (json.loads(line) for line in process.stdout)
            for record in progress(lines, total, lambda r: f"{r['kernel']}: {r['op']}"):
                records.append(record)
        if process.returncode:
            raise CliError(f"the check of {isa} ended with code {process.returncode}")


def forward(arguments: argparse.Namespace) -> list[str]:
    """The arguments that the process of an ISA is given."""
    options = [f"--seed={arguments.seed}", f"--timeout={arguments.timeout}"]
    for name in ("op", "dtype", "data_format", "problem", "threads", "algorithm"):
        for value in getattr(arguments, name) or ():
            options.append(f"--{name.replace('_', '-')}={value}")
    for name in ("direction", "seconds"):
        if (value := getattr(arguments, name)) is not None:
            options.append(f"--{name}={value}")
    for name in ("thorough", "all"):
        if getattr(arguments, name):
            options.append(f"--{name}")
    if arguments.networks:
        options.append("--networks")
    return options


# ---- output ----------------------------------------------------------------------------------


def show(records: Sequence[dict[str, Any]]) -> None:
    """A table of counts, why problems were skipped, and the failures."""
    console = make_console()
    table = require("rich.table", "check").Table(box=require("rich.box", "check").SIMPLE_HEAD)
    for name in ("kernel", "operation", "direction"):
        table.add_column(name)
    for name in ("passed", "failed", "skipped", "largest error", "seconds"):
        table.add_column(name, justify="right")
    for record in records:
        style = "bold red" if record["failed"] else ("" if record["passed"] else "dim")
        counts = [str(record[name]) for name in ("passed", "failed", "skipped")]
        numbers = [f"{record['worst']:.2f}", f"{record['seconds']:.1f}"]
        names = [record["kernel"], record["op"], record["direction"]]
        table.add_row(*names, *counts, *numbers, style=style)
    console.print(table)

    def say(text: str, style: str = "") -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False, style=style)

    say("Largest error that passed, in units of its bound; 0 where all was exact.", "dim")
    for record in records:
        if len(records) <= 3:
            for reason, count in sorted(record["skips"].items(), key=lambda item: -item[1])[:8]:
                say(f"skipped {count}: {reason}", "dim")
        seen: dict[str, dict[str, Any]] = {}
        for failure in record["failures"]:
            seen.setdefault(failure["smallest"], failure)
        for failure in list(seen.values())[:SHOWN]:
            say(
                f"\n{record['kernel']}: {failure['smallest_kind']}: {failure['smallest']}",
                "bold red",
            )
            say(f"  {failure['smallest_reason']}")
            if failure["picture"]:
                say("\n".join("  " + line for line in failure["picture"].splitlines()))
            say(f"  again: {failure['reproducer']}")
        if len(seen) > SHOWN:
            say(f"  and {len(seen) - SHOWN} more; --json has all")
    failed, passed = (sum(record[name] for record in records) for name in ("failed", "passed"))
    verdict = f"{failed} problems failed" if failed else "No problem failed"
    if not passed and not failed:
        verdict = "Nothing was checked"
    say(f"\n{verdict}; {passed} passed.", "bold")
    left = sum(
        count
        for record in records
        for reason, count in record["skips"].items()
        if reason.endswith(OUT_OF_TIME)
    )
    if left:
        say(f"{left} were not run for lack of time: --minutes, --seconds and --all give more.")
