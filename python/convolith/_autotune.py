"""algorithm="fastest": the algorithms of a problem are measured once, and the times are remembered.

They are kept in memory and in a JSON file in the user's cache folder, under everything that they
depend on: CPU model, ISA, threads, version, numerics, whether weights are packed ahead, and the
problem. Several processes may share the file. One that cannot be used costs a warning, no more.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from convolith import _core
from convolith._arguments import Array

try:
    import fcntl
    import resource
except ImportError:  # Windows: the file is replaced whole, but what two write at once may be lost
    fcntl = resource = None  # type: ignore[assignment]

Times = dict[str, float | None]
"""Median seconds by algorithm; None where it was tried and memory did not suffice."""

FORMAT = "convolith autotune 1"
FILE_NAME = "autotune-1.json"
MOST_ENTRIES = 4096
LOCK_SECONDS = 2.0
BUDGET_SECONDS = 0.25
"""For measuring where a call says "fastest" and no answer is known."""

_memory: dict[str, Times] = {}
_read: dict[Path, tuple[int, int]] = {}  # the file's time and size when it was read last
_warned: set[str] = set()
_measuring = threading.RLock()


def _unlock_child() -> None:
    global _measuring
    _measuring = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_child)


# ---- the file ------------------------------------------------------------------------------


def cache_folder() -> Path | None:
    """CONVOLITH_CACHE, or the user's cache folder; None where the cache is off."""
    told = os.environ.get("CONVOLITH_CACHE")
    if told is not None:
        return None if told in ("", "off") else Path(told)
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home
        return None
    return Path(base) / "convolith"


def _warn(kind: str, message: str) -> None:
    """Once per process and kind."""
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(f"autotune cache: {message}", RuntimeWarning, stacklevel=2)


def _is_times(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and (
            seconds is None
            or (isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0)
        )
        for name, seconds in value.items()
    )


class ForeignFile(ValueError):
    """JSON, but not ours: it is left alone."""


def _parse(text: str) -> dict[str, Times]:
    """The entries of a file. ValueError if it is corrupt; entries that are none are left out."""
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ForeignFile(f"not of the format {FORMAT!r}")
    entries = content.get("entries")
    if not isinstance(entries, dict):
        raise ValueError("no entries")
    return {key: times for key, times in entries.items() if _is_times(times)}


def _load(path: Path) -> None:
    """Take into memory what the file has and memory lacks, if it changed since the last time."""
    try:
        state = path.stat()
        version = (state.st_mtime_ns, state.st_size)
        if _read.get(path) == version:
            return
        _read[path] = version
        for key, times in _parse(path.read_text(encoding="utf-8")).items():
            _memory[key] = {**times, **_memory.get(key, {})}
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _warn("read", f"{path} is ignored: {error}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among processes; TimeoutError where another holds on to the lock."""
    with path.with_suffix(".lock").open("w") as lock:
        give_up = time.monotonic() + LOCK_SECONDS
        while fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise TimeoutError(f"{lock.name} stays locked by another process") from None
                time.sleep(0.01)
        yield


def _save(path: Path, key: str, times: Times) -> None:
    """Merge one entry into the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            entries: dict[str, Times] = {}
            try:
                entries = _parse(path.read_text(encoding="utf-8"))
            except ForeignFile:
                raise
            except (FileNotFoundError, ValueError):
                pass  # none yet, or corrupt: write it anew
            entries.pop(key, None)
            entries[key] = times
            kept = dict(list(entries.items())[-MOST_ENTRIES:])
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=FILE_NAME)
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    json.dump({"format": FORMAT, "entries": kept}, file, indent=1)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
    except (OSError, ValueError) as error:
        _warn("write", f"{path} cannot be written: {error}")


# ---- measuring -----------------------------------------------------------------------------


@functools.cache
def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _key(problem: _core.ConvProblem, numerics: str, threads: int, prepacked: bool) -> str:
    config = _core.config()
    return "; ".join(
        (
            _cpu_model(),
            config["isa"],
            f"{threads} threads",
            f"version {config['version']}",
            numerics,
            "prepacked" if prepacked else "packed per call",
            str(problem),
        )
    )


def _runs(
    problem: _core.ConvProblem, prepacked: bool, plans: dict[str, _core.Plan]
) -> dict[str, Callable[[], object]]:
    """A call of each plan on random arrays."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        # Centred, so that no sum grows large.
        values = rng.random(shape, dtype=np.float32 if problem.dtype == "float32" else np.float64)
        values -= 0.5
        return values

    first, second, result = {
        "forward": (problem.x_shape, problem.weight_shape, problem.y_shape),
        "backward_input": (problem.y_shape, problem.weight_shape, problem.x_shape),
        "backward_weight": (problem.y_shape, problem.x_shape, problem.weight_shape),
    }[problem.direction]
    channels = problem.out_channels if problem.direction == "forward" else problem.in_channels
    a, b, out = draw(*first), draw(*second), np.empty(result, problem.dtype)
    bias = draw(channels) if problem.bias else None
    residual = draw(*result) if problem.residual else None

    def run(plan: _core.Plan) -> Callable[[], object]:
        if prepacked:
            packed = plan.pack(b)
            return lambda: packed.execute(a, None, bias, residual, out)
        return lambda: plan.execute(a, b, bias, residual, out)

    return {name: run(plan) for name, plan in plans.items()}


def _switches() -> int:
    """How often the kernel took a core away from this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def _timed(run: Callable[[], object], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _measure(runs: dict[str, Callable[[], object]], budget: float) -> Times:
    """Median times in interleaved rounds, about `budget` seconds in all after the first runs.

    What is far behind after two runs, the first of which touches the memory, is not run again.
    A sample during which a core was taken away counts where there is no other.
    """
    hopeless, sample_seconds, most_rounds = 4.0, 5e-4, 50
    times: Times = {}
    warm: dict[str, float] = {}
    for name, run in runs.items():
        try:
            seconds = _timed(run)
            warm[name] = min(seconds, _timed(run)) if seconds < budget else seconds
        except MemoryError:
            times[name] = None
    best = min(warm.values(), default=0.0)
    clean: dict[str, list[float]] = {
        n: [] for n, seconds in warm.items() if seconds <= hopeless * best
    }
    disturbed: dict[str, list[float]] = {name: [] for name in clean}
    repeats = max(1, round(sample_seconds / max(best, 1e-7)))
    end = time.perf_counter() + budget
    for _ in range(most_rounds):
        for name in clean:
            switches = _switches()
            seconds = _timed(runs[name], repeats)
            (clean if _switches() == switches else disturbed)[name].append(seconds)
        if time.perf_counter() >= end:
            break
    for name, seconds in warm.items():
        found = clean.get(name) or disturbed.get(name) or [seconds]
        times[name] = statistics.median(found)
    return times


def measure(
    problem: _core.ConvProblem,
    numerics: str,
    threads: int,
    *,
    prepacked: bool,
    workspace_limit: int | None = None,
    budget: float = BUDGET_SECONDS,
) -> Times:
    """Time every algorithm that supports the problem, and remember the times."""
    records = _core.algorithms(problem, numerics, threads, workspace_limit=workspace_limit)
    names = [record["name"] for record in records if record["supported"]]
    if not names:  # raises UnsupportedError, which says why
        _core.Plan(problem, "auto", numerics, threads, workspace_limit=workspace_limit)
    plans = {
        name: _core.Plan(problem, name, numerics, threads, workspace_limit=workspace_limit)
        for name in names
    }
    with _measuring:
        times = _measure(_runs(problem, prepacked, plans), budget)
    key = _key(problem, numerics, threads, prepacked)
    # A limit on the workspace leaves algorithms out; what is known of them stays.
    _memory[key] = times = {**_memory.get(key, {}), **times}
    if folder := cache_folder():
        _save(folder / FILE_NAME, key, times)
    _core.forget_plans()  # those that were made on what was known before
    return {name: times[name] for name in names}


def winner(times: Times) -> str:
    """The fastest algorithm; "auto" where nothing could be measured."""
    measured = {name: seconds for name, seconds in times.items() if seconds is not None}
    return min(measured, key=lambda name: measured[name]) if measured else "auto"


def known_times(
    problem: _core.ConvProblem,
    numerics: str,
    threads: int,
    *,
    prepacked: bool,
    workspace_limit: int | None = None,
) -> Times:
    """The times of all algorithms that support the problem: remembered, else measured now.

    Empty where there is nothing to choose.
    """
    records = _core.algorithms(problem, numerics, threads, workspace_limit=workspace_limit)
    names = [record["name"] for record in records if record["supported"]]
    if problem.batch == 0 or len(names) < 2:
        return {}
    key = _key(problem, numerics, threads, prepacked)
    with _measuring:
        if not _memory.get(key, {}).keys() >= set(names) and (folder := cache_folder()):
            _load(folder / FILE_NAME)
        times = _memory.get(key, {})
        # Names that no longer exist, or are refused here, do not count; a new one is measured.
        if times.keys() >= set(names):
            return {name: times[name] for name in names}
        return measure(
            problem, numerics, threads, prepacked=prepacked, workspace_limit=workspace_limit
        )
