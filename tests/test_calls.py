"""Calls that repeat an earlier one: its plan is found again, and nothing else may change."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith import _core

MOST_PLANS = 256
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 9, 8)).astype(np.float32)
W = RNG.standard_normal((6, 4, 3, 3)).astype(np.float32)
BIAS = RNG.standard_normal(6).astype(np.float32)
Y = cl.conv2d(X, W, padding=1)


@pytest.fixture(autouse=True)
def no_plans() -> Iterator[None]:
    _core.forget_plans()
    yield
    _core.forget_plans()


def bits(result: Any) -> bytes:
    arrays = result if isinstance(result, tuple) else (result,)
    return b"".join(a.tobytes() for a in arrays)


CALLS: dict[str, Callable[..., Any]] = {
    "conv": lambda **o: cl.conv2d(X, W, BIAS, padding=1, activation=("leaky_relu", 0.1), **o),
    "residual": lambda **o: cl.conv2d(X, W, padding=1, residual=Y, **o),
    "transposed": lambda **o: cl.conv_transpose2d(Y, W, stride=2, output_padding=1, **o),
    "backward_input": lambda **o: cl.conv_backward_input(Y, W, X.shape, padding=1, **o),
    "pairs": lambda **o: cl.conv_backward_input(Y, W, X.shape, padding=((1, 1), (1, 1)), **o),
    "backward_weight": lambda **o: cl.conv_backward_weight(
        Y, X, W.shape, padding=1, bias_grad=True, **o
    ),
    "transposed_backward_input": lambda **o: cl.conv_transpose_backward_input(
        X, W, Y.shape, padding=1, **o
    ),
    "transposed_backward_weight": lambda **o: cl.conv_transpose_backward_weight(
        X, Y, W.shape, padding=1, bias_grad=True, **o
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_repeated_call_gives_the_same(name: str) -> None:
    first = CALLS[name]()
    assert _core.cached_plans() == 1
    again = CALLS[name]()
    assert _core.cached_plans() == 1
    assert bits(again) == bits(first)
    assert type(again) is type(first)
    assert not np.shares_memory(*(r[0] if isinstance(r, tuple) else r for r in (first, again)))


@pytest.mark.parametrize("name", CALLS)
def test_everything_that_a_plan_follows_from_is_told_apart(name: str) -> None:
    plain = bits(CALLS[name]())
    for options in ({"numerics": "strict"}, {"algorithm": "direct"}, {"data_format": "NCHW"}):
        np.testing.assert_allclose(
            np.frombuffer(bits(CALLS[name](**options)), np.float32),
            np.frombuffer(plain, np.float32),
            rtol=1e-3,
            atol=1e-3,
        )
    assert _core.cached_plans() == 4
    with cl.numerics("strict"):
        CALLS[name]()
    assert _core.cached_plans() == 5
    with cl.threads(cl.get_num_threads() + 1):
        CALLS[name]()
    assert _core.cached_plans() == 6
    before = cl.get_num_threads()
    try:
        cl.set_num_threads(before + 2)
        CALLS[name]()
    finally:
        cl.set_num_threads(before)
    assert _core.cached_plans() == 7
    assert bits(CALLS[name]()) == plain
    assert _core.cached_plans() == 7


def test_arrays_are_told_apart_by_dtype_and_shape() -> None:
    for x, w in (
        (X, W),
        (X.astype(float), W.astype(float)),
        (X[:1], W),
        (X[0], W),
        (X[:, :, :8], W),
        (X, W[:5]),
        (X, W[:, :, :1]),
    ):
        expected = cl.reference.conv2d(x, w)
        for _ in range(2):
            y = cl.conv2d(x, w)
            assert (y.dtype, y.shape) == (x.dtype, expected.shape)
            np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    assert _core.cached_plans() == 7


def test_strides_are_not_part_of_a_plan() -> None:
    expected = cl.conv2d(X, W)
    unaligned = np.frombuffer(b"-" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(X.shape)
    for x in (X[::-1][::-1], np.asfortranarray(X), unaligned, np.repeat(X, 2, 3)[..., ::2]):
        np.testing.assert_array_equal(cl.conv2d(x, W), expected)
    out = np.full((2, 6, 7, 12), np.nan, np.float32)
    assert cl.conv2d(X, np.asfortranarray(W), out=out[..., ::2]).base is out
    np.testing.assert_array_equal(out[..., ::2], expected)
    assert np.all(np.isnan(out[..., 1::2]))
    assert _core.cached_plans() == 1


def test_a_plan_serves_values_of_its_own_type_alone() -> None:
    """1, 1.0 and True are equal and have one hash."""
    cl.conv2d(X, W, stride=1, groups=1)
    for options in (
        {"stride": 1.0},
        {"stride": True},
        {"stride": np.True_},
        {"stride": (1, 1.0)},
        {"stride": [1, True]},
        {"stride": np.float32(1)},
        {"groups": 1.0},
        {"groups": True},
        {"padding": 0.0},
        {"padding": False},
        {"padding": ((0, 0), (0, 0.0))},
        {"numerics": 0},
        {"algorithm": None},
    ):
        with pytest.raises(TypeError):
            cl.conv2d(X, W, **options)
    assert _core.cached_plans() == 1
    for x, w in ((np.ma.array(X), W), (X.tolist(), W), (X.astype(">f4"), W), (X, W.astype(float))):
        with pytest.raises(TypeError):
            cl.conv2d(x, w)


def test_other_spellings_work_without_a_cached_plan() -> None:
    class Other(np.ndarray):
        pass

    expected = cl.conv2d(X, W, stride=2, padding=1)
    for stride in (np.int64(2), [2, 2], np.array(2), np.array([2, 2]), np.uint8(2)):
        np.testing.assert_array_equal(cl.conv2d(X, W, stride=stride, padding=1), expected)
    y = cl.conv2d(X.view(Other), W, stride=2, padding=1)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, expected)
    assert _core.cached_plans() == 1
    strides = [2, 2]
    for _ in range(2):
        shape = cl.conv2d(X, W, stride=strides).shape
        assert shape == ((2, 6, 4, 3) if strides == [2, 2] else (2, 6, 7, 6))
        strides[:] = 1, 1


@pytest.mark.parametrize(
    "options",
    [{"stride": 0}, {"padding": -1}, {"algorithm": "none"}, {"residual": X}, {"out": X.copy()}],
)
def test_errors_repeat(options: dict[str, Any]) -> None:
    messages = []
    for _ in range(3):
        with pytest.raises(ValueError, match=r"\w") as caught:
            cl.conv2d(X, W, **options)
        messages.append(str(caught.value))
        cl.conv2d(X, W)
    assert len(set(messages)) == 1


def test_a_repeated_call_checks_out_again() -> None:
    cl.conv2d(X, W)
    read_only = np.zeros((2, 6, 7, 6), np.float32)
    read_only.flags.writeable = False
    for out, error in (
        (np.zeros((2, 6, 7, 7), np.float32), ValueError),
        (np.zeros((2, 6, 7, 6)), TypeError),
        (read_only, ValueError),
        ([0.0], TypeError),
    ):
        with pytest.raises(error, match=r"^out "):
            cl.conv2d(X, W, out=out)
    joined = np.zeros((2, 6, 9, 8), np.float32)
    cl.conv2d(joined[:, :4], W)
    with pytest.raises(ValueError, match="out shares elements"):
        cl.conv2d(joined[:, :4], W, out=joined[:, :, :7, :6])


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    def call(n: int) -> None:
        np.testing.assert_array_equal(
            cl.conv1d(np.ones((1, 1, n), np.float32), np.ones((1, 1, 2), np.float32)),
            np.full((1, 1, n - 1), 2, np.float32),
        )

    for n in range(2, 1002):
        call(n)
        call(2)  # stays
        assert _core.cached_plans() == min(n - 1, MOST_PLANS)


def test_memory_does_not_grow_with_the_number_of_shapes() -> None:
    code = """
    import gc
    import numpy as np
    import convolith as cl

    def resident():
        gc.collect()
        return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS"))

    def sweep(start):
        for n in range(start, start + 1000):
            h, w = 8 + n % 100, 8 + n // 100
            cl.conv2d(np.ones((1, 8, h, w), np.float32), np.ones((8, 8, 3, 3), np.float32))

    sweep(0)  # fills the cache, the arena and malloc's own lists
    before = resident()
    sweep(1000)
    sweep(2000)
    print(resident() - before)
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"CONVOLITH_CACHE": "off"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4096, f"grew by {done.stdout.strip()} KiB"


def test_no_array_is_kept() -> None:
    x, w = X.copy(), W.copy()
    before = [sys.getrefcount(a) for a in (x, w)]
    for _ in range(3):
        cl.conv2d(x, w, out=np.empty((2, 6, 7, 6), np.float32))
    assert [sys.getrefcount(a) for a in (x, w)] == before


def test_the_weights_of_a_call_are_its_own() -> None:
    """A cached plan has no weights packed inside."""
    w = W.copy()
    y = cl.conv2d(X, w)
    w *= 2
    np.testing.assert_allclose(cl.conv2d(X, w), 2 * y, rtol=1e-5)


def test_many_threads_share_the_cache() -> None:
    shapes = [(1, 2, n, 5) for n in range(3, 3 + 2 * MOST_PLANS)]
    w = np.ones((1, 2, 3, 3), np.float32)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).permutation(len(shapes)):
            y = cl.conv2d(np.ones(shapes[i], np.float32), w)
            if y.shape != (1, 1, shapes[i][2] - 2, 3) or not np.all(y == 18):
                wrong.append(shapes[i])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong
    assert _core.cached_plans() == MOST_PLANS


def test_brief_problems_give_the_same_on_the_calling_thread() -> None:
    """The tests have every problem shared among threads; users have small ones kept."""
    plain = {name: bits(call()) for name, call in CALLS.items()}
    plan = cl.plan_conv(X.shape, W, BIAS, threads=2)
    planned = plan(X).tobytes()
    before = _core.set_brief_operations(1e9)
    try:
        assert {name: bits(call()) for name, call in CALLS.items()} == plain
        brief = cl.plan_conv(X.shape, W, BIAS, threads=2)
        assert brief(X).tobytes() == planned
        assert brief.threads == 2
        assert brief.workspace_bytes <= plan.workspace_bytes
    finally:
        assert _core.set_brief_operations(before) == 1e9


def test_results_begin_on_a_cache_line_and_own_their_memory() -> None:
    rng = np.random.default_rng(5)
    x = rng.random((1, 3, 41, 37), dtype=np.float32)
    w = rng.random((4, 3, 3, 3), dtype=np.float32)
    dy = rng.random((1, 4, 39, 35), dtype=np.float32)
    for result in (cl.conv2d(x, w), cl.max_pool2d(x, 2), cl.conv_backward_input(dy, w, x.shape)):
        assert result.ctypes.data % 64 == 0
        assert result.flags.owndata
        assert result.base is None
    y = cl.conv2d(x, w)
    before = y.copy()
    y.resize((8, 4, 39, 35), refcheck=False)  # NumPy asks the array's own allocator for more
    assert np.array_equal(y[:1], before)
    assert not y[1:].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_views_through_moved_axes_are_copied_right(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((2, 3, 5, 7), (1, 17, 33, 130), (3, 1, 1, 64), (2, 70, 1, 3), (1, 1, 65, 2)):
        x = rng.standard_normal(shape).astype(dtype)
        views = [x.transpose(0, 3, 1, 2), x.transpose(0, 2, 3, 1), x.transpose(3, 1, 2, 0), x.T]
        views += [view[:, ::-1] for view in views] + [view[..., ::2] for view in views]
        views += [view[::-1] for view in views]
        views.append(np.broadcast_to(x.transpose(0, 3, 1, 2)[:1], (4, shape[3], *shape[1:3])))
        views.append(np.broadcast_to(x[0, 0, 0, :, None], (2, shape[3], 5)))
        for view in views:
            assert np.array_equal(cl.activation(view, "relu"), np.maximum(view, 0)), view.strides
