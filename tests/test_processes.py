"""Forks, other libraries' threads, interrupts, and unusual floating-point modes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SECONDS = 100  # in which a process answers, or hangs

# What every process here computes, with 2 threads: one operation of each family.
WORK = """
import warnings
import numpy as np
import convolith as cl
from convolith import _core

warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
cl.set_num_threads(2)
_core.set_brief_operations(0)  # small problems too are shared among threads


def arrays(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((2, 16, 40, 40)) * scale).astype(np.float32)
    return x, rng.standard_normal((16, 16, 3, 3)).astype(np.float32)


def work(seed=0, given=None):
    x, w = given or arrays(seed)
    results = []
    for record in cl.algorithms(x.shape, w.shape, padding=1):
        if record["supported"]:
            y = cl.conv2d(x, w, padding=1, algorithm=record["name"])
            results.append(y)
            results.append(cl.conv_backward_input(y, w, x.shape, padding=1))
            results.append(cl.conv_backward_weight(y, x, w.shape, padding=1))
    grouped = cl.conv2d(x, w[:, :1], groups=16)
    results += [grouped, cl.conv_backward_weight(grouped, x, w[:, :1].shape, groups=16)]
    pooled = cl.max_pool2d(x, 3, 2)
    results += [pooled, cl.max_pool2d_backward(pooled, x, 3, 2), cl.avg_pool2d(x, 2)]
    results += [cl.lp_pool2d(x, 2.0, 2), cl.avg_pool2d_backward(pooled, x, 3, 2)]
    results += [cl.activation(x, "tanh"), cl.softmax(x)]
    results += [cl.cross_entropy(x[:, :, 0, 0], np.array([1, 2]))]
    results += [cl.matmul(x[0, 0], x[0, 1]), cl.batch_norm(x, None, None, training=True)]
    return b"".join(r.tobytes() for r in results)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WORK + textwrap.dedent(code)],
        env={**os.environ, "CONVOLITH_CACHE": "off", **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# ---- forks ---------------------------------------------------------------------------------


def test_children_answer_whenever_they_are_made() -> None:
    """Before any call, after one, during one of another thread; a child's child too."""
    done = run(
        """
        import os
        import signal
        import threading

        def child_answers(expected, deeper=False):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                same = expected is None or work() == expected
                os._exit(0 if work() and same and (not deeper or child_answers(expected)) else 1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        print(child_answers(None))
        expected = work()
        print(child_answers(expected, deeper=True))
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                work(1)

        team = [threading.Thread(target=busy) for _ in range(2)]
        for thread in team:
            thread.start()
        print(all([child_answers(expected) for _ in range(3)]))
        stop.set()
        for thread in team:
            thread.join()
        print(work() == expected)
        """
    )
    assert done.stdout == "True\n" * 4, done.stdout + done.stderr


def test_children_answer_while_other_threads_take_and_give_memory() -> None:
    done = run(
        """
        import os
        import signal
        import threading

        x = np.ones((64, 1024), np.float32)
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                cl.activation(x, "relu")

        team = [threading.Thread(target=busy) for _ in range(3)]
        for thread in team:
            thread.start()
        answers = 0
        for _ in range(40):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                os._exit(0 if np.array_equal(cl.activation(x, "relu"), x) else 1)
            answers += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        for thread in team:
            thread.join()
        print(answers)
        """
    )
    assert done.stdout == "40\n", done.stdout + done.stderr


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools(method: str, tmp_path: Path) -> None:
    """Workers answer, made before and after the parent has used its own threads."""
    script = tmp_path / "pools.py"
    script.write_text(
        WORK
        + textwrap.dedent(
            f"""
            import multiprocessing

            if __name__ == "__main__":
                context = multiprocessing.get_context({method!r})
                with context.Pool(2) as early:
                    there = early.map_async(work, range(3)).get({SECONDS / 2})
                    here = [work(seed) for seed in range(3)]
                    with context.Pool(2) as late:
                        again = late.map_async(work, range(3)).get({SECONDS / 2})
                    print(here == there == again)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "CONVOLITH_CACHE": "off"},
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert done.stdout == "True\n", done.stdout + done.stderr


# ---- other libraries' threads --------------------------------------------------------------

REGION = """
void in_parallel(int threads, void (*call)(int)) {
  #pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int i = 0; i < 2 * threads; ++i) call(i);
}
"""


def test_inside_another_librarys_parallel_region(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "region.c", tmp_path / "region.so"
    source.write_text(REGION)
    built = subprocess.run(
        [compiler, "-O1", "-fopenmp", "-shared", "-fPIC", str(source), "-o", str(library)],
        check=False,
        capture_output=True,
    )
    if built.returncode:
        pytest.skip("the C compiler has no OpenMP")
    done = run(
        f"""
        import ctypes

        region = ctypes.CDLL({str(library)!r})
        Call = ctypes.CFUNCTYPE(None, ctypes.c_int)
        for before in (False, True):  # the library's threads exist already, or are made inside
            answers = {{}}
            call = Call(lambda i: answers.__setitem__(i, work(i)))
            if before:
                work()
            region.in_parallel(3, call)
            print(len(answers), all(work(i) == answer for i, answer in answers.items()))
        """
    )
    assert done.stdout == "6 True\n" * 2, done.stdout + done.stderr


# ---- interrupts ----------------------------------------------------------------------------


def test_an_interrupt_is_raised_when_the_call_returns() -> None:
    """What the call writes is whole, and the next call right."""
    done = run(
        """
        import os
        import signal
        import threading
        import time

        expected = work()
        x = np.ones((4, 64, 256, 256), np.float32)
        w = np.ones((64, 64, 3, 3), np.float32)
        out = np.full((4, 64, 254, 254), np.nan, np.float32)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
        began, interrupted = [], []

        def interrupt():
            while not began:
                time.sleep(0.001)
            time.sleep(0.02)
            interrupted.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        returned = None
        try:
            began.append(True)
            while not interrupted:
                cl.conv2d(x, w, out=out, algorithm="direct")
            time.sleep(5)
        except KeyboardInterrupt:
            returned = time.perf_counter() - interrupted[0]
        thread.join()
        print(returned is not None, bool(np.all(out == 576)), work() == expected)
        """
    )
    assert done.stdout == "True True True\n", done.stdout + done.stderr


# ---- floating-point modes ------------------------------------------------------------------

MODES = """
import ctypes
import ctypes.util
import platform
import sys

if platform.machine() not in ("x86_64", "AMD64") or not sys.platform.startswith("linux"):
    print("elsewhere")
    sys.exit()
libm = ctypes.CDLL(ctypes.util.find_library("m"))
NEAREST, FLUSH, UPWARD, TOWARDS_ZERO = 0x1F80, 0x9FC0, 0x5F80, 0x7F80
INEXACT = 0x20  # which Python's own sums set
FLAGS, TRAPS = NEAREST | 0x21, NEAREST & ~0xC00  # overflow and underflow trap


def mode():
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    return environment[7]  # MXCSR


def set_mode(value):
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    environment[7] = value
    libm.fesetenv(environment)
"""


def test_the_callers_floating_point_mode_is_neither_changed_nor_used() -> None:
    """Nor do flags of exceptions show what kernels met; traps do not catch it."""
    done = run(
        MODES
        + textwrap.dedent(
            """
            x = np.ones((2, 16, 40, 40), np.float32) * np.float32(1e-39)
            w = np.ones((16, 16, 3, 3), np.float32)
            calls = {
                "conv2d": lambda: cl.conv2d(x, w),
                "brief conv1d": lambda: cl.conv1d(x[:1, :, 0], w[:, :, 0]),
                "backward_input": lambda: cl.conv_backward_input(x, w, (2, 16, 42, 42)),
                "backward_weight": lambda: cl.conv_backward_weight(x, x, (16, 16, 1, 1)),
                "bias gradient": lambda: cl.conv_backward_weight(
                    x, x, (16, 16, 1, 1), bias_grad=True
                )[1],
                "max_pool2d": lambda: cl.max_pool2d(x, 2),
                "avg_pool2d": lambda: cl.avg_pool2d(x, 2),
                "avg_pool2d_backward": lambda: cl.avg_pool2d_backward(x[:, :, :20, :20], x, 2),
                "lp_pool2d": lambda: cl.lp_pool2d(x, 2.0, 2),
                "activation": lambda: cl.activation(x, "silu"),
                "softmax": lambda: cl.softmax(x),
                "matmul": lambda: cl.matmul(x[0, 0], w[0, :, 0].repeat(20, 0)[:40]),
                "batch_norm": lambda: cl.batch_norm(x, None, None, training=True),
            }
            plain = {name: call().tobytes() for name, call in calls.items()}
            for name, call in calls.items():
                for value in (FLUSH, UPWARD, TOWARDS_ZERO, FLAGS, TRAPS, NEAREST):
                    _core.forget_plans()  # planning computes too
                    set_mode(value)
                    result = call()
                    after = mode()
                    set_mode(NEAREST)
                    if (after ^ value) & ~INEXACT:
                        print(name, "left", hex(after), "not", hex(value))
                    if result.tobytes() != plain[name]:
                        print(name, "under", hex(value), "gives other bits")
            print("done")
            """
        )
    )
    assert done.stdout in ("done\n", "elsewhere\n"), done.stdout + done.stderr


def test_threads_do_not_keep_the_mode_of_the_one_that_made_them() -> None:
    done = run(
        MODES
        + textwrap.dedent(
            """
            import threading

            tiny = arrays(scale=1e-38)  # NumPy flushes where it is told to
            set_mode(FLUSH)
            inside = work(given=tiny)  # OpenMP's threads are made here
            set_mode(NEAREST)
            after = work(given=tiny)
            cl.set_num_threads(1)
            print(inside == after == work(given=tiny))
            cl.set_num_threads(2)
            answers = []

            def other():
                set_mode(UPWARD)
                answers.append(work(given=tiny))

            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            print(answers[0] == after, mode() & ~0x3F == NEAREST)
            """
        )
    )
    assert done.stdout in ("True\nTrue True\n", "elsewhere\n"), done.stdout + done.stderr
