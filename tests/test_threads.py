"""Many Python threads at once: on one plan and on different ones, on what threads share (plans,
memory of results, settings, measured times), each with the right bits. `tests/sanitize thread`
runs this under ThreadSanitizer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_call import BIAS, W, X, bits, every_call

import convolith as cl
from convolith import _core

THREADS = 6


def together(*work: Callable[[], None]) -> None:
    """All of `work` at once, from one starting shot; what one raises is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(work))

    def run(body: Callable[[], None]) -> None:
        try:
            barrier.wait(60)
            body()
        except BaseException as error:
            errors.append(error)

    team = [threading.Thread(target=run, args=(body,)) for body in work]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join(600)
    assert not any(thread.is_alive() for thread in team)
    if errors:
        raise errors[0]


def repeated(times: int, body: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            body()

    return run


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    before = cl.get_num_threads()
    yield
    cl.set_num_threads(before)


def test_every_call_at_once() -> None:
    """Each thread makes every call, in an order of its own, while others take away what is kept."""
    calls = every_call()
    expected = {name: bits(call()) for name, call in calls.items()}

    def work(seed: int) -> Callable[[], None]:
        def run() -> None:
            for name in np.random.default_rng(seed).permutation(list(calls)):
                assert bits(calls[name]()) == expected[name], name

        return run

    def disturb() -> None:
        _core.forget_plans()
        cl.release_memory()

    def turn() -> None:
        for count in (1, 3, 2):
            cl.set_num_threads(count)

    together(*(work(seed) for seed in range(THREADS)), repeated(40, disturb), repeated(40, turn))


@pytest.mark.parametrize("algorithm", ["direct", "im2col_gemm", "implicit_gemm", "winograd_4x4"])
def test_one_plan_serves_many_threads(algorithm: str) -> None:
    plan = cl.plan_conv(X.shape, W, BIAS, padding=1, algorithm=algorithm, threads=2)
    inputs = [X * factor for factor in range(1, THREADS + 1)]
    expected = [bits(plan(x)) for x in inputs]

    def work(i: int) -> Callable[[], None]:
        def run() -> None:
            out = np.empty((2, 6, 20, 19), np.float32)
            for _ in range(10):
                assert bits(plan(inputs[i])) == expected[i]
                assert bits(plan(inputs[i], out=out)) == expected[i]

        return run

    together(*(work(i) for i in range(THREADS)))


def test_settings_of_a_thread_are_its_own() -> None:
    def work(count: int) -> Callable[[], None]:
        def run() -> None:
            mode = ("fast", "strict")[count % 2]
            with cl.threads(count), cl.numerics(mode):
                for _ in range(20):
                    cl.conv2d(X, W)
                    assert cl.get_num_threads() == count
                    assert _core.default_numerics() == mode

        return run

    before = cl.get_num_threads()
    together(*(work(count) for count in range(1, THREADS + 1)))
    assert cl.get_num_threads() == before


def test_times_are_measured_and_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOLITH_CACHE", str(tmp_path))
    expected = cl.conv2d(X, W, padding=1)

    def measure() -> None:
        record = cl.autotune(X.shape, W, padding=1, seconds=0.02)
        assert record["algorithm"] in record["seconds"]

    def use() -> None:
        y = cl.conv2d(X, W, padding=1, algorithm="fastest")
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)

    together(*[measure] * 2, *[repeated(10, use)] * 3, repeated(20, cl.release_memory))


def test_plans_die_in_other_threads() -> None:
    """A plan and its results are made in one thread and freed in another."""
    shelf: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def make() -> None:
        for _ in range(30):
            plan = cl.plan_conv(X.shape, W, padding=1)
            shelf.put((plan, plan(X)))

    together(make, make, repeated(30, shelf.get), repeated(30, shelf.get))
