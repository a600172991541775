"""`convolith.testing`: kernels broken on purpose fail, each in its way, and right ones pass."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import convolith as cl
from convolith import reference
from convolith.testing import Problem, Report, check, ckernels, conformance, guard, picture
from convolith.testing.bounds import sum_error
from convolith.testing.catalogue import layers, problems
from convolith.testing.examine import Conditions, prepare
from convolith.testing.family import Settings
from convolith.testing.kernels import PythonKernel, to_numpy
from convolith.testing.operations import OPERATIONS, resolve
from convolith.testing.runner import Forked, can_fork

Array = npt.NDArray[Any]
Kernel = Callable[..., Any]

ONE_FORM: dict[str, Any] = {
    "dtypes": ("float32",),
    "data_formats": ("channels_first",),
    "networks": False,
}
QUICK: dict[str, Any] = {**ONE_FORM, "max_failures": 12, "shrink_seconds": 2.0}


def right(name: str) -> Kernel:
    """The reference as a kernel of the problem's dtype."""
    function = getattr(reference, name)

    @functools.wraps(function)
    def kernel(first: Array, *args: Any, **options: Any) -> Any:
        result = function(first, *args, **options)
        with np.errstate(over="ignore"):
            if isinstance(result, tuple):
                return tuple(r.astype(first.dtype) if r.dtype.kind == "f" else r for r in result)
            return result.astype(first.dtype)

    return kernel


conv2d = right("conv2d")

EVERY = [(op, d) for op, family in OPERATIONS.items() for d in family.directions]


# ---- right kernels -------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "direction"), EVERY)
def test_the_library_passes(op: str, direction: str) -> None:
    """On every seventh problem; `convolith check --self` runs all of them."""
    name = OPERATIONS[op].function(Problem(op, direction))
    chosen = itertools.islice(problems(op, direction, networks=False), 3, None, 7)
    kernel = getattr(cl, name)
    with cl.numerics("strict"):
        report = check(kernel, op, direction=direction, problems=chosen, seconds=math.inf)
    report.assert_ok()
    assert report.passed > 5
    assert not report.skipped
    assert report.worst < 0.9


def test_the_reference_passes() -> None:
    report = check(conv2d, **ONE_FORM)
    assert report, str(report)
    assert report.passed > 300


@pytest.mark.parametrize("direction", ["forward", "backward_input", "backward_weight"])
def test_layers_of_networks(direction: str) -> None:
    """The smaller ones here: sampled positions where the reference would take long."""
    every = list(layers("conv2d", direction))
    assert len(every) > 150
    assert len(set(every)) == len(every)
    small = [p for p in every if p.in_channels * p.out_channels < 2000][:6]
    name = OPERATIONS["conv2d"].function(small[0])
    with cl.numerics("strict"):
        check(getattr(cl, name), direction=direction, problems=small).assert_ok()


def test_a_wrong_border_of_a_network_layer_is_found() -> None:
    problem = "conv2d c64 i56x56 k64 f3x3 p1:1x1:1"

    def kernel(x: Array, weight: Array, **options: Any) -> Array:
        y = cl.conv2d(x, weight, **options, numerics="strict")
        y[..., -1] *= 0.5
        return y

    call, truth = prepare(Problem.parse(problem), Settings())
    assert truth.index is not None
    assert call.args[0].shape == (1, 64, 56, 56)
    report = check(kernel, problems=[problem], shrink_seconds=0)
    assert report.failed == 1
    assert "sampled elements are wrong" in report.failures[0].outcome.picture
    assert check(cl.conv2d, problems=[problem], tolerance="winograd_6x6")


# ---- broken kernels ------------------------------------------------------------------------

MUTANTS: dict[str, tuple[str, Kernel, str]] = {}  # name: (function, kernel, kind of failure)


def mutant(function: str, kind: str = "values") -> Callable[[Kernel], Kernel]:
    def register(kernel: Kernel) -> Kernel:
        MUTANTS[kernel.__name__] = (function, kernel, kind)
        return kernel

    return register


def pairs(options: dict[str, Any], rank: int = 2) -> list[tuple[int, int]]:
    padding = options.get("padding", 0)
    values = (padding,) * rank if isinstance(padding, int) else padding
    return [(p, p) if isinstance(p, int) else p for p in values]


@mutant("conv2d")
def all_zero(x: Array, w: Array, **options: Any) -> Array:
    return np.zeros_like(conv2d(x, w, **options))


@mutant("conv2d")
def constant(x: Array, w: Array, **options: Any) -> Array:
    return np.ones_like(conv2d(x, w, **options))


@mutant("conv2d")
def copy_of_the_input(x: Array, w: Array, **options: Any) -> Array:
    return np.resize(x, conv2d(x, w, **options).shape)


@mutant("conv2d")
def padding_off_by_one(x: Array, w: Array, **options: Any) -> Array:
    if not isinstance(options.get("padding", ""), str):
        shifted = [(b + 1, a - 1) if a else (b, a) for b, a in pairs(options)]
        options["padding"] = tuple(shifted)
    return conv2d(x, w, **options)


@mutant("conv2d")
def missing_last_column(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    y[..., -1] = 0
    return y


@mutant("conv2d")
def half_wrong_border(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    if options.get("padding"):
        y[..., 0, :] /= 2
    return y


@mutant("conv2d")
def flipped_kernel(x: Array, w: Array, **options: Any) -> Array:
    return conv2d(x, w[..., ::-1, ::-1], **options)


@mutant("conv2d")
def dilation_of_one_axis_ignored(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    d = options.get("dilation")
    if d and d[1] > 1 and not isinstance(options.get("padding", 0), str):
        # The right shape by padding less, as a kernel with the wrong stride between taps has it.
        spare = (d[1] - 1) * (w.shape[-1] - 1)
        wide = [(0, 0), (0, 0), *pairs(options)]
        padded = np.pad(x if x.ndim == 4 else x[None], wide)[..., : -spare or None]
        options.update(padding=0, dilation=(d[0], 1))
        return conv2d(padded, w, **options) if x.ndim == 4 else y
    return y


@mutant("conv2d", "shape")
def one_column_more(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    return np.concatenate([y, y[..., -1:]], axis=-1)


@mutant("conv2d", "dtype")
def wrong_dtype(x: Array, w: Array, **options: Any) -> Array:
    return conv2d(x, w, **options).astype(np.float64)


@mutant("conv2d", "nonfinite")
def lost_nan(x: Array, w: Array, **options: Any) -> Array:
    return conv2d(np.where(np.isnan(x), 0, x), w, **options)


@mutant("conv2d", "nonfinite")
def nan_spread_to_a_neighbour(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    y[..., 1:][np.isnan(y[..., :-1])] = np.nan
    return y


@mutant("conv2d", "values")
def infinity_clipped(x: Array, w: Array, **options: Any) -> Array:
    most = np.finfo(x.dtype).max
    return np.clip(conv2d(x, w, **options), -most, most)


@mutant("conv2d", "values")
def subnormals_flushed(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    y[np.abs(y) < np.finfo(y.dtype).tiny] = 0
    return y


@mutant("conv2d")
def half_precision(x: Array, w: Array, **options: Any) -> Array:
    def rounded(a: Array) -> Array:
        return (a.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)

    return conv2d(rounded(np.ascontiguousarray(x)), rounded(w), **options)


@mutant("conv2d")
def first_group_for_all(x: Array, w: Array, **options: Any) -> Array:
    groups = options.get("groups", 1)
    axis = 1 if x.ndim == 4 else 0
    share = np.take(x, range(x.shape[axis] // groups), axis=axis)
    return conv2d(np.concatenate([share] * groups, axis=axis), w, **options)


@mutant("conv2d")
def bias_of_another_channel(x: Array, w: Array, bias: Any = None, **options: Any) -> Array:
    return conv2d(x, w, None if bias is None else bias[::-1].copy(), **options)


@mutant("conv2d")
def reflect_for_circular(x: Array, w: Array, **options: Any) -> Array:
    if options.get("padding_mode") == "circular":
        options["padding_mode"] = "replicate"
    return conv2d(x, w, **options)


@mutant("conv2d", "input changed")
def input_changed(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    x[..., -1] = 0
    return y


@mutant("conv2d", "input changed")
def weights_changed(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    w *= 2
    return y


def poke(array: Array, element: int) -> None:
    """Write one element by its distance from an array's beginning."""
    address = array.ctypes.data + element * array.itemsize
    ctypes.memset(address, 0, array.itemsize)


@mutant("conv2d", "out of bounds")
def writes_one_element_too_many(x: Array, w: Array, *, out: Array, **options: Any) -> None:
    out[...] = conv2d(x, w, **options)
    poke(out, out.size)


@mutant("conv2d", "out of bounds")
def writes_one_element_before(x: Array, w: Array, *, out: Array, **options: Any) -> None:
    out[...] = conv2d(x, w, **options)
    poke(out, -1)


@mutant("conv2d", "nonfinite")
def adds_to_the_output(x: Array, w: Array, *, out: Array, **options: Any) -> None:
    out += conv2d(x, w, **options)


@mutant("conv2d", "nonfinite")
def leaves_the_last_element(x: Array, w: Array, *, out: Array, **options: Any) -> None:
    out.flat[:-1] = conv2d(x, w, **options).flat[:-1]


@mutant("conv2d", "nonfinite")
def uninitialised_memory(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    result = np.empty_like(y)
    result[..., :-1] = y[..., :-1]
    return result


@mutant("conv2d", "not repeatable")
def not_repeatable(x: Array, w: Array, **options: Any) -> Array:
    y = conv2d(x, w, **options)
    if y.size and not np.all(y == np.round(y)) and np.random.default_rng().random() < 0.9:
        y.flat[0] = np.nextafter(y.flat[0], np.float32(np.random.default_rng().choice([-9, 9])))
    return y


@mutant("conv2d", "raised")
def raises(x: Array, w: Array, **options: Any) -> Array:
    if x.shape[-1] > 8:
        raise IndexError("out of range")
    return conv2d(x, w, **options)


@mutant("conv2d", "result")
def two_results(x: Array, w: Array, **options: Any) -> Any:
    return conv2d(x, w, **options), w


@mutant("max_pool2d")
def padding_counted_as_zero(x: Array, kernel: Any, **options: Any) -> Any:
    result = right("max_pool2d")(x, kernel, **options)
    if options.get("padding") and not options.get("return_indices"):
        return np.maximum(result, 0)
    return result


@mutant("max_pool2d")
def tie_goes_to_the_last(x: Array, kernel: Any, **options: Any) -> Any:
    if not options.get("return_indices") or x.ndim != 4:
        return right("max_pool2d")(x, kernel, **options)
    n = x.shape[-2] * x.shape[-1]
    options["padding"] = tuple((a, b) for b, a in pairs(options))
    y, at = right("max_pool2d")(x[..., ::-1, ::-1].copy(), kernel, **options)
    return y[..., ::-1, ::-1].copy(), (n - 1 - at)[..., ::-1, ::-1].copy()


@mutant("max_pool2d", "nonfinite")
def pooling_loses_nan(x: Array, kernel: Any, **options: Any) -> Any:
    return right("max_pool2d")(np.where(np.isnan(x), -np.inf, x).astype(x.dtype), kernel, **options)


@mutant("max_pool2d")
def sign_of_zero_lost(x: Array, kernel: Any, **options: Any) -> Any:
    return right("max_pool2d")(x + np.float32(0), kernel, **options)


@mutant("avg_pool2d")
def divisor_of_the_whole_window(x: Array, kernel: Any, **options: Any) -> Any:
    if "divisor_override" not in options:
        options["divisor_override"] = int(np.prod(kernel))
    return right("avg_pool2d")(x, kernel, **options)


@mutant("max_pool2d", "shape")
def ceil_mode_ignored(x: Array, kernel: Any, **options: Any) -> Any:
    options.pop("ceil_mode", None)
    return right("max_pool2d")(x, kernel, **options)


@mutant("conv_backward_weight")
def last_sample_left_out(dy: Array, x: Array, shape: Any, **options: Any) -> Any:
    if dy.ndim == 4 and dy.shape[0] > 1:
        dy, x = dy[:-1].copy(), x[:-1].copy()
    return right("conv_backward_weight")(dy, x, shape, **options)


@mutant("conv_backward_input")
def gradient_not_transposed(dy: Array, w: Array, shape: Any, **options: Any) -> Any:
    return right("conv_backward_input")(dy, w[..., ::-1, ::-1].copy(), shape, **options)


@mutant("matmul")
def last_term_left_out(a: Array, b: Array, **options: Any) -> Any:
    if options.get("transpose_a") or options.get("transpose_b"):
        return right("matmul")(a, b, **options)
    return right("matmul")(a[..., :-1], b[:-1], **options)


@mutant("softmax", "nonfinite")
def softmax_without_a_shift(x: Array, axis: int = -1) -> Array:
    with np.errstate(all="ignore"):
        e = np.exp(x)
        return np.asarray(e / e.sum(axis=axis, keepdims=True))


OPS = {"conv_backward_weight": "backward_weight", "conv_backward_input": "backward_input"}


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_kernels_fail(name: str) -> None:
    function, kernel, kind = MUTANTS[name]
    direction = OPS.get(function, "forward")
    op = "conv2d" if function in OPS else function
    report = check(kernel, op, direction=direction, **QUICK)
    assert not report
    assert report.failed > 0
    assert kind in report.kinds, str(report)
    with pytest.raises(AssertionError, match="failed"):
        report.assert_ok()
    failure = report.failures[0]
    assert len(str(failure.smallest)) <= len(str(failure.problem))
    again = check(kernel, op, direction=direction, problems=[str(failure.problem)])
    assert again.failed == 1 or kind == "not repeatable"


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) > 30
    assert len({kind for _, _, kind in MUTANTS.values()}) >= 8


# ---- failures are small, and say where -----------------------------------------------------


def test_failures_shrink_to_a_small_problem() -> None:
    report = check(missing_last_column, **QUICK)
    smallest = min((failure.smallest for failure in report.failures), key=lambda p: len(str(p)))
    assert smallest.input == (1, 1)
    assert smallest.kernel == (1, 1)
    assert (smallest.in_channels, smallest.out_channels, smallest.batch) == (1, 1, 1)
    report = check(dilation_of_one_axis_ignored, **QUICK)
    smallest = report.failures[0].smallest
    assert max(smallest.dilation) > 1
    assert int(np.prod(smallest.input)) <= 12


def test_pictures_show_where() -> None:
    problem = "conv2d c2 i6x9 k3 f3x3 p1:1x1:1 float32"
    report = check(missing_last_column, problems=[problem], shrink_seconds=0)
    text = report.failures[0].outcome.picture
    assert "column 8 (the last) of 9" in text
    assert "........" in text
    assert "  again: convolith.testing.check(missing_last_column" in str(report)
    assert "times its bound" in str(report)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    report = check(missing_last_column, problems=["conv2d c1 i6x6 k1 f1x1"], shrink_seconds=0)
    (path,) = report.save_pictures(tmp_path / "pictures")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_characters_of_a_picture() -> None:
    error = np.array([[0.0, 2, 500], [1e12, np.inf, 0]])
    wrong = error > 0
    nonfinite = np.isinf(error)
    assert picture.draw(error, wrong, nonfinite).splitlines()[1:] == ["  .13", "  #N."]
    assert "(each character is a block)" in picture.draw(*[np.zeros((40, 200))] * 3)


# ---- what a check takes --------------------------------------------------------------------


def test_supports_and_its_reasons() -> None:
    report = check(
        conv2d, supports=lambda p: "groups are for later" if p.groups > 1 else True, **QUICK
    )
    assert report.skips["groups are for later"] > 10
    assert report
    nothing = check(conv2d, supports=lambda p: False, **QUICK)
    assert (nothing.passed, nothing.failed) == (0, 0)
    assert not nothing
    assert "nothing was checked" in str(nothing)


def test_options_without_an_argument_are_skipped() -> None:
    def plain(x: Array, weight: Array, stride: Any = 1) -> Array:
        return conv2d(x, weight, stride=stride)

    report = check(plain, **QUICK)
    assert report
    assert report.skips["the kernel has no argument 'padding'"] > 50


def test_not_implemented_is_skipped() -> None:
    def plain(x: Array, weight: Array, **options: Any) -> Array:
        if "dilation" in options:
            raise NotImplementedError("no dilation yet")
        return conv2d(x, weight, **options)

    report = check(plain, **QUICK)
    assert report
    assert report.skips["no dilation yet"] > 20


def test_tolerance_of_a_transform() -> None:
    """Winograd is not exact on integers: as a plain sum it fails, as what it is it passes."""
    problem = "conv2d n2 c33 i12x12 k17 f3x3 p1:1x1:1 float32"
    kernel = functools.partial(cl.conv2d, algorithm="winograd_6x6")
    assert not check(kernel, problems=[problem], shrink_seconds=0)
    report = check(kernel, problems=[problem], tolerance="winograd_6x6")
    assert report, str(report)
    assert 0 < report.worst < 1
    assert not check(all_zero, problems=[problem], tolerance="winograd_6x6", shrink_seconds=0)
    with pytest.raises(ValueError, match="tolerance is 'strassen'"):
        check(kernel, problems=[problem], tolerance="strassen")


@pytest.mark.parametrize(
    "problem",
    [
        "conv2d n2 c33 i12x12 k17 f3x3 p1:1x1:1 float32",
        "conv2d n2 c3 i15x17 k1 f8x11 p3:4x5:5 float64",
    ],
)
def test_tolerance_of_what_auto_chooses(problem: str) -> None:
    """A transform for one, whatever the machine chooses for the other: each has its own bound."""
    assert check(cl.conv2d, problems=[problem], tolerance="auto")
    assert not check(all_zero, problems=[problem], tolerance="auto", shrink_seconds=0)


def test_unit_roundoff_of_the_kernel() -> None:
    problem = "conv2d c16 i9x9 k4 f3x3 float32 data=normal"
    assert not check(half_precision, problems=[problem], shrink_seconds=0)
    assert check(half_precision, problems=[problem], unit_roundoff=2.0**-10)


def test_bounds_grow_with_the_root_of_long_sums() -> None:
    assert sum_error(6) == 8
    assert sum_error(9998) == 800


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="op is 'conv4d'"):
        check(conv2d, "conv4d")
    with pytest.raises(ValueError, match="of a gradient give the forward's op"):
        check(conv2d, "conv_backward_input")
    with pytest.raises(ValueError, match="direction is 'sideways'"):
        check(conv2d, direction="sideways")
    with pytest.raises(ValueError, match="'7q' is not understood"):
        Problem.parse("conv2d c1 7q")
    assert resolve("max_pool2d_backward") == ("max_pool2d", "backward")


@pytest.mark.parametrize(("op", "direction"), EVERY)
def test_text_form_of_problems(op: str, direction: str) -> None:
    chosen = list(problems(op, direction, networks=False))
    assert len(set(chosen)) == len(chosen)
    for problem in chosen[:: max(1, len(chosen) // 50)]:
        assert Problem.parse(str(problem)) == problem


def test_the_seed_chooses_the_random_problems() -> None:
    def texts(seed: int) -> set[Problem]:
        return set(problems("conv2d", seed=seed, networks=False))

    assert texts(3) == texts(3)
    assert len(texts(3) - texts(4)) > 50
    assert len(set(problems("conv2d", thorough=True))) > 3 * len(texts(3))


def test_float16() -> None:
    def kernel(x: Array, weight: Array, **options: Any) -> Array:
        options = {k: v.astype("f8") if hasattr(v, "astype") else v for k, v in options.items()}
        y = reference.conv2d(x.astype("f8"), weight.astype("f8"), **options)
        with np.errstate(over="ignore"):
            return y.astype(np.float16)

    report = check(kernel, dtypes=("float16",), data_formats=("channels_first",), networks=False)
    assert report.passed > 100, str(report)
    assert report.failed == 0, str(report)


class Foreign:
    """An array of another library, which knows DLPack alone."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class ForeignModule:
    __name__ = "foreign"

    @staticmethod
    def from_dlpack(array: Any) -> Foreign:
        return Foreign(np.from_dlpack(array))


def test_arrays_of_another_library() -> None:
    def kernel(x: Foreign, weight: Foreign) -> Foreign:
        assert isinstance(x, Foreign)
        return Foreign(conv2d(np.array(x.array), np.array(weight.array)))

    assert isinstance(to_numpy(Foreign(np.ones(3))), np.ndarray)
    report = check(kernel, array_module=ForeignModule(), **QUICK)
    assert report, str(report)
    assert report.skips["the kernel takes contiguous arrays alone"] > 0


def test_report_as_data() -> None:
    report = check(lost_nan, **QUICK)
    data = report.to_dict()
    assert data["failed"] == len(data["failures"]) == report.failed
    assert data["failures"][0]["kind"] == "nonfinite"
    assert "a NaN is lost" in data["failures"][0]["reason"]
    assert isinstance(Report("k", "conv2d", "forward").to_dict()["worst_problem"], type(None))


def test_floating_point_mode_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(guard.floating_point_mode()) == []
    monkeypatch.setattr(guard, "floating_point_mode", lambda: iter(["all is rounded down"]))
    report = check(conv2d, problems=["conv2d c1 i3x3 k1 f1x1"], shrink_seconds=0)
    assert report.failures[0].kind == "floating-point mode"


# ---- guard pages and child processes -------------------------------------------------------

needs_fork = pytest.mark.skipif(
    not (can_fork() and guard.has_pages()), reason="needs fork and guard pages"
)


@pytest.mark.parametrize("place", guard.PLACES)
def test_guarded_buffers(place: str) -> None:
    values = np.arange(1000, dtype=np.float32).reshape(10, 100)
    buffer = guard.place(values, place)
    np.testing.assert_array_equal(buffer.array, values)
    assert buffer.overrun() is None
    if place != "end":
        poke(buffer.array, values.size)
        assert buffer.overrun() == f"wrote up to 4 bytes after its {values.nbytes} bytes"
    else:
        poke(buffer.array, -2)
        assert buffer.overrun() == f"wrote up to 8 bytes before its {values.nbytes} bytes"


def test_guarded_buffers_are_aligned() -> None:
    for size in (1, 7, 64, 1025):
        array = guard.place(np.ones(size, np.float32), "end", 64).array
        assert array.ctypes.data % 64 == 0
    end = guard.place(np.ones(7, np.float32), "end").array
    assert (end.ctypes.data + end.nbytes) % os.sysconf("SC_PAGESIZE") == 0


@needs_fork
def test_a_crash_is_a_failure_of_its_problem() -> None:
    def kernel(x: Array, w: Array, **options: Any) -> Array:
        if x.shape[-1] == 7:
            ctypes.string_at(x.ctypes.data + x.nbytes, 1)  # one byte past the end
        return conv2d(x, w, **options)

    chosen = ["conv2d c1 i5x5 k1 f1x1", "conv2d c2 i4x7 k1 f2x2 p1:1x1:1", "conv2d c1 i3x3 k1 f1x1"]
    report = check(kernel, problems=chosen, isolate=True)
    assert (report.passed, report.failed) == (2, 1)
    (failure,) = report.failures
    assert failure.kind == "crashed"
    assert "SIGSEGV" in failure.outcome.reason
    assert failure.smallest.input == (1, 7)


@needs_fork
def test_a_hang_is_a_failure() -> None:
    def kernel(x: Array, w: Array, **options: Any) -> Array:
        time.sleep(60 if x.shape[-1] == 4 else 0)
        return conv2d(x, w, **options)

    runner = Forked(lambda: PythonKernel(kernel), Conditions(), timeout=2.0)
    try:
        assert runner.run(Problem.parse("conv2d c1 i4x4 k1 f1x1")).kind == "hung"
        runner.timeout = 60.0
        assert runner.run(Problem.parse("conv2d c1 i3x3 k1 f1x1")).status == "passed"
    finally:
        runner.close()


def test_pytest_helper() -> None:
    kernel = functools.partial(conv2d, groups=1)
    test = conformance("conv2d", supports=lambda p: p.groups == 1, **ONE_FORM)(kernel)
    (mark,) = test.pytestmark
    assert mark.args[0] == "chunk"
    test(0)
    with pytest.raises(AssertionError, match="values: conv2d"):
        conformance("conv2d", max_failures=2, **ONE_FORM)(flipped_kernel)(1)
    with pytest.raises(pytest.skip.Exception):
        conformance("conv2d", supports=lambda p: "never", **ONE_FORM)(conv2d)(0)


# ---- C kernels -----------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[1] / "examples" / "check"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


def build(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example kernel, with changes to its text, as a shared library."""
    text = (EXAMPLES / "conv2d.c").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    source, library = folder / "conv2d.c", folder / "conv2d.so"
    source.write_text(text)
    command = [str(COMPILER), "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    include = f"-I{ckernels.HEADER.parent}"
    subprocess.run([*command, include, str(source), "-o", str(library)], check=True)
    return library


SOME = ("conv2d n2 c5 i6x5 k3 f3x3 p1:1x1:1", "conv2d c4 i7x6 k4 f3x2 s2x1 d1x2 p1:2x0:1 g2 bias")


@needs_compiler
@needs_fork
@pytest.mark.parametrize("words", ["float32", "float64 channels_last"])
def test_example_in_c(words: str, tmp_path: Path) -> None:
    bits = 32 if "32" in words else 64
    kernel = ckernels.CKernel(build(tmp_path), f"conv2d_f{bits}", bits)
    runner = Forked(lambda: kernel, Conditions(guard="pages"))
    try:
        for text in SOME:
            outcome = runner.run(Problem.parse(f"{text} {words}"))
            assert outcome.status == "passed", outcome.reason
        outcome = runner.run(Problem.parse(f"{SOME[0]} padding_mode=reflect {words}"))
        assert outcome.reason == "the C signature has no padding_mode"
        assert (
            runner.run(Problem.parse("conv2d backward_input c1 i3x3 k1 f1x1")).status == "skipped"
        )
    finally:
        runner.close()


@needs_compiler
@needs_fork
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("j >= p->input[2]", "j > p->input[2]"), "crashed"),
        (("y[to] = (T)sum;", "y[to + 1] = (T)sum;"), "crashed"),
        (("return 0;  ", "return 7;  "), "raised"),
        (("double sum = bias ? bias[k] : 0;", "double sum = bias ? bias[k] : y[0];"), "nonfinite"),
    ],
)
def test_broken_c_kernels_fail(change: tuple[str, str], kind: str, tmp_path: Path) -> None:
    kernel = ckernels.CKernel(build(tmp_path, change), "conv2d_f32", 32)
    runner = Forked(lambda: kernel, Conditions(guard="pages"))
    try:
        found = [runner.run(Problem.parse(text)) for text in SOME]
        assert kind in {outcome.kind for outcome in found}, found
    finally:
        runner.close()


def test_the_c_structure_is_the_headers() -> None:
    text = ckernels.HEADER.read_text()
    body = text[text.index("typedef struct {") : text.index("} convolith_problem;")]
    names: list[str] = []
    for line in body.split("int64_t")[1:]:
        names += [name.strip().partition("[")[0] for name in line.partition(";")[0].split(",")]
    assert names == [name for name, *_ in ckernels.CProblem._fields_]
