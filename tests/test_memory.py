"""Memory of results: reused, bounded, given back."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import convolith as cl
from convolith import _core

SIDE = 1600
X = np.ones((1, 4, SIDE, SIDE), np.float32)
ARRAY = 4 * SIDE * SIDE * 4  # bytes of a result of relu
SPARE = 32 << 20  # what may be kept beyond what was in use


def relu(pixels: int = SIDE) -> np.ndarray:
    return cl.activation(X[:, :, :pixels, :pixels], "relu")


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    cl.release_memory()


def test_a_result_takes_the_memory_of_one_that_is_gone() -> None:
    first = relu()
    address = first.ctypes.data
    second = relu()
    assert second.ctypes.data != address
    del first
    assert _core.kept_bytes() >= ARRAY
    assert relu().ctypes.data == address
    assert np.array_equal(second, X)


def test_release_memory_tells_what_it_gave_back() -> None:
    results = [relu(), relu()]
    results.clear()
    assert 2 * ARRAY <= cl.release_memory() < 2.2 * ARRAY
    assert cl.release_memory() == 0


def test_little_more_is_kept_than_was_in_use() -> None:
    # One result at a time, of ever other sizes: what no size fits is freed, not hoarded.
    for pixels in range(SIDE, SIDE // 2, -SIDE // 20):
        relu(pixels)
        assert _core.kept_bytes() < 1.2 * ARRAY + SPARE


def test_small_results_in_turns_do_not_push_out_one_another() -> None:
    sizes = (100, 200, 300, 400)
    for pixels in sizes:
        relu(pixels)
    kept = _core.kept_bytes()
    for pixels in sizes:
        relu(pixels)
    assert _core.kept_bytes() == kept > sum(16 * pixels**2 for pixels in sizes)


def test_what_was_needed_long_ago_is_forgotten() -> None:
    results = [relu() for _ in range(8)]
    results.clear()
    assert _core.kept_bytes() > 7 * ARRAY
    for _ in range(2500):
        relu(100)
    assert _core.kept_bytes() < 2 * ARRAY + SPARE


def test_views_keep_their_memory() -> None:
    view = relu()[0, 1]
    for _ in range(10):
        cl.activation(-X, "relu")
    assert (view == 1).all()


def test_many_threads_take_and_give() -> None:
    failures: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        kept: list[tuple[int, np.ndarray]] = []
        for _ in range(300):
            pixels = int(rng.integers(50, 150))
            kept.append((pixels, cl.activation(X[0, 0, :pixels, :pixels] * seed, "relu")))
            if len(kept) > 5:
                pixels, array = kept.pop(int(rng.integers(len(kept))))
                if array.shape != (pixels, pixels) or not (array == seed).all():
                    failures.append(f"thread {seed}, {pixels} pixels")

    team = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not failures
