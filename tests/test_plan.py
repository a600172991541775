"""Plans, the registry, threads and ISAs: what is chosen, what is said about it, and that one plan
serves many threads and a forked child."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from problems import (
    ALGORITHMS,
    CATALOGUE,
    CONV,
    DIRECTIONS,
    DTYPES,
    ISAS,
    LAYOUTS,
    PADDING_MODES,
    SERVED,
    Array,
    describe,
    operands,
    parse,
    problem_for,
    problems_for,
    run,
    samples_beyond_the_caches,
    serving,
    window,
)

import convolith as cl
from convolith import _core

CONFIG = cl.show_config(mode="dicts")
X_SHAPE, WEIGHT_SHAPE = (2, 8, 12, 11), (16, 4, 3, 3)
WINDOW: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2}


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# ---- plan_conv -----------------------------------------------------------------------------


def require_plan_of(
    conv: Callable[..., Array],
    plan_conv: Callable[..., cl.ConvPlan],
    x: Array,
    w: Array,
    bias: Array,
    **options: Any,
) -> None:
    """A plan gives what the function gives."""
    y = conv(x, w, bias, **options)
    plan = plan_conv(x.shape, w, bias, **options)
    np.testing.assert_array_equal(plan(x), y)
    np.testing.assert_array_equal(plan(x), y)
    out = np.full_like(y, np.nan)
    assert plan(x, out) is out
    np.testing.assert_array_equal(out, y)
    residual = random(*y.shape, seed=3)
    plan = plan_conv(x.shape, w, bias, residual=True, **options)
    added = conv(x, w, bias, residual=residual, **options)
    np.testing.assert_array_equal(plan(x, residual=residual), added)


@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plan_gives_what_the_function_gives(layout: str, algorithm: str) -> None:
    p = problem_for(ALGORITHMS[0] if algorithm == "auto" else algorithm, layout)
    x, w = random(*p.x_shape), random(*p.weight_shape, seed=1)
    bias = random(p.out_channels, seed=2)
    options = {**window(p), "activation": "tanh", "algorithm": algorithm}
    require_plan_of(CONV[p.rank], cl.plan_conv, x, w, bias, **options)


@pytest.mark.parametrize("algorithm", ["direct", "implicit_gemm", "im2col_gemm"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_transposed_plan_gives_what_the_function_gives(layout: str, algorithm: str) -> None:
    x, w, bias = random(2, 8, 5, 7), random(8, 3, 3, 3, seed=1), random(6, seed=2)
    if layout == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    options: dict[str, Any] = {
        "stride": 2,
        "padding": 1,
        "output_padding": (1, 0),
        "groups": 2,
        "activation": "relu",
        "data_format": layout,
        "algorithm": algorithm,
    }
    require_plan_of(cl.conv_transpose2d, cl.plan_conv_transpose, x, w, bias, **options)


def test_a_transposed_plan_of_a_wanted_size() -> None:
    x, w = random(1, 4, 6, seed=1), random(4, 2, 3)
    plan = cl.plan_conv_transpose(x.shape, w, stride=2, output_size=14)
    expected = cl.conv_transpose1d(x, w, stride=2, output_size=14)
    np.testing.assert_allclose(plan(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_residual_has_strides_of_its_own(activation: str, layout: str, algorithm: str) -> None:
    for p in problems_for(algorithm, layout):
        conv, x, w = CONV[p.rank], random(*p.x_shape), random(*p.weight_shape, seed=1)
        options = {**window(p), "activation": activation, "algorithm": algorithm}
        residual = random(*p.y_shape, seed=2)
        y = conv(x, w, residual=residual, **options)
        channel_axis = 1 if layout == "channels_first" else residual.ndim - 1
        more = np.concatenate([residual, residual], channel_axis)  # of more channels
        part = np.split(more, 2, channel_axis)[0]
        assert part.strides != residual.strides
        np.testing.assert_array_equal(conv(x, w, residual=part, **options), y, err_msg=str(p))


def test_a_plan_keeps_its_own_weights_and_bias() -> None:
    x, w, bias = random(*X_SHAPE), random(*WEIGHT_SHAPE, seed=1), random(16, seed=2)
    y = cl.conv2d(x, w, bias, **WINDOW)
    plan = cl.plan_conv(x.shape, w, bias, **WINDOW)
    w[...], bias[...] = np.nan, np.nan
    del w, bias
    np.testing.assert_array_equal(plan(x), y)


def test_a_plan_serves_one_sample_without_a_batch_axis() -> None:
    x, w = random(*X_SHAPE), random(*WEIGHT_SHAPE, seed=1)
    for shape in (X_SHAPE[1:], (1, *X_SHAPE[1:])):
        y = cl.plan_conv(shape, w, **WINDOW)(x[0].reshape(shape))
        assert y.ndim == len(shape)
        np.testing.assert_array_equal(y.reshape(16, 6, 6), cl.conv2d(x[0], w, **WINDOW))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_plan_tells(algorithm: str) -> None:
    p = problem_for(algorithm)
    w, options = random(*p.weight_shape), window(p)
    plan = cl.plan_conv(p.x_shape, w, algorithm=algorithm, threads=2, **options)
    records = {r["name"]: r for r in cl.algorithms(p.x_shape, w.shape, **options)}
    assert plan.algorithm == algorithm
    assert plan.isa == CONFIG["isa"]
    assert plan.threads == 2
    assert plan.flops == 2 * np.prod(p.y_shape) * np.prod(w.shape[1:])
    assert plan.packed_bytes == records[algorithm]["packed_bytes"]
    assert plan.problem == p
    for word in (algorithm, plan.isa, str(p), "2 threads"):
        assert word in repr(plan)


def test_the_text_form_of_a_plans_problem() -> None:
    plan = cl.plan_conv(X_SHAPE, random(*WEIGHT_SHAPE), **WINDOW)
    assert str(plan.problem) == "conv2d n2 c8 i12x11 k16 f3x3 s2 p1 g2"


def test_explain() -> None:
    w = random(*WEIGHT_SHAPE)
    text = cl.plan_conv(X_SHAPE, w, threads=1, **WINDOW).explain()
    for word in ("conv2d n2 c8", CONFIG["isa"], "1 thread,", "numerics fast", "'auto'"):
        assert word in text
    lines = {line[2:].split(":")[0]: line for line in text.splitlines() if line[0] in "* "}
    assert list(lines) == list(ALGORITHMS)
    chosen = [name for name, line in lines.items() if line.startswith("*")]
    assert chosen == [cl.plan_conv(X_SHAPE, w, **WINDOW).algorithm]
    for line in lines.values():
        assert "predicted" in line or "refused" in line
    for name in serving(cl.plan_conv(X_SHAPE, w, **WINDOW).problem):
        forced = cl.plan_conv(X_SHAPE, w, algorithm=name, **WINDOW).explain()
        assert f"\n* {name}: " in forced


# ---- the registry --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_reached(name: str) -> None:
    """Else every test that goes over what serves a problem would pass it by."""
    assert name in {served for served, _ in SERVED}
    for dtype in DTYPES:
        for layout in LAYOUTS:
            assert problem_for(name, f"{dtype} {layout}")


@pytest.mark.parametrize("text", CATALOGUE)
def test_strict_algorithms_serve_everything(text: str) -> None:
    for direction in DIRECTIONS:
        for mode in PADDING_MODES:
            for dtype in DTYPES:
                for layout in LAYOUTS:
                    p = parse(f"{text} p2:1 {direction} {mode} {dtype} {layout}")
                    assert serving(p, "strict"), p


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("text", CATALOGUE)
def test_records(text: str, direction: str) -> None:
    for dtype in DTYPES:
        p = parse(f"{text} {direction} {dtype}")
        options = {**window(p), "dtype": dtype, "direction": direction}
        records = cl.algorithms(p.x_shape, p.weight_shape, **options)
        assert [r["name"] for r in records] == list(ALGORITHMS)
        assert len(set(ALGORITHMS)) == len(ALGORITHMS)
        assert records == cl.algorithms(p.x_shape, p.weight_shape, **options)
        for record in records:
            assert record["name"].isidentifier()
            assert record["summary"]
            numbers = ("workspace_bytes", "packed_bytes", "cost_seconds", "tolerance")
            if record["supported"]:
                assert record["reason"] == ""
                assert record["workspace_bytes"] >= 0
                assert record["packed_bytes"] >= 0
                assert (record["packed_bytes"] == 0) or direction != "backward_weight"
                assert 0 < record["cost_seconds"] < 1
                assert 0 < record["tolerance"]["componentwise"] < 1e-3
            else:
                assert record["reason"]
                assert all(record[number] is None for number in numbers)


def test_im2col_reports_the_matrix_that_it_materialises() -> None:
    for dtype, size in (("float32", 4), ("float64", 8)):
        records = {
            r["name"]: r
            for r in cl.algorithms((1, 64, 56, 56), (64, 64, 3, 3), padding=1, dtype=dtype)
        }
        matrix = 64 * 9 * 56 * 56 * size
        assert records["im2col_gemm"]["workspace_bytes"] >= matrix
        assert records["direct"]["workspace_bytes"] < matrix / 10


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_automatic_choice_is_the_cheapest(direction: str) -> None:
    texts = ("conv2d c64 i14x14 k64 f3 p1", "conv1d c1 i99 k1 f3", "conv2d c99 i7x7 k99 f3 g99")
    for text in (*texts, *CATALOGUE):
        p = parse(f"{text} {direction}")
        for numerics in ("fast", "strict"):
            supported = [r for r in _core.algorithms(p, numerics) if r["supported"]]
            cheapest = min(supported, key=lambda r: r["cost_seconds"])["name"]
            assert _core.Plan(p, numerics=numerics).algorithm == cheapest


def test_the_automatic_choice_does_not_look_at_the_threads() -> None:
    for layout in LAYOUTS:
        for c in (1, 3, 16, 64, 256):
            for size in (4, 14, 56):
                p = parse(f"conv2d c{c} i{size}x{size} k{c} f3 p1 {layout}")
                assert len({_core.Plan(p, threads=n).algorithm for n in (1, 2, 8, 64)}) == 1


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_workspace_limit(direction: str) -> None:
    """Honoured by choosing another algorithm; refused ones say why."""
    p = parse(f"conv2d c16 i20x20 k16 f3 p1 {direction}")
    records = [r for r in _core.algorithms(p, threads=1) if r["supported"]]
    sizes = {r["name"]: r["workspace_bytes"] for r in records}
    least, most = min(sizes.values()), max(sizes.values())
    assert least < most
    for limit in (least, most - 1, most):
        plan = _core.Plan(p, threads=1, workspace_limit=limit)
        assert plan.workspace_bytes <= limit
        for record in _core.algorithms(p, threads=1, workspace_limit=limit):
            if record["name"] in sizes:
                assert record["supported"] == (sizes[record["name"]] <= limit)
                assert record["supported"] or f"limit of {limit}" in record["reason"]
            else:
                assert not record["supported"]
    name = max(sizes, key=lambda name: sizes[name])
    with pytest.raises(cl.UnsupportedError, match=f"limit of {most - 1}"):
        _core.Plan(p, name, threads=1, workspace_limit=most - 1)
    explained = _core.Plan(p, threads=1, workspace_limit=least).explain()
    assert f"{name}: refused, workspace of {most} bytes is over the limit of {least}" in explained


def test_workspace_limit_of_plan_conv() -> None:
    x, w = random(1, 16, 20, 20), random(16, 16, 3, 3)
    records = cl.algorithms(x.shape, w.shape)
    sizes = [r["workspace_bytes"] for r in records if r["supported"]]
    plan = cl.plan_conv(x.shape, w, workspace_limit=min(sizes))
    assert plan.workspace_bytes <= min(sizes)
    np.testing.assert_allclose(plan(x), cl.conv2d(x, w), rtol=1e-4, atol=1e-4)


# ---- threads and numerics ------------------------------------------------------------------


def used_threads() -> int:
    return cl.plan_conv((1, 1, 4), np.ones((1, 1, 1), np.float32)).threads


def test_threads_hold_for_the_calling_thread_alone() -> None:
    before = cl.get_num_threads()
    with cl.threads(3):
        assert cl.get_num_threads() == used_threads() == 3
        with cl.threads(1):
            assert cl.get_num_threads() == used_threads() == 1
        assert cl.get_num_threads() == 3
        assert cl.show_config(mode="dicts")["threads"] == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cl.get_num_threads).result() == before
            assert pool.submit(used_threads).result() == before
    assert cl.get_num_threads() == used_threads() == before


def test_set_num_threads_holds_for_the_process() -> None:
    before = cl.get_num_threads()
    try:
        cl.set_num_threads(np.int64(5))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cl.get_num_threads).result() == 5
        with cl.threads(2):
            assert used_threads() == 2
            cl.set_num_threads(4)
            assert used_threads() == 2
        assert used_threads() == 4
        assert cl.plan_conv((1, 1, 4), np.ones((1, 1, 1)), threads=7).threads == 7
    finally:
        cl.set_num_threads(before)


def test_contexts_end_with_an_exception() -> None:
    before = cl.get_num_threads()
    with pytest.raises(KeyError), cl.threads(before + 1), cl.numerics("strict"):
        raise KeyError
    assert cl.get_num_threads() == before
    assert "numerics fast" in cl.plan_conv((1, 1, 4), np.ones((1, 1, 1))).explain()


def test_omp_num_threads_is_the_default() -> None:
    done = python("import convolith; print(convolith.get_num_threads())", OMP_NUM_THREADS="3")
    if CONFIG["openmp"] != "none":
        assert done.stdout == "3\n", done.stderr


def test_numerics_hold_for_the_calling_thread_alone() -> None:
    def explained(**options: Any) -> str:
        return cl.plan_conv((1, 1, 4), np.ones((1, 1, 1)), **options).explain()

    assert "numerics fast" in explained()
    with cl.numerics("strict"):
        assert "numerics strict" in explained()
        assert "numerics fast" in explained(numerics="fast")
        with cl.numerics("fast"):
            assert "numerics fast" in explained()
        assert "numerics strict" in explained()
        with ThreadPoolExecutor(1) as pool:
            assert "numerics fast" in pool.submit(explained).result()
    assert "numerics fast" in explained()
    assert "numerics strict" in explained(numerics="strict")


@pytest.mark.parametrize(("algorithm", "direction"), SERVED)
def test_one_plan_in_many_threads(algorithm: str, direction: str) -> None:
    p = problem_for(algorithm, direction)
    inputs = [operands(p, np.random.default_rng(seed), integers=False) for seed in range(8)]
    plan = _core.Plan(p, algorithm, threads=2)
    alone = [run(plan, a).tobytes() for a in inputs]
    barrier = threading.Barrier(len(inputs))

    def repeat(number: int) -> bool:
        barrier.wait(60)
        return all(run(plan, inputs[number]).tobytes() == alone[number] for _ in range(15))

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(repeat, range(len(inputs))))


def test_packed_weights_serve_many_threads() -> None:
    for name in ALGORITHMS:
        p = problem_for(name)
        plan = cl.plan_conv(p.x_shape, random(*p.weight_shape), algorithm=name, **window(p))
        inputs = [random(*p.x_shape, seed=seed) for seed in range(6)]
        alone = [plan(x) for x in inputs]
        with ThreadPoolExecutor(6) as pool:
            for _ in range(10):
                for y, expected in zip(pool.map(plan, inputs), alone, strict=True):
                    np.testing.assert_array_equal(y, expected)


def test_the_interpreter_runs_on_during_a_convolution() -> None:
    """With a long switch interval, no other Python thread gets a turn unless a call lets go."""
    plan = _core.Plan(parse("conv2d c64 i64x64 k64 f5"), threads=1)
    a = operands(plan.problem, np.random.default_rng(0))
    ticks, finished, seen = [0], threading.Event(), []

    def work() -> None:
        before, end = ticks[0], time.monotonic() + 10
        while ticks[0] == before and time.monotonic() < end:  # a busy machine may take its time
            plan.execute(a.first, a.second)
        seen.append(ticks[0] - before)
        finished.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        while not finished.is_set():
            ticks[0] += 1
            time.sleep(1e-4)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen[0] > 0


def test_a_forked_child_answers() -> None:
    """OpenMP's threads do not survive a fork, and waiting for them would last for ever."""
    done = python(
        """
        import os
        import warnings
        import numpy as np
        import convolith as cl

        x = np.ones((2, 16, 20, 20), np.float32)
        cl.set_num_threads(2)
        plans = []
        for groups, taps in ((1, 3), (4, 3), (16, 3), (1, 13)):
            w = np.ones((16, 16 // groups, taps, taps), np.float32)
            plans += [cl.plan_conv(x.shape, w, groups=groups, algorithm=r["name"], threads=2)
                      for r in cl.algorithms(x.shape, w.shape, groups=groups) if r["supported"]]
        assert {p.algorithm for p in plans} == {r["name"] for r in cl.algorithms(x.shape, w.shape)}
        expected = [plan(x) for plan in plans]
        warnings.simplefilter("ignore")
        child = os.fork()
        if child == 0:
            same = all(np.array_equal(plan(x), y) for plan, y in zip(plans, expected))
            fresh = cl.conv_backward_weight(expected[-1], x, w.shape)
            os._exit(0 if same and fresh.shape == w.shape else 1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        print(all(np.array_equal(plan(x), y) for plan, y in zip(plans, expected)))
        """
    )
    assert done.stdout == "0\nTrue\n", done.stderr


def test_multiprocessing_by_fork() -> None:
    done = python(
        """
        import multiprocessing
        import warnings
        import numpy as np
        import convolith as cl

        def work(seed):
            x = np.random.default_rng(seed).standard_normal((2, 4, 9, 9))
            return cl.conv2d(x, np.ones((3, 4, 3, 3)))

        if __name__ == "__main__":
            warnings.simplefilter("ignore")
            here = [work(seed) for seed in range(6)]
            with multiprocessing.get_context("fork").Pool(2) as pool:
                there = pool.map(work, range(6))
            print(all(np.array_equal(a, b) for a, b in zip(here, there)))
        """
    )
    assert done.stdout == "True\n", done.stderr


def test_kernels_need_little_stack() -> None:
    """OpenMP's own threads run kernels and nothing else: 64 KiB of stack must do."""
    done = python(
        """
        import numpy as np
        import convolith as cl
        from convolith import _core

        for isa in cl.show_config(mode="dicts")["isas_available"]:
            for text in ("conv2d c33 i20x21 k65 f3x3 p1", "conv3d c8 i7x7x7 k8 f3x3x3 g8",
                         "conv2d c40 i15x16 k40 f3 p1 g40", "conv2d c16 i15x16 k16 f3 p1 g4",
                         "conv2d c5 i30x31 k6 f13 p6"):
                for words in ("float32", "float64 channels_last", "backward_input",
                              "backward_input channels_last", "backward_weight",
                              "backward_weight float64 channels_last"):
                    p = _core.ConvProblem.parse(f"{text} {words}")
                    x, w, y = (np.ones(s, p.dtype) for s in (p.x_shape, p.weight_shape, p.y_shape))
                    a, b = {"forward": (x, w), "backward_input": (y, w)}.get(p.direction, (y, x))
                    for record in _core.algorithms(p):
                        if record["supported"]:
                            _core.Plan(p, record["name"], threads=2, isa=isa).execute(a, b)
        print("done")
        """,
        OMP_STACKSIZE="64K",
    )
    assert done.stdout == "done\n", done.stderr


# ---- ISAs ----------------------------------------------------------------------------------


def test_isas() -> None:
    assert set(ISAS) <= set(CONFIG["isas_compiled"])
    assert CONFIG["isas_compiled"][0] == ISAS[0]  # "baseline", unless CONVOLITH_ISAS left it out
    if "CONVOLITH_ISA" not in os.environ:
        assert CONFIG["isa"] == ISAS[-1]


SHOW_ISA = """
import numpy as np
import convolith as cl
plan = cl.plan_conv((1, 3, 20, 20), np.ones((40, 3, 3, 3), np.float32))
config = cl.show_config(mode="dicts")
print(config["isa"], config["vector_bytes"], plan.isa)
x = np.random.default_rng(0).standard_normal((1, 3, 20, 20)).astype(np.float32)
print(plan(x).tobytes().hex()[:64])
"""


@pytest.mark.parametrize("isa", ISAS)
def test_a_forced_isa_runs(isa: str) -> None:
    done = python(SHOW_ISA, CONVOLITH_ISA=isa)
    assert done.returncode == 0, done.stderr
    name, vector_bytes, of_plan = done.stdout.split()[:3]
    assert (name, of_plan) == (isa, isa)
    widths = {"baseline": 16, "avx2": 32, "avx512": 64}
    assert int(vector_bytes) == widths[isa]


@pytest.mark.skipif(len(ISAS) < 2, reason="one ISA here")
def test_isas_are_different_code() -> None:
    """Baseline has no fused multiply-add, so its sums round differently from the best ISA's."""
    p = parse("conv2d c40 i9x9 k8 f3")
    a = operands(p, np.random.default_rng(0), integers=False)
    results = {isa: run(_core.Plan(p, isa=isa), a).tobytes() for isa in ISAS}
    assert results[ISAS[0]] != results[ISAS[-1]]


@pytest.mark.parametrize("isa", ["mmx", "", "AVX2", "baseline "])
def test_a_nonsense_isa_fails_the_import(isa: str) -> None:
    done = python("import convolith", CONVOLITH_ISA=isa)
    assert done.returncode == 1
    assert done.stdout == ""
    message = done.stderr.strip().splitlines()[-1]
    assert f"CONVOLITH_ISA: ISA '{isa}' is unknown; available here: {', '.join(ISAS)}" in message


@pytest.mark.parametrize("answer", ["", "2", "yes"])
def test_a_nonsense_answer_about_vectors_fails_the_import(answer: str) -> None:
    done = python("import convolith", CONVOLITH_HALVES_VECTORS=answer)
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert f"CONVOLITH_HALVES_VECTORS: '{answer}' is neither 0 nor 1" in message


# Sums of a few products and of many; outputs of one panel of channels, of two in part and in whole,
# and of three; few pixels and many; maps that outgrow L2.
TILINGS = """
import hashlib
import numpy as np
from problems import LAYOUTS, operands, parse, run
from convolith import _core
PROBLEMS = (
    "conv2d n2 c24 i5x7 k33 f1 p0 bias relu",
    "conv2d n1 c40 i9x9 k48 f1 s2 bias residual relu6",
    "conv2d n1 c17 i13x6 k63 f3 p1",
    "conv2d n3 c130 i7x7 k64 f1",
    "conv2d n1 c9 i4x21 k65 f1x3 p0x1 residual",
    "conv2d n1 c20 i11x11 k96 f3 s2 p1 d2 bias",
    "conv2d n1 c3 i20x23 k112 f5 s2 p2 bias residual relu",
    "conv2d n2 c300 i6x6 k112 f1",
    "conv2d n2 c68 i10x9 k100 f1 g2",
    "conv2d n1 c128 i50x50 k56 f1",
    "conv2d n1 c40 i29x31 k50 f3 p1 bias",
    "conv2d n1 c70 i17x40 k127 f3 p1",
    "conv1d n2 c30 i90 k80 f3 p1 relu",
)
EPILOGUE = {"bias", "residual", "relu", "relu6"}
for text in PROBLEMS:
    plain = " ".join(word for word in text.split() if word not in EPILOGUE)
    for p in (parse(text), parse(plain).replace(direction="backward_input")):
        for layout in LAYOUTS:
            p = p.replace(data_format=layout)
            a = operands(p, np.random.default_rng(0), integers=False)
            for algorithm in ("implicit_gemm", "winograd_4x4"):
                try:
                    plan = _core.Plan(p, algorithm=algorithm)
                except _core.UnsupportedError:
                    continue
                digest = hashlib.sha256(run(plan, a).tobytes()).hexdigest()[:16]
                print(p, layout, algorithm, digest)
"""


def test_results_do_not_depend_on_how_vectors_go_through_datapaths() -> None:
    halves, whole = (
        python(TILINGS, CONVOLITH_HALVES_VECTORS=answer, PYTHONPATH=os.pathsep.join(sys.path))
        for answer in "10"
    )
    assert halves.returncode == whole.returncode == 0, halves.stderr + whole.stderr
    assert halves.stdout == whole.stdout
    assert halves.stdout.count("\n") > 48


def test_an_absent_isa_fails_the_import() -> None:
    absent = [isa for isa in CONFIG["isas_compiled"] if isa not in ISAS]
    if not absent:
        pytest.skip("this machine has every ISA that was compiled in")
    for isa in absent:
        done = python("import convolith", CONVOLITH_ISA=isa)
        assert done.returncode == 1
        message = done.stderr.strip().splitlines()[-1]
        assert f"CONVOLITH_ISA: ISA '{isa}' is not one that this CPU has" in message


# ---- configuration -------------------------------------------------------------------------


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    config = cl.show_config(mode="dicts")
    assert config["version"] == cl.__version__
    for key in ("compiler", "isas_compiled", "isas_available", "isa", "threads", "openmp", "cuda"):
        assert config[key] not in (None, "", [])
    assert cl.show_config() is None
    printed = capsys.readouterr().out
    for word in (cl.__version__, config["compiler"], ", ".join(config["isas_compiled"])):
        assert word in printed


@pytest.mark.parametrize("name", ALGORITHMS)
def test_samples_may_lie_in_the_same_memory(name: str) -> None:
    served = 0
    texts = ("c8 i20x20 k16 f3x3 p1", "c64 i24x24 k20 f1x1", "c16 i9x9 k16 f3x3 p1 g16")
    texts += ("c16 i9x9 k16 f3x3 p1 g4", "c1 i16x16 k6 f5x5", "c3 i13x13 k8 f3x3 s2 p1")
    for text, direction, layout in itertools.product(texts, DIRECTIONS, LAYOUTS):
        p = parse(f"conv2d n3 {text}", direction=direction, data_format=layout)
        if name not in serving(p):
            continue
        served += 1
        plan = _core.Plan(p, name)
        given = operands(p, np.random.default_rng(0))
        maps = 2 if direction == "backward_weight" else 1
        views = [np.broadcast_to(a[:1], a.shape) for a in (given.first, given.second)[:maps]]
        whole = [np.ascontiguousarray(view) for view in views]
        rest = () if maps == 2 else (given.second,)
        expected = plan.execute(*whole, *rest)
        for chosen in itertools.product(*zip(views, whole, strict=True)):
            np.testing.assert_array_equal(plan.execute(*chosen, *rest), expected, describe(p, plan))
    assert served


@pytest.mark.parametrize(
    "text",
    [
        "conv2d n2 c4 i6x5 k4 f3x3 s{far}",
        "conv2d n2 c4 i6x5 k4 f3x2 s1x{far} d1x2 g2 p1x1:3 channels_last",
        "conv3d c2 i4x6x5 k2 f1x2x3 s3x1x{far} d{far}x1x1 g2",
        "conv2d n2 c3 i7x6 k3 f3x3 s{far} g3 replicate p1",
    ],
)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_stride_past_the_input_is_as_good_as_any(text: str, direction: str) -> None:
    far, near = (parse(f"{text.format(far=n)} {direction}") for n in (2**63 - 1, 100))
    a = operands(near, np.random.default_rng(4))
    for record in _core.algorithms(near):
        if record["supported"]:
            expected = run(_core.Plan(near, record["name"]), a)
            assert np.array_equal(run(_core.Plan(far, record["name"]), a), expected)


def test_padding_past_64_bits_is_refused() -> None:
    with pytest.raises(OverflowError, match="size of the padded x in bytes"):
        parse(f"conv2d c3 i9x9 k1 f1x3 s{2**61} p{2**61}")


@pytest.mark.parametrize(("name", "groups"), [("depthwise", 4), ("grouped", 2)])
def test_sums_of_too_many_chains_are_refused(name: str, groups: int) -> None:
    p = parse(f"conv2d c4 i520x300 k4 f512x260 g{groups}")
    record = next(r for r in _core.algorithms(p) if r["name"] == name)
    assert not record["supported"]
    assert "products would be folded in a chain above 512" in record["reason"]


@pytest.mark.parametrize(
    ("algorithm", "channels", "kernel", "stride", "groups"),
    [
        ("implicit_gemm", (64, 80), 1, 1, 1),
        ("implicit_gemm", (32, 72), 1, 1, 1),  # pixels that do not begin on a line
        ("implicit_gemm", (32, 48), 1, 1, 2),  # groups that do not
        ("implicit_gemm", (3, 64), 3, 1, 1),
        ("implicit_gemm", (16, 64), 3, 2, 1),
        ("winograd_4x4", (16, 48), 3, 1, 2),
        ("winograd_2x2", (16, 24), 3, 1, 1),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_that_outgrow_the_caches(
    algorithm: str,
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    groups: int,
    layout: str,
) -> None:
    """They are written past them: as those of a few samples, which are not."""
    extent, (c, k) = 32, channels
    out_extent = extent // stride
    samples = samples_beyond_the_caches(4 * (c * extent**2 + k * out_extent**2))
    generator = np.random.default_rng(0)

    def maps(channels: int, extent: int) -> Array:
        shape = (samples, channels, extent, extent)
        if layout == "channels_last":
            shape = (samples, extent, extent, channels)
        return generator.standard_normal(shape, np.float32)

    x, residual = maps(c, extent), maps(k, out_extent)
    if layout == "channels_last":  # with strides of its own
        residual = np.pad(residual, ((0, 0), (0, 0), (0, 0), (8, 0)))[..., 8:]
    w = generator.standard_normal((k, c // groups, kernel, kernel), np.float32)
    bias = generator.standard_normal(k, np.float32)
    how: dict[str, Any] = dict(
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        data_format=layout,
        algorithm=algorithm,
    )

    def results(some: slice) -> list[Array]:
        fused = cl.conv2d(x[some], w, bias, residual=residual[some], activation="relu", **how)
        plain = cl.conv2d(x[some], w, **how)
        dx = cl.conv_backward_input(residual[some], w, x[some].shape, **how)
        return [fused, plain, dx]

    whole = results(slice(None))
    for first in range(0, samples, 8):
        some = slice(first, first + 8)
        for large, small in zip(whole, results(some), strict=True):
            assert np.array_equal(large[some], small)


@pytest.mark.parametrize("algorithm", ["winograd_4x4", "winograd_6x6"])
def test_blocks_that_end_within_a_row_of_tiles(algorithm: str) -> None:
    """So many weights that threads share a block, and more tiles than one holds: channels_first,
    which packs rows of tiles, has the sums of channels_last, which does not."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3, 256, 28, 28), np.float32)
    w = generator.standard_normal((256, 256, 3, 3), np.float32)
    how: dict[str, Any] = dict(padding=1, algorithm=algorithm)
    first = cl.conv2d(x, w, **how)
    last = cl.conv2d(np.moveaxis(x, 1, -1), w, data_format="channels_last", **how)
    assert np.array_equal(first, np.moveaxis(last, -1, 1))
