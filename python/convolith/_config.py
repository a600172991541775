"""What the library was built with and how it runs: threads, numerics, ISA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

from convolith import _arguments, _autotune, _core


def set_num_threads(n: int) -> None:
    """Set the number of threads for calls of this process that `threads` does not govern."""
    _core.set_default_threads(thread_count(n))


def get_num_threads() -> int:
    """Return the number of threads that a call from this thread would use.

    At first OMP_NUM_THREADS, or the number of processors that the process may use.
    """
    return _core.default_threads()


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use `n` threads for calls of the calling thread within the context."""
    before = _core.thread_override()
    _core.set_thread_override(thread_count(n))
    try:
        yield
    finally:
        _core.set_thread_override(before)


@contextmanager
def numerics(mode: str) -> Iterator[None]:
    """Use numerics "fast" or "strict" for calls of the calling thread within the context.

    "strict" allows only algorithms in which each output is the sum of its own products, so that
    a NaN or an infinity reaches the outputs whose window holds it and no other.
    """
    before = _core.default_numerics()
    _core.set_thread_numerics(resolve_numerics(mode))
    try:
        yield
    finally:
        _core.set_thread_numerics(before)


def release_memory() -> int:
    """Give the memory that is kept for the next results back to the system; returns its bytes.

    Results that are no longer used leave their memory to those that follow, which saves the system
    from clearing it anew. What is kept and what is in use are together never more than what was in
    use at most during the last few thousand calls; this function ends the wait.
    """
    kept = _core.kept_bytes()
    _core.release_memory()
    return kept


def resolve_numerics(mode: str | None) -> str:
    """Return the mode of a call: its argument, or what the context says."""
    if mode is None:
        return _core.default_numerics()
    if _arguments.choice(mode, "numerics") not in ("fast", "strict"):
        raise ValueError(f"numerics is {mode!r}; it must be 'fast' or 'strict'")
    return mode


def thread_count(n: int) -> int:
    """Check a number of threads."""
    count = _arguments.integer(n, "threads")
    if not 1 <= count <= _core.MOST_THREADS:
        raise ValueError(f"threads is {count}; it must be 1 to {_core.MOST_THREADS}")
    return count


def _cuda_devices() -> list[str] | bool:
    """Names of the devices; False where this build has no CUDA part."""
    if not (Path(__file__).parent / "convolith_cuda.so").is_file():
        return False
    from convolith import cuda

    return [device["name"] for device in cuda.devices()] if cuda.is_available() else []


@overload
def show_config(mode: Literal["print"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "print") -> dict[str, Any] | None:
    """Print the version, compiler, ISAs, threads, caches, CUDA devices and the autotune file.

    Args:
        mode: "print", or "dicts" to return {name: value}.
    """
    folder = _autotune.cache_folder()
    file = str(folder / _autotune.FILE_NAME) if folder else "off"
    own = {"threads": get_num_threads(), "autotune_file": file, "cuda": _cuda_devices()}
    config = _core.config() | own
    if mode == "dicts":
        return config
    if mode != "print":
        raise ValueError(f"mode is {mode!r}; it must be 'print' or 'dicts'")
    for name, value in config.items():
        if isinstance(value, list):
            value = ", ".join(value)
        elif name.endswith("_bytes") and value >= 1024:
            value = f"{value // 1024} KiB"
        print(f"{name.replace('_', ' '):<18}{value}")
    return None
