"""`check`: a kernel against the float64 reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from convolith.testing import bounds, guard
from convolith.testing.catalogue import problems as catalogue
from convolith.testing.examine import Conditions
from convolith.testing.family import Settings
from convolith.testing.kernels import Kernel, PythonKernel
from convolith.testing.operations import resolve
from convolith.testing.outcome import FAILED, SKIPPED, Outcome
from convolith.testing.problem import Problem
from convolith.testing.report import Failure, Report
from convolith.testing.runner import Forked, Here, MakeKernel, can_fork
from convolith.testing.shrink import shrink

Supports = Callable[[Problem], bool | str | None]
ToleranceArgument = bounds.Tolerance | bounds.ToleranceRule | str | None

SECONDS = 60.0
SHRINKING = 20.0


def check(
    kernel: Callable[..., Any],
    op: str = "conv2d",
    *,
    direction: str = "forward",
    supports: Supports | None = None,
    dtypes: Sequence[str] = ("float32", "float64"),
    data_formats: Sequence[str] = ("channels_first", "channels_last"),
    thorough: bool = False,
    seed: int = 0,
    problems: Iterable[Problem | str] | None = None,
    networks: bool = True,
    strict: bool = True,
    tolerance: ToleranceArgument = None,
    unit_roundoff: float | None = None,
    repeatable: bool = True,
    array_module: Any = None,
    device: str | None = None,
    out: bool | None = None,
    isolate: bool = False,
    alignment: int = 0,
    seconds: float | None = None,
    shrink_seconds: float = SHRINKING,
    max_failures: int | None = None,
) -> Report:
    """Run a kernel over a catalogue of problems and compare it with the float64 reference.

    The kernel has the arguments of the convolith function of that name: arrays by position, and by
    keyword the options that differ from their defaults. It raises NotImplementedError for what it
    does not serve; options that it has no argument for are skipped as well.

    Every buffer lies in canaries (or between pages that nothing may touch), a result is poisoned
    before and so is the heap, inputs must stay as they are, the same call must give the same bits.

    Args:
        kernel: The callable.
        op: "conv1d" to "conv_transpose3d", "max_pool2d" and the other poolings, "matmul",
            "softmax", "log_softmax", "cross_entropy", "activation", "batch_norm".
        direction: "forward"; of convolutions "backward_input" and "backward_weight", with the
            arguments of `conv_backward_input` and so on; of the others "backward".
        supports: Takes a `Problem`; False, or the reason as a text, skips it.
        dtypes: Of the problems: "float32", "float64", "float16".
        data_formats: "channels_first", "channels_last".
        thorough: More random problems, and networks on two kinds of data.
        seed: Of the random problems.
        problems: Only these, as `Problem` or text.
        networks: Whether the layers of networks are part of the catalogue.
        strict: IEEE rules for every output. Otherwise NaN and infinities may spread to neighbours
            and problems near the ends of the range are left out.
        tolerance: None for the bound of a plain sum; for a transform a mapping of "componentwise"
            and "uniform" as in `convolith.algorithms`, a function of the problem that returns
            one, or the name of an algorithm of that table; "auto" is what the library chooses.
        unit_roundoff: Of the kernel's arithmetic where that is not its dtype's, such as 2**-11.
        repeatable: Whether the same call must give the same bits.
        array_module: The module whose arrays the kernel takes, or its name: "torch", "cupy",
            "jax.numpy". Results are converted from any of them without being told.
        device: Where those arrays are to lie, such as "cuda".
        out: Whether the kernel writes into `out=`; None: if it has such an argument.
        isolate: Run the kernel in a child process with guard pages: a crash or a hang is a failure
            of its problem. For kernels that a forked process can run; not for CUDA.
        alignment: Bytes that the start of every buffer is a multiple of; 0: an element's size.
        seconds: Skip what is left after so much time; None: 60, or no limit if thorough.
        shrink_seconds: Time to spend on finding smaller problems that fail; a failure after that
            keeps the problem that found it.
        max_failures: Skip what is left after so many failures.

    Returns:
        A `Report`, which is true if problems passed and none failed.

    Raises:
        ValueError: An unknown op, direction, or a problem text that makes no sense.
    """
    op, direction = resolve(op, direction)

    def make() -> Kernel:
        return PythonKernel(kernel, out=out, array_module=array_module, device=device)

    conditions = Conditions(
        settings=Settings(tolerance_rule(tolerance), unit_roundoff, strict),
        supports=supports,
        guard="pages" if isolate and guard.has_pages() else "canary",
        repeat=repeatable,
        alignment=alignment,
    )
    chosen = choose(
        op,
        direction,
        problems,
        dtypes=dtypes,
        data_formats=data_formats,
        thorough=thorough,
        seed=seed,
        networks=networks,
    )
    limit = seconds if seconds is not None else (float("inf") if thorough else SECONDS)
    name = make().name
    report = Report(name, op, direction)
    steps = run(
        make,
        chosen,
        conditions,
        report,
        isolate=isolate,
        seconds=limit,
        shrink_seconds=shrink_seconds,
        max_failures=max_failures,
    )
    for _ in steps:
        pass
    return report


def choose(
    op: str, direction: str, given: Iterable[Problem | str] | None, **options: Any
) -> list[Problem]:
    """The given problems, or those of the catalogue."""
    if given is None:
        return list(catalogue(op, direction, **options))
    return [p if isinstance(p, Problem) else Problem.parse(p) for p in given]


def run(
    make: MakeKernel,
    chosen: Sequence[Problem],
    conditions: Conditions,
    report: Report,
    *,
    isolate: bool = False,
    seconds: float = float("inf"),
    timeout: float = 60.0,
    reproducer: Callable[[Problem], str] | None = None,
    shrink_seconds: float = SHRINKING,
    max_failures: int | None = None,
) -> Iterator[Problem]:
    """Run problems and fill the report; yields each problem before it is run.

    Without a `reproducer` the kernel is asked for the line that runs a problem again.
    """
    isolate = isolate and can_fork()
    runner = Forked(make, conditions, timeout) if isolate else Here(make, conditions)
    started = time.monotonic()
    shrinking = shrink_seconds
    try:
        for problem in chosen:
            yield problem
            why = ""
            if time.monotonic() - started > seconds:
                why = f"the {seconds:g} s were spent"
            elif max_failures is not None and report.failed >= max_failures:
                why = f"stopped after {report.failed} failures"
            if why:
                report.count(problem, Outcome(SKIPPED, reason=why))
                continue
            outcome = runner.run(problem)
            report.count(problem, outcome)
            if outcome.status == FAILED:
                before = time.monotonic()
                smallest, found = problem, outcome
                if shrinking > 0:
                    smallest, found = shrink(problem, outcome, runner.run, min(shrinking, 5.0))
                    shrinking -= time.monotonic() - before
                again = (reproducer or make().reproducer)(smallest)
                report.failures.append(Failure(problem, outcome, smallest, found, again))
    finally:
        runner.close()
        report.seconds = time.monotonic() - started


def tolerance_rule(tolerance: ToleranceArgument) -> bounds.ToleranceRule | None:
    """A function of the problem, from each of the forms that the argument may have."""
    if tolerance is None or callable(tolerance):
        return tolerance
    if isinstance(tolerance, str):
        from convolith.testing.own import tolerance_of

        return tolerance_of(tolerance)
    given = dict(tolerance)
    return lambda problem: given
