"""Memory that cannot be had: each allocation of each kind of call fails in turn. The call raises
MemoryError or does without, frees what it took, and the next one is right."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FOREVER = 1 << 60


class Failing:
    """The preloaded allocator of this process."""

    def __init__(self) -> None:
        self.library = ctypes.PyDLL(os.environ["LD_PRELOAD"])
        self.library.fail_allocations.argtypes = [ctypes.c_long, ctypes.c_long]
        self.library.stop_failing.restype = ctypes.c_long
        self.library.live_blocks.restype = ctypes.c_long

    def run(self, call: Any, first: int, count: int) -> tuple[int, Any, BaseException | None]:
        """How many failed, the result, the error. In a thread of its own, whose arena is empty."""
        outcome: list[Any] = [0, None, None]

        def work() -> None:
            self.library.fail_allocations(first, count)
            try:
                outcome[1] = call()
            except BaseException as error:
                outcome[2] = error.with_traceback(None)  # whose frames hold arrays
            finally:
                outcome[0] = self.library.stop_failing()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return tuple(outcome)

    def leaked(self) -> int:
        """Blocks that are still held, a moment after all results are gone."""
        for attempt in range(400):
            live = self.library.live_blocks()
            if live == 0:
                return 0
            if attempt == 20:
                gc.collect()
            time.sleep(0.005)  # a thread frees its arena after it has told that it ends
        return live


def sweep(count: int) -> tuple[int, list[str]]:
    """Every call, without a plan and with one that is cached, its n-th allocation and `count` in
    all failing, for n = 0, 1, ..."""
    from every_call import bits, every_call

    import convolith as cl
    from convolith import _core

    def forget() -> None:
        _core.forget_plans()
        cl.release_memory()

    failing, injected, wrong = Failing(), 0, []
    for (name, call), cold in product(every_call().items(), (True, False)):
        expected = bits(call())
        failed = first = 0
        while failed or first == 0:
            if cold:
                forget()
            failed, result, error = failing.run(call, first, count)
            injected += failed
            told = f"{name}: allocation {first}: "
            if error is None:
                if bits(result) != expected:
                    wrong.append(told + "another result")
            elif not isinstance(error, MemoryError):
                wrong.append(told + repr(error))
            del result, error
            forget()
            if leaked := failing.leaked():
                wrong.append(told + f"{leaked} blocks leaked")
            try:
                if bits(call()) != expected:
                    wrong.append(told + "the next call gave another result")
            except Exception as next_error:
                wrong.append(told + f"then {next_error!r}")
            first += 1
    return injected, wrong


@pytest.fixture(scope="module")
def allocator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C++ compiler")
    if "san" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a sanitizer has its own allocator")
    target = tmp_path_factory.mktemp("allocator") / "failing_allocation.so"
    source = HERE / "native" / "failing_allocation.cpp"
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-o", str(target), str(source)]
    done = subprocess.run([*compiler.split(), *flags, "-ldl"], capture_output=True, text=True)
    if "__libc_m" in done.stderr:
        pytest.skip("needs the GNU C library")
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("count", [1, FOREVER], ids=["one", "all from then on"])
def test_every_allocation_may_fail(allocator: Path, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", __file__, str(count)],
        env=os.environ | {"LD_PRELOAD": str(allocator), "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    injected, wrong = json.loads(done.stdout)
    assert not wrong, "\n".join(wrong)
    assert injected > 2000


if __name__ == "__main__":
    print(json.dumps(sweep(int(sys.argv[1]))))
